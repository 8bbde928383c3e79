"""A difference between what the records want and what there is: what was found, what it means, and what puts it right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from netplug.controller.nouns import noun
from netplug.kernel.outcome import describe
from netplug.kernel.traits import Trait
from netplug.plan import (
    Address,
    AllowPeer,
    Bridge,
    DnsRedirect,
    Fdb,
    FirewallOp,
    Guard,
    Isolate,
    LinkOp,
    LinkUp,
    Masquerade,
    Neighbour,
    PlacedOp,
    Publish,
    Route,
    Step,
    Sysctl,
)

Remedy: TypeAlias = Callable[[], Awaitable[None]]
"""Puts right all of one subject; NetplugError where it cannot."""


@dataclass(frozen=True)
class Difference:
    """`subject` is whose it is: a network, a container, the firewall, …; with `found` it tells one difference from another."""

    subject: str
    found: str
    meaning: str
    repair: tuple[str, ...]
    """Shell commands, or a sentence in a comment where no command does it."""
    remedy: tuple[str, Remedy] = field(compare=False, repr=False)
    """What it is called, once for all differences that it puts right; and itself."""

    @property
    def key(self) -> tuple[str, str]:
        return self.subject, self.found


def by_hand(sentence: str) -> tuple[str, ...]:
    return (f"# {sentence}",)


def lacking(step: Step) -> str:
    """Words for a step that does not hold."""
    match step:
        case LinkOp() | PlacedOp():
            return f"{noun(step)} is missing, down, or no port of its bridge"
        case LinkUp():
            return f"{step.link} is not up"
        case Sysctl():
            return f"{noun(step)} is not set"
        case FirewallOp():
            return f"{rule(step)} is missing"
        case _:
            return f"{noun(step)} is missing"


def rule(step: Step) -> str:
    return describe(step).removeprefix("add ").removeprefix("publish ")


def meaning(step: Step) -> str:
    """What does not work while it is so."""
    match step:
        case LinkOp() | PlacedOp() | LinkUp():
            return "nothing gets through it: who is behind it is cut off"
        case Address():
            return "nobody is reached at that address, and nobody who needs it as a gateway gets out"
        case Route():
            return "packets to there are lost, or go out another way"
        case Fdb() | Neighbour():
            return "containers here do not reach that container on the other node"
        case Sysctl(key=key):
            return "the host does not forward packets" if "forward" in key else "the kernel does not do as the network needs"
        case _:
            return _of_rule(step)


def deviation(trait: Trait) -> str:
    """What does not work while a link is so."""
    match trait.what, trait.step:
        case "MTU", _:
            return "packets that do not fit are lost without a word, or all are smaller than they could be"
        case "MAC", Bridge():
            return "containers send what is for their gateway to a MAC that nobody has, until they ask again"
        case "MAC", _:
            return "the guard at its port drops what the container sends; who has its old MAC in mind does not reach it"
        case _:
            return "frames do not get from that port to its neighbours, or back to itself, as the network needs"


def _of_rule(step: Step) -> str:
    match step:
        case Isolate():
            return "the network is not let through, or is open to other networks"
        case Masquerade():
            return "packets leave the host with addresses that nobody outside can answer"
        case Guard():
            return "the container may use addresses that are not its own, or reach neighbours that it must not"
        case AllowPeer():
            return "the linked container's port is closed to its client"
        case Publish():
            return "the published port does not lead to its container"
        case DnsRedirect():
            return "names do not resolve in the container: its resolver is not reached"
        case _:
            return "what the firewall should let pass is dropped, or the other way round"


def first(errors: Iterable[Exception]) -> None:
    """Raise one, if there is one."""
    for error in errors:
        raise error
