"""Which endpoints of a sandbox carry its default routes, and what must change in the kernel when those move.

The rule, for each IP version by itself: of the endpoints that have a gateway of that version, the highest priority; among equals one
that has both versions, then the network whose name comes first. That endpoint also carries the sandbox's published ports of the version,
so that replies leave the way the requests came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from netplug.model import Endpoint, Family, Sandbox
from netplug.plan import Plan, Route

NetworkName = Callable[[str], str]


def carrier(endpoints: Iterable[Endpoint], network_name: NetworkName, family: Family) -> Endpoint | None:
    """The endpoint that carries the default route of that IP version."""
    candidates = [endpoint for endpoint in endpoints if _gateway(endpoint, family)]
    return min(candidates, key=lambda endpoint: _rank(endpoint, network_name(endpoint.network)), default=None)


def move(sandbox: Sandbox, before: Sequence[Endpoint], after: Sequence[Endpoint], network_name: NetworkName) -> Plan:
    """The ops that lead the default routes as they should go.

    A new one replaces the old in one message; where none is left to carry it, it goes with the link of the endpoint that left.
    """
    return (*_move(sandbox, before, after, network_name, 4), *_move(sandbox, before, after, network_name, 6))


def route(sandbox: Sandbox, endpoint: Endpoint, family: Family) -> Route:
    return Route(namespace=sandbox.namespace, destination="default", gateway=_gateway(endpoint, family), link=endpoint.interface)


def _move(sandbox: Sandbox, before: Sequence[Endpoint], after: Sequence[Endpoint], network_name: NetworkName, family: Family) -> Plan:
    new = carrier(after, network_name, family)
    if new is None:
        return ()
    old = carrier(before, network_name, family)
    return (route(sandbox, new, family),) if old is None or old.id != new.id else ()


def _gateway(endpoint: Endpoint, family: Family) -> str:
    return endpoint.gateway if family == 4 else endpoint.gateway6


def _rank(endpoint: Endpoint, network_name: str) -> tuple[int, bool, str]:
    return -endpoint.gateway_priority, not (endpoint.gateway and endpoint.gateway6), network_name
