"""Group commit: transactions that are asked for while others are on their way go to etcd together, each with an outcome of its own.

etcd takes transactions within a transaction. It looks at the compares of all of them before it writes for any, so what goes together must
not meet: none writes what another one writes or depends on. Whoever asks while nothing is on its way waits for nobody but those who ask in
the same turn of the event loop: many often go on together, as a request before has brought them their answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from netplug.errors import Unavailable

from . import etcd_wire as wire
from .etcd_members import Refused
from .etcd_messages import Transaction

LANES = 2
"""Requests on their way at the same time. The second has at least as many transactions as the first, so that requests stay large."""
MOST = 48
"""Transactions in a request, and operations in each of them: etcd's limit is 128 for both numbers together."""

Send = Callable[[bytes, float], Awaitable[Any]]
"""A request and until when to try; its answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What etcd says of one transaction. `answer`: its own part, without a header."""

    answer: Any
    revision: int


@dataclass(slots=True, eq=False)
class _Waiting:
    transaction: Transaction
    until: float
    outcome: asyncio.Future[Outcome]


class Batches:
    """`send` asks etcd, once: what fails with it fails for all that went together."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: list[int] = []
        """How many transactions each request has."""
        self._gathering = False

    async def make(self, transaction: Transaction, until: float) -> Outcome:
        """Errors are those of `send`; none is another transaction's fault."""
        if self._may_go(1) and not self._waiting and not self._gathering and await self._is_alone():
            return await self._make_alone(transaction, until)
        loop = asyncio.get_running_loop()
        while True:
            waiting = _Waiting(transaction, until, loop.create_future())
            self._waiting.append(waiting)
            self._start()
            try:
                return await waiting.outcome
            except Unavailable:  # the time was up of those that it went with
                if loop.time() >= until:
                    raise
            except Refused:  # perhaps because of another one
                return await self._make_alone(transaction, until)

    async def _is_alone(self) -> bool:
        """Nobody else has asked in this turn of the event loop."""
        self._gathering = True
        try:
            await asyncio.sleep(0)
        except BaseException:
            self._gathering = False
            self._start()
            raise
        self._gathering = False
        return not self._waiting

    def _may_go(self, count: int) -> bool:
        return not self._under_way or (len(self._under_way) < LANES and count >= max(self._under_way))

    async def _make_alone(self, transaction: Transaction, until: float) -> Outcome:
        self._under_way.append(1)
        try:
            answer = await self._send(transaction.request(), until)
        finally:
            self._under_way.remove(1)
            self._start()
        return Outcome(answer, int(answer.header.revision))

    def _start(self) -> None:
        """As many requests as may be on their way, with what is waiting. (A task each: who asked may be cancelled, the others stay.)"""
        while self._waiting and not self._gathering and self._may_go(len(self._waiting)):
            batch = list(self._next())
            self._under_way.append(len(batch))
            task = asyncio.create_task(self._make_together(batch))
            self._tasks.add(task)
            task.add_done_callback(partial(self._done, len(batch)))

    def _done(self, size: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._under_way.remove(size)
        self._start()

    def _next(self) -> Iterator[_Waiting]:
        """Those at the front that do not meet. Who does waits for the next one, and so does everybody behind."""
        read: set[bytes] = set()
        written: set[bytes] = set()
        for count in range(MOST):
            if not self._waiting:
                return
            transaction = self._waiting[0].transaction
            joins = transaction.joins and transaction.size <= MOST
            meets = not written.isdisjoint(transaction.written | transaction.read) or not read.isdisjoint(transaction.written)
            if count and (meets or not joins):
                return
            read |= transaction.read
            written |= transaction.written
            yield self._waiting.popleft()
            if not joins:
                return

    async def _make_together(self, batch: list[_Waiting]) -> None:
        wanted = [waiting for waiting in batch if not waiting.outcome.done()]  # whose caller was not cancelled
        if not wanted:
            return
        try:
            outcomes = await self._ask(wanted)
        except Exception as error:
            for waiting in wanted:
                if not waiting.outcome.done():
                    waiting.outcome.set_exception(error)
            return
        for waiting, outcome in zip(wanted, outcomes, strict=True):
            if not waiting.outcome.done():
                waiting.outcome.set_result(outcome)

    async def _ask(self, batch: list[_Waiting]) -> list[Outcome]:
        until = min(waiting.until for waiting in batch)
        requests = [waiting.transaction.request() for waiting in batch]
        if len(requests) == 1:
            answer = await self._send(requests[0], until)
            return [Outcome(answer, int(answer.header.revision))]
        answer = await self._send(wire.transaction((), map(wire.nested, requests)), until)
        revision = int(answer.header.revision)
        return [Outcome(response.response_txn, revision) for response in answer.responses]
