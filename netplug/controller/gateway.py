"""Which endpoint of a sandbox carries its default route, and what must change in the kernel when that moves.

The rule: of the endpoints that have a gateway, the highest priority; among equals the network whose name comes first. That endpoint
also carries the sandbox's published ports, so that replies leave the way the requests came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from netplug.model import Endpoint, Sandbox
from netplug.plan import Plan, Remove, Route


def choose(endpoints: Iterable[Endpoint], network_name: Callable[[str], str]) -> Endpoint | None:
    """The gateway endpoint, or None where no endpoint has a gateway."""
    candidates = [endpoint for endpoint in endpoints if endpoint.gateway]
    return min(candidates, key=lambda endpoint: (-endpoint.gateway_priority, network_name(endpoint.network)), default=None)


def route(sandbox: Sandbox, endpoint: Endpoint) -> Route:
    return Route(namespace=sandbox.namespace, destination="default", gateway=endpoint.gateway, link=endpoint.interface)


def move(sandbox: Sandbox, before: Endpoint | None, after: Endpoint | None) -> Plan:
    """The ops that lead the default route from one endpoint to another; the new one replaces the old in one message."""
    if after is not None:
        return () if before is not None and before.id == after.id else (route(sandbox, after),)
    return () if before is None else (Remove(op=route(sandbox, before), namespace=sandbox.namespace),)
