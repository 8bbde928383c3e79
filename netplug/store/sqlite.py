"""The embedded store: one sqlite file, no server, never a disk's wait on the event loop.

Whatever may wait for the disk is the worker's: transactions that are to be on it, and long ones. A small one that is to survive the
process only is a copy into the page cache (0.03 ms); it is made where it is asked for, as the way to another thread and back costs
several times that. Either way the events for the watches come before the answers: so who has read revision N can watch from N + 1 and
misses nothing. A caller that is cancelled while it waits does not know whether its transaction was made: it was, or will be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from netplug.errors import Unavailable

from . import Compare, Event, KeyValue, Write, require_one_txn
from .database import Database
from .history import History
from .worker import Request, Worker

KEPT = 1000
"""Transactions that a watch can go back."""
SMALL = 16
"""Operations of a transaction that the loop makes itself."""

T = TypeVar("T")


class SqliteStore:
    """Implements `netplug.store.Store`."""

    def __init__(self, worker: Worker, revision: int) -> None:
        """Use `open`."""
        self._worker = worker
        self._history = History(revision, KEPT)
        self._closed = False
        worker.on_change = self._history.add

    @classmethod
    async def open(cls, path: str | Path) -> Self:
        """The store in that file, made if there is none. Conflict if a living daemon has it, Unavailable if it is damaged."""
        worker = Worker(Path(path), asyncio.get_running_loop())
        return cls(worker, await worker.start())

    async def get(self, key: str) -> KeyValue | None:
        return await self._ask(lambda database: database.get(key), writes=False)

    async def range(self, prefix: str) -> tuple[int, list[KeyValue]]:
        return await self._ask(lambda database: database.range(prefix), writes=False)

    def txn(self, compares: Sequence[Compare], writes: Sequence[Write], *, durable: bool = False) -> Awaitable[int]:
        """On its way to the disk when this returns.

        ValueError for what etcd would refuse too: more than MAX_OPERATIONS, or one key written twice.

        The revision stays as it is when nothing is changed: no writes, or only of keys that were gone already.
        """
        require_one_txn(compares, writes)

        def act(database: Database) -> int:
            self._worker.changed(database.txn(compares, writes))
            return database.revision

        return self._ask(act, durable=durable, quick=not durable and len(compares) + len(writes) <= SMALL)

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[list[Event]]:
        """Ends when the store is closed."""
        return self._history.watch(prefix, from_revision)

    async def lease(self, ttl: float) -> int:
        self._worker.ends_leases = True
        return await self._ask(lambda database: database.grant(ttl))

    async def keep_alive(self, lease: int) -> None:
        """NotFound once it has expired."""
        await self._ask(lambda database: database.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        """Its keys go at once; fine if it is gone."""
        await self._ask(lambda database: self._worker.changed(database.revoke(lease)))

    async def close(self) -> None:
        """What was asked before is done first; then the file is let go."""
        if not self._closed:
            self._closed = True
            await self._worker.stop()
            self._history.close()

    def _ask(self, act: Callable[[Database], T], *, writes: bool = True, durable: bool = False, quick: bool = False) -> asyncio.Future[T]:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_exception(Unavailable("the store is closed"))
        else:
            self._worker.ask(Request(act, answer, writes, durable, quick))
        return answer
