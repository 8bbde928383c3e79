"""What there is on the host's network, for those who advise and never change: links, routes, name servers, and who holds a lock.

Everything is read in the namespace of the calling thread (rtnetlink(7), proc_locks(5)).
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
from netplug.kernel import links, routes, sysctl
from netplug.kernel.addresses import IPNetwork
from netplug.kernel.links import Link
from netplug.kernel.netlink import Message, Refused, Socket, attribute, parse_attributes, parse_number
from netplug.kernel.routes import Existing
from netplug.kernel.syscalls import asked
from netplug.plan import ROUTE_PROTOCOL

Subnet: TypeAlias = IPNetwork

ROUTER_ADVERTISEMENT = 9
"""RTPROT_RA: a route that the kernel made of a router's advertisement."""
TABLE_MAIN = 254

_RTM_GETROUTE = 26
_RTA_DST, _RTA_OIF = 1, 4
_UNICAST = 1
_FORBIDDING = frozenset({6, 7, 8})
"""RTN_BLACKHOLE, _UNREACHABLE, _PROHIBIT: a subnet that somebody keeps for himself."""
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst prefix, src prefix, tos, table, protocol, scope, type, flags


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


def name_servers(path: str) -> list[Subnet]:
    """Those of a resolv.conf that are somewhere else, as subnets of one address; what is no address is passed over."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return []
    found = []
    for words in map(str.split, text.splitlines()):
        if len(words) > 1 and words[0] == "nameserver":
            with suppress(ValueError):
                found.append(ipaddress.ip_address(words[1]))
    return [ipaddress.ip_network(server) for server in found if not server.is_loopback and not server.is_link_local]


def host_links() -> list[HostLink]:
    with asked("read the host's links"), Socket() as netlink:
        return [_seen(link) for link in links.dump(netlink).values()]


def host_link(reference: int | str) -> HostLink | None:
    """One of them, by index or name."""
    with asked("look at a link"), Socket() as netlink:
        link = links.find(netlink, reference)
    return _seen(link) if link is not None else None


def host_routes() -> list[HostRoute]:
    """Of all tables but the local one; what the kernel derives from addresses alone (broadcast, multicast, link-local) is left out.

    Each link is asked for once: a host has far fewer ways than links.
    """
    with asked("read the host's routes"), Socket() as netlink:
        found = [route for route in routes.reachable(netlink) if _matters(route)]
        ways = {index: links.find(netlink, index) for index in {route.way for route in found}}
    return [_told(route, ways[route.way]) for route in found]


def uplink(family: int = socket.AF_INET) -> HostLink | None:
    """The link by which this host reaches the rest of the world, policy routing and VPNs included; None where there is no way out."""
    address = routes.SOMEWHERE[family]
    body = _ROUTE.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, address)
    with asked("look for the way out"), Socket() as netlink:
        try:
            answer = netlink.get(Message(_RTM_GETROUTE, body))
        except Refused:
            return None
        link = links.find(netlink, parse_number(parse_attributes(answer, _ROUTE.size).get(_RTA_OIF, b"")))
    return _seen(link) if link is not None and link.name != "lo" else None


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


def _seen(link: Link) -> HostLink:
    return HostLink(link.index, link.name, link.kind, link.mtu, link.up, link.ours)


def _matters(route: Existing) -> bool:
    if route.type not in {_UNICAST, *_FORBIDDING}:
        return False
    subnet = route.subnet
    return not (subnet.is_multicast or subnet.is_loopback or (subnet.version == 6 and subnet.is_link_local))


def _told(route: Existing, link: Link | None) -> HostRoute:
    leads = link if route.type == _UNICAST else None
    ours = route.protocol == ROUTE_PROTOCOL or (leads is not None and leads.ours)
    return HostRoute(route.subnet, leads.name if leads else "", route.table, route.protocol, route.metric, ours)
