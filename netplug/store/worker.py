"""The thread that waits for the disk, and group commit.

Requests queue up; all that are there when the thread turns to them become one group with one COMMIT, so that a hundred callers at once
pay for one write to the disk. If the commit fails, all of the group have failed. While nothing is in the thread's hands, the database
is the loop's, which makes by itself what is quick.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from netplug import faults

from . import Event
from .database import Database

GROUP = 256
"""Requests in one commit at most."""
PAUSE = 1.0
"""Seconds before leases are tried again that could not be ended (the disk was full)."""


@dataclass(slots=True)
class Request:
    """Something to do with the database, and who waits for it."""

    act: Callable[[Database], Any]
    answer: asyncio.Future[Any]
    writes: bool
    durable: bool
    quick: bool
    """It waits for no disk."""
    outcome: Any = None
    error: Exception | None = None

    def run(self, database: Database) -> None:
        try:
            self.outcome = self.act(database)
        except sqlite3.Error:
            raise  # the database's trouble, not this request's: the group fails
        except Exception as error:
            self.error = error

    def resolve(self) -> None:
        if self.answer.done():
            return  # whoever asked was cancelled
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.outcome)


class Worker:
    """`on_change` hears, on the loop, of every transaction that was committed, in order and before its caller does."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.on_change: Callable[[list[Event]], None] = lambda events: None
        self.ends_leases = False
        """There are leases, or have been: the thread ends them by itself, so that the database is never the loop's."""
        self._path, self._loop = path, loop
        self._database: Database | None = None
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._asked = 0
        """Requests whose answers have not been delivered."""
        self._changes: list[list[Event]] = []
        self._stopping = False
        self._pause = 0.0
        self._started: asyncio.Future[int] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()

    async def start(self) -> int:
        """The store's revision, or the error that kept it from being opened."""
        threading.Thread(target=self._live, name="store", daemon=True).start()
        try:
            return await self._started
        except asyncio.CancelledError:
            self._queue.put(None)
            raise

    async def stop(self) -> None:
        """After everything that is in the queue."""
        self._queue.put(None)
        await asyncio.shield(self._ended)

    def ask(self, request: Request) -> None:
        """Have it done: at once where it is quick and the database is ours."""
        self._asked += 1
        if request.quick and self._asked == 1 and not self.ends_leases and self._database is not None:
            group = [request]
            self._deliver(group, self._make(self._database, group))
        else:
            self._queue.put(request)

    def changed(self, events: list[Event]) -> None:
        """Called by requests with what they changed."""
        if events:
            self._changes.append(events)

    def _live(self) -> None:
        try:
            database = Database(self._path)
        except Exception as error:
            self._tell(_fail, self._started, error)
            return
        self._database, self.ends_leases = database, database.next_deadline() is not None
        self._tell(_succeed, self._started, database.revision)
        try:
            while not self._stopping:
                group = self._next_group(database)
                self._tell(self._deliver, group, self._make(database, group))
        finally:
            database.close()
            self._tell(_succeed, self._ended, None)

    def _next_group(self, database: Database) -> list[Request]:
        """Waits until there is something to do; empty if that is a lease's end, or the store's."""
        group: list[Request] = []
        wait = self._patience(database)
        while len(group) < (1 if faults.enabled else GROUP):
            try:
                request = self._queue.get(timeout=wait) if not group else self._queue.get_nowait()
            except Empty:
                break
            if request is None:
                self._stopping = True
                break
            group.append(request)
        return group

    def _patience(self, database: Database) -> float | None:
        deadline = database.next_deadline()
        return None if deadline is None else max(self._pause, deadline - time.monotonic())

    def _make(self, database: Database, group: list[Request]) -> list[list[Event]]:
        """Do them, and note what came of it in each. What they changed."""
        self._changes, self._pause = [], 0.0
        try:
            self._commit(database, group)
        except (sqlite3.Error, OSError) as error:
            self._failed(group, database.failed("written", error))
        except Exception as error:
            self._failed(group, error)
        return self._changes

    def _failed(self, group: list[Request], error: Exception) -> None:
        self._changes, self._pause = [], PAUSE
        for request in group:
            request.outcome, request.error = None, error

    def _commit(self, database: Database, group: list[Request]) -> None:
        expired = database.expired()
        if not expired and not any(request.writes for request in group):
            for request in group:
                request.run(database)
            return
        database.begin(durable=any(request.durable for request in group))
        try:
            for lease in expired:
                self.changed(database.revoke(lease))
            for request in group:
                request.run(database)
            faults.point("store.before")
            database.commit()
        except BaseException:
            database.rollback()
            raise
        faults.point("store.after")

    def _deliver(self, group: list[Request], changes: list[list[Event]]) -> None:
        self._asked -= len(group)
        for events in changes:
            self.on_change(events)
        for request in group:
            request.resolve()
        if not self._asked and self._database is not None and self._database.checkpoint_due:
            self.ask(Request(Database.checkpoint, self._loop.create_future(), writes=False, durable=False, quick=False))

    def _tell(self, act: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(act, *arguments)
        except RuntimeError:
            self._stopping = True  # the loop is closed: nobody is left to work for


def _succeed(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
