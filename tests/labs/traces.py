"""What a running lab is known by outside of its hosts, and what is left of that when it was stopped."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from netplug.cli.demo_hosts import mounts_below
from netplug.errors import NetplugError
from netplug.kernel import namespaces
from netplug.labs import cgroups, containers, hosts, record
from netplug.labs.session import Session

_WRITTEN_BY_ENGINES = ("/etc/docker", "/opt", "/var/lib/docker", "/var/lib/netplug", "/var/lib/etcd", "/run/docker", "/run/netplug")
"""Where daemons write that nobody keeps from it."""


@dataclass(frozen=True)
class Traces:
    """Of one running lab."""

    directory: Path
    namespaces: frozenset[int | None]
    """Cookies of the network namespaces of its hosts, and of all that is on them."""
    groups: frozenset[Path]
    """Control groups of its containers."""
    containers: int
    """How many run."""

    @classmethod
    def of(cls, session: Session) -> Self:
        theirs = frozenset(namespaces.cookie(place.path) for place in session.places())
        groups = frozenset(cgroups.used_below(session.record.hosts.values()))
        running = sum(len(containers.running(session.place(host).run_directory)) for host in session.record.hosts)
        return cls(record.directory(session.lab.name), theirs, groups, running)

    def left(self) -> list[str]:
        """What is still there."""
        return [
            *(f"process {pid}" for pid in marked(self.directory)),
            *(f"namespace {cookie}" for cookie in self.namespaces & cookies()),
            *(f"control group {group}" for group in self.groups if group.exists()),
            *(f"mount {point}" for point in mounts_below(self.directory)),
            *([str(self.directory)] if self.directory.exists() else []),
        ]


def written() -> frozenset[str]:
    """Names of what is in the machine's own directories that daemons write to."""
    return frozenset(f"{where}/{name}" for where in _WRITTEN_BY_ENGINES if os.path.isdir(where) for name in os.listdir(where))


def cookies() -> set[int]:
    """Every network namespace that some process is in, or that is mounted. Inode numbers are given again; cookies never are."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    paths: dict[object, str] = {line[4]: line[4] for line in lines if line[3].startswith("net:")}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                paths[os.stat(process / "ns/net").st_ino] = str(process / "ns/net")
    found = set()
    for path in paths.values():
        with contextlib.suppress(NetplugError):  # its process has ended meanwhile
            found.add(namespaces.cookie(path) or 0)
    return found


def marked(directory: Path) -> list[int]:
    """Processes of a lab."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and hosts.lives(int(name), directory)]
