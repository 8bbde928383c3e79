"""Work that outlives the request it came with.

A change goes on when its client hangs up, in the task of its request (see `connection`). The streams of a hijacked connection have no
request any more at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from netplug.shelter import Shelter

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Background:
    """The tasks of one server: `changes` are waited for at the end, `streams` are cut off."""

    def __init__(self) -> None:
        self._changes = Shelter()
        self._streams: set[asyncio.Task[Any]] = set()

    async def finish(self, change: Coroutine[Any, Any, Result]) -> Result:
        """Run the change to its end in this task, which its request's connection leaves alone."""
        task = asyncio.current_task()
        assert task is not None
        self._changes.adopt(task)
        return await change

    def stream(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a stream that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self.watch(task)
        task.add_done_callback(_log_failure)

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Cut this task off too when the server closes."""
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    async def close(self, grace: float) -> None:
        """Cut the streams off; give the changes `grace` seconds."""
        for task in tuple(self._streams):
            task.cancel()
        if self._streams:
            await asyncio.wait(tuple(self._streams), timeout=grace)
        await self._changes.settle(grace)


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("after its client had gone, a request failed: %s", error, exc_info=error)
