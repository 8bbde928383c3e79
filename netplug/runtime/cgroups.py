"""A way to have the kernel ready when the runtime moves a process into its cgroup."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def warm_up() -> None:
    """Take the kernel's lock for moving processes between cgroups, by moving ourselves to where we are.

    The first to take cgroup_threadgroup_rwsem after a while waits for an RCU grace period (5 to 15 ms), and those who follow do not. A
    runtime needs it some milliseconds after its start: this is to be run in a thread meanwhile. It changes nothing.
    """
    file = _own_processes()
    if file:
        with contextlib.suppress(OSError), open(file, "w") as processes:
            processes.write("0")


def _own_processes() -> str:
    """The cgroup.procs of one hierarchy that holds us; read anew each time, since somebody may have moved us."""
    with open("/proc/self/cgroup") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for folder in (_ROOT / controllers.removeprefix("name="), _ROOT / "unified"):
                file = folder / path.lstrip("/") / "cgroup.procs"
                if os.access(file, os.W_OK):
                    return str(file)
    return ""
