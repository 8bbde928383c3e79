"""The daemon's directories and its socket: who else uses them, and whether they are fit for what is kept there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from netplug.kernel.places import Place
from netplug.observe.situation import Finding, Situation, error, ok, warning

LONGEST_SOCKET = 107
"""Bytes of a unix socket's path (unix(7))."""
REMOTE = ("nfs", "cifs", "smb", "fuse.sshfs", "fuse.glusterfs", "9p", "ceph", "afs")
_LITTLE, _TOO_LITTLE = 200 << 20, 20 << 20
LOCKS = ("lock", "netplug.db.lock")
"""Of the run directory, and of the state directory."""


class Usage(NamedTuple):
    """Pids; None: nobody."""

    run: int | None = None
    state: int | None = None
    socket: int | None = None
    namespace: int | None = None
    """The daemon of this network namespace, with whatever directories."""


def check(situation: Situation, usage: Usage, run: Place, state: Place, private: bool) -> Iterator[Finding]:
    settings = situation.settings
    yield from _alone(situation, usage)
    yield from _store(Path(settings.state_dir), state)
    yield from _run(Path(settings.run_dir), run, private)
    if len(os.fsencode(settings.socket)) > LONGEST_SOCKET:
        yield error(
            "directories", f"the path of the socket {settings.socket} is longer than {LONGEST_SOCKET} bytes", "give a shorter --socket"
        )


def _alone(situation: Situation, usage: Usage) -> Iterator[Finding]:
    settings = situation.settings
    used = {f"--run-dir {settings.run_dir}": usage.run, f"--state-dir {settings.state_dir}": usage.state}
    used[f"--socket {settings.socket}"] = usage.socket
    others = {what: pid for what, pid in used.items() if pid is not None and pid != situation.pid}
    for what, pid in others.items():
        who = f"pid {pid}" if pid else "a process that cannot be seen from here"
        yield error("daemon", f"another daemon uses {what}: {who}", "end that one, or give this one directories and a socket of its own")
    beside = usage.namespace not in (None, situation.pid or None, *others.values())
    if beside:
        who = f"pid {usage.namespace}" if usage.namespace else "its pid cannot be seen from here"
        found = f"another daemon has its links and rules in this network namespace: {who}"
        yield error("daemon", found, "end that one, or give this one a network namespace of its own")
    if not others and not beside:
        yield ok("daemon", f"pid {situation.pid}, alone on its directories" if situation.running else "no other on these directories")


def _store(path: Path, state: Place) -> Iterator[Finding]:
    check = "directories"
    if _remote(state):
        remedy = "give a --state-dir on a disk of this machine"
        yield error(check, f"{path} is on {state.kind}: sqlite's locks and its shared memory do not work there", remedy)
    if state.read_only:
        yield error(check, f"{path} is on a read-only file system", "give a --state-dir that can be written")
    elif state.free < _TOO_LITTLE:
        yield error(check, f"{path} has {state.free >> 20} MiB left: nothing new can be recorded", "make room there")
    elif state.free < _LITTLE:
        yield warning(check, f"{path} has {state.free >> 20} MiB left for records, images and logs", "make room there")
    else:
        yield ok(check, f"{path} is on {state.kind}, {state.free >> 20} MiB left")


def _run(path: Path, run: Place, private: bool) -> Iterator[Finding]:
    check = "directories"
    if _remote(run):
        yield error(check, f"{path} is on {run.kind}: namespaces cannot be mounted there for long", "give a --run-dir below /run")
    elif run.free < _TOO_LITTLE:
        yield error(check, f"{path} has {run.free >> 20} MiB left", "make room there")
    if private and not run.shared:
        found = f"{path} is seen from a mount namespace of its own: a daemon started elsewhere, and your nsenter, do not find the sandboxes"
        yield warning(check, found, "start the daemon without PrivateMounts, PrivateTmp or Protect… in its unit")
    elif not _remote(run) and run.free >= _TOO_LITTLE:
        yield ok(check, f"{path} is on {run.kind}")


def _remote(place: Place) -> bool:
    return place.kind.startswith(REMOTE)
