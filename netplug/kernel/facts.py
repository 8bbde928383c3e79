"""What there is on the host's network, for those who advise and never change: links, routes of both IP versions, and who holds a lock.

Everything is read in the namespace of the calling thread, by one dump each (rtnetlink(7), proc_locks(5)).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from netplug.errors import KernelError
from netplug.kernel import links, sysctl
from netplug.kernel.netlink import Message, Refused, Socket, attribute, number, parse_attributes, parse_number, parse_text
from netplug.kernel.syscalls import asked
from netplug.plan import DOOMED_GROUP, LINK_GROUP, RETIRED_GROUP, ROUTE_PROTOCOL

Subnet: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ROUTER_ADVERTISEMENT = 9
"""RTPROT_RA: a route that the kernel made of a router's advertisement."""
TABLE_MAIN = 254

_RTM_GETROUTE = 26
_OURS = frozenset({LINK_GROUP, DOOMED_GROUP, RETIRED_GROUP})
_IFLA_MTU, _IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_GROUP, _IFLA_EXT_MASK, _INFO_KIND = 4, 3, 18, 27, 29, 1
_RTEXT_FILTER_SKIP_STATS = 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 6, 9, 15
_TABLE_LOCAL = 255
_UNICAST = 1
_FORBIDDING = frozenset({6, 7, 8})
"""RTN_BLACKHOLE, _UNREACHABLE, _PROHIBIT: a subnet that somebody keeps for himself."""
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst prefix, src prefix, tos, table, protocol, scope, type, flags
_NEXT_HOP = struct.Struct("=HBBi")  # length, flags, hops, index
_SOMEWHERE: dict[int, str] = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""An address that nobody has a route of its own to (RFC 5737, RFC 3849): its route is the way out."""


class HostLink(NamedTuple):
    number: int
    name: str
    kind: str
    mtu: int
    up: bool
    ours: bool


class HostRoute(NamedTuple):
    """`link` is `""` for a route that leads nowhere (unreachable, blackhole)."""

    subnet: Subnet
    link: str
    table: int = TABLE_MAIN
    protocol: int = 0
    metric: int = 0
    ours: bool = False

    @property
    def default(self) -> bool:
        """Also one of two halves of /1 each, as VPNs write it."""
        return self.subnet.prefixlen <= 1


def host_links() -> dict[int, HostLink]:
    """By index."""
    with asked("read the host's links"), Socket() as netlink:
        bodies = netlink.dump(Message(links.RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)))
    return {link.number: link for link in map(_link, bodies)}


def host_routes(known: dict[int, HostLink]) -> list[HostRoute]:
    """Of all tables but the local one; what the kernel derives from addresses alone (broadcast, multicast, link-local) is left out."""
    found: list[HostRoute] = []
    with asked("read the host's routes"), Socket() as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            bodies = netlink.dump(Message(_RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)))
            found += [route for body in bodies if (route := _route(body, known)) is not None]
    return found


def uplink(known: dict[int, HostLink], family: int = socket.AF_INET) -> HostLink | None:
    """The link by which this host reaches the rest of the world, policy routing and VPNs included; None where there is no way out."""
    address = socket.inet_pton(family, _SOMEWHERE[family])
    body = _ROUTE.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, address)
    with Socket() as netlink:
        try:
            answer = netlink.get(Message(_RTM_GETROUTE, body))
        except Refused:
            return None
    link = known.get(parse_number(parse_attributes(answer, _ROUTE.size).get(_RTA_OIF, b"")))
    return link if link is not None and link.name != "lo" else None


def value(key: str) -> int | None:
    """A sysctl that is one number; None where this kernel, or this namespace, does not have it."""
    with suppress(KernelError, ValueError):
        return int(sysctl.read(key))
    return None


def lock_holder(path: Path) -> int | None:
    """The pid that holds a lock on the file (0: one that is not visible from here); None where nobody does."""
    try:
        status = path.stat()
    except OSError:
        return None
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[5] == wanted and fields[1] != "->":
            return max(int(fields[4]), 0)
    return None


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _link(body: bytes) -> HostLink:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = parse_attributes(body, _LINK.size, frozenset({_IFLA_MTU, _IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_GROUP}))
    kind = parse_text(parse_attributes(found.get(_IFLA_LINKINFO, b"")).get(_INFO_KIND, b""))
    ours = parse_number(found.get(_IFLA_GROUP, b"")) in _OURS
    return HostLink(
        index, parse_text(found.get(_IFLA_IFNAME, b"")), kind, parse_number(found.get(_IFLA_MTU, b"")), bool(flags & links.IFF_UP), ours
    )


def _route(body: bytes, known: dict[int, HostLink]) -> HostRoute | None:
    family, prefix, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    found = parse_attributes(body, _ROUTE.size)
    table = parse_number(found[_RTA_TABLE]) if _RTA_TABLE in found else table
    if table == _TABLE_LOCAL or kind not in {_UNICAST, *_FORBIDDING}:
        return None
    subnet = ipaddress.ip_network((found.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16)), prefix))
    if subnet.is_multicast or subnet.is_loopback or (subnet.version == 6 and subnet.is_link_local):
        return None
    link = known.get(_way(found)) if kind == _UNICAST else None
    ours = protocol == ROUTE_PROTOCOL or (link is not None and link.ours)
    return HostRoute(subnet, link.name if link else "", table, protocol, parse_number(found.get(_RTA_PRIORITY, b"")), ours)


def _way(found: dict[int, bytes]) -> int:
    """The index of a route's link; of several, the first."""
    if _RTA_OIF in found:
        return parse_number(found[_RTA_OIF])
    hops = found.get(_RTA_MULTIPATH, b"")
    return int(_NEXT_HOP.unpack_from(hops)[3]) if len(hops) >= _NEXT_HOP.size else 0
