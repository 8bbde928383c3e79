"""What tests of the sqlite store do with it beside what everybody may."""

from __future__ import annotations

import asyncio

from netplug.store import Event
from netplug.store.sqlite import SqliteStore


async def seen_until(key: str, store: SqliteStore, revision: int) -> list[list[Event]]:
    """What a watch gives up to the transaction that changes `key`."""
    seen: list[list[Event]] = []
    async with asyncio.timeout(10):
        async for events in store.watch("", revision):
            seen.append(events)
            if events[0].key == key:
                break
    return seen


async def limit_pages(store: SqliteStore, count: int) -> None:
    """sqlite's own way to have a full disk: a largest number of 4 KiB pages."""
    await store._ask(lambda database: database._execute(f"PRAGMA max_page_count = {count}").fetchall(), writes=False)
