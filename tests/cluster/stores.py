"""Stores of real etcd members, and what tests do with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from netplug.errors import Unavailable
from netplug.store import Event, Put
from netplug.store.etcd import EtcdStore
from tests.etcd_members import Cluster

PATIENCE = 20
A, B = "/netplug/v1/things/a", "/netplug/v1/things/b"

Open = Callable[..., Coroutine[Any, Any, EtcdStore]]


@pytest.fixture
async def stores() -> AsyncIterator[Open]:
    """`stores(cluster, …)` opens one that is closed at the end."""
    opened: list[EtcdStore] = []

    async def open_one(cluster: Cluster, **options: Any) -> EtcdStore:
        opened.append(await cluster.store(**options))
        return opened[-1]

    yield open_one
    await asyncio.gather(*(store.close() for store in opened))


@pytest.fixture
async def store(etcd, stores) -> EtcdStore:
    return await stores(etcd)


async def following(store: EtcdStore, prefix: str, revision: int, count: int) -> list[list[Event]]:
    seen: list[list[Event]] = []
    async with asyncio.timeout(PATIENCE):
        async for events in store.watch(prefix, revision):
            seen.append(events)
            if len(seen) == count:
                break
    return seen


async def in_thread(act: Callable[[], None]) -> None:
    """What waits for a process must not hold up the loop."""
    await asyncio.wait_for(asyncio.to_thread(act), PATIENCE)


async def until_made(store: EtcdStore, key: str) -> None:
    """The cluster takes writes again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await store.txn([], [Put(key, b"")])
            except Unavailable:
                continue
            return
