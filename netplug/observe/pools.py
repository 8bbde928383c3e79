"""Address pools beside the host's routes: VPNs, other engines' bridges, IPv6 too."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from netplug.addressing import Ipams
from netplug.errors import PoolsExhausted
from netplug.kernel.facts import HostRoute, Subnet
from netplug.model import Network
from netplug.observe.situation import Finding, Situation, error, ok, warning
from netplug.registry import Drivers

CHECK = "pools"
_MOST_COUNTED = 64
_SHOWN = 3


def check(situation: Situation, routes: Sequence[HostRoute], ipams: Ipams, servers: Sequence[Subnet] = ()) -> Iterator[Finding]:
    """`servers`: the host's name servers."""
    foreign = [route for route in routes if not route.ours and not route.default]
    for route in halves(routes):
        yield ok(CHECK, f"{route.subnet} goes by {route.link}, as a VPN writes it: what containers send out goes there too")
    for network in situation.networks:
        for subnet in subnets(network):
            yield from beside(f"network {network.name}, {subnet}", subnet, but_its_own(network, foreign))
    for name, wanted in _asked_for(situation):
        others = [other for other in situation.networks if any(_overlap(wanted, one) for one in subnets(other))]
        if others:
            yield error(CHECK, f"{name} overlaps network {others[0].name}", "give a --subnet that no network has")
        yield from beside(name, wanted, foreign)
        yield from hiding(name, wanted, servers)
        if not others and not any(_overlap(wanted, one) for one in (*(route.subnet for route in foreign), *servers)):
            yield ok(CHECK, f"{name} is free")
    yield _predefined(situation, foreign, ipams, servers)


def but_its_own(network: Network, routes: Iterable[HostRoute]) -> list[HostRoute]:
    """Without those by the user's own bridge, where the network is on it: its subnet is the bridge's. None for the LAN's own subnet."""
    if _of_lan(network.driver):
        return []
    own = {link.name for link in network.found}
    return [route for route in routes if route.link not in own]


def beside(name: str, subnet: Subnet, routes: Iterable[HostRoute]) -> Iterator[Finding]:
    """What other routes mean for a subnet: one inside it takes its traffic away, a wider one is overshadowed by it."""
    for route in routes:
        if not _overlap(subnet, route.subnet):
            continue
        way = _way(route)
        if route.subnet.prefixlen >= subnet.prefixlen:
            yield error(CHECK, f"{name} covers the host's route {way}: one of the two cannot be reached", "give another --subnet")
        else:
            remedy = f"fine if nobody behind {route.link or 'it'} has these addresses; else give a --subnet outside of {route.subnet}"
            yield warning(CHECK, f"{name} lies inside the host's route {way}: what is there at these addresses is out of reach", remedy)


def hiding(name: str, subnet: Subnet, servers: Iterable[Subnet]) -> Iterator[Finding]:
    """What a subnet means for name servers of the host that have an address of it."""
    for server in servers:
        if _overlap(server, subnet):
            remedy = "fine if it is to be a container there; else give another --subnet"
            yield warning(
                CHECK, f"{name} has the address of the host's name server {server.network_address}, which is looked for there then", remedy
            )


@cache
def _of_lan(driver: str) -> bool:
    return Drivers().named(driver).capabilities.lan


def halves(routes: Iterable[HostRoute]) -> list[HostRoute]:
    """Default routes in two halves of /1 each."""
    return [route for route in routes if route.subnet.prefixlen == 1 and route.link]


def subnets(network: Network) -> list[Subnet]:
    return [ipaddress.ip_network(pool.subnet) for pool in network.pools if pool.subnet]


def _asked_for(situation: Situation) -> Iterator[tuple[str, Subnet]]:
    for subnet in situation.wanted.networks():
        yield f"subnet {subnet}", subnet
    if not situation.running:
        for request in situation.settings.predefined_networks():
            for pool in request.pools:
                if pool.subnet:
                    yield f"the default bridge's {pool.subnet}", ipaddress.ip_network(pool.subnet)


def _predefined(situation: Situation, foreign: Sequence[HostRoute], ipams: Ipams, servers: Sequence[Subnet]) -> Finding:
    own = [str(subnet) for network in situation.networks for subnet in subnets(network)]
    blocked = [*(str(route.subnet) for route in foreign), *map(str, servers)]
    all_free, left = _cut(ipams, own), _cut(ipams, [*own, *blocked])
    counted = f"{'more than ' if len(left) == _MOST_COUNTED else ''}{len(left)}"
    named = ", ".join(left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
    lost = [pool for pool in all_free if pool not in left]
    lost_subnets = [_parsed(pool) for pool in lost]
    takers = sorted({_way(route) for route in foreign if any(_overlap(route.subnet, subnet) for subnet in lost_subnets)})
    takers += [f"name server {server.network_address}" for server in servers if any(_overlap(server, subnet) for subnet in lost_subnets)]
    if not left:
        reason = f": routes of the host take them ({', '.join(takers)})" if takers else ""
        return error(
            CHECK, f"no predefined pool is left{reason}", "start the daemon with --default-address-pool, or give a --subnet each time"
        )
    if lost:
        remedy = f"nothing to do: they are passed over, {counted} remain"
        return Finding(CHECK, "warning", f"{len(lost)} predefined pools are taken by {', '.join(takers)}; next is {named}", remedy)
    return ok(CHECK, f"{counted} predefined pools are free: {named}")


def _cut(ipams: Ipams, taken: list[str]) -> list[str]:
    """The subnets that networks without a --subnet would get, in order."""
    found: list[str] = []
    ipam = ipams.get("default")
    while len(found) < _MOST_COUNTED:
        try:
            found.append(ipam.request_pool(None, [*taken, *found], {}).subnet)
        except PoolsExhausted:
            break
    return found


def _way(route: HostRoute) -> str:
    return f"{route.subnet} by {route.link or 'nowhere'}"


def _parsed(text: str) -> Subnet:
    return ipaddress.ip_network(text)


def _overlap(one: Subnet, other: Subnet) -> bool:
    """ipaddress compares within one IP version only."""
    return one.version == other.version and (one.network_address in other or other.network_address in one)
