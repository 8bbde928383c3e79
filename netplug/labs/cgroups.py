"""Control groups that engines in a lab have made for their containers: the one thing of a container that outlives its processes.

They are found by the processes that are in them, while these live.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_PATIENCE = 5.0


def used_below(holders: Iterable[int]) -> set[Path]:
    """Directories of the control groups of all descendants of these processes, without the processes' own."""
    holders = set(holders)
    parents = dict(_parents())
    own = {group for holder in holders for group in _of(holder)}
    found = {group for pid in parents if _descends(pid, holders, parents) for group in _of(pid)}
    return found - own


def remove(groups: Iterable[Path]) -> None:
    """Remove what no process is in any more; one that somebody else's process is in stays."""
    deadline = time.monotonic() + _PATIENCE
    for group in sorted(groups, key=lambda path: len(path.parts), reverse=True):
        while time.monotonic() < deadline:
            try:
                group.rmdir()
            except FileNotFoundError:
                pass
            except OSError:  # busy until the kernel has buried the last of its processes
                if (group / "cgroup.procs").read_text():
                    break
                time.sleep(0.01)
                continue
            break


def _parents() -> Iterator[tuple[int, int]]:
    """(pid, its parent's pid) of all processes."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                # After the command, which is in parentheses and may hold anything: state, parent.
                yield int(name), int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])


def _descends(pid: int, holders: set[int], parents: dict[int, int]) -> bool:
    while pid := parents.get(pid, 0):
        if pid in holders:
            return True
    return False


def _of(pid: int) -> Iterator[Path]:
    """The directories of a process' control groups, in each hierarchy that is mounted."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for mounted in _mounts().get(controllers.removeprefix("name="), ()):
                if path != "/":
                    yield mounted / path.lstrip("/")


def _mounts() -> dict[str, list[Path]]:
    """Where each hierarchy is mounted, by its controllers as /proc/PID/cgroup writes them (cgroup2: none)."""
    found: dict[str, list[Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        point = Path(before.split()[4])
        if kind == "cgroup2":
            found.setdefault("", []).append(point)
        elif kind == "cgroup":
            names = [option for option in options.split(",") if option not in ("rw", "ro", "xattr", "clone_children", "noprefix")]
            found.setdefault(",".join(names).replace("name=", ""), []).append(point)
    return found
