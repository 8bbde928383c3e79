"""Which ports of the host are taken: sockets that are bound, listening or not, as sock_diag(7) tells them; and the processes behind them.

Ports that netplug holds are bound and never listen, so /proc/net/tcp does not show them; Linux 6.8 and newer do here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from netplug.kernel.conntrack import PROTOCOLS
from netplug.kernel.namespaces import entered
from netplug.kernel.netlink import Message, Refused, Socket, parse_attributes
from netplug.kernel.syscalls import asked

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_LISTEN, _CLOSE, _BOUND_INACTIVE = 1 << 10, 1 << 7, 1 << 13
_STATES = {"tcp": _LISTEN | _BOUND_INACTIVE, "udp": _CLOSE, "sctp": _LISTEN}
_INET_DIAG_SKV6ONLY = 11
_REQUEST = struct.Struct("=BBBxI48x")  # family, protocol, extensions, states, which socket
_ANSWER = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # family, state, timer, retransmits, ports, addresses, link, cookie, …, inode
_UNKNOWN = frozenset({errno.ENOENT, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL})

_ANY = {"": {4, 6}, "0.0.0.0": {4}, "::": {6}}


class Bound(NamedTuple):
    """A port that somebody has; `address` `::` without `only6` takes it for IPv4 too."""

    protocol: str
    address: str
    port: int
    inode: int
    only6: bool = True

    def excludes(self, address: str) -> bool:
        """Whether nobody else can have the port on `address` (`""`: everywhere) because of this."""
        if self.address == "::" and not self.only6:
            return True
        return meet(self.address.removeprefix("::ffff:") if "." in self.address else self.address, address)


class Process(NamedTuple):
    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name}, pid {self.pid}"


def meet(one: str, other: str) -> bool:
    """Whether two host addresses have an address in common: `0.0.0.0` is all of IPv4, `::` of IPv6, `""` of both."""
    if one in _ANY or other in _ANY:
        return bool(_versions(one) & _versions(other))
    return one == other


def bound(protocol: str) -> list[Bound]:
    """Every socket of that protocol that is bound in the calling thread's namespace and waits for clients."""
    return _asked(protocol, (socket.AF_INET, socket.AF_INET6), _STATES[protocol])


def _asked(protocol: str, families: Iterable[int], states: int) -> list[Bound]:
    if protocol == "sctp" and not os.path.exists("/proc/net/sctp"):
        return []  # asking would load the module
    found: list[Bound] = []
    with asked(f"read which {protocol} ports are taken"), Socket(_NETLINK_SOCK_DIAG) as netlink:
        for family in families:
            request = _REQUEST.pack(family, PROTOCOLS[protocol], 0, states)
            try:
                found += [_parse(protocol, body) for body in netlink.dump(Message(_SOCK_DIAG_BY_FAMILY, request))]
            except Refused as refused:
                if refused.errno not in _UNKNOWN:
                    raise
    return found


def local(address: str) -> bool:
    """Whether ports can be held on that address: of the calling thread's namespace, or of nobody where it may be bound nevertheless."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def ports_at(namespace: str, protocol: str, address: str) -> list[int]:
    """Which ports of that very address are waited at in the namespace at that path.

    Those that are bound and do not listen are none: to find them the kernel goes through the machine's whole table, 2 ms each time.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with entered(namespace):
        return [one.port for one in _asked(protocol, (family,), _STATES[protocol] & ~_BOUND_INACTIVE) if one.address == address]


def owner(protocol: str, address: str, port: int, without: Container[int] = ()) -> str:
    """`nginx, pid 4711`: who keeps others from that port of that address; `""` where nobody visible does.

    `without`: inodes of sockets that do not count.
    """
    found = [one.inode for one in bound(protocol) if one.port == port and one.excludes(address) and one.inode not in without]
    return next((str(process) for process in owners(found).values()), "")


def owners(inodes: Iterable[int]) -> dict[int, Process]:
    """The process behind each socket, as far as /proc shows it."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, Process] = {}
    for folder in Path("/proc").iterdir() if wanted else ():
        if folder.name.isdecimal():
            for target in _descriptors(folder):
                if target in wanted:
                    with suppress(OSError):
                        found.setdefault(wanted[target], Process(int(folder.name), (folder / "comm").read_text().strip()))
    return found


def _versions(address: str) -> set[int]:
    return _ANY.get(address) or {6 if ":" in address else 4}


def _descriptors(folder: Path) -> Iterator[str]:
    try:
        for descriptor in (folder / "fd").iterdir():
            with suppress(OSError):
                yield os.readlink(descriptor)
    except OSError:
        return  # it has ended


def _parse(protocol: str, body: bytes) -> Bound:
    family, _, _, _, port, _, source, *_, inode = _ANSWER.unpack_from(body)
    address = socket.inet_ntop(family, source[:4] if family == socket.AF_INET else source)
    only6 = parse_attributes(body, _ANSWER.size).get(_INET_DIAG_SKV6ONLY, b"\0") != b"\0"
    return Bound(protocol, address, int.from_bytes(port), inode, family == socket.AF_INET or only6)
