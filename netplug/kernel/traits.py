"""What links are like beside being there: their MTU, their MAC, and how they behave as ports of a bridge (linux/if_link.h).

`survey` tells which links are missing, `contrasts` which are somebody else's; here it is what others have changed on those that are ours.
Nobody tells of such a change but the kernel, and nothing heals it: a network goes on, slower or deaf in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from netplug.kernel import links, namespaces
from netplug.kernel.links import Link
from netplug.kernel.netlink import Message, Refused, Socket, attribute, nested, text
from netplug.kernel.syscalls import asked
from netplug.plan import Bridge, Dummy, Ipvlan, LinkOp, LinkUp, Macvlan, Plan, Step, Veth, Vxlan, inside

DEFAULT_MTU = 1500
"""Of a bridge or a veth whose maker did not say (ETH_DATA_LEN)."""

_PORT = {"learning": (8, True), "flood": (9, True), "mcast_flood": (27, True), "bcast_flood": (30, True), "isolated": (33, False)}
"""IFLA_BRPORT_… and what the kernel gives a new port, by the words of bridge(8)."""
_HAIRPIN = {"hairpin": (links.IFLA_BRPORT_MODE, True)}
"""What we give the ports of containers besides."""


class Trait(NamedTuple):
    """Of a link that is ours, changed by somebody."""

    step: Step
    """Which makes the link."""
    place: str
    """The namespace that the link is in."""
    link: str
    what: str
    """`MTU`, `MAC` or `port`."""
    words: str
    """What it is and what it should be: `MTU 1300 instead of 1500`."""
    command: str
    """For a shell on the host."""
    message: Message


class _Wanted(NamedTuple):
    """`mtu` 0 and `mac` "": whatever they are."""

    step: Step
    place: str
    link: str
    mtu: int
    mac: str
    port: dict[str, tuple[int, bool]]


def altered(plan: Plan) -> list[Trait]:
    """What is not as the plan's steps have made it. Links that are missing or foreign are passed over, bridges of the user's as well."""
    places: dict[str, list[_Wanted]] = {}
    for step in plan:
        for wanted in _wanted(step):
            places.setdefault(wanted.place, []).append(wanted)
    found: list[Trait] = []
    for place, all_wanted in places.items():
        if place and namespaces.cookie(place) is None:
            continue
        with namespaces.entered(place), asked("look at links"), Socket() as netlink:
            found += [trait for wanted in all_wanted for trait in _compare(netlink, wanted)]
    return found


def put_right(plan: Plan) -> list[Trait]:
    """Give the links back what has been changed; what that was. KernelError where the kernel refuses."""
    found = altered(plan)
    for trait in found:
        with namespaces.entered(trait.place), asked(trait.command), Socket() as netlink:
            netlink.request(trait.message)
    return found


def _wanted(step: Step) -> Iterator[_Wanted]:
    match step:
        case Bridge(given=False):
            yield _Wanted(step, step.namespace, step.name, step.mtu or DEFAULT_MTU, step.mac, {})
        case Veth():
            mtu = step.mtu or DEFAULT_MTU
            yield _Wanted(step, step.namespace, step.name, mtu, "", _PORT | _HAIRPIN if step.master else {})
            yield _Wanted(step, step.peer_namespace, step.peer, mtu, step.mac, {})
        case Vxlan():
            yield _Wanted(step, step.link_namespace, step.name, step.mtu, "", _PORT if step.master else {})
        case Macvlan():
            yield _Wanted(step, step.link_namespace, step.name, step.mtu, step.mac, {})
        case Ipvlan():
            yield _Wanted(step, step.link_namespace, step.name, step.mtu, "", {})
        case Dummy():
            yield _Wanted(step, step.namespace, step.name, step.mtu, "", {})
        case LinkUp(mac=mac) if mac:
            yield _Wanted(step, step.namespace, step.link, 0, mac, {})


def _compare(netlink: Socket, wanted: _Wanted) -> Iterator[Trait]:
    try:
        body = netlink.get(Message(links.RTM_GETLINK, links.header() + text(links.IFLA_IFNAME, wanted.link)))
    except Refused:  # ENODEV
        return
    link = links.parse(body)
    if _is_foreign(wanted, link):
        return
    if wanted.mtu and link.mtu != wanted.mtu and not _follows_ports(netlink, wanted.step, link):
        yield _trait(wanted, link, "MTU", str(link.mtu), str(wanted.mtu), f"mtu {wanted.mtu}", links.pack_mtu(wanted.mtu))
    if wanted.mac and link.mac != wanted.mac:
        address = attribute(links.IFLA_ADDRESS, links.pack_mac(wanted.mac))
        yield _trait(wanted, link, "MAC", link.mac, wanted.mac, f"address {wanted.mac}", address)
    if wanted.port and link.slave_kind == "bridge":
        yield from _compare_port(wanted, link, links.port(body))


def _is_foreign(wanted: _Wanted, link: Link) -> bool:
    """Far ends carry no mark: those are known by being what they should be."""
    if isinstance(wanted.step, Veth):
        return link.kind != "veth" or (wanted.link == wanted.step.name and wanted.place == wanted.step.namespace and not link.ours)
    return isinstance(wanted.step, LinkOp) and not link.ours


def _follows_ports(netlink: Socket, step: Step, link: Link) -> bool:
    """A bridge whose MTU nobody has set takes the least of its ports' (net/bridge/br_if.c), and 1500 where it has none."""
    if not isinstance(step, Bridge):
        return False
    ports = [other.mtu for other in links.dump(netlink).values() if other.master == link.index]
    return link.mtu == min(ports, default=DEFAULT_MTU)


def _compare_port(wanted: _Wanted, link: Link, flags: dict[int, bytes]) -> Iterator[Trait]:
    for name, (kind, value) in wanted.port.items():
        if kind in flags and (flags[kind] == b"\1") != value:
            there, right = ("off", "on") if value else ("on", "off")
            described = attribute(links.INFO_SLAVE_KIND, b"bridge"), nested(links.INFO_SLAVE_DATA, attribute(kind, bytes([value])))
            message = Message(links.RTM_NEWLINK, links.header(link.index) + nested(links.IFLA_LINKINFO, *described))
            command = inside(wanted.place, f"bridge link set dev {wanted.link} {name} {right}")
            yield Trait(wanted.step, wanted.place, wanted.link, "port", f"{name} {there} instead of {right}", command, message)


def _trait(wanted: _Wanted, link: Link, what: str, there: str, right: str, setting: str, body: bytes) -> Trait:
    command = inside(wanted.place, f"ip link set {wanted.link} {setting}")
    message = Message(links.RTM_SETLINK, links.header(link.index) + body)
    return Trait(wanted.step, wanted.place, wanted.link, what, f"{what} {there} instead of {right}", command, message)
