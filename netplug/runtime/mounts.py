"""Mount the root file systems of containers below the run directory, and take them away again.

An image becomes the lower layer of an overlay whose upper layer lies with the container's record. The `host` image is `/` itself, bound
read-only. These mounts live in a folder of their own, where nothing is ever deleted but empty folders.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from netplug import faults
from netplug.errors import NetplugError
from netplug.runtime import syscalls


def overlay(target: Path, lower: Path, upper: Path, work: Path) -> None:
    for folder in (target, upper, work):
        folder.mkdir(parents=True, exist_ok=True)
    data = f"lowerdir={_escape(lower)},upperdir={_escape(upper)},workdir={_escape(work)}"
    faults.point("mount.before")
    syscalls.mount("overlay", str(target), "overlay", 0, data)
    faults.point("mount.after")


def host(target: Path) -> None:
    """`/` on `target`, read-only; it is proven read-only before anybody may use it."""
    target.mkdir(parents=True, exist_ok=True)
    faults.point("mount.before")
    syscalls.bind_read_only("/", str(target))
    faults.point("mount.after")
    if not os.statvfs(target).f_flag & os.ST_RDONLY:
        unmount(target)
        raise NetplugError(f"the host's file system on {target} is not read-only")


def unmount(target: Path) -> None:
    """Take away all that is mounted on `target`, and the empty folder; fine if there is nothing. Never deletes a file."""
    while syscalls.is_mount_point(str(target)):
        faults.point("mount.before")
        syscalls.unmount(str(target))
        faults.point("mount.after")
    with contextlib.suppress(FileNotFoundError):
        target.rmdir()


def at_or_below(path: Path) -> list[str]:
    """The mount points at `path` or under it, as the kernel has them now."""
    wanted = os.fsencode(os.path.realpath(path))
    with open("/proc/self/mountinfo", "rb") as file:
        text = file.read()
    if _octal(wanted) not in text:
        return []
    points = [_unescape(line.split(b" ", 5)[4]) for line in text.splitlines()]
    return [os.fsdecode(point) for point in points if point == wanted or point.startswith(wanted + b"/")]


def _octal(path: bytes) -> bytes:
    return re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % found[0][0], path)


def _unescape(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)


def _escape(path: Path) -> str:
    """A path in overlay's options, where commas part options and colons part layers."""
    return re.sub(r"([\\,:])", r"\\\1", str(path))
