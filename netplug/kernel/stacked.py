"""Links on top of others, as rtnetlink messages: macvlan, ipvlan, VLAN, and the dummy that carries them where there is no other.

linux/if_link.h; drivers/net/{macvlan,ipvlan,dummy,ifb}.c and net/8021q in the kernel. The kernel refuses these with little more than an
errno: `reason` says what it means, and what to do.
"""

from __future__ import annotations

import errno
import sys

from netplug.kernel import links
from netplug.kernel.links import RTM_NEWLINK, Link
from netplug.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, Refused, Socket, attribute, nested, number, text
from netplug.plan import LINK_GROUP, Dummy, Ipvlan, Macvlan, StackedOp, Vlan

_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_IFLA_MACVLAN_MODE, _IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS, _IFLA_VLAN_ID = 1, 1, 2, 1

_ABSENT = {
    "macvlan": "this kernel has no macvlan (CONFIG_MACVLAN; try: modprobe macvlan)",
    "ipvlan": "this kernel has no ipvlan (CONFIG_IPVLAN; try: modprobe ipvlan): a macvlan network does nearly the same",
    "vlan": "this kernel has no VLANs (CONFIG_VLAN_8021Q; try: modprobe 8021q)",
    "dummy": "this kernel has neither dummy nor ifb links (CONFIG_DUMMY, CONFIG_IFB): give -o parent=<a link of this host>",
}
_MASTERS = ("bridge", "bond", "team", "openvswitch")
"""Kinds that take all packets of their ports."""
_SHOWN = 8


def new(op: Macvlan | Ipvlan, index: int, parent: int, namespace: int) -> Message:
    """Born in the namespace of that descriptor, although its parent is here."""
    body = links.header(index) + text(links.IFLA_IFNAME, op.name) + number(links.IFLA_LINK, parent) + links.pack_mtu(op.mtu)
    body += number(links.IFLA_GROUP, LINK_GROUP) + number(links.IFLA_NET_NS_FD, namespace)
    if isinstance(op, Ipvlan):
        mode = _short(_IFLA_IPVLAN_MODE, _IPVLAN_MODES[op.mode]) + _short(_IFLA_IPVLAN_FLAGS, _IPVLAN_FLAGS[op.flag])
        return _create(body, "ipvlan", mode)
    mode = number(_IFLA_MACVLAN_MODE, _MACVLAN_MODES[op.mode])
    return _create(body + attribute(links.IFLA_ADDRESS, links.pack_mac(op.mac)), "macvlan", mode)


def new_vlan(op: Vlan, index: int, parent: int) -> list[Message]:
    """And up, with the alias that the kernel ignores at creation."""
    body = links.header(index) + text(links.IFLA_IFNAME, op.name) + number(links.IFLA_LINK, parent)
    body += number(links.IFLA_GROUP, LINK_GROUP)
    return [_create(body, "vlan", _short(_IFLA_VLAN_ID, op.tag)), links.set_up(index, op.alias)]


def new_dummy(op: Dummy, index: int, netlink: Socket) -> list[Message]:
    kind = "dummy" if known(netlink, "dummy") else "ifb"
    body = links.header(index) + text(links.IFLA_IFNAME, op.name) + links.pack_mtu(op.mtu) + number(links.IFLA_GROUP, LINK_GROUP)
    return [_create(body, kind), links.set_up(index, op.alias)]


def known(netlink: Socket, kind: str) -> bool:
    """Whether the kernel has links of that kind, by a request that it refuses either way: no link can have this address."""
    try:
        netlink.request(_create(links.header() + attribute(links.IFLA_ADDRESS, bytes(6)), kind))
    except Refused as refused:
        return refused.errno != errno.EOPNOTSUPP
    return True


def check_parent(netlink: Socket, parent: Link | None, kind: str, mtu: int) -> None:
    """Refused, with the reason, where links of that kind and MTU (0: the parent's) cannot be put on the parent."""
    if parent is None:
        raise Refused(errno.ENODEV, _missing(netlink))
    if parent.loopback:
        raise Refused(errno.EINVAL, f"loopback interface is not a valid {kind} parent link")
    if parent.slave_kind in _MASTERS:
        raise Refused(errno.EBUSY, _enslaved(parent))
    if not known(netlink, kind):
        raise Refused(errno.EOPNOTSUPP, _ABSENT[kind])
    if mtu > parent.mtu:
        raise Refused(errno.EINVAL, _too_large(mtu, parent))


def reason(netlink: Socket, op: Macvlan | Ipvlan | Vlan | Dummy, error: OSError) -> OSError:
    """What a refusal of making `op` means."""
    kind = type(op).__name__.lower()
    if error.errno == errno.EOPNOTSUPP:
        return Refused(error.errno, _ABSENT[kind])
    if isinstance(op, Dummy):
        return error
    parent = links.find(netlink, op.parent)
    if parent is None:
        return Refused(errno.ENODEV, _missing(netlink)) if error.errno == errno.ENODEV else error
    if error.errno == errno.EBUSY and parent.slave_kind in _MASTERS:
        return Refused(error.errno, _enslaved(parent))
    if error.errno == errno.EBUSY:
        other = "ipvlan" if isinstance(op, Macvlan) else "macvlan"
        return Refused(error.errno, f"something else takes all packets of {op.parent} already, {other} links perhaps")
    if error.errno == errno.EINVAL and isinstance(op, StackedOp) and op.mtu > parent.mtu:
        return Refused(error.errno, _too_large(op.mtu, parent))
    if error.errno == errno.EINVAL and isinstance(op, Macvlan):
        return Refused(error.errno, _not_alone(op))
    return error


def _too_large(mtu: int, parent: Link) -> str:
    remedy = f"make its network with -o com.docker.network.driver.mtu={parent.mtu}, or first: ip link set {parent.name} mtu {mtu}"
    return f"its MTU of {mtu} is more than the {parent.mtu} of {parent.name}: {remedy}"


def _enslaved(parent: Link) -> str:
    kind = parent.slave_kind
    return f"{parent.name} is a port of a {kind}, which takes all its packets: give that {kind} instead"


def _not_alone(op: Macvlan) -> str:
    if op.mode == "passthru":
        return f"mode passthru gives all of {op.parent} to one container, and another link is on it already"
    return f"{op.parent} is given to one container whole (mode passthru), or it is no Ethernet link"


def _missing(netlink: Socket) -> str:
    there = [link.name for link in links.dump(netlink).values() if not (link.ours or link.loopback or link.master)]
    more = ", …" if len(there) > _SHOWN else ""
    return f"there is no such interface on this host (there are: {', '.join(there[:_SHOWN]) or 'none'}{more})"


def _create(body: bytes, kind: str, data: bytes = b"") -> Message:
    described = attribute(links.INFO_KIND, kind.encode()) + (nested(links.INFO_DATA, data) if data else b"")
    return Message(RTM_NEWLINK, body + nested(links.IFLA_LINKINFO, described), NLM_F_CREATE | NLM_F_EXCL)


def _short(kind: int, value: int) -> bytes:
    """A 16-bit attribute in the host's byte order."""
    return attribute(kind, value.to_bytes(2, sys.byteorder))
