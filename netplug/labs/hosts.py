"""The hosts of a lab: each a process that does nothing but hold namespaces, the first in a process namespace of its own.

It carries the lab's directory in its environment. By this mark all processes of a lab are found, whatever has become of its record; and
when the first process of a process namespace dies, the kernel ends all others in it, and takes their namespaces, mounts and interfaces.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from netplug.errors import NetplugError
from netplug.labs import cgroups
from netplug.labs.course import Cable
from netplug.labs.places import Place

MARK = "NETPLUG_LAB"
_PATIENCE = 10.0
_RESOLV_CONF = "# A lab host has no name server, unless you write one here.\n"

_children: list[subprocess.Popen[bytes]] = []
"""Of this process, not known to have ended: whoever lets go of a Popen leaves a zombie."""


class LabFailed(NetplugError):
    """A lab could not be built, or one of its commands failed."""


def make(name: str, directory: Path) -> Place:
    """A new host. `directory` is the lab's."""
    namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # Orphans come to a process namespace's first process; one that ignores SIGCHLD need not bury them.
    holder = ["env", "--ignore-signal=CHLD", "sleep", "infinity"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, MARK: str(directory)}
    with contextlib.chdir("/"):
        outer = subprocess.Popen(["unshare", *namespaces, "--", *holder], env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload]
    _children.append(outer)
    place = Place(name, _child(outer))
    _furnish(place)
    return place


def _child(outer: subprocess.Popen[bytes]) -> int:
    """The first process of the new process namespace, once it is what it shall be."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and outer.poll() is None:
        with contextlib.suppress(OSError):
            pids = children.read_text().split()
            if pids and Path(f"/proc/{pids[0]}/cmdline").read_bytes().startswith(b"sleep\0"):
                return int(pids[0])
        time.sleep(0.002)  # nothing tells when another process calls execve
    outer.kill()
    raise LabFailed("a host's namespaces could not be made (unshare): netplug lab needs root, and a kernel with namespaces")


def _furnish(place: Place) -> None:
    """A /run, a /sys and an /etc/resolv.conf of its own, its name, and `lo` up."""
    _do(place, "mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    control_groups = bool(os.listdir("/sys/fs/cgroup"))
    if control_groups:
        (place.run_directory / "cgroup").mkdir()
        _do(place, "mount", "--rbind", "/sys/fs/cgroup", "/run/cgroup")
    _do(place, "mount", "-t", "sysfs", "sysfs", "/sys")  # /sys/class/net is of the namespace in which it was mounted
    if control_groups:
        _do(place, "mount", "--move", "/run/cgroup", "/sys/fs/cgroup")
        (place.run_directory / "cgroup").rmdir()
    _do(place, "hostname", place.name)
    _do(place, "ip", "link", "set", "lo", "up")
    _resolv_conf(place)
    (place.run_directory / "lab.rc").write_text(_SHELL_SETTINGS)


def _resolv_conf(place: Place) -> None:
    target = os.path.realpath("/etc/resolv.conf")
    if target.startswith("/run/"):  # a link into what the host has of its own now
        own = place.run_directory / target.removeprefix("/run/")
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(_RESOLV_CONF)
    elif os.path.exists(target):
        (place.run_directory / "resolv.conf").write_text(_RESOLV_CONF)
        _do(place, "mount", "--bind", "/run/resolv.conf", target)


_SHELL_SETTINGS = r"""# Settings of a shell on a lab host.
[ -n "$LAB_PLACE" ] || LAB_PLACE=$(hostname)
PS1='$LAB_PLACE:\w# '
HISTFILE=
alias ip='ip -color=auto' ll='ls -l'
"""


def plug(cable: Cable, places: dict[str, Place]) -> None:
    """A veth pair, born between two hosts."""
    (one, dev), (other, peer) = (end.split(":") for end in cable.ends)
    command = ["ip", "link", "add", dev, "type", "veth", "peer", "name", peer, "netns", str(places[other].pid)]
    # Only the network namespace is entered: the other host's pid means something outside only.
    _succeed(["nsenter", f"--net={places[one].path}", *command])


def _do(place: Place, *argv: str) -> None:
    _succeed(place.argv(*argv))


def _succeed(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise LabFailed(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")


def lives(pid: int, directory: Path) -> bool:
    """Whether this process is one of the lab's."""
    with contextlib.suppress(OSError):
        return f"{MARK}={directory}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def end(directory: Path) -> None:
    """Kill every process of a lab and wait until all are gone. Those that are started meanwhile, too."""
    deadline = time.monotonic() + _PATIENCE
    groups: set[Path] = set()
    while pids := [pid for pid in _pids() if lives(pid, directory)]:
        if time.monotonic() > deadline:
            raise LabFailed(f"processes of the lab do not end: {', '.join(map(str, pids))}")
        groups |= cgroups.used_below(pids)
        _kill(pids, directory, deadline)
    cgroups.remove(groups)
    _children[:] = [child for child in _children if child.poll() is None]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _kill(pids: Sequence[int], directory: Path, deadline: float) -> None:
    """SIGKILL by process descriptors, which no other process can inherit as it can a number."""
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        waiting = 0
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                if lives(pid, directory):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    poll.register(handle, select.POLLIN)
                    waiting += 1
        while waiting and (left := deadline - time.monotonic()) > 0:
            for handle, _ in poll.poll(left * 1000):
                poll.unregister(handle)
                waiting -= 1
