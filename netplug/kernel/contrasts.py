"""What stands in the place of ours, or beside it: links and routes of others under our names, and what carries our mark without a plan.

Nothing is changed by a look. `survey` tells what is missing; a route to the same destination that leads elsewhere, say, is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from netplug.errors import KernelError
from netplug.kernel import links, namespaces, peers, routes, vxlan
from netplug.kernel.addresses import unpack
from netplug.kernel.links import Link
from netplug.kernel.netlink import Message, Socket, text
from netplug.kernel.syscalls import asked
from netplug.plan import HOST, LINK_GROUP, Bridge, Fdb, LinkOp, Neighbour, PlacedOp, Plan, Route, Step, Veth, Vxlan

_NAME_BYTES = 15
"""IFNAMSIZ, without the zero at the end."""


class Contrast(NamedTuple):
    """A step, and words for what is there in its stead."""

    step: Step
    found: str


def elsewhere(plan: Sequence[Step]) -> list[Contrast]:
    """Routes, tunnels and entries for peers that are there, and lead elsewhere."""
    places: dict[str, list[Step]] = {}
    for step in plan:
        if isinstance(step, Route | Fdb | Neighbour):
            places.setdefault(step.namespace, []).append(step)
        elif isinstance(step, Vxlan):
            places.setdefault(step.link_namespace, []).append(step)
    found: list[Contrast] = []
    for namespace, steps in places.items():
        if namespace and namespaces.cookie(namespace) is None:
            continue
        with namespaces.entered(namespace), asked("look where it leads"), Socket() as netlink:
            found += [Contrast(step, words) for step in steps if (words := _leads(netlink, step))]
    return found


def foreign(plan: Sequence[Step]) -> list[Contrast]:
    """Links of the host that have the name of one of ours, and are somebody else's. The user's own bridges are none."""
    ops = [step for step in plan if isinstance(step, LinkOp) and step.namespace == HOST]
    if not ops:
        return []
    with asked("look at links"), Socket() as netlink:
        pairs = [(op, links.find(netlink, op.name)) for op in ops]
    return [Contrast(op, f"a {link.kind or 'plain link'}") for op, link in pairs if link is not None and _is_foreign(op, link)]


def move_away(name: str) -> str:
    """Somebody else's link gets out of our way, down and under another name; that name. Nothing else of it is lost."""
    with asked(f"rename {name}"), Socket() as netlink:
        link = links.find(netlink, name)
        if link is None:
            return ""
        other = _free_name(netlink, name)
        netlink.request(links.set_down(link.index))
        netlink.request(Message(links.RTM_SETLINK, links.header(link.index) + text(links.IFLA_IFNAME, other)))
    return other


def aside(name: str) -> str:
    """What a link of that name is called when it has been moved away."""
    return f"x-{name}"[:_NAME_BYTES]


def strays(plans: Iterable[Plan], places: Collection[str], names: Iterable[str] = ()) -> list[tuple[str, Link]]:
    """Links with our mark in the host and in these namespaces that no plan names; not those that are on their way out.

    `names`: of links of the host that are somebody's, whatever the plans say.
    """
    named = {(HOST, name) for name in names} | {end for plan in plans for step in plan for end in _ends(step)}
    return [(place, link) for place in (HOST, *places) for link in _marked(place) if (place, link.name) not in named]


def _ends(step: Step) -> Iterator[tuple[str, str]]:
    """Namespaces and names of the links that the step makes."""
    if isinstance(step, LinkOp):
        yield step.namespace, step.name
    if isinstance(step, Veth):
        yield step.peer_namespace, step.peer
    if isinstance(step, PlacedOp):
        yield step.link_namespace, step.name


def _marked(place: str) -> list[Link]:
    try:
        with namespaces.entered(place), asked("read links"), Socket() as netlink:
            return [link for link in links.dump(netlink).values() if link.group == LINK_GROUP]
    except KernelError as error:
        if error.errno in namespaces.MISSING:
            return []
        raise


def _free_name(netlink: Socket, name: str) -> str:
    candidates = (aside(name), *(f"x{number}-{name}"[:_NAME_BYTES] for number in range(100)))
    return next(other for other in candidates if links.find(netlink, other) is None)


def _is_foreign(op: LinkOp, link: Link) -> bool:
    if link.ours:
        return False
    if isinstance(op, Bridge):
        # One of the user's own may be used by its name; those that we name carry an alias.
        return link.kind != "bridge" or not op.given
    return isinstance(op, Veth)


def _leads(netlink: Socket, step: Step) -> str:
    """Words for where it leads, if that is elsewhere."""
    return next(_other_ways(netlink, step), "")


def _other_ways(netlink: Socket, step: Step) -> Iterator[str]:
    match step:
        case Route(link=name):
            link, there = links.find(netlink, name), routes.find(netlink, step)
            if link is not None and there is not None and not there.leads_as(step, link.index):
                way = links.find(netlink, there.way)
                via = f"via {unpack(there.gateway)} " if there.gateway else ""
                yield f"{via}on {way.name if way is not None else 'no link'}"
        case Vxlan():
            tunnel = vxlan.find(netlink, step.name)
            if tunnel is not None and not tunnel.fits(step):
                yield f"VNI {tunnel.vni}, UDP port {tunnel.port}, from {tunnel.local}"
        case Fdb() | Neighbour():
            link = links.find(netlink, step.link)
            there_ = peers.there(netlink, step, link.index) if link is not None else None
            if isinstance(there_, Fdb) and isinstance(step, Fdb) and there_.vtep != step.vtep:
                yield there_.vtep
            elif isinstance(there_, Neighbour) and isinstance(step, Neighbour) and there_.mac != step.mac:
                yield there_.mac
