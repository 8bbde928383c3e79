"""What joining or leaving a network means, worked out before anything is changed: records as they will be, and the plan."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from netplug.controller import addresses, gateway, handing, interfaces, linking
from netplug.controller.company import Stretch
from netplug.controller.core import Core
from netplug.controller.exits import GATEWAY
from netplug.controller.names import needs_resolver
from netplug.controller.requests import EndpointRequest
from netplug.errors import Forbidden, InvalidArgument
from netplug.model import Endpoint, Network, PortBinding, Sandbox, mac_of, new_id, now
from netplug.plan import Announce, DnsRedirect, FirewallOp, Plan, Remove, Step, removal

Bindings = tuple[PortBinding, ...]


@dataclass(frozen=True)
class Change:
    """A sandbox before and after: `endpoints` are those it will have, with the ports where they will be."""

    sandbox: Sandbox
    endpoints: tuple[Endpoint, ...]
    updated: tuple[Endpoint, ...]
    """Endpoints that were there before and change (ports move with the gateway)."""
    plan: Plan


def draft(
    core: Core, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], request: EndpointRequest, *, stretch: Stretch | None = None
) -> Endpoint:
    """The record of a new endpoint, its addresses taken out of the pools (`core.free` them if it does not come to be).

    `stretch`: where they are taken from, if not the first free ones.
    """
    if network.name == "none" and network.predefined:
        raise Forbidden("container cannot be connected to multiple networks with one of the networks in private (none) mode")
    if core.driver(network).capabilities.singleton:
        raise Forbidden(f"container cannot be disconnected from {network.name} network or connected to {network.name} network")
    if sandbox.kind == "host":
        raise Forbidden("container sharing network namespace with another container or host cannot be connected to any other network")
    if any(endpoint.network == network.id for endpoint in present):
        raise Forbidden(f"endpoint with name {sandbox.name} already exists in network {network.name}")
    if core.records.has_container(network.id, sandbox.name):
        raise Forbidden(f"endpoint with name {sandbox.name} already exists in network {network.name}")
    if network.predefined and request.aliases:
        raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
    if network.predefined and (request.address or request.address6):
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    mac = checked_mac(request.mac)
    if mac and not core.driver(network).capabilities.macs:
        raise InvalidArgument(f"{network.driver} networks have no MAC addresses of their own: --mac-address {mac} cannot be used")
    identity = request.id or new_id()
    interface = handing.passing(identity) if sandbox.kind == "engine" else interfaces.free_name(network, present, request.options)
    interfaces.parse_sysctls(request.options)
    # Last, because nothing that follows can fail.
    (address, gateway_address), (address6, gateway_address6) = addresses.take(core, network, request, stretch=stretch)
    leads_out = not network.internal and core.driver(network).capabilities.exit
    return Endpoint(
        id=identity,
        network=network.id,
        sandbox=sandbox.id,
        created=now(),
        container_name=sandbox.name,
        interface=interface,
        host_interface=f"veth{identity[:7]}",
        address=address,
        gateway=gateway_address if leads_out else "",
        address6=address6,
        gateway6=gateway_address6 if leads_out else "",
        mac=mac or (mac_of(address or address6, identity) if core.driver(network).capabilities.macs else ""),
        names=tuple(dict.fromkeys((*request.names, *request.aliases))),
        aliases=request.aliases,
        gateway_priority=request.gateway_priority,
        static_address=bool(request.address) and 4 not in request.lent,
        static_address6=bool(request.address6) and 6 not in request.lent,
        links=request.links,
        options=request.options,
        implied=network.name == GATEWAY,
    )


def checked_mac(text: str) -> str:
    """In lower case with colons; `""` stays."""
    if not text:
        return ""
    if not re.fullmatch(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}", text):
        raise InvalidArgument(f"invalid MAC address: {text}")
    mac = text.lower().replace("-", ":")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise InvalidArgument(f"invalid MAC address: {text} is no address of a single interface (IEEE 802 I/G bit, or all zero)")
    return mac


def joined(
    core: Core, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], endpoint: Endpoint, ports: Mapping[str, Bindings]
) -> Change:
    """`endpoint` beside those that are present; `ports` are those that each will carry, by its id."""
    after, updated, moved = settle(core, sandbox, present, (*present, endpoint), ports)
    new = next(candidate for candidate in after if candidate.id == endpoint.id)
    redirect: Plan = ()
    if needs_resolver(core, network) and sandbox.resolver_udp == 0 and sandbox.kind != "engine":
        sandbox = with_resolver(sandbox)
        redirect = redirection(sandbox)
    plan = handing.attached(core.driver(network).join(network, new, sandbox), new, sandbox)
    # An announcement is a packet to every port of the bridge: none where it would tell nobody anything new.
    silent, said = split(plan)
    said = tuple(step for step in said if core.known_otherwise(new, step.address))
    return Change(sandbox, after, updated, (*silent, *redirect, *moved, *said))


def split(plan: Plan) -> tuple[Plan, tuple[Announce, ...]]:
    """What is done, and what is said of it."""
    return tuple(step for step in plan if not isinstance(step, Announce)), tuple(step for step in plan if isinstance(step, Announce))


def left(
    core: Core, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], endpoint: Endpoint, ports: Mapping[str, Bindings]
) -> Change:
    """Without `endpoint`; `ports` are those that each of the others will carry, by its id."""
    remaining = tuple(other for other in present if other.id != endpoint.id)
    after, updated, moved = settle(core, sandbox, present, remaining, ports)
    links = removal(linking.rules(core, network, endpoint, sandbox))
    leaving = handing.detached(core.driver(network).leave(network, endpoint, sandbox), endpoint, sandbox)
    return Change(sandbox, after, updated, (*links, *leaving, *moved))


def with_resolver(sandbox: Sandbox) -> Sandbox:
    """With two ports for it, chosen at random."""
    udp, tcp = random.sample(range(32768, 61000), 2)
    return msgspec.structs.replace(sandbox, resolver_udp=udp, resolver_tcp=tcp)


def redirection(sandbox: Sandbox) -> Plan:
    """127.0.0.11:53 in the sandbox leads to the resolver."""
    if not sandbox.resolver_udp:
        return ()
    return (DnsRedirect(namespace=sandbox.namespace, udp_port=sandbox.resolver_udp, tcp_port=sandbox.resolver_tcp),)


def settle(
    core: Core, sandbox: Sandbox, before: Sequence[Endpoint], after: Sequence[Endpoint], ports: Mapping[str, Bindings]
) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...], Plan]:
    """Where route and ports are once `before` has become `after`: endpoints, those changed that were there, and the ops that move them."""
    # An engine chooses the way out of its containers itself.
    route = gateway.move(sandbox, before, after, core.records.network_name) if sandbox.kind != "engine" else ()
    result = tuple(_carrying(endpoint, ports.get(endpoint.id, ())) for endpoint in after)
    steps: list[Step] = []
    for endpoint in before:
        wanted = ports.get(endpoint.id, ())
        if lost := tuple(port for port in endpoint.ports if port not in wanted):
            network = core.records.networks[endpoint.network]
            steps += core.unpublish(network, _carrying(endpoint, lost))
    had = {endpoint.id: endpoint.ports for endpoint in before}
    for endpoint in result:
        if gained := tuple(port for port in endpoint.ports if port not in had.get(endpoint.id, ())):
            network = core.records.networks[endpoint.network]
            steps += core.publish(network, _carrying(endpoint, gained))
    updated = tuple(endpoint for endpoint in result if had.get(endpoint.id, endpoint.ports) != endpoint.ports)
    # Rules first: the port goes from one container to the other in one transaction.
    steps.sort(key=lambda step: not isinstance(step.op if isinstance(step, Remove) else step, FirewallOp))
    return result, updated, (*route, *steps)


def _carrying(endpoint: Endpoint, ports: Bindings) -> Endpoint:
    return endpoint if endpoint.ports == ports else msgspec.structs.replace(endpoint, ports=ports)
