"""Hosts on one machine, for demos, tests and benchmarks: each is a network namespace with a daemon, directories and an uplink of its own.

    outside 203.0.113.1 (and 198.51.100.1: "the internet") --- switch (a bridge) --- host 203.0.113.11, .12, ...

and the same in IPv6: 2001:db8:113::1 (and 2001:db8:51::1), hosts 2001:db8:113::11, ::12, ...

All links are born inside these namespaces, so the machine's own interfaces, rules and sysctls are never touched. What a host leaves
behind (containers, processes, mounts) is found by its own directories and namespace, never by a pattern of names.

Needs root, iproute2 and util-linux (nsenter, umount).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from netplug.cli.demo_service import start_service

OUTSIDE_ADDRESS = "203.0.113.1"
INTERNET_ADDRESS = "198.51.100.1"
OUTSIDE_ADDRESS6 = "2001:db8:113::1"
INTERNET_ADDRESS6 = "2001:db8:51::1"
_numbers = itertools.count(1)


def command(*argv: str, check: bool = True, timeout: float = 30, **options: object) -> subprocess.CompletedProcess[str]:
    """Run to the end with text output captured; a failure's message carries what was said on stderr."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, **options)  # type: ignore[call-overload]
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done  # type: ignore[no-any-return]


class Namespace:
    """A network namespace under /run/netns, with its loopback up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        command("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return command("ip", "-n", self.name, *arguments)

    def ip_batch(self, *lines: str) -> None:
        """Several of them, one after the other, by one process."""
        command("ip", "-n", self.name, "-batch", "-", input="\n".join(lines))

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs `argv` inside. nsenter replaces itself, so the pid is the command's own."""
        return ["nsenter", f"--net={self.path}", *argv]

    def run(self, *argv: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return command(*self.argv(*argv), check=check, timeout=timeout)

    def remove(self) -> None:
        command("ip", "netns", "del", self.name, check=False)


class Lan:
    """A switch, and one neighbour outside that also stands for the internet. Hosts get addresses from .11 on."""

    prefix = "203.0.113"
    prefix6 = "2001:db8:113:"

    def __init__(self, label: str = "np") -> None:
        self.label = f"{label}-{os.getpid()}"
        name = f"{self.label}-{next(_numbers)}"
        self._stack = contextlib.ExitStack()
        with self._stack:
            self.switch = self._namespace(f"{name}-lan")
            self.switch.ip_batch("link add lan0 type bridge", "link set lan0 up")
            self.outside = self._namespace(f"{name}-out")
            self.plug(self.outside, "out", OUTSIDE_ADDRESS)
            self.outside.ip_batch(f"address add {INTERNET_ADDRESS}/32 dev lo", f"address add {INTERNET_ADDRESS6}/128 dev lo")
            self._stack = self._stack.pop_all()
        self._next = itertools.count(11)

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._stack.callback(namespace.remove)
        return namespace

    def plug(self, namespace: Namespace, port: str, address: str) -> None:
        """Give `namespace` the interface `uplink` with `address` and its IPv6 twin, its other end `port` on the switch."""
        self.switch.ip_batch(f"link add {port} master lan0 type veth peer name uplink netns {namespace.name}", f"link set {port} up")
        # Addresses are those of nobody else: the kernel need not listen for a second or two before it uses them.
        namespace.ip_batch(
            f"address add {address}/24 dev uplink",
            f"address add {self.twin(address)}/64 dev uplink nodad",
            "link set uplink addrgenmode none",
            f"address add fe80::{address.rpartition('.')[2]}/64 dev uplink nodad",
            "link set uplink up",
        )

    def free_address(self) -> str:
        return f"{self.prefix}.{next(self._next)}"

    def twin(self, address: str) -> str:
        """The IPv6 address that belongs to an IPv4 address of the LAN: the same last number."""
        return f"{self.prefix6}:{address.rpartition('.')[2]}"

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class Host:
    """A host on a LAN. `start` brings its netplug daemon up; `close` ends and removes all that it ever made.

    `resolv_conf`: text for a resolv.conf of the host's own instead of /etc/resolv.conf (path: `self.resolv_conf`, to be written later).
    """

    def __init__(self, lan: Lan, *flags: str, resolv_conf: str | None = None, environment: dict[str, str] | None = None) -> None:
        self.lan, self.flags = lan, flags
        self.address = lan.free_address()
        self.address6 = lan.twin(self.address)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="np"))
        # Short names: a path of a unix socket has 107 bytes, and the runtime puts a 64-digit id into some.
        self.run_directory, self.state_directory = self.directory / "r", self.directory / "s"
        self.socket = self.run_directory / "netplug.sock"
        self.log = self.directory / "daemon.log"
        self.resolv_conf = self.directory / "resolv.conf"
        if resolv_conf is not None:
            self.resolv_conf.write_text(resolv_conf)
            config = self.directory / "netplug.toml"
            config.write_text(f"resolv_conf = {json.dumps(str(self.resolv_conf))}\n")
            self.flags = ("--config", str(config), *flags)
        self.environment = dict(os.environ, NETPLUG_HOST=f"unix://{self.socket}", **(environment or {}))
        self.namespace = Namespace(f"{lan.label}-{next(_numbers)}")
        try:
            lan.plug(self.namespace, f"h{self.address.rpartition('.')[2]}", self.address)
            self.namespace.ip_batch(f"route add default via {OUTSIDE_ADDRESS}", f"route add default via {OUTSIDE_ADDRESS6}")
        except BaseException:
            self.close()
            raise

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs `argv` on this host."""
        return self.namespace.argv(*argv)

    def run(self, *argv: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return command(*self.argv(*argv), check=check, timeout=timeout, env=self.environment)

    def netplug(self, *arguments: str, check: bool = False, timeout: float = 60, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The command as a user on this host runs it."""
        argv = [sys.executable, "-m", "netplug.cli", *arguments]
        return command(*argv, check=check, timeout=timeout, env=self.environment, input=stdin)

    # The daemon's life

    def start(self, *flags: str, timeout: float = 20) -> None:
        """Start the daemon and return when it has said READY."""
        directories = ["--socket", str(self.socket), "--state-dir", str(self.state_directory), "--run-dir", str(self.run_directory)]
        argv = self.argv(sys.executable, "-m", "netplug.cli", "daemon", *directories, *self.flags, *flags)
        try:
            self.daemon = start_service(argv, self.directory, self.log, self.environment, timeout)
        except RuntimeError as error:
            raise RuntimeError(f"the daemon did not become ready:\n{self.said()}") from error

    def said(self) -> str:
        """The end of what the daemons of this host have written."""
        return self.log.read_text(errors="replace")[-5000:] if self.log.exists() else ""

    def stop(self, timeout: float = 20) -> int:
        """End the daemon by SIGTERM; its exit code. Containers and the resolver go on."""
        assert self.daemon is not None
        self.daemon.terminate()
        try:
            return self.daemon.wait(timeout)
        finally:
            self.kill9()

    def kill9(self) -> None:
        """The daemon dies without a word."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def restart(self, *flags: str) -> None:
        if self.daemon is not None:
            self.stop()
        self.start(*flags)

    def resolver_pid(self) -> int | None:
        """The process that serves names; it outlives daemons."""
        return next((pid for pid in self.processes() if b"netplug.resolver" in _command_line(pid)), None)

    def processes(self) -> list[int]:
        """Who lives in this host's network namespace and carries its run directory in the command line."""
        return owned_processes(self.namespace.path, self.run_directory)

    # The end

    def close(self) -> None:
        self.kill9()
        remove_host(self.namespace.name, self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            error.add_note(f"the daemon's log:\n{self.said()}")
        self.close()


def remove_host(name: str, directory: Path) -> None:
    """Remove all that a host is, given the name of its namespace and its directory. Every step is tried; failures are said at the end."""
    root = directory / "r" / "runtime"

    def end_owned() -> None:
        end_processes(owned_processes(f"/run/netns/{name}", directory))

    def delete_containers() -> None:
        for state in sorted(root.glob("*/state.json")):
            command("runc", "--root", str(root), "delete", "--force", state.parent.name, check=False)

    def delete_namespace() -> None:
        command("ip", "netns", "del", name, check=False)

    def delete_files() -> None:
        remove_tree(directory)

    failures: list[str] = []
    for step in (end_owned, delete_containers, delete_files, delete_namespace):
        try:
            step()
        except Exception as error:  # teardown goes on: whatever it was, the rest must still be removed
            failures.append(str(error))
    if failures:
        raise RuntimeError(f"host {name} was not removed whole: " + "; ".join(failures))


def owned_processes(namespace: str, directory: Path) -> list[int]:
    """Processes in the network namespace at `namespace` whose command line carries `directory`."""
    with contextlib.suppress(FileNotFoundError):
        inode = os.stat(namespace).st_ino
        mark = str(directory).encode()
        return [pid for pid in _pids() if mark in _command_line(pid) and _network_inode(pid) == inode]
    return []


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _network_inode(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except (FileNotFoundError, ProcessLookupError):
        return 0


def end_processes(pids: Sequence[int], timeout: float = 10) -> None:
    """SIGKILL, and wait until they are gone. A pidfd reads as ready when its process died, reaped or not."""
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        waiting = set()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                poll.register(handle, select.POLLIN)
                waiting.add(handle)
        deadline = time.monotonic() + timeout
        while waiting and (left := deadline - time.monotonic()) > 0:
            for handle, _ in poll.poll(left * 1000):
                poll.unregister(handle)
                waiting.discard(handle)
        if waiting:
            raise TimeoutError(f"{len(waiting)} processes did not die")


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below `directory`, in the order they were made."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point == str(directory) or point.startswith(f"{directory}/")]


def remove_tree(directory: Path) -> None:
    """Unmount everything below, newest first, then delete. Deletes nothing while a mount is left: it may be the machine's own `/`."""
    if points := mounts_below(directory):
        command("umount", "--lazy", *reversed(points), check=False)
    if left := mounts_below(directory):
        raise RuntimeError(f"still mounted: {', '.join(left)}")
    if directory.exists():
        shutil.rmtree(directory)
