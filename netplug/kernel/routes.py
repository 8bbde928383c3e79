"""Routes of the main table as rtnetlink messages, and which subnets the host reaches by itself (rtnetlink(7), linux/rtnetlink.h)."""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import NamedTuple

from netplug.kernel import addresses, links
from netplug.kernel.addresses import IPNetwork, Subnet
from netplug.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Refused,
    Socket,
    attribute,
    find_attribute,
    number,
    parse_attributes,
    parse_number,
)
from netplug.kernel.syscalls import asked
from netplug.plan import ROUTE_PROTOCOL, Route

_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_CACHEINFO = 1, 4, 5, 6, 9, 12
MAIN, _TABLE_LOCAL = 254, 255
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_UNICAST, _LOCAL = 1, 2
_TYPES = (_UNICAST, 6, 7, 8, 9)
"""RTN_UNICAST, _BLACKHOLE, _UNREACHABLE, _PROHIBIT, _THROW: all but those that the kernel derives from addresses, and NAT."""
_RTNH_F_ONLINK = 4
_RTM_F_FIB_MATCH = 0x2000
"""The route itself is told, not what follows from it for the address (Linux 4.13)."""
SOMEWHERE: dict[int, bytes] = {
    socket.AF_INET: socket.inet_pton(socket.AF_INET, "192.0.2.1"),
    socket.AF_INET6: socket.inet_pton(socket.AF_INET6, "2001:db8::1"),
}
"""An address that nobody has a route of its own to (RFC 5737, RFC 3849): its route is the way out."""
_EVERYWHERE: dict[int, bytes] = {socket.AF_INET: bytes(4), socket.AF_INET6: bytes(16)}
_IPV6_METRIC = 1024
"""What the kernel gives an IPv6 route without a metric."""

_INFO = struct.Struct("=BBBBBBBBI")  # family, dst prefix, src prefix, tos, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, hops, index


class Existing(NamedTuple):
    """A route that is there."""

    family: int
    destination: bytes
    """`b""` for a default route."""
    prefix: int
    link: int
    """0 where it has several ways."""
    gateway: bytes
    metric: int
    tos: int
    type: int
    table: int
    body: bytes
    """As the kernel told it."""

    @property
    def destined(self) -> Subnet:
        return self.destination or _EVERYWHERE[self.family], self.prefix

    @property
    def subnet(self) -> IPNetwork:
        return addresses.network_of(*self.destined)

    @property
    def way(self) -> int:
        """The index of the link that it leads to; of several ways, the first."""
        return self.link or _first_hop(parse_attributes(self.body, _INFO.size).get(_RTA_MULTIPATH, b""))

    @property
    def protocol(self) -> int:
        """Who made it (RTPROT_…)."""
        return int(_INFO.unpack_from(self.body)[5])

    def leads_as(self, op: Route, index: int) -> bool:
        return self.link == index and self.gateway == _gateway(op)

    def put_back(self) -> Message:
        """The message that makes this route again, in place of another to the same destination."""
        fields = list(_INFO.unpack_from(self.body))
        fields[-1] &= _RTNH_F_ONLINK  # the kernel refuses the flags of state that it tells (dead, linkdown)
        kept = parse_attributes(self.body, _INFO.size)
        kept.pop(_RTA_CACHEINFO, None)
        body = _INFO.pack(*fields) + b"".join(attribute(kind, value) for kind, value in kept.items())
        return Message(_RTM_NEWROUTE, body, NLM_F_CREATE | NLM_F_REPLACE)


def add(op: Route, index: int) -> Message:
    """EEXIST where there is a route to the same destination, whereever it leads."""
    return Message(_RTM_NEWROUTE, _body(op, index), NLM_F_CREATE | NLM_F_EXCL)


def replace(op: Route, index: int) -> Message:
    return Message(_RTM_NEWROUTE, _body(op, index), NLM_F_CREATE | NLM_F_REPLACE)


def delete(op: Route, index: int) -> Message:
    """Only one that carries our protocol; ESRCH where there is none."""
    return Message(_RTM_DELROUTE, _body(op, index))


def find(netlink: Socket, op: Route) -> Existing | None:
    """The route which `op` would replace."""
    family, _, _ = _destination(op)
    return next((route for route in _dump(netlink, family, MAIN) if _is_of(route, op)), None)


def _is_of(route: Existing, op: Route) -> bool:
    """To the same destination, with the metric that it has without one, whatever the service."""
    family, destination, prefix = _destination(op)
    metric = _IPV6_METRIC if family == socket.AF_INET6 else 0
    return (route.destination, route.prefix, route.metric, route.tos) == (destination, prefix, metric, 0)


def question(op: Route) -> Message:
    """That asks which route leads to where `op` does: to its destination, or out."""
    family, destination, _ = _destination(op)
    return _question(family, destination or SOMEWHERE[family])


@lru_cache(maxsize=16)
def _question(family: int, packed: bytes) -> Message:
    body = _INFO.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH) + attribute(_RTA_DST, packed)
    return Message(_RTM_GETROUTE, body)


def local(netlink: Socket, address: str) -> bool:
    """Whether packets to `address` are taken in here."""
    family, packed = addresses.pack(address)
    try:
        body = netlink.get(_question(family, packed))
    except Refused as refused:
        if refused.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            raise
        return False
    return bool(_INFO.unpack_from(body)[7] == _LOCAL)


def tells(body: bytes, op: Route, index: int) -> bool:
    """Whether it is the route which `op` would replace, and leads as `op` does."""
    route = _parse(body)
    return route.table == MAIN and _is_of(route, op) and route.leads_as(op, index)


def known(netlink: Socket, op: Route) -> bool:
    """Whether there is any route to just that destination, whatever its metric and wherever it leads."""
    family, destination, prefix = _destination(op)
    return any((route.destination, route.prefix) == (destination, prefix) for route in _dump(netlink, family, MAIN))


def host_subnets(beside: Collection[str] = (), known: Collection[str] = ()) -> list[str]:
    """Subnets that the calling thread's namespace has addresses in or routes to, IPv4 first.

    Those by our own links, and by those named `beside`, do not count, nor do those that are `known` already. Nor do default routes,
    also in a few wide pieces, as VPNs write them, and IPv6's link-local, loopback and multicast ranges, which every host has.
    """
    had = set(map(addresses.parse_subnet, known))
    with asked("read the host's addresses and routes"), Socket() as netlink:
        found = {*addresses.subnets(netlink), *map(_way, _reachable(netlink))}
        # Of a host with many networks that leaves the few links of others.
        news = [(subnet, link) for subnet, link in found if subnet not in had and _counts(subnet)]
        foreign = {link for link in {link for _, link in news} if not _is_ours(netlink, link, beside)}
    return list(_described(frozenset(subnet for subnet, link in news if link in foreign)))


def _way(body: bytes) -> tuple[Subnet, int]:
    """Of a route, as `addresses.subnets` tells it."""
    family, prefix = body[0], body[1]
    destination = find_attribute(body, _INFO.size, _RTA_DST) or _EVERYWHERE[family]
    return (destination, prefix), parse_number(find_attribute(body, _INFO.size, _RTA_OIF))


def _is_ours(netlink: Socket, index: int, beside: Collection[str]) -> bool:
    """0, the link of a route that has several or none, is not."""
    link = links.find(netlink, index) if index else None
    return link is not None and (link.ours or link.name in beside)


@lru_cache(maxsize=16)
def _described(subnets: frozenset[Subnet]) -> list[str]:
    """In order. A host's change seldom."""
    return [str(addresses.network_of(*subnet)) for subnet in sorted(subnets, key=lambda subnet: (len(subnet[0]), subnet))]


@lru_cache(maxsize=4096)
def _counts(subnet: Subnet) -> bool:
    return counts(addresses.network_of(*subnet))


def counts(subnet: IPNetwork) -> bool:
    """Whether a way there says more than that the host has a way out, or IPv6."""
    if subnet.version == 4:
        return subnet.prefixlen > 1
    # Pieces of an IPv6 default route: ::/1, 2000::/3, fc00::/7 and the like.
    return subnet.prefixlen > 7 and not (subnet.is_link_local or subnet.is_loopback or subnet.is_multicast)


def reachable(netlink: Socket) -> Iterator[Existing]:
    """Of all tables, what the kernel has not derived from addresses alone."""
    return map(_parse, _reachable(netlink))


def _reachable(netlink: Socket) -> Iterator[bytes]:
    """Asked for by type: of a host with many addresses that is a small part."""
    for family, kind in itertools.product((socket.AF_INET, socket.AF_INET6), _TYPES):
        for body in _bodies(netlink, family, 0, kind):
            _, _, _, _, table, _, _, told, _ = _INFO.unpack_from(body)
            if table != _TABLE_LOCAL and told == kind:  # kernels before 4.20 tell all
                yield body


def _dump(netlink: Socket, family: int, table: int) -> Iterator[Existing]:
    return map(_parse, _bodies(netlink, family, table))


def _bodies(netlink: Socket, family: int, table: int, kind: int = 0) -> list[bytes]:
    """0: whatever it is."""
    try:
        return netlink.dump(Message(_RTM_GETROUTE, _INFO.pack(family, 0, 0, 0, table, 0, 0, kind, 0)))
    except Refused as refused:
        if refused.errno != errno.ENOENT:  # the table is made with its first route
            raise
        return []


def _parse(body: bytes) -> Existing:
    family, prefix, _, tos, table, _, _, type_, _ = _INFO.unpack_from(body)
    found = parse_attributes(body, _INFO.size)
    return Existing(
        family,
        found.get(_RTA_DST, b""),
        prefix,
        parse_number(found.get(_RTA_OIF, b"")),
        found.get(_RTA_GATEWAY, b""),
        parse_number(found.get(_RTA_PRIORITY, b"")),
        tos,
        type_,
        table,
        body,
    )


def _first_hop(hops: bytes) -> int:
    return int(_NEXT_HOP.unpack_from(hops)[3]) if len(hops) >= _NEXT_HOP.size else 0


def _body(op: Route, index: int) -> bytes:
    family, destination, prefix = _destination(op)
    gateway = _gateway(op)
    scope = _SCOPE_LINK if family == socket.AF_INET and not gateway else _SCOPE_UNIVERSE
    body = _INFO.pack(family, prefix, 0, 0, MAIN, ROUTE_PROTOCOL, scope, _UNICAST, 0)
    if destination:
        body += attribute(_RTA_DST, destination)
    if gateway:
        body += attribute(_RTA_GATEWAY, gateway)
    return body + number(_RTA_OIF, index)


def _destination(op: Route) -> tuple[int, bytes, int]:
    """Family, bytes (`b""` for a default route), prefix length."""
    if op.destination == "default":
        return socket.AF_INET6 if ":" in op.gateway else socket.AF_INET, b"", 0
    host, _, prefix = op.destination.partition("/")
    family, packed = addresses.pack(host)
    return family, packed if int(prefix) else b"", int(prefix)


def _gateway(op: Route) -> bytes:
    return addresses.pack(op.gateway)[1] if op.gateway else b""
