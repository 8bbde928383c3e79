"""What the daemon holds of a container while it lives: the lock, who waits for its end, who is attached, the descriptor of its process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from netplug.runtime.attach import AttachSession
from netplug.runtime.model import ExitStatus
from netplug.runtime.paths import Paths


class Life:
    """One container's moving parts. Everything that changes the container holds `lock`."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.removing = False
        self._process: int | None = None
        self._pending: list[AttachSession] = []
        self._exited: list[asyncio.Future[ExitStatus]] = []
        self._removed: list[asyncio.Future[ExitStatus]] = []

    def next_exit(self) -> asyncio.Future[ExitStatus]:
        return self._future(self._exited)

    def removal(self) -> asyncio.Future[ExitStatus]:
        return self._future(self._removed)

    def exited(self, status: ExitStatus) -> None:
        _resolve(self._exited, status)

    def removed(self, status: ExitStatus) -> None:
        _resolve(self._exited, status)
        _resolve(self._removed, status)

    def _future(self, waiting: list[asyncio.Future[ExitStatus]]) -> asyncio.Future[ExitStatus]:
        future: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        waiting[:] = [other for other in waiting if not other.done()]
        waiting.append(future)
        return future

    def wait_for_start(self, session: AttachSession) -> None:
        """Connect it when the container is created, before its process runs."""
        self._pending.append(session)

    def connect_sessions(self, paths: Paths, container: str) -> None:
        for session in self._pending:
            session.connect(paths.bundle(container))
        self._pending.clear()

    def fail_sessions(self) -> None:
        for session in self._pending:
            session.fail()
        self._pending.clear()

    def hold(self, process: int | None) -> None:
        """Take over a pidfd of the container's first process."""
        self.release()
        self._process = process

    def release(self) -> None:
        if self._process is not None:
            os.close(self._process)
            self._process = None

    def signal(self, number: int) -> None:
        """A process that has just ended is no error: its end is on its way to us."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)


def _resolve(waiting: list[asyncio.Future[ExitStatus]], status: ExitStatus) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(status)
    waiting.clear()
