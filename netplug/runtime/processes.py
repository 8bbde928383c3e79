"""Find the processes of a container again, when all we have is files that an earlier daemon (or we) had written.

A pid alone proves nothing, for it may have been given to another process since: a conmon is known by the container's id on its command
line, the container's process by being conmon's child.
"""

from __future__ import annotations

import os
from pathlib import Path

from netplug.runtime import inotify
from netplug.runtime.conmon import Created
from netplug.runtime.waiting import open_pid, parent, readable, start_time


def child_of(pid: int, conmon: int) -> int | None:
    """A pidfd of the container's process; None if it has ended."""
    descriptor = open_pid(pid)
    if descriptor is not None and parent(pid) != conmon:
        os.close(descriptor)
        return None
    return descriptor


def conmon_of(bundle: Path, container: str) -> int | None:
    """A pidfd of the conmon whose pid is in the bundle; None if there is none."""
    pid = _number(bundle / "conmon.pid")
    descriptor = open_pid(pid)
    if descriptor is not None and not _is_conmon(pid, container):
        os.close(descriptor)
        return None
    return descriptor


def find_conmon(container: str) -> int:
    """The pid of the container's conmon, by looking at every process; 0 if there is none."""
    pids = sorted(int(entry) for entry in os.listdir("/proc") if entry.isdecimal())
    # The youngest: for a moment at its start there are two, and the older one is about to end.
    return next((pid for pid in reversed(pids) if _is_conmon(pid, container)), 0)


async def settled(bundle: Path, container: str) -> Created | None:
    """Wait until a `create` that an earlier daemon had begun is over; what it made, or None if nothing runs.

    Without the wait a container could come up after we had looked, and nobody would ever know of it.
    """
    while pid := find_conmon(container):
        descriptor, changes = open_pid(pid), inotify.watch(bundle, inotify.IN_CREATE | inotify.IN_MOVED_TO)
        try:
            if descriptor is None:
                continue
            process = _number(bundle / "pid")
            if process and _number(bundle / "conmon.pid") == pid:
                return Created(process, pid, start_time(pid))
            await readable(descriptor, changes)
        finally:
            os.close(changes)
            if descriptor is not None:
                os.close(descriptor)
    return None


def _is_conmon(pid: int, container: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A further process in the container has a conmon of its own; that one is not meant.
    return b"--conmon-pidfile" in words and b"--exec" not in words and container.encode() in words


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        return 0
