"""Where frames to other nodes go: forwarding entries and neighbours of VXLAN links, as rtnetlink messages (linux/neighbour.h).

A forwarding entry (FDB) says which node has a MAC; a neighbour says which MAC an address has. The VXLAN link is ours, so all of its
forwarding entries are; neighbours carry our protocol. The kernel compares nothing when a neighbour is deleted, so we look first.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple, TypeAlias

import msgspec

from netplug.errors import KernelError
from netplug.kernel import addresses, links, namespaces
from netplug.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message, Refused, Socket, attribute, number, parse_attributes
from netplug.kernel.syscalls import asked
from netplug.plan import ROUTE_PROTOCOL, Fdb, Neighbour

Entry: TypeAlias = Fdb | Neighbour

_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX, _NDA_PROTOCOL = 1, 2, 8, 12
_PERMANENT = 0x80
_STATIC = 0x42
"""NUD_REACHABLE and NUD_NOARP: neither learned nor forgotten by itself, and (what NUD_PERMANENT means to a bridge) not the bridge's own."""
_NTF_SELF, _NTF_MASTER = 2, 4
"""The link's own table, and that of the bridge it is a port of."""
_INFO = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type (struct ndmsg)


class Found(NamedTuple):
    """An entry that is there: `key` is a MAC, or an address; `value` a VTEP, or a MAC."""

    key: bytes
    value: bytes
    ours: bool


def add(op: Entry, index: int) -> list[Message]:
    """The first is EEXIST where there is an entry already, whatever it says."""
    return [Message(_RTM_NEWNEIGH, _body(op, index), NLM_F_CREATE | NLM_F_EXCL), *_in_bridge(op, index)]


def put(op: Entry, index: int) -> list[Message]:
    """In place of an entry that is there, if one is."""
    return [Message(_RTM_NEWNEIGH, _body(op, index), NLM_F_CREATE | NLM_F_REPLACE), *_in_bridge(op, index)]


def delete(op: Entry, index: int) -> list[Message]:
    """What the bridge has for it is gone perhaps: a container here may have the MAC by now."""
    messages = [Message(_RTM_DELNEIGH, _body(op, index))]
    if isinstance(op, Fdb):
        messages.append(_forget_in_bridge(index, links.pack_mac(op.mac)))
    return messages


def there(netlink: Socket, op: Entry, index: int) -> Entry | None:
    """The entry of ours that `op` would replace, as an op."""
    family, key, _ = _parts(op)
    found = _find(netlink, family, index, key)
    if found is None or not found.ours or not found.value:
        return None
    if isinstance(op, Fdb):
        return msgspec.structs.replace(op, vtep=addresses.unpack(found.value))
    mac = found.value.hex(":")
    return op if mac == op.mac else msgspec.structs.replace(op, mac=mac, vtep="")


def holds(netlink: Socket, op: Entry, index: int) -> bool:
    """Whether it is there as `op` says, so that its removal is not another's loss."""
    if there(netlink, op, index) != op:
        return False
    if isinstance(op, Fdb) or not op.vtep:
        return True
    leads = _find(netlink, socket.AF_BRIDGE, index, links.pack_mac(op.mac))
    return leads is None or leads.value == addresses.pack(op.vtep)[1]


def reason(op: Fdb, error: OSError) -> OSError:
    """What a refusal of making `op` means."""
    if error.errno != errno.EAFNOSUPPORT:
        return error
    return Refused(
        error.errno, f"{op.vtep} is not of the IP version of this node's own address: all nodes of a cluster need addresses of one version"
    )


def stale(netlink: Socket, index: int, wanted: Collection[tuple[int, bytes]]) -> list[list[Message]]:
    """What deletes the entries of a VXLAN link whose family and key are not among those wanted, entry by entry."""
    entries = []
    for family in (socket.AF_BRIDGE, socket.AF_INET, socket.AF_INET6):
        for found in _dump(netlink, family, index):
            if found.ours and (family, found.key) not in wanted:
                kind = _NDA_LLADDR if family == socket.AF_BRIDGE else _NDA_DST
                messages = [Message(_RTM_DELNEIGH, _head(family, index) + attribute(kind, found.key))]
                if family == socket.AF_BRIDGE:
                    messages.append(_forget_in_bridge(index, found.key))
                entries.append(messages)
    return entries


def identity(op: Entry) -> tuple[int, bytes]:
    """Family and key: what only one entry of a link can have."""
    family, key, _ = _parts(op)
    return family, key


def tunnels(netlink: Socket) -> Iterator[links.Link]:
    """The VXLAN links of ours in the socket's namespace."""
    return (link for link in links.dump(netlink).values() if link.kind == "vxlan" and link.ours)


def find_stale(namespace: str, wanted: Collection[Entry]) -> list[list[Message]]:
    """What deletes, in that namespace, each entry that is not wanted (all ops of one namespace); nothing where there is none."""
    by_link: dict[str, set[tuple[int, bytes]]] = {}
    for op in wanted:
        by_link.setdefault(op.link, set()).add(identity(op))
    try:
        with namespaces.entered(namespace), asked("look for stale peers"), Socket() as netlink:
            return [entry for link in tunnels(netlink) for entry in stale(netlink, link.index, by_link.get(link.name, ()))]
    except KernelError as error:
        if error.errno in namespaces.MISSING:
            return []
        raise


def send(namespace: str, entries: list[list[Message]]) -> None:
    with namespaces.entered(namespace), asked("remove stale peers"), Socket() as netlink:
        netlink.send([message for entry in entries for message in entry])


def _find(netlink: Socket, family: int, index: int, key: bytes) -> Found | None:
    flags, kind = (_NTF_SELF, _NDA_LLADDR) if family == socket.AF_BRIDGE else (0, _NDA_DST)
    try:
        return _parse(netlink.get(Message(_RTM_GETNEIGH, _INFO.pack(family, index, 0, flags, 0) + attribute(kind, key))))
    except Refused as refused:
        if refused.errno != errno.ENOENT:
            raise
        return None


def _dump(netlink: Socket, family: int, index: int) -> Iterator[Found]:
    """Of the link itself; the bridge that it is a port of has entries for it too."""
    if family == socket.AF_BRIDGE:
        request = _INFO.pack(family, index, 0, 0, 0)
    else:
        request = _INFO.pack(family, 0, 0, 0, 0) + number(_NDA_IFINDEX, index)
    for body in netlink.dump(Message(_RTM_GETNEIGH, request)):
        flags = _INFO.unpack_from(body)[3]
        found = _parse(body)
        if found.key and (family != socket.AF_BRIDGE or flags & _NTF_SELF):
            yield found


def _parse(body: bytes) -> Found:
    family, _, state, _, _ = _INFO.unpack_from(body)
    found = parse_attributes(body, _INFO.size, (_NDA_DST, _NDA_LLADDR, _NDA_PROTOCOL))
    address, mac = found.get(_NDA_DST, b""), found.get(_NDA_LLADDR, b"")
    if family == socket.AF_BRIDGE:
        return Found(mac, address, ours=bool(address))
    return Found(address, mac, ours=bool(state & _PERMANENT) and found.get(_NDA_PROTOCOL) == bytes([ROUTE_PROTOCOL]))


def _body(op: Entry, index: int) -> bytes:
    family, key, value = _parts(op)
    if family == socket.AF_BRIDGE:
        return _head(family, index) + attribute(_NDA_LLADDR, key) + attribute(_NDA_DST, value)
    protocol = attribute(_NDA_PROTOCOL, bytes([ROUTE_PROTOCOL]))
    return _head(family, index) + attribute(_NDA_DST, key) + attribute(_NDA_LLADDR, value) + protocol


def _head(family: int, index: int) -> bytes:
    if family == socket.AF_BRIDGE:
        return _INFO.pack(family, index, _STATIC, _NTF_SELF, 0)
    return _INFO.pack(family, index, _PERMANENT, 0, 0)


def _in_bridge(op: Entry, index: int) -> list[Message]:
    """The bridge that the link is a port of is told too, or it would ask all its ports for a MAC that it has not met.

    And what it learned by itself would outlast the peer: when a container here gets the MAC, frames to it would not be let back in.
    """
    if not isinstance(op, Fdb):
        return []
    body = _INFO.pack(socket.AF_BRIDGE, index, _STATIC, _NTF_MASTER, 0) + attribute(_NDA_LLADDR, links.pack_mac(op.mac))
    return [Message(_RTM_NEWNEIGH, body, NLM_F_CREATE | NLM_F_REPLACE)]


def _forget_in_bridge(index: int, mac: bytes) -> Message:
    return Message(_RTM_DELNEIGH, _INFO.pack(socket.AF_BRIDGE, index, 0, _NTF_MASTER, 0) + attribute(_NDA_LLADDR, mac))


def _parts(op: Entry) -> tuple[int, bytes, bytes]:
    """Family, key, value."""
    if isinstance(op, Fdb):
        return socket.AF_BRIDGE, links.pack_mac(op.mac), addresses.pack(op.vtep)[1]
    family, packed = addresses.pack(op.address)
    return family, packed, links.pack_mac(op.mac)
