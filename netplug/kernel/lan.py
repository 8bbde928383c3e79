"""What this host's links lead to: who is a neighbour on one of them, and which subnets the host has ways to besides our own.

Everything is read in the namespace of the calling thread (rtnetlink(7)).
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import NamedTuple

from netplug.kernel import addresses, links, routes
from netplug.kernel.addresses import IPNetwork
from netplug.kernel.netlink import Message, Refused, Socket, attribute, parse_attributes, parse_number
from netplug.kernel.syscalls import asked
from netplug.plan import ROUTE_PROTOCOL, Route

_RTM_GETROUTE = 26
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_VIA = 1, 4, 5, 18
_UNICAST, _LOCAL = 1, 2
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst prefix, src prefix, tos, table, protocol, scope, type, flags


class Neighbour(NamedTuple):
    """The link on which somebody is a neighbour; or `""`, and why he is none."""

    link: str
    reason: str = ""


class Known(NamedTuple):
    """A subnet that the host has an address in or a route to; `gateway` is `""` where it lies on a link."""

    subnet: IPNetwork
    gateway: str = ""


def neighbour(address: str) -> Neighbour:
    """Asks the kernel which way a packet to `address` would go."""
    family, packed = addresses.pack(address)
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, packed)
    with asked(f"ask for the way to {address}"), Socket() as netlink:
        try:
            answer = netlink.get(Message(_RTM_GETROUTE, body))
        except Refused:
            return Neighbour("", f"this host has no way to {address}")
        kind, found = _ROUTE.unpack_from(answer)[7], parse_attributes(answer, _ROUTE.size)
        if kind == _LOCAL:
            return Neighbour("", f"{address} is an address of this host itself")
        if gateway := found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[2:]:
            return Neighbour("", f"{address} is no neighbour of this host: the way there leads through {addresses.unpack(gateway)}")
        link = links.find(netlink, parse_number(found.get(_RTA_OIF, b"")))
    if kind != _UNICAST or link is None or not link.up:
        return Neighbour("", f"this host has no way to {address}")
    return Neighbour(link.name)


def twin(address: str) -> str:
    """The first address of the other IP version that others can reach on the link that has `address`; `""` where there is none."""
    with asked("look for the node's addresses"), Socket() as netlink:
        assigned = addresses.dump(netlink)
    index = next((one.index for one in assigned if str(one.address.ip) == address), 0)
    found = (one.address.ip for one in assigned if one.index == index and (one.address.version == 6) != (":" in address))
    return next((str(ip) for ip in found if not (ip.is_link_local or ip.is_loopback)), "")


def others() -> list[Known]:
    """Subnets that the host has ways to which are none of ours: neither by our links nor by our routes. Default routes do not count."""
    with asked("read the host's addresses and routes"), Socket() as netlink:
        ours = links.our_indexes(netlink)
        found = [Known(one.network) for one in addresses.dump(netlink, without=ours)]
        for route in routes.reachable(netlink):
            if route.way not in ours and route.protocol != ROUTE_PROTOCOL:
                found.append(Known(route.subnet, addresses.unpack(route.gateway)))
    return [known for known in dict.fromkeys(found) if routes.counts(known.subnet)]


def strays(wanted: Collection[Route]) -> list[Route]:
    """Routes of ours through a gateway that nobody wants any more: what an earlier daemon has left."""
    known = {(op.destination, op.gateway) for op in wanted}
    with asked("read the host's routes"), Socket() as netlink:
        found = [
            (route, links.find(netlink, route.way))
            for route in routes.reachable(netlink)
            if route.protocol == ROUTE_PROTOCOL and route.table == routes.MAIN and route.gateway
        ]
    ops = [
        Route(destination=str(route.subnet), link=link.name, gateway=addresses.unpack(route.gateway))
        for route, link in found
        if link is not None
    ]
    return [op for op in ops if (op.destination, op.gateway) not in known]
