"""Steps of plans as things that can go and come back: what people read of them, and which links they need."""

from __future__ import annotations

from collections.abc import Sequence

from netplug.plan import (
    Address,
    Adopt,
    Bridge,
    Fdb,
    LinkOp,
    LinkUp,
    Neighbour,
    Netns,
    PlacedOp,
    Route,
    StackedOp,
    Step,
    Sysctl,
    Veth,
    Vxlan,
)

MOST_WORDS = 6


def shortened(words: Sequence[str], separator: str = ", ") -> str:
    more = len(words) - MOST_WORDS
    return separator.join(words[:MOST_WORDS]) + (f" and {more} more" if more > 0 else "")


def kind(step: Step) -> str:
    return "link" if isinstance(step, LinkUp) else type(step).__name__.lower()


def noun(step: Step) -> str:
    match step:
        case Bridge(name=name) | Veth(name=name):
            return f"{kind(step)} {name}"
        case LinkOp(name=name) | PlacedOp(name=name) | Adopt(name=name):
            return f"interface {name}"
        case LinkUp(link=link):
            return f"{link} up"
        case Netns(path=path):
            return f"network namespace {path}"
        case Address(address=address, link=link):
            return f"address {address} of {link}"
        case Route(destination=destination, gateway=gateway, link=link):
            return f"route {destination} via {gateway}" if gateway else f"route {destination} on {link}"
        case Fdb(mac=mac, vtep=vtep):
            return f"way to {mac} on node {vtep}"
        case Neighbour(address=address):
            return f"neighbour {address}"
        case Sysctl(key=key, value=value):
            return f"sysctl {key}={value}"
        case _:
            return kind(step)


def made_links(step: Step) -> set[str]:
    match step:
        case Veth(name=name, peer=peer):
            return {name, peer}
        case LinkOp(name=name) | PlacedOp(name=name) | Adopt(name=name):
            return {name}
        case _:
            return set()


def links(step: Step) -> set[str]:
    """Links without which the step cannot be done."""
    match step:
        case Veth(master=name) | Vxlan(master=name) | StackedOp(parent=name):
            return {name}
        case Address(link=name) | Route(link=name) | LinkUp(link=name) | Fdb(link=name) | Neighbour(link=name):
            return {name}
        case Sysctl(key=key):
            return {part.replace("/", ".") for part in key.split(".")}
        case _:
            return set()
