"""Wait on file descriptors and processes from the event loop: no thread per child, no polling."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from netplug.kernel.descriptors import lifted
from netplug.shelter import Shelter

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_STAT = 4096
_ENDED = (b"Z", b"X")
"""Whoever is to be told of its end has not asked yet."""


async def readable(*descriptors: int) -> None:
    """Returns when one of them can be read (a pidfd: when its process has ended)."""
    await _ready(descriptors, ())


async def writable(descriptor: int) -> None:
    await _ready((), (descriptor,))


async def _ready(read: Iterable[int], write: Iterable[int]) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    for descriptor in read:
        loop.add_reader(descriptor, wake)
    for descriptor in write:
        loop.add_writer(descriptor, wake)
    try:
        await ready
    finally:
        for descriptor in read:
            loop.remove_reader(descriptor)
        for descriptor in write:
            loop.remove_writer(descriptor)


class Tasks:
    """Background tasks that are kept, and ended together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changes = Shelter()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in the background; an error is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_failure)

    def finish(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Await `work`, which goes on to its end even if the caller is cancelled: a change is never left half done."""
        return self._changes.finish(work)

    async def close(self) -> None:
        tasks = (*self._tasks, *self._changes.tasks())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a background task failed", exc_info=task.exception())


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 if there is no such process, or one that has ended. With the pid it names a process for good."""
    return _stat(pid, 22)


def parent(pid: int) -> int:
    """The parent's pid; 0 if there is no such process, or one that has ended."""
    return _stat(pid, 4)


def _stat(pid: int, field: int) -> int:
    """A number of /proc/PID/stat, counted as in proc(5)."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            told = os.read(descriptor, _LONGEST_STAT)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The second field is the program's name in brackets and may hold anything, brackets and spaces included.
    state, *fields = told.rpartition(b")")[2].split(None, field - 2)
    return 0 if state in _ENDED else int(fields[field - 4])


def open_pid(pid: int, started: int | None = None) -> int | None:
    """A pidfd of the process; None if it is gone, or (where `started` is given) is another one than that which began then."""
    if pid <= 0:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Only now, with the descriptor in hand, can the pid not change its owner any more.
    if started is not None and start_time(pid) != started:
        os.close(descriptor)
        return None
    return lifted(descriptor)
