"""The last transactions' events in memory, and the watches that read them.

It lives on the event loop. Every watch reads the same history at its own pace; one that falls too far behind is told so (Compacted)
instead of filling memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from . import Compacted, Event


class History:
    """Revisions `first` to `last`, without gaps."""

    def __init__(self, revision: int, limit: int) -> None:
        """`revision` is the store's now; nothing is known of it or of what was before."""
        self._first, self._last, self._limit = revision + 1, revision, limit
        self._kept: dict[int, list[Event]] = {}
        self._news: asyncio.Event | None = None
        """Somebody waits for it."""
        self._closed = False

    def add(self, events: list[Event]) -> None:
        """One transaction's, which made the next revision."""
        self._last = events[0].revision
        self._kept[self._last] = events
        if len(self._kept) > self._limit:
            del self._kept[self._first]
            self._first += 1
        self._wake()

    def close(self) -> None:
        """Watches end once they have given what is here."""
        self._closed = True
        self._wake()

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[list[Event]]:
        while True:
            if revision < self._first:
                raise Compacted(f"revision {revision} is no longer kept, the oldest is {self._first}")
            if revision <= self._last:
                events = [event for event in self._kept[revision] if event.key.startswith(prefix)]
                revision += 1
                if events:
                    yield events
            elif self._closed:
                return
            else:
                self._news = self._news or asyncio.Event()
                await self._news.wait()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None
