"""What joining or leaving a network means, worked out before anything is changed: records as they will be, and the plan."""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from netplug.controller import gateway
from netplug.controller.core import Core
from netplug.controller.requests import EndpointRequest
from netplug.driver import HostBinding
from netplug.errors import AddressesExhausted, AddressInUse, AddressOutOfRange, Forbidden, InvalidArgument
from netplug.model import Endpoint, Network, PortBinding, Sandbox, mac_of, new_id, now
from netplug.plan import Announce, DnsRedirect, FirewallOp, Plan, Remove, Step

INTERFACE_PREFIX = "com.docker.network.container_iface_prefix"
SERIAL = "com.docker.network.ipam.serial"


@dataclass(frozen=True)
class Change:
    """A sandbox before and after: `endpoints` are those it will have, with the ports where they will be."""

    sandbox: Sandbox
    endpoints: tuple[Endpoint, ...]
    updated: tuple[Endpoint, ...]
    """Endpoints that were there before and change (ports move with the gateway)."""
    plan: Plan


def draft(core: Core, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], request: EndpointRequest) -> Endpoint:
    """The record of a new endpoint, its address taken out of the pool (give it back if the endpoint does not come to be)."""
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
    if network.predefined and request.address:
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    mac = checked_mac(request.mac)
    address, gateway_address = take_address(core, network, request.address)
    identity = new_id()
    return Endpoint(
        id=identity,
        network=network.id,
        sandbox=sandbox.id,
        created=now(),
        container_name=sandbox.name,
        interface=free_interface(network, present),
        host_interface=f"veth{identity[:7]}",
        address=address,
        gateway="" if network.internal else gateway_address,
        mac=mac or mac_of(address, identity),
        names=tuple(dict.fromkeys((*request.names, *request.aliases))),
        aliases=request.aliases,
        gateway_priority=request.gateway_priority,
        static_address=bool(request.address),
        options=request.options,
    )


def take_address(core: Core, network: Network, wanted: str) -> tuple[str, str]:
    """`(address with prefix, gateway)`, or two empty strings where the network gives no addresses."""
    pools = core.allocators.get(network.id, [])
    if not pools:
        if wanted:
            raise InvalidArgument(f"network {network.name} gives no addresses: --ip {wanted} cannot be used")
        return "", ""
    if wanted:
        wanted = checked_address(wanted)
        pools = [(pool, allocator) for pool, allocator in pools if ipaddress.ip_address(wanted) in ipaddress.ip_network(pool.subnet)]
        if not pools:
            raise AddressOutOfRange(f"Invalid address {wanted}: It does not belong to any of this network's subnets")
    serial = network.ipam_options.get(SERIAL, "") == "true"
    for pool, allocator in pools:
        try:
            address = allocator.allocate(wanted, serial=serial)
        except AddressesExhausted:
            continue
        except AddressInUse as error:
            raise AddressInUse(wanted, _owner(core, network, wanted)) from error
        return f"{address}/{pool.subnet.rsplit('/', 1)[1]}", pool.gateway
    raise AddressesExhausted(f"no available IPv4 addresses on this network's address pools: {network.name} ({network.id})")


def checked_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise InvalidArgument(f"invalid IPv4 address: {text}") from None


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


def free_interface(network: Network, present: Sequence[Endpoint]) -> str:
    prefix = interface_prefix(network)
    used = {endpoint.interface for endpoint in present}
    return next(name for number in range(len(used) + 1) if (name := f"{prefix}{number}") not in used)


def interface_prefix(network: Network) -> str:
    prefix = network.options.get(INTERFACE_PREFIX, "") or "eth"
    if not re.fullmatch(r"[\w.-]{1,12}", prefix, re.ASCII):
        raise InvalidArgument(f'invalid {INTERFACE_PREFIX} "{prefix}": 1 to 12 letters, digits or "_.-" are allowed')
    return prefix


def needs_resolver(core: Core, network: Network) -> bool:
    """User-defined networks have names; the default bridge has links only, as with Docker."""
    return not network.predefined and core.driver(network).capabilities.addresses


def joined(core: Core, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], endpoint: Endpoint) -> Change:
    """`endpoint` beside those that are present. Host ports of `sandbox` must be chosen."""
    after, updated, moved = settle(core, sandbox, present, (*present, endpoint))
    new = next(candidate for candidate in after if candidate.id == endpoint.id)
    redirect: Plan = ()
    if needs_resolver(core, network) and sandbox.resolver_udp == 0:
        udp, tcp = random.SystemRandom().sample(range(32768, 61000), 2)
        sandbox = msgspec.structs.replace(sandbox, resolver_udp=udp, resolver_tcp=tcp)
        redirect = redirection(sandbox)
    plan = (*core.driver(network).join(network, new, sandbox), *redirect, *moved)
    if not core.known_otherwise(new):
        # A broadcast to every port of the bridge, which would tell nobody anything new.
        plan = tuple(step for step in plan if not isinstance(step, Announce))
    return Change(sandbox, after, updated, plan)


def left(core: Core, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], endpoint: Endpoint) -> Change:
    """Without `endpoint`."""
    remaining = tuple(other for other in present if other.id != endpoint.id)
    after, updated, moved = settle(core, sandbox, present, remaining)
    return Change(sandbox, after, updated, (*core.driver(network).leave(network, endpoint, sandbox), *moved))


def redirection(sandbox: Sandbox) -> Plan:
    """127.0.0.11:53 in the sandbox leads to the resolver."""
    if not sandbox.resolver_udp:
        return ()
    return (DnsRedirect(namespace=sandbox.namespace, udp_port=sandbox.resolver_udp, tcp_port=sandbox.resolver_tcp),)


def settle(
    core: Core, sandbox: Sandbox, before: Sequence[Endpoint], after: Sequence[Endpoint]
) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...], Plan]:
    """Where route and ports are once `before` has become `after`: endpoints, those changed that were there, and the ops that move them."""
    old, new = (gateway.choose(endpoints, core.records.network_name) for endpoints in (before, after))
    route = gateway.move(sandbox, old, new)
    ports = sandbox.ports if new is not None and may_publish(core, new) else ()
    steps: list[Step] = []
    result: list[Endpoint] = []
    updated: list[Endpoint] = []
    present = {endpoint.id for endpoint in before}
    for endpoint in before:
        if endpoint.ports and (new is None or endpoint.id != new.id):
            network = core.records.networks[endpoint.network]
            steps += core.driver(network).unpublish(network, endpoint)
    for endpoint in after:
        wanted = ports if new is not None and endpoint.id == new.id else ()
        if endpoint.ports != wanted:
            endpoint = msgspec.structs.replace(endpoint, ports=wanted)
            if wanted:
                network = core.records.networks[endpoint.network]
                steps += core.driver(network).publish(network, endpoint)
            if endpoint.id in present:
                updated.append(endpoint)
        result.append(endpoint)
    # Rules first: the port goes from one container to the other in one transaction.
    steps.sort(key=lambda step: not isinstance(step.op if isinstance(step, Remove) else step, FirewallOp))
    return tuple(result), tuple(updated), (*route, *steps)


def may_publish(core: Core, endpoint: Endpoint) -> bool:
    return core.driver(core.records.networks[endpoint.network]).capabilities.ports


def ports_to_hold(core: Core, sandbox: Sandbox, endpoint: Endpoint) -> tuple[PortBinding, ...]:
    """The sandbox's ports with the network's default host address filled in."""
    network = core.records.networks[endpoint.network]
    driver = core.driver(network)
    binding = driver.host_binding(network) if isinstance(driver, HostBinding) else ""
    if not binding:
        return sandbox.ports
    return tuple(port if port.host_ip else msgspec.structs.replace(port, host_ip=binding) for port in sandbox.ports)


def _owner(core: Core, network: Network, address: str) -> str:
    for endpoint in core.records.of_network(network.id):
        if endpoint.address.split("/")[0] == address:
            return endpoint.container_name or f"endpoint {endpoint.id:.12}"
    if any(pool.gateway == address for pool in network.pools):
        return "the gateway"
    return ""
