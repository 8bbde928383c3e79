"""Network sysctls by dotted key, of the namespace that the calling thread is in.

A dot inside an interface name is written `/`: `net.ipv4.conf.eth0/100.forwarding` (sysctl(8)). Files are read and written without buffers
and text layers, which take longer than the kernel does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from netplug.kernel.syscalls import asked

_ROOT = "/proc/sys/"
_LONGEST = 4096
_SWAP = str.maketrans("./", "/.")


def read(key: str) -> str:
    """The value, its words separated by one space."""
    with asked(f"read sysctl {key}"), _opened(key, os.O_RDONLY) as descriptor:
        return " ".join(os.read(descriptor, _LONGEST).decode().split())


def write(key: str, value: str) -> None:
    with asked(f"set sysctl {key}={value}"), _opened(key, os.O_WRONLY | os.O_TRUNC) as descriptor:
        os.write(descriptor, value.encode())


@contextmanager
def _opened(key: str, how: int) -> Iterator[int]:
    path = key.translate(_SWAP)
    parts = path.split("/")
    if parts[0] != "net" or not {"", ".", ".."}.isdisjoint(parts):
        raise OSError(errno.EINVAL, "not the key of a network sysctl")
    descriptor = os.open(_ROOT + path, how | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
