"""VXLAN links as rtnetlink messages, and whether this host can have one (RFC 7348, linux/if_link.h, drivers/net/vxlan in the kernel).

A VXLAN link may live in another namespace than its UDP socket: what it clashes with is counted where the socket is. Two links cannot
have the same VNI and port there, wherever they live; links with other VNIs share the port's socket, unless their kind of VXLAN differs.
"""

from __future__ import annotations

import errno
import os
import random
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from netplug.errors import InvalidArgument, KernelError
from netplug.kernel import addresses, facts, links, namespaces, sockets
from netplug.kernel.links import RTM_GETLINK, RTM_NEWLINK
from netplug.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Refused,
    Socket,
    attribute,
    nested,
    number,
    parse_attributes,
    parse_number,
    text,
)
from netplug.kernel.syscalls import asked, refusal, unshare_network
from netplug.plan import LINK_GROUP, Vxlan

_ID, _LOCAL, _LEARNING, _PROXY, _PORT, _LOCAL6 = 1, 4, 7, 11, 15, 17  # IFLA_VXLAN_…
_LINK_NETNSID = 37
_RTM_GETNSID = 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_FAMILY = bytes(4)  # struct rtgenmsg
_NSID = struct.Struct("=i")
_VXLAN = b"vxlan\0"
_LARGEST_VNI = (1 << 24) - 1

OTHERS = ("/run/docker/netns", "/run/netns")
"""Where dockerd and `ip netns` keep namespaces."""


class Tunnel(NamedTuple):
    """A VXLAN link as it is."""

    name: str
    vni: int
    port: int
    local: str
    netns: int | None
    """What its namespace calls that of its socket; None: it is the same."""

    def fits(self, op: Vxlan) -> bool:
        return (self.vni, self.port, self.local) == (op.vni, op.port, op.local)


def new(op: Vxlan, index: int, namespace: int, master: int = 0) -> Message:
    """Born in the namespace of that descriptor, up, its socket here; `master` is there."""
    local = addresses.pack(op.local)[1]
    data = number(_ID, op.vni) + attribute(_LOCAL6 if ":" in op.local else _LOCAL, local) + attribute(_PORT, op.port.to_bytes(2))
    data += attribute(_LEARNING, b"\0") + attribute(_PROXY, b"\1")
    body = links.header(index, links.IFF_UP, links.IFF_UP) + text(links.IFLA_IFNAME, op.name) + links.pack_mtu(op.mtu)
    body += number(links.IFLA_GROUP, LINK_GROUP) + number(links.IFLA_NET_NS_FD, namespace)
    if master:
        body += number(links.IFLA_MASTER, master)
    described = nested(links.IFLA_LINKINFO, attribute(links.INFO_KIND, b"vxlan"), nested(links.INFO_DATA, data))
    return Message(RTM_NEWLINK, body + described, NLM_F_CREATE | NLM_F_EXCL)


def find(netlink: Socket, name: str) -> Tunnel | None:
    """None where no VXLAN link has that name."""
    try:
        body = netlink.get(Message(RTM_GETLINK, links.header() + text(links.IFLA_IFNAME, name)))
    except Refused:
        return None
    return _parse(body) if _kind(body) == _VXLAN else None


def reason(op: Vxlan, error: OSError) -> OSError:
    """What a refusal of making `op` means, and what to do."""
    match error.errno:
        case errno.EEXIST:
            return Refused(errno.EEXIST, f"VNI {op.vni} with UDP port {op.port} is in use on this host{_holder(op)}: {_REMEDY_VNI}")
        case errno.EADDRINUSE:
            return Refused(errno.EADDRINUSE, f"UDP port {op.port} is in use on this host{_user(op)}: {_REMEDY_PORT}")
        case errno.EOPNOTSUPP:
            return Refused(errno.EOPNOTSUPP, "this kernel has no VXLAN (CONFIG_VXLAN; try: modprobe vxlan)")
        case errno.EAFNOSUPPORT:
            return Refused(errno.EAFNOSUPPORT, f"this host has no IPv6, but {op.local} is to be the node's address: give an IPv4 one")
    return error


_REMEDY_VNI = "give the network another one (-o com.docker.network.driver.overlay.vxlanid_list=VNI), or another port"
_REMEDY_PORT = "give overlay networks another one, the same on all nodes (the daemons' --vxlan-port, or -o netplug.vxlan.port=PORT)"


def check(local: str, port: int, vni: int = 0) -> None:
    """KernelError, with reason and remedy, where the calling thread's namespace cannot have a VXLAN link like that.

    One is made for a moment, in a namespace that is thrown away; a VNI of 0 stands for one that nobody has.
    """
    name = f"p{os.getpid()}"
    op = Vxlan(name=name, link_namespace="", vni=vni or random.randrange(_LARGEST_VNI // 2, _LARGEST_VNI), port=port, local=local)
    with asked("try a VXLAN link"), Socket() as netlink, ThreadPoolExecutor(1, thread_name_prefix="netplug-vxlan") as thread:
        try:
            thread.submit(_try, netlink, op).result()
        except Refused as refused:
            raise refusal("make a VXLAN link", reason(op, refused)) from refused


def underlay(address: str) -> tuple[str, int]:
    """The link that has `address`, and the MTU of the way to other nodes; InvalidArgument where none has it."""
    wanted = addresses.pack(address)[1]
    with asked("look for the node's address"), Socket() as netlink:
        assigned = addresses.dump(netlink)
        index = next((one.index for one in assigned if one.address.ip.packed == wanted), 0)
        link = links.find(netlink, index) if index else None
    if link is None:
        there = ", ".join(str(one.address.ip) for one in assigned if not (one.address.ip.is_loopback or one.address.ip.is_link_local))
        raise InvalidArgument(f"{address} is no address of this host (it has: {there or 'none'}): give one by which other nodes reach it")
    # An address on `lo` is routed to: the packets leave by another link.
    way_out = facts.uplink(addresses.pack(address)[0]) if link.loopback else None
    return link.name, way_out.mtu if way_out is not None else link.mtu


def address_of(name: str) -> str:
    """The first address of a link that others can reach, IPv4 before IPv6; `""` where there is no such link, or it has none."""
    with asked("look for the node's address"), Socket() as netlink:
        link = links.find(netlink, name)
        found = [one.address.ip for one in addresses.dump(netlink) if link is not None and one.index == link.index]
    return next((str(ip) for ip in sorted(found, key=lambda ip: ip.version) if not (ip.is_link_local or ip.is_loopback)), "")


def holders(vni: int, port: int, folders: tuple[str, ...] = OTHERS) -> Iterator[tuple[str, Tunnel]]:
    """Links that have that VNI and port in the calling thread's namespace, each with the path of the one that it lives in (`""`: this)."""
    home = namespaces.open_descriptor("")
    try:
        for path in ("", *(str(path) for folder in folders if os.path.isdir(folder) for path in sorted(Path(folder).iterdir()))):
            with suppress(OSError, KernelError), namespaces.entered(path), Socket() as netlink:
                number_here = _nsid(netlink, home) if path else None
                for tunnel in _tunnels(netlink):
                    if (tunnel.vni, tunnel.port) == (vni, port) and tunnel.netns == number_here:
                        yield path, tunnel
    finally:
        os.close(home)


def visible(op: Vxlan) -> list[tuple[str, Tunnel]]:
    """`holders` of what `op` asks for, also where our own links live."""
    return list(holders(op.vni, op.port, (*OTHERS, os.path.dirname(op.link_namespace)) if op.link_namespace else OTHERS))


def _holder(op: Vxlan) -> str:
    """` by vxlan0 in /run/docker/netns/1-8x2, which is Docker's`."""
    for path, tunnel in visible(op):
        whose = ", which is Docker's" if path.startswith(OTHERS[0]) else ""
        return f" by {tunnel.name}" + (f" in {path}" if path else "") + whose
    return ", by a VXLAN link in a namespace that cannot be seen from here"


def _user(op: Vxlan) -> str:
    found = [one for one in sockets.bound("udp") if one.port == op.port]
    processes = sockets.owners(one.inode for one in found if one.inode)
    if processes:
        return f" by {next(iter(processes.values()))}"
    return " by another kind of tunnel" if found else ""


def _try(netlink: Socket, op: Vxlan) -> None:
    """In a thread of its own, which ends with the namespace it makes."""
    unshare_network()
    index = links.choose_index()
    namespace = namespaces.open_descriptor("")
    try:
        netlink.request(new(op, index, namespace))
    finally:
        os.close(namespace)
    with Socket() as inside:
        inside.request(links.delete(index))


def _tunnels(netlink: Socket) -> list[Tunnel]:
    return [_parse(body) for body in netlink.dump(Message(RTM_GETLINK, links.header())) if _kind(body) == _VXLAN]


def _kind(body: bytes) -> bytes:
    return _info(body).get(links.INFO_KIND, b"")


def _info(body: bytes) -> dict[int, bytes]:
    return parse_attributes(parse_attributes(body, len(links.header()), (links.IFLA_LINKINFO,)).get(links.IFLA_LINKINFO, b""))


def _parse(body: bytes) -> Tunnel:
    data = parse_attributes(_info(body).get(links.INFO_DATA, b""))
    found = parse_attributes(body, len(links.header()), (links.IFLA_IFNAME, _LINK_NETNSID))
    local = data.get(_LOCAL) or data.get(_LOCAL6, b"")
    netns = _NSID.unpack(found[_LINK_NETNSID])[0] if _LINK_NETNSID in found else None
    return Tunnel(
        links.parse_name(body), parse_number(data.get(_ID, b"")), int.from_bytes(data.get(_PORT, b"")), addresses.unpack(local), netns
    )


def _nsid(netlink: Socket, namespace: int) -> int:
    """What the socket's namespace calls that one; -1: nothing in it has to do with it."""
    answer = netlink.get(Message(_RTM_GETNSID, _FAMILY + number(_NETNSA_FD, namespace)))
    return int(_NSID.unpack(parse_attributes(answer, len(_FAMILY))[_NETNSA_NSID])[0])
