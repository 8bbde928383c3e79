"""Links that an engine takes into its container: it asks for them before it has made the container's namespace.

Such a link is born in the host under a passing name, which the engine is told; it moves the link, gives it its final name, its addresses
and the default route. From then on (`arrived`) the endpoint's plan is that of any other, so that what goes missing comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec

from netplug.controller import gateway, interfaces
from netplug.controller.core import Core
from netplug.model import Endpoint, Family, Network, Sandbox
from netplug.plan import HOST, Address, Announce, FirewallOp, LinkUp, PlacedOp, Plan, Remove, Step, Veth

_FAMILIES: tuple[Family, ...] = (4, 6)


def passing(identity: str) -> str:
    """What the link of that endpoint is called until the engine has it."""
    return f"np{identity[:12]}"


def arrived(endpoint: Endpoint) -> bool:
    """Whether the link is in its container."""
    return endpoint.interface != passing(endpoint.id)


def claimed(endpoint: Endpoint) -> bool:
    """Whether the engine has said whose it is: until then it has a sandbox of its own, and in the kernel the rules for its port alone."""
    return endpoint.sandbox != endpoint.id


def free_name(network: Network, taken: Collection[str]) -> str:
    """For a link that we put into a running container: no name that the engine, which counts its own, might choose next.

    An engine's are a prefix and a number; where the user has chosen the prefix, for its own networks too perhaps, ours have `n` between.
    """
    chosen = network.options.get(interfaces.PREFIX, "")
    prefix = f"{chosen}n" if chosen else "net"
    return next(name for number in range(1, len(taken) + 2) if (name := f"{prefix}{number}") not in taken)


def attached(plan: Plan, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
    """The driver's plan for joining, as far as it is ours to carry out now."""
    if not claimed(endpoint):
        return tuple(step for step in plan if isinstance(step, FirewallOp))
    if arrived(endpoint):
        return interfaces.configured(plan, endpoint, sandbox)
    return tuple(_outside(plan, sandbox.namespace))


def harmless(plan: Plan) -> bool:
    """Whether it is a link with its addresses and nothing else: no settings that the user has thought of, nothing of another driver's."""
    return any(isinstance(step, Veth) for step in plan) and all(isinstance(step, Veth | Address | LinkUp | Announce) for step in plan)


def detached(plan: Plan, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
    """The driver's plan for leaving: a link that the engine has not taken is where it was born."""
    return plan if arrived(endpoint) else tuple(_outside(plan, sandbox.namespace))


def default_routes(core: Core, sandbox: Sandbox, endpoints: Sequence[Endpoint]) -> Plan:
    """Those that a sandbox with these endpoints has."""
    if sandbox.kind != "engine":
        return gateway.move(sandbox, (), endpoints, core.records.network_name)
    carrier = next((endpoint for endpoint in endpoints if carries(endpoint) and arrived(endpoint)), None)
    if carrier is None:
        return ()
    gateways = {4: carrier.gateway, 6: carrier.gateway6}
    return tuple(gateway.route(sandbox, carrier, family) for family in _FAMILIES if gateways[family])


def carries(endpoint: Endpoint) -> bool:
    """Whether the engine has said that its container goes out by this one."""
    return endpoint.gateway_priority > 0


def _outside(plan: Plan, namespace: str) -> Iterator[Step]:
    """Nothing in the namespace, which is not there; a link that would be born there, in the host."""
    for step in plan:
        match step:
            case Veth(peer_namespace=place) if place == namespace:
                yield msgspec.structs.replace(step, peer_namespace=HOST)
            case PlacedOp(link_namespace=place) if place == namespace:
                yield msgspec.structs.replace(step, link_namespace=HOST)
            case Remove(op=PlacedOp(link_namespace=place) as op) if place == namespace:
                yield msgspec.structs.replace(step, op=msgspec.structs.replace(op, link_namespace=HOST))
            case _ if step.namespace != namespace:
                yield step
