"""A small transaction that need not be on the disk is made where it is asked for, while the worker has nothing."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlite_looks import limit_pages, seen_until

from netplug.errors import Unavailable
from netplug.store import Event, Lost, Missing, Put
from netplug.store import database as database_module
from netplug.store.database import Database
from netplug.store.sqlite import SMALL, SqliteStore


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state" / "netplug.db"


@pytest.fixture
async def store(path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path)
    yield store
    await store.close()


@pytest.fixture
def threads(monkeypatch) -> list[str]:
    """Who commits."""
    made: list[str] = []
    commit = Database.commit

    def noted(self: Database) -> None:
        made.append(threading.current_thread().name)
        commit(self)

    monkeypatch.setattr(Database, "commit", noted)
    return made


async def test_only_small_ones_that_wait_for_no_disk(store, threads):
    await store.txn([], [Put("/a", b"1")])
    await store.txn([], [Put("/a", b"2")], durable=True)
    await store.txn([], [Put(f"/{number}", b"") for number in range(SMALL + 1)])
    assert threads == ["MainThread", "store", "store"]


async def test_its_answer_does_not_wait_for_a_turn_of_the_loop(store):
    answered = store.txn([], [Put("/a", b"1")]).__await__()
    with pytest.raises(StopIteration) as answer:
        next(answered)
    assert answer.value.value == 1


async def test_behind_others_it_waits_for_its_turn(store, threads):
    first = asyncio.ensure_future(store.txn([], [Put("/a", b"1")], durable=True))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(store.txn([], [Put("/b", b"2")]))
    assert (await first, await second) == (1, 2)
    assert "MainThread" not in threads
    assert await seen_until("/b", store, 1) == [[Event("/a", b"1", 1)], [Event("/b", b"2", 2)]]


async def test_a_store_with_leases_leaves_all_to_the_thread_that_ends_them(store, path, threads):
    await store.txn([], [Put("/a", b"1", await store.lease(60))])
    await store.close()

    again = await SqliteStore.open(path)
    await again.txn([], [Put("/b", b"1")])
    assert set(threads) == {"store"}
    await again.close()


async def test_a_lost_one_changes_nothing(store):
    await store.txn([], [Put("/a", b"1")])
    with pytest.raises(Lost):
        await store.txn([Missing("/a")], [Put("/b", b"1")])
    assert await store.txn([Missing("/b")], [Put("/b", b"2")]) == 2
    assert await seen_until("/b", store, 1) == [[Event("/a", b"1", 1)], [Event("/b", b"2", 2)]]


async def test_a_full_disk_is_told_and_nothing_is_half_done(store):
    await limit_pages(store, 20)
    with pytest.raises(Unavailable, match="cannot be written: database or disk is full"):
        await store.txn([], [Put("/also", b""), Put("/big", b"x" * 200_000)])
    assert await store.txn([Missing("/also")], [Put("/a", b"")]) == 1


async def test_the_log_is_moved_into_the_file_by_the_thread(store, path, threads, monkeypatch):
    monkeypatch.setattr(database_module, "CHECKPOINT", 10)
    for number in range(100):
        await store.txn([], [Put("/a", b"%d" % number)])
        await store.get("/a")  # behind the move, if there is one
    assert threads == ["MainThread"] * 100
    assert path.with_name("netplug.db-wal").stat().st_size < 200_000


async def test_so_is_what_a_killed_daemon_has_left_of_it(store, path, tmp_path, monkeypatch):
    for number in range(100):
        await store.txn([], [Put(f"/{number}", b"x" * 4000)])
    shutil.copytree(path.parent, tmp_path / "left")
    left = tmp_path / "left" / path.name
    before = left.stat().st_size
    monkeypatch.setattr(database_module, "CHECKPOINT", 50)
    again = await SqliteStore.open(left)
    assert await again.txn([], [Put("/last", b"")]) == 101
    await again.get("/last")  # behind the move
    assert left.stat().st_size > before + 100 * 4000
    await again.close()
