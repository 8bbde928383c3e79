"""Work that outlives whoever asked for it: half a connect is worse than one that nobody waits for.

Each room shelters what it is asked to do. Where that comes in a task that is sheltered already, no further task is made: a request
passes three such rooms, and each task costs the event loop four turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_unbroken: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
"""Tasks that are sheltered: how many changes in each must not be broken off just now."""


class Shelter:
    """The tasks of one room. With `unbroken`, what they do must come to its end also when everything stops."""

    def __init__(self, *, unbroken: bool = False) -> None:
        self._must_end = int(unbroken)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, which goes on to its end even if the caller is cancelled."""
        current = asyncio.current_task()
        if current is None or current not in _unbroken:
            return await asyncio.shield(self.start(work))
        _unbroken[current] += self._must_end
        try:
            return await work
        finally:
            _unbroken[current] -= self._must_end

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self.adopt(task)
        return task

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task that is there already, and that nobody else cancels."""
        _unbroken[task] = self._must_end
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        return tuple(self._tasks)

    async def settle(self, seconds: float | None = None) -> None:
        """Wait for all of them; after so many seconds only for those that must not be broken off just now, the others are cancelled."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self.tasks(), timeout=seconds)
        for task in late:
            if not _unbroken.get(task):
                task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
