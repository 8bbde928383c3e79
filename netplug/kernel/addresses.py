"""Addresses of links as rtnetlink messages (linux/if_addr.h)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeAlias

from netplug.kernel import links
from netplug.kernel.netlink import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Message, Socket, attribute, find_attribute, parse_attributes, text
from netplug.plan import Address

_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_BROADCAST = 1, 2, 3, 4
_IFA_F_NODAD = 2

_INFO = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index


IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Subnet: TypeAlias = tuple[bytes, int]
"""The same as its first address and its prefix length: ten times faster to look up."""
IPInterface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class Assigned:
    """An address of a link; `network` is what it makes reachable (the far end's, on a point-to-point link)."""

    index: int
    address: IPInterface
    network: IPNetwork


def add(op: Address, index: int) -> Message:
    """EEXIST where the link has it already."""
    family, packed, prefix = _parts(op.address)
    body = _body(family, packed, prefix, index)
    if family == socket.AF_INET and prefix < 31:
        body += attribute(_IFA_BROADCAST, (int.from_bytes(packed) | (1 << 32 - prefix) - 1).to_bytes(4))
    return Message(_RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_EXCL)


def delete(op: Address, index: int) -> Message:
    """EADDRNOTAVAIL where the link does not have it."""
    return Message(_RTM_DELADDR, _body(*_parts(op.address), index))


def family(op: Address) -> int:
    return socket.AF_INET6 if ":" in op.address else socket.AF_INET


@cache
def question(family: int) -> Message:
    """That asks for all addresses (AF_UNSPEC: of both IP versions)."""
    return Message(_RTM_GETADDR, _INFO.pack(family, 0, 0, 0, 0), NLM_F_DUMP)


def tells(body: bytes, op: Address, index: int) -> bool:
    """Whether it is just that address, of the link with that index."""
    family, packed, prefix = _parts(op.address)
    told, length, _, _, link = _INFO.unpack_from(body)
    if (told, length, link) != (family, prefix, index):
        return False
    found = parse_attributes(body, _INFO.size, (_IFA_ADDRESS, _IFA_LOCAL))
    return found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS)) == packed


def dump(netlink: Socket, without: Container[int] = ()) -> list[Assigned]:
    """All addresses of the socket's namespace, but for those of the links with these indexes."""
    return [_parse(body) for body in _bodies(netlink) if _INFO.unpack_from(body)[4] not in without]


def subnets(netlink: Socket) -> list[tuple[Subnet, int]]:
    """Of each address of the socket's namespace what it is in, and its link's index; of links that are out of use, none."""
    found = []
    for body in _bodies(netlink):
        _, prefix, _, _, index = _INFO.unpack_from(body)
        # The kernel gives IPv4 addresses their link's name as a label. IPv6's go when it is set down.
        if b"retired" not in body or text(_IFA_LABEL, links.retired(index)) not in body:
            found.append((_subnet_of(find_attribute(body, _INFO.size, _IFA_ADDRESS), prefix), index))
    return found


@lru_cache(maxsize=4096)
def parse_subnet(text: str) -> Subnet:
    """ValueError for what is no subnet."""
    network = ipaddress.ip_network(text)
    return network.network_address.packed, network.prefixlen


def pack(address: str) -> tuple[int, bytes]:
    """Family and bytes; ValueError for what is no address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return family, socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"{address!r} is not an IP address") from None


def unpack(packed: bytes) -> str:
    """`""` for no bytes."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed) if packed else ""


def _bodies(netlink: Socket) -> Iterator[bytes]:
    for family in (socket.AF_INET, socket.AF_INET6):
        yield from netlink.dump(Message(_RTM_GETADDR, _INFO.pack(family, 0, 0, 0, 0)))


def _parts(address: str) -> tuple[int, bytes, int]:
    host, _, prefix = address.partition("/")
    return *pack(host), int(prefix)


def _body(family: int, packed: bytes, prefix: int, index: int) -> bytes:
    # Duplicate-address detection would keep an IPv6 address unusable for a second or more; IPAM knows that it is unique.
    flags = _IFA_F_NODAD if family == socket.AF_INET6 else 0
    return _INFO.pack(family, prefix, flags, 0, index) + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)


def _parse(body: bytes) -> Assigned:
    _, prefix, _, _, index = _INFO.unpack_from(body)
    found = parse_attributes(body, _INFO.size)
    far = found[_IFA_ADDRESS]
    # IPv6 tells the own address apart only where there is a far end too.
    own = found.get(_IFA_LOCAL, far)
    return Assigned(index, _interface(own, prefix), network_of(far, prefix))


@lru_cache(maxsize=4096)
def network_of(packed: bytes, prefix: int) -> IPNetwork:
    """That an address of so many bytes is in. Kept: to make one takes as long as the kernel's answer, and the same ones come again."""
    kind = ipaddress.IPv4Network if len(packed) == 4 else ipaddress.IPv6Network
    return kind((packed, prefix), strict=False)


@lru_cache(maxsize=4096)
def _subnet_of(packed: bytes, prefix: int) -> Subnet:
    return network_of(packed, prefix).network_address.packed, prefix


@lru_cache(maxsize=4096)
def _interface(packed: bytes, prefix: int) -> IPInterface:
    return ipaddress.IPv4Interface((packed, prefix)) if len(packed) == 4 else ipaddress.IPv6Interface((packed, prefix))
