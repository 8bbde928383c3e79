"""Legacy iptables tables, which raise no events: whether there are any, and a signature that is another after a change.

Read by getsockopt(2) (linux/netfilter_ipv4/ip_tables.h) in some microseconds. Asking for a table that is not there would make it, so the
list of tables is asked first.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from netplug.kernel.syscalls import asked, socket_option

_GET_INFO, _GET_ENTRIES = 64, 65
_INFO = struct.Struct("=32sI5I5III")  # name, valid hooks, where hooks begin, where their policies are, number of entries, their size
_ENTRIES = struct.Struct("=32sI4x")  # name, size; then the entries
_FORWARD = 2
_TARGET_HEADER = 32
_DROP = -1
"""-NF_DROP - 1, the verdict in a standard target (struct xt_standard_target)."""


class _Family(NamedTuple):
    address_family: int
    level: int
    target_offset: int
    """Where an entry (struct ipt_entry, ip6t_entry) says where its target is."""


FAMILIES = {
    "ip": _Family(socket.AF_INET, socket.IPPROTO_IP, 88),
    "ip6": _Family(socket.AF_INET6, socket.IPPROTO_IPV6, 140),
}


class Table(NamedTuple):
    """What shows whether a table has been changed. Counters are no part of it."""

    name: str
    """`ip filter`"""
    rules: int
    size: int
    forward_drops: bool
    """The policy of FORWARD is DROP."""


Signature: TypeAlias = tuple[Table, ...]


def signature() -> Signature:
    """All legacy tables of the calling thread's namespace; KernelError."""
    return tuple(table for family in FAMILIES for table in _tables(family))


def _tables(family: str) -> Iterator[Table]:
    names = _names(family)
    if not names:
        return
    kind = FAMILIES[family]
    with (
        asked("read legacy iptables"),
        socket.socket(kind.address_family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as probe,
    ):
        for name in names:
            content = ctypes.create_string_buffer(_INFO.pack(name.encode(), *(0,) * 13), _INFO.size)
            socket_option(probe, kind.level, _GET_INFO, content)
            found = _INFO.unpack(content.raw)
            rules, size, policy = found[12], found[13], found[7 + _FORWARD]
            yield Table(f"{family} {name}", rules, size, name == "filter" and _verdict(probe, kind, name, size, policy) == _DROP)


def _verdict(probe: socket.socket, kind: _Family, name: str, size: int, offset: int) -> int:
    """Of the entry at that offset, which is a policy's."""
    content = ctypes.create_string_buffer(_ENTRIES.pack(name.encode(), size), _ENTRIES.size + size)
    socket_option(probe, kind.level, _GET_ENTRIES, content)
    entry = _ENTRIES.size + offset
    (target,) = struct.unpack_from("=H", content, entry + kind.target_offset)
    return int(struct.unpack_from("=i", content, entry + target + _TARGET_HEADER)[0])


def _names(family: str) -> list[str]:
    try:
        return Path(f"/proc/thread-self/net/{family}_tables_names").read_text().split()
    except OSError:
        return []
