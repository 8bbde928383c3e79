"""Tells at a glance that a plan holds: a start finds nearly everything as it was left, and has a thousand sandboxes to look at.

Each is visited once; all of its links, addresses and routes are one question, and its firewall is another. Only a yes counts: what cannot
be told so quickly is for those to find out who change what differs.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from netplug.errors import KernelError
from netplug.kernel import addresses, links, routes
from netplug.kernel.firewall import Firewall
from netplug.kernel.links import Link
from netplug.kernel.namespaces import entered
from netplug.kernel.netlink import Socket
from netplug.plan import HOST, LINK_GROUP, Address, DnsRedirect, LinkUp, Route, Step, Veth

_Wired: TypeAlias = Address | LinkUp | Route


class Glance:
    def __init__(self, firewall: Firewall, found: Mapping[str, Mapping[str, Link]]) -> None:
        """`found`: by namespace and name, the links of the host and of other namespaces that bridges are in."""
        self._firewall, self._found = firewall, found

    def holds(self, plan: Sequence[Step]) -> bool:
        """Told of what attaches a sandbox to bridges; never of anything else."""
        inside: dict[str, list[_Wired | DnsRedirect]] = {}
        for step in plan:
            match step:
                case Veth():
                    if not self._stands(step):
                        return False
                case Address() | LinkUp() | Route() | DnsRedirect() if step.namespace != HOST:
                    inside.setdefault(step.namespace, []).append(step)
                case _:
                    return False
        return all(self._hold(namespace, steps) for namespace, steps in inside.items())

    def _stands(self, op: Veth) -> bool:
        found = self._found.get(op.namespace, {})
        link, master = found.get(op.name), found.get(op.master)
        if link is None or not link.up or (link.kind, link.group, link.alias) != ("veth", LINK_GROUP, op.alias):
            return False
        return not op.master or (master is not None and link.master == master.index and link.hairpin)

    def _hold(self, namespace: str, steps: Sequence[_Wired | DnsRedirect]) -> bool:
        wired = [step for step in steps if not isinstance(step, DnsRedirect)]
        redirects = [step for step in steps if isinstance(step, DnsRedirect)]
        try:
            with entered(namespace):
                return (not wired or _are_wired(wired)) and all(map(self._firewall.redirects, redirects))
        except (KernelError, OSError):
            return False


def _are_wired(steps: Sequence[_Wired]) -> bool:
    """In the namespace of the calling thread."""
    ways = [step for step in steps if isinstance(step, Route)]
    given = [step for step in steps if isinstance(step, Address)]
    with Socket() as netlink:
        states = {name: links.state(netlink, name) for name in {step.link for step in steps}}
        *told, there = netlink.ask([*map(routes.question, ways), addresses.question(_family(given))])
    return (
        all(states[step.link].up for step in steps if isinstance(step, LinkUp))
        and all(routes.tells(body, way, states[way.link].number) for way, (body,) in zip(ways, told, strict=True))
        and all(any(addresses.tells(body, one, states[one.link].number) for body in there) for one in given)
    )


def _family(given: Sequence[Address]) -> int:
    """One IP version, where they are of one; to tell both takes twice as long."""
    families = {addresses.family(op) for op in given}
    return families.pop() if len(families) == 1 else socket.AF_UNSPEC
