"""Addresses of endpoints: taken from the network's pools, one per IP version that the network has."""

from __future__ import annotations

import ipaddress

from netplug.controller.company import Stretch
from netplug.controller.core import Core
from netplug.controller.requests import EndpointRequest
from netplug.errors import AddressesExhausted, AddressInUse, AddressOutOfRange, InvalidArgument
from netplug.model import BOOLEANS, Family, Network, flag

SERIAL = "com.docker.network.ipam.serial"
"""The option of a network whose addresses are given in turn, and not the first that is free."""

Leased = tuple[str, str]
"""An address with its prefix, and the gateway of its pool; two empty strings where the network gives none of that IP version."""

NOTHING: Leased = ("", "")


def check_options(network: Network) -> None:
    """InvalidArgument where `SERIAL` is no boolean."""
    flag(network.ipam_options, SERIAL)


def take(core: Core, network: Network, request: EndpointRequest, *, stretch: Stretch | None = None) -> tuple[Leased, Leased]:
    """An IPv4 and an IPv6 address: both, or the error of the one that could not be had.

    The first free ones, or those of the `stretch`.
    """
    wanted, wanted6 = _checked(request.address, 4), _checked(request.address6, 6)
    leased = _take(core, network, wanted, 4, stretch, request.leased)
    try:
        return leased, _take(core, network, wanted6, 6, stretch, request.leased)
    except BaseException:
        core.give_back(network.id, leased[0])
        raise


def _take(core: Core, network: Network, wanted: str, family: Family, stretch: Stretch | None, leased: bool) -> Leased:
    pools = [(pool, allocator) for pool, allocator in core.allocators.get(network.id, ()) if _family(pool.subnet) == family]
    if not core.allocators.get(network.id) and wanted:
        raise InvalidArgument(f"network {network.name} gives no addresses: --{'ip' if family == 4 else 'ip6'} {wanted} cannot be used")
    if wanted:
        pools = [(pool, allocator) for pool, allocator in pools if ipaddress.ip_address(wanted) in ipaddress.ip_network(pool.subnet)]
        if not pools:
            raise AddressOutOfRange(f"Invalid address {wanted}: It does not belong to any of this network's subnets")
    if not pools:
        return NOTHING
    serial = BOOLEANS.get(network.ipam_options.get(SERIAL, ""), False)
    elsewhere = stretch if not wanted else None
    for pool, allocator in pools:
        if leased and wanted and core.leases.holds(network.id, wanted):
            return f"{wanted}/{pool.subnet.rsplit('/', 1)[1]}", pool.gateway
        try:
            address = (elsewhere.allocate(pool, allocator) if elsewhere else "") or allocator.allocate(wanted, serial=serial)
        except AddressesExhausted:
            continue
        except AddressInUse as error:
            raise AddressInUse(wanted, _owner(core, network, wanted)) from error
        if leased and wanted:
            core.leases.hold(network.id, pool.subnet, address)
        return f"{address}/{pool.subnet.rsplit('/', 1)[1]}", pool.gateway
    raise AddressesExhausted(f"no available IPv{family} addresses on this network's address pools: {network.name} ({network.id})")


def _checked(text: str, family: Family) -> str:
    """In canonical form; `""` stays."""
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
        if address.version != family or "%" in text:
            raise ValueError
    except ValueError:
        raise InvalidArgument(f"invalid IPv{family} address: {text}") from None
    return str(address)


def _family(subnet: str) -> Family:
    return 6 if ":" in subnet else 4


def _owner(core: Core, network: Network, address: str) -> str:
    for endpoint in (*core.records.of_network(network.id), *core.peers.get(network.id, {}).values()):
        if address in (endpoint.address.split("/")[0], endpoint.address6.split("/")[0]):
            return endpoint.container_name or f"endpoint {endpoint.id:.12}"
    if any(pool.gateway == address for pool in network.pools):
        return "the gateway"
    return ""
