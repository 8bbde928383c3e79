"""Looks which steps of a plan do not hold in the kernel, and changes nothing.

What somebody has put in place of ours is left alone: a route to the same destination that leads elsewhere is no loss. A link without its
master is not missing either, nor what its other end is to have: when the master comes back, they are.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TypeGuard

from netplug.errors import KernelError
from netplug.kernel import addresses, links, namespaces, peers, routes, sysctl
from netplug.kernel.links import Link
from netplug.kernel.netlink import Socket
from netplug.kernel.syscalls import asked
from netplug.plan import Address, Adopt, Fdb, LinkOp, LinkUp, Neighbour, Netns, PlacedOp, Route, Step, Sysctl, Veth, Vxlan


def missing(plan: Sequence[Step]) -> list[Step]:
    """Of links, addresses, routes, sysctls and entries for peers, in the plan's order.

    Of a namespace that the plan makes itself all may be missing; KernelError where another cannot be entered.
    """
    made = {step.path for step in plan if isinstance(step, Netns)}
    places: dict[str, list[int]] = {}
    for position, step in enumerate(plan):
        if isinstance(step, Netns | LinkOp | PlacedOp | Adopt | LinkUp | Address | Route | Sysctl | Fdb | Neighbour):
            places.setdefault(_place(step), []).append(position)
    found: dict[int, list[Step]] = {}
    waiting: set[tuple[str, str]] = set()
    for namespace, positions in places.items():
        if namespace in made and namespaces.cookie(namespace) is None:
            found |= {position: [plan[position]] for position in positions}
            continue
        with namespaces.entered(namespace), asked("look for what is missing"), Socket() as netlink:
            survey = _Survey(netlink)
            found |= {position: list(survey.lacks(plan[position])) for position in positions}
            waiting |= {(pair.peer_namespace, pair.peer) for pair in (plan[position] for position in positions) if survey.waits(pair)}
    return [step for position in sorted(found) for step in found[position] if not _hangs_on(step, waiting)]


def settled() -> None:
    """Returns when nobody holds the lock that every change of a link needs: an answer about a link has to wait for it."""
    with asked("look at a link"), Socket() as netlink:
        links.find(netlink, "lo")


def _hangs_on(step: Step, ends: set[tuple[str, str]]) -> bool:
    return isinstance(step, LinkUp | Address | Route) and (step.namespace, step.link) in ends


def _place(step: Step) -> str:
    """Where the step's result is to be seen."""
    match step:
        case PlacedOp() | Adopt():
            return step.link_namespace
        case Netns():
            return step.path
    return step.namespace


class _Survey:
    """Of one namespace."""

    def __init__(self, netlink: Socket) -> None:
        self._netlink = netlink
        self._seen: dict[str, Link | None] = {}

    def lacks(self, step: Step) -> Iterator[Step]:
        match step:
            case Address():
                yield from self._address_lacks(step)
            case _ if self._is_missing(step):
                yield step

    def waits(self, step: Step) -> TypeGuard[Veth]:
        """A pair that cannot be made before its master is there."""
        return isinstance(step, Veth) and bool(step.master) and self._find(step.name) is None and self._find(step.master) is None

    def _is_missing(self, step: Step) -> bool:
        match step:
            case Veth() | Vxlan():
                return self._lacks_port(step)
            case LinkOp(name=name) | LinkUp(link=name):
                return not self._up(name)
            case PlacedOp(name=name) | Adopt(name=name):
                return self._find(name) is None
            case Route():
                return routes.find(self._netlink, step) is None
            case Fdb() | Neighbour():
                return self._lacks_entry(step)
            case Sysctl(key=key, value=value):
                return _differs(key, value)
            case _:
                return False

    def _lacks_entry(self, op: Fdb | Neighbour) -> bool:
        """What leads elsewhere is not missing; without its link, it comes back with that."""
        link = self._find(op.link)
        return link is None or peers.there(self._netlink, op, link.index) is None

    def _lacks_port(self, op: Veth | Vxlan) -> bool:
        if not op.master:
            return not self._up(op.name)
        link, master = self._find(op.name), self._find(op.master)
        if link is None and isinstance(op, Vxlan):
            return True  # its master is in the same plan
        return master is not None and (link is None or link.master != master.index or not link.up)

    def _address_lacks(self, op: Address) -> Iterator[Step]:
        """The address, or the route to its subnet that the kernel had made for it."""
        link = self._find(op.link)
        wanted = ipaddress.ip_interface(op.address)
        if link is None or not any(one.index == link.index and one.address == wanted for one in self._addresses):
            yield op
        elif link.up and wanted.network.prefixlen < wanted.max_prefixlen:
            route = Route(destination=str(wanted.network), link=op.link, namespace=op.namespace)
            if not routes.known(self._netlink, route):
                yield route

    def _up(self, name: str) -> bool:
        link = self._find(name)
        return link is not None and link.up

    def _find(self, name: str) -> Link | None:
        if name not in self._seen:
            self._seen[name] = links.find(self._netlink, name)
        return self._seen[name]

    @cached_property
    def _addresses(self) -> list[addresses.Assigned]:
        return addresses.dump(self._netlink)


def _differs(key: str, value: str) -> bool:
    try:
        return sysctl.read(key) != " ".join(value.split())
    except KernelError as error:
        if error.errno == errno.ENOENT:  # it went with its link
            return True
        raise
