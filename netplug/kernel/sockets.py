"""Who has a port: the process behind a bound socket of the host, read from /proc only when an error has to name it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def owner(protocol: str, port: int) -> str:
    """`nginx, pid 4711`, or `""` where nobody visible has the port."""
    inodes = set(_inodes(protocol, port))
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and inodes & set(_sockets(process)):
            name = (process / "comm").read_text().strip()
            return f"{name}, pid {process.name}"
    return ""


def _inodes(protocol: str, port: int) -> Iterator[str]:
    """Inodes of sockets bound to `port`, of /proc/self/net/{tcp,udp}[6] (proc_pid_net(5): field 1 is the local address, 9 the inode)."""
    for table in (f"/proc/self/net/{protocol}", f"/proc/self/net/{protocol}6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rsplit(":", 1)[1], 16) == port:
                yield fields[9]


def _sockets(process: Path) -> Iterator[str]:
    try:
        for descriptor in (process / "fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:
        return
