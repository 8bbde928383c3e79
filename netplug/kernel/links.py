"""Links as rtnetlink messages: what makes, changes, finds and deletes them (rtnetlink(7), linux/if_link.h).

A message names its link by index where we know it (we choose the indexes of new links ourselves), by name otherwise.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from netplug.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Refused,
    Socket,
    attribute,
    find_attribute,
    nested,
    number,
    parse_attributes,
    parse_number,
    parse_text,
    text,
)
from netplug.plan import DOOMED_GROUP, LINK_GROUP, RETIRED_GROUP, Bridge, Veth

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
IFF_UP, _IFF_LOOPBACK, IFF_RUNNING = 1, 8, 64
IPV6_MIN_MTU = 1280
"""RFC 8200 section 5; with less the kernel gives a link no IPv6."""

IFLA_ADDRESS, IFLA_IFNAME, _IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_IFALIAS, _IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, _IFLA_EXT_MASK = 20, 26, 27, 28, 29
_INET6_ADDR_GEN_MODE = 8
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_WANTED = frozenset({IFLA_ADDRESS, IFLA_IFNAME, _IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, _IFLA_IFALIAS, IFLA_GROUP})
INFO_KIND, INFO_DATA, INFO_SLAVE_KIND, INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
IFLA_BRPORT_MODE = 4
_RTEXT_FILTER_SKIP_STATS = 8

_INFO = struct.Struct("=BxHiII")  # family, type, index, flags, change

_VETH, _BRIDGE = attribute(INFO_KIND, b"veth"), attribute(INFO_KIND, b"bridge")
_OURS = number(IFLA_GROUP, LINK_GROUP)
_HAIRPIN = nested(IFLA_LINKINFO, attribute(INFO_SLAVE_KIND, b"bridge"), nested(INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, b"\1")))
_NO_LINK_LOCAL = nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, attribute(_INET6_ADDR_GEN_MODE, b"\1")))

_SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8933  # netdevice(7)
_REQUEST = struct.Struct("=16si20x")
"""struct ifreq: a name, and an index, or flags in the lower half."""

# A veth has a queue per CPU unless told otherwise, each with its entries in sysfs: a third of the time it takes to make one on two
# CPUs, and far more on many. Its packets go through the queues of the CPUs all the same, as long as nobody gives it XDP.
_ONE_QUEUE = number(_IFLA_NUM_TX_QUEUES, 1) + number(_IFLA_NUM_RX_QUEUES, 1)

_OUR_GROUPS = frozenset({LINK_GROUP, DOOMED_GROUP, RETIRED_GROUP})

FIRST_INDEX = 1 << 20
"""The kernel counts from 1: indexes that we choose lie where it does not come soon."""


@dataclass(frozen=True, slots=True)
class Link:
    """What we want to know of a link that is there."""

    index: int
    name: str
    flags: int
    group: int
    master: int
    kind: str
    alias: str
    hairpin: bool
    mtu: int
    slave_kind: str
    """What its master is: `bridge`, `bond`, …"""
    mac: str

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def loopback(self) -> bool:
        return bool(self.flags & _IFF_LOOPBACK)

    @property
    def ours(self) -> bool:
        return self.group in _OUR_GROUPS


class State(NamedTuple):
    """What there is to know without waiting for anybody."""

    number: int
    up: bool


def choose_index() -> int:
    """An index for a new link; with a billion to choose from, the caller tries again on EBUSY or EEXIST."""
    return FIRST_INDEX + random.getrandbits(30)


def new_bridge(op: Bridge, index: int) -> list[Message]:
    """Two messages: the kernel ignores an alias at creation."""
    body = header(index) + text(IFLA_IFNAME, op.name) + _OURS + attribute(IFLA_ADDRESS, pack_mac(op.mac))
    body += pack_mtu(op.mtu) + nested(IFLA_LINKINFO, _BRIDGE)
    return [
        Message(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL),
        Message(RTM_SETLINK, header(index, IFF_UP, IFF_UP) + _alias(op.alias)),
    ]


def new_veth(op: Veth, index: int, peer_index: int, peer_namespace: int | None, master: int) -> list[Message]:
    """Both ends in one message, the far one born in the namespace of that descriptor; then what the kernel ignores at creation."""
    peer = header(peer_index) + text(IFLA_IFNAME, op.peer) + attribute(IFLA_ADDRESS, pack_mac(op.mac)) + pack_mtu(op.mtu) + _ONE_QUEUE
    if peer_namespace is not None:
        peer += number(IFLA_NET_NS_FD, peer_namespace)
    body = header(index) + text(IFLA_IFNAME, op.name) + _OURS + pack_mtu(op.mtu) + _ONE_QUEUE
    if master:
        body += number(IFLA_MASTER, master)
    body += nested(IFLA_LINKINFO, _VETH, nested(INFO_DATA, nested(_VETH_INFO_PEER, peer)))
    return [Message(RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL), dress(op, index), set_up(index)]


def dress(op: Veth, index: int) -> Message:
    """Alias; where it is a bridge port, hairpin, and no link-local address.

    A port needs no address of its own, and the route to each one's fe80::/64 stands in a list that every deletion walks through: with a
    thousand ports a deletion took three times as long.
    """
    body = header(index) + _alias(op.alias)
    if op.master:
        body += _HAIRPIN
        if has_ipv6(op.mtu):
            body += _NO_LINK_LOCAL
    return Message(RTM_NEWLINK, body)


def has_ipv6(mtu: int) -> bool:
    """Whether a link of that MTU (0: 1500) has IPv6 at all; one that has none takes no settings of it."""
    return (mtu == 0 or mtu >= IPV6_MIN_MTU) and _kernel_has_ipv6()


@cache
def _kernel_has_ipv6() -> bool:
    return os.path.exists("/proc/net/if_inet6")


def enslave(index: int, master: int) -> Message:
    """Port of `master` (0: of none), and up."""
    return Message(RTM_SETLINK, header(index, IFF_UP, IFF_UP) + number(IFLA_MASTER, master))


def set_up(link: int | str, alias: str = "", mac: str = "") -> Message:
    return Message(RTM_SETLINK, _reference(link, IFF_UP, IFF_UP) + _alias(alias) + (attribute(IFLA_ADDRESS, pack_mac(mac)) if mac else b""))


def set_down(link: int | str) -> Message:
    return Message(RTM_SETLINK, _reference(link, 0, IFF_UP))


def set_group(index: int, group: int) -> Message:
    return Message(RTM_SETLINK, header(index) + number(IFLA_GROUP, group))


def rename(index: int, name: str) -> Message:
    """EBUSY for one that is up, on kernels before 6.2."""
    return Message(RTM_SETLINK, header(index) + text(IFLA_IFNAME, name))


def move(index: int, namespace: int, name: str) -> Message:
    """Into the namespace of that descriptor, where it is down, has no addresses, and is called `name`."""
    return Message(RTM_SETLINK, header(index) + number(IFLA_NET_NS_FD, namespace) + text(IFLA_IFNAME, name))


def retired(index: int) -> str:
    """What a link with that index is called when it is out of use."""
    return f"retired{index:x}"


def retire(index: int) -> list[Message]:
    """Down, so that its routes go, and under another name, so that its own is free."""
    return [
        Message(RTM_SETLINK, header(index, 0, IFF_UP)),
        Message(RTM_SETLINK, header(index) + text(IFLA_IFNAME, retired(index)) + number(IFLA_GROUP, RETIRED_GROUP)),
    ]


def delete(index: int) -> Message:
    return Message(RTM_DELLINK, header(index))


def delete_group(group: int) -> Message:
    """All links of the group at once; ENODEV where there are none."""
    return Message(RTM_DELLINK, header() + number(IFLA_GROUP, group))


def state(netlink: Socket, name: str) -> State:
    """Of a link in the socket's namespace; OSError (ENODEV) where there is none. Takes no lock, which netlink's answer waits for."""
    asked = _REQUEST.pack(name.encode(), 0)
    _, number = _REQUEST.unpack(fcntl.ioctl(netlink.fileno(), _SIOCGIFINDEX, asked))
    _, flags = _REQUEST.unpack(fcntl.ioctl(netlink.fileno(), _SIOCGIFFLAGS, asked))
    return State(number, bool(flags & IFF_UP))


def find(netlink: Socket, link: int | str) -> Link | None:
    try:
        return parse(netlink.get(Message(RTM_GETLINK, _reference(link) + number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS))))
    except Refused:
        # ENODEV, or ERANGE for a name that no link can have.
        return None


def find_ours(netlink: Socket, name: str) -> int | None:
    """The index of the link of that name if it carries a mark of ours: all that is needed of one that is to go."""
    try:
        body = netlink.get(Message(RTM_GETLINK, _reference(name) + number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)))
    except Refused:
        return None
    return parse_index(body) if parse_number(find_attribute(body, _INFO.size, IFLA_GROUP)) in _OUR_GROUPS else None


def look(netlink: Socket, index: int) -> None:
    """Ask for a link whatever the answer: it has what the kernel has put off done first."""
    with suppress(Refused):
        netlink.get(Message(RTM_GETLINK, header(index) + number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)))


def dump(netlink: Socket) -> dict[str, Link]:
    """All links of the socket's namespace, by name."""
    bodies = netlink.dump(Message(RTM_GETLINK, header() + number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)))
    return {link.name: link for link in map(parse, bodies)}


def our_indexes(netlink: Socket) -> set[int]:
    """Of the links that carry a mark of ours: in a quarter of the time that a `dump` takes."""
    found = set()
    for body in netlink.dump(Message(RTM_GETLINK, header() + number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS))):
        if parse_number(find_attribute(body, _INFO.size, IFLA_GROUP)) in _OUR_GROUPS:
            found.add(_INFO.unpack_from(body)[2])
    return found


def parse(body: bytes) -> Link:
    _, _, index, flags, _ = _INFO.unpack_from(body)
    found = parse_attributes(body, _INFO.size, _WANTED)
    info = parse_attributes(found.get(IFLA_LINKINFO, b""))
    slave_kind = parse_text(info.get(INFO_SLAVE_KIND, b""))
    hairpin = slave_kind == "bridge" and find_attribute(info.get(INFO_SLAVE_DATA, b""), 0, IFLA_BRPORT_MODE) == b"\1"
    return Link(
        index,
        parse_text(found.get(IFLA_IFNAME, b"")),
        flags,
        parse_number(found.get(IFLA_GROUP, b"")),
        parse_number(found.get(IFLA_MASTER, b"")),
        parse_text(info.get(INFO_KIND, b"")),
        parse_text(found.get(_IFLA_IFALIAS, b"")),
        hairpin,
        parse_number(found.get(_IFLA_MTU, b"")),
        slave_kind,
        found.get(IFLA_ADDRESS, b"").hex(":"),
    )


def port(body: bytes) -> dict[int, bytes]:
    """What a link message says of the link as a bridge's port: IFLA_BRPORT_…"""
    info = parse_attributes(parse_attributes(body, _INFO.size, (IFLA_LINKINFO,)).get(IFLA_LINKINFO, b""))
    return parse_attributes(info.get(INFO_SLAVE_DATA, b""))


def parse_index(body: bytes) -> int:
    """All that the monitor needs of a link message."""
    return int(_INFO.unpack_from(body)[2])


def parse_name(body: bytes) -> str:
    return parse_text(find_attribute(body, _INFO.size, IFLA_IFNAME))


def _reference(link: int | str, flags: int = 0, change: int = 0) -> bytes:
    if isinstance(link, int):
        return header(link, flags, change)
    return header(0, flags, change) + text(IFLA_IFNAME, link)


def header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _INFO.pack(0, 0, index, flags, change)


def _alias(alias: str) -> bytes:
    return text(_IFLA_IFALIAS, alias) if alias else b""


def pack_mtu(mtu: int) -> bytes:
    return number(_IFLA_MTU, mtu) if mtu else b""


def pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
