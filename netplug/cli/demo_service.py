"""Programs of the demos that tell when they serve: a daemon and etcd both speak sd_notify(3)."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

launch: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
"""Starts a program. Who starts thousands of them, as tests do, may put something faster here."""


def start_service(
    argv: Sequence[str], directory: Path, log: Path, environment: Mapping[str, str], timeout: float, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start it in a session of its own and return when it has said READY=1, to a socket in `directory`; its output goes to `log`.
    It inherits the descriptors.

    RuntimeError if it ends before, or says nothing in `timeout` seconds; then it is dead.
    """
    notify = directory / "notify"
    notify.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, log.open("ab") as output:
        ready.bind(str(notify))
        told = dict(environment, NOTIFY_SOCKET=str(notify))
        process = launch(
            argv, env=told, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, pass_fds=descriptors
        )
        try:
            if _said_ready(ready, process.pid, time.monotonic() + timeout):
                return process
            raise RuntimeError(f"{argv[0]} did not become ready")
        except BaseException:
            process.kill()
            process.wait()
            raise


def _said_ready(ready: socket.socket, pid: int, deadline: float) -> bool:
    process = os.pidfd_open(pid)
    try:
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([ready.fileno(), process], [], [], left)
            if ready.fileno() in readable and b"READY=1" in ready.recv(4096).split(b"\n"):
                return True
            if process in readable:
                break
    finally:
        os.close(process)
    return False
