"""Who has a port: the process behind a bound socket of the host, read from /proc only when an error has to name it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path


def owner(protocol: str, address: str, port: int) -> str:
    """`nginx, pid 4711`, or `""` where nobody visible has the port on that address, or on one that excludes it."""
    inodes = set(_inodes(protocol, address, port))
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and inodes & set(_sockets(process)):
            return f"{_name(process)}, pid {process.name}"
    return ""


def _inodes(protocol: str, address: str, port: int) -> Iterator[str]:
    """Inodes of bound sockets, of /proc/self/net/{tcp,udp}[6] (proc_pid_net(5): field 1 is the local address, 9 the inode)."""
    for table in (f"/proc/self/net/{protocol}", f"/proc/self/net/{protocol}6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            host, _, number = fields[1].rpartition(":")
            if int(number, 16) == port and _excludes(_address(host), address):
                yield fields[9]


def _address(text: str) -> str:
    """`0100007F` as `127.0.0.1`: 32-bit words in the machine's order."""
    words = [int(text[index : index + 8], 16) for index in range(0, len(text), 8)]
    return socket.inet_ntop(socket.AF_INET6 if len(words) == 4 else socket.AF_INET, struct.pack(f"={len(words)}I", *words))


def _excludes(bound: str, wanted: str) -> bool:
    """Also `::` and an IPv4 address: most sockets on `::` take IPv4 too, and the table does not tell which do not."""
    bound = bound.removeprefix("::ffff:") if "." in bound else bound
    if bound in (wanted, "::"):
        return True
    if ":" in bound:
        return wanted == "::"
    return ":" not in wanted and "0.0.0.0" in (bound, wanted)


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process that has just ended"


def _sockets(process: Path) -> Iterator[str]:
    try:
        for descriptor in (process / "fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return
