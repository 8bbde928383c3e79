"""Forgetting tracked flows (linux/netfilter/nfnetlink_conntrack.h).

Since Linux 6.8 the kernel deletes by a filter, in 0.25 ms. What no filter says is looked for in a dump, which takes 5 ms however little
there is: rows of ports, and IPv6 addresses, which the kernel compares the wrong way round (ctnetlink_filter_match_tuple, seen in 6.18).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from netplug.kernel import descriptors
from netplug.kernel.addresses import IPNetwork
from netplug.kernel.netlink import NETLINK_NETFILTER, Message, Socket, attribute, nested, number, parse_attributes
from netplug.kernel.syscalls import asked

_GET, _DELETE = 0x101, 0x102  # subsystem NFNL_SUBSYS_CTNETLINK (1) << 8, IPCTNL_MSG_CT_GET and _DELETE
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_ID, _CTA_FILTER, _CTA_STATUS_MASK = 1, 2, 3, 12, 25, 26
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_IP_SRC: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC; the next is _DST
_PROTO_NUM, _PROTO_DST_PORT = 1, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_COMPARE_IP_SRC, _COMPARE_PROTO_NUM, _COMPARE_DST_PORT = 1 << 0, 1 << 3, 1 << 5
_SRC_NAT, _DST_NAT = 1 << 4, 1 << 5  # IPS_SRC_NAT, IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
_INFO = struct.Struct("=BBH")  # family, version, resource

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
FEW = 16
"""Ports in a row that are asked for one by one."""

_ABSENT = frozenset({errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT})
"""No connection tracking in this kernel: nothing is tracked."""


@dataclass(frozen=True, order=True)
class Flows:
    """Those whose first packet went to one of `count` ports from `port` on.

    With `address` those that NAT led there; else those whose source NAT has left alone, so that others' way out to such ports stays.
    """

    protocol: str
    port: int
    count: int = 1
    address: str = ""

    def concerns(self, family: int) -> bool:
        return not self.address or (":" in self.address) == (family == socket.AF_INET6)

    def match(self, family: int, body: bytes) -> bool:
        found = parse_attributes(body, _INFO.size)
        proto = parse_attributes(parse_attributes(found[_CTA_TUPLE_ORIG])[_CTA_TUPLE_PROTO])
        (port,) = struct.unpack("!H", proto.get(_PROTO_DST_PORT, b"\0\0"))
        if proto.get(_PROTO_NUM) != bytes([PROTOCOLS[self.protocol]]) or not 0 <= port - self.port < self.count:
            return False
        (status,) = struct.unpack("!I", found[_CTA_STATUS])
        if not self.address:
            return not status & _SRC_NAT
        reply = parse_attributes(parse_attributes(found[_CTA_TUPLE_REPLY])[_CTA_TUPLE_IP])
        return bool(status & _DST_NAT) and reply.get(_IP_SRC[family]) == _packed(self.address)


class Tracking:
    """What is tracked in the namespace of the thread that asks first.

    Its socket stays open: closing one waits until what nftables has deleted before is freed, 11 to 38 ms, and in that time no nftables
    transaction of the namespace begins (`nft_rcv_nl_event` in net/netfilter/nf_tables_api.c).
    """

    def __init__(self) -> None:
        self._netlink: Socket | None = None

    def flush(self, wanted: Sequence[Flows], between: Sequence[tuple[str, str]] = ()) -> None:
        """Forget them, and those between two subnets, whoever began."""
        with asked("flush tracked flows"):
            try:
                if self._netlink is None:
                    self._netlink = Socket(NETLINK_NETFILTER)
                for family in (socket.AF_INET, socket.AF_INET6):
                    _flush(self._netlink, family, [flows for flows in wanted if flows.concerns(family)])
                    _flush_between(self._netlink, family, [pair for pair in between if (":" in pair[0]) == (family == socket.AF_INET6)])
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise

    def close(self) -> None:
        if self._netlink is not None:
            descriptors.close_later(self._netlink.close)
            self._netlink = None


def flush(wanted: Sequence[Flows], between: Sequence[tuple[str, str]] = ()) -> None:
    """Forget them, in the calling thread's namespace."""
    tracking = Tracking()
    try:
        tracking.flush(wanted, between)
    finally:
        tracking.close()


def _flush(netlink: Socket, family: int, wanted: Sequence[Flows]) -> None:
    by_filter = [flows for flows in wanted if flows.count <= FEW and not (flows.address and family == socket.AF_INET6)]
    others = [flows for flows in wanted if flows not in by_filter]
    filters = [_filter(family, flows, port) for flows in by_filter for port in range(flows.port, flows.port + flows.count)]
    refusals = [refused for refused in netlink.send([Message(_DELETE, body) for body in filters]) if refused is not None]
    if any(refused.errno == errno.EINVAL for refused in refusals):
        # Older kernels take the tuple for a whole one and refuse it, since it has no addresses.
        others = list(wanted)
    elif refusals:
        raise refusals[0]
    delete_one_by_one(netlink, family, others)


def _flush_between(netlink: Socket, family: int, pairs: Sequence[tuple[str, str]]) -> None:
    if not pairs:
        return
    subnets = [(ipaddress.ip_network(one), ipaddress.ip_network(other)) for one, other in pairs]
    found = [body for body in netlink.dump(Message(_GET, _INFO.pack(family, 0, 0))) if _lies_between(family, body, subnets)]
    for refused in netlink.send([Message(_DELETE, _flow(family, body)) for body in found]):
        if refused is not None and refused.errno != errno.ENOENT:
            raise refused


def _lies_between(family: int, body: bytes, subnets: Sequence[tuple[IPNetwork, IPNetwork]]) -> bool:
    """As its first packet was sent, before any NAT."""
    found = parse_attributes(parse_attributes(parse_attributes(body, _INFO.size)[_CTA_TUPLE_ORIG])[_CTA_TUPLE_IP])
    source, target = (ipaddress.ip_address(found[kind]) for kind in (_IP_SRC[family], _IP_SRC[family] + 1))
    return any((source in one and target in other) or (source in other and target in one) for one, other in subnets)


def delete_one_by_one(netlink: Socket, family: int, wanted: Iterable[Flows]) -> None:
    """Look for the flows, then delete each; one that ends by itself meanwhile is fine."""
    for _, group in groupby(sorted(wanted), key=lambda flows: (flows.protocol, bool(flows.address))):
        alike = list(group)
        # One dump for all. Linux 5.8 knows the filter, and 5.17 the status in it: what it lets pass is looked at again.
        dumped = netlink.dump(Message(_GET, _filter(family, replace(alike[0], address=""), led=bool(alike[0].address))))
        found = [body for body in dumped if any(flows.match(family, body) for flows in alike)]
        for refused in netlink.send([Message(_DELETE, _flow(family, body)) for body in found]):
            if refused is not None and refused.errno != errno.ENOENT:
                raise refused


def _filter(family: int, flows: Flows, port: int | None = None, *, led: bool = False) -> bytes:
    """A message's body that matches flows to one port, or to any; with `led` those only that NAT led somewhere."""
    proto, compared = [attribute(_PROTO_NUM, bytes([PROTOCOLS[flows.protocol]]))], _COMPARE_PROTO_NUM
    if port is not None:
        proto.append(attribute(_PROTO_DST_PORT, struct.pack("!H", port)))
        compared |= _COMPARE_DST_PORT
    body = nested(_CTA_TUPLE_ORIG, nested(_CTA_TUPLE_PROTO, *proto))
    if flows.address:
        body += nested(_CTA_TUPLE_REPLY, nested(_CTA_TUPLE_IP, attribute(_IP_SRC[family], _packed(flows.address))))
    elif led:
        body += _status(_DST_NAT, _DST_NAT)
    else:
        body += _status(0, _SRC_NAT)
    flags = number(_FILTER_ORIG_FLAGS, compared), number(_FILTER_REPLY_FLAGS, _COMPARE_IP_SRC if flows.address else 0)
    # Version 1 makes the kernel look at the family (its flush ignores it with version 0).
    return _INFO.pack(family, 1, 0) + body + nested(_CTA_FILTER, *flags)


def _status(value: int, mask: int) -> bytes:
    return attribute(_CTA_STATUS, struct.pack("!I", value)) + attribute(_CTA_STATUS_MASK, struct.pack("!I", mask))


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _flow(family: int, body: bytes) -> bytes:
    """The reference to one flow; its id makes sure that it is not a new one with the same addresses."""
    found = parse_attributes(body, _INFO.size)
    return _INFO.pack(family, 0, 0) + nested(_CTA_TUPLE_ORIG, found[_CTA_TUPLE_ORIG]) + attribute(_CTA_ID, found[_CTA_ID])
