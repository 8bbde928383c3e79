"""Network sysctls by dotted key, of the namespace that the calling thread is in.

A dot inside an interface name is written `/`: `net.ipv4.conf.eth0/100.forwarding` (sysctl(8)).
"""

from __future__ import annotations

import errno
from pathlib import Path

from netplug.kernel.syscalls import asked

_ROOT = Path("/proc/sys")
_SWAP = str.maketrans("./", "/.")


def read(key: str) -> str:
    """The value, its words separated by one space."""
    with asked(f"read sysctl {key}"):
        return " ".join(_path(key).read_text().split())


def write(key: str, value: str) -> None:
    with asked(f"set sysctl {key}={value}"):
        _path(key).write_text(value)


def _path(key: str) -> Path:
    parts = key.translate(_SWAP).split("/")
    if parts[0] != "net" or not {"", ".", ".."}.isdisjoint(parts):
        raise OSError(errno.EINVAL, "not the key of a network sysctl")
    return _ROOT.joinpath(*parts)
