"""Where a directory lives: file system, free space, and whether others see what is mounted there (proc_pid_mountinfo(5), statvfs(3))."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """`exists` is the nearest directory above that is there; the other fields are its."""

    exists: Path
    kind: str
    """File system: `ext4`, `tmpfs`, `nfs4`."""
    free: int
    """Bytes that are left."""
    read_only: bool
    shared: bool
    """Mounts made there reach other mount namespaces."""


def place(path: Path) -> Place:
    exists = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    space = os.statvfs(exists)
    kind, shared = _mount(os.path.realpath(exists))
    return Place(exists, kind, space.f_bavail * space.f_frsize, bool(space.f_flag & os.ST_RDONLY), shared)


def private_mounts() -> bool:
    """Whether this process has a mount namespace of its own, beside the machine's first process, or its parent where that is hidden."""
    for other in (1, os.getppid()):
        with suppress(OSError):
            return os.stat("/proc/self/ns/mnt").st_ino != os.stat(f"/proc/{other}/ns/mnt").st_ino
    return False


def _mount(path: str) -> tuple[str, bool]:
    """File system and propagation of the mount that `path` is in: the deepest one, and of those the newest."""
    best, kind, shared = -1, "", False
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), words[4])
        inside = path == point or path.startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= best:
            best, kind, shared = len(point), rest.split(" ")[0], any(word.startswith("shared:") for word in words[6:])
    return kind, shared
