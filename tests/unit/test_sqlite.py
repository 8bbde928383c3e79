"""What is the sqlite store's own: the file, its guard, group commit, and bad days."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_looks import limit_pages, seen_until

from netplug import faults
from netplug.errors import Conflict, NotFound, Unavailable
from netplug.store import Compacted, Event, Lost, Missing, Put
from netplug.store import sqlite as store_module
from netplug.store.database import SCHEMA, VERSION, Database
from netplug.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state" / "netplug.db"


@pytest.fixture
async def store(path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path)
    yield store
    await store.close()


@pytest.fixture
def commits(monkeypatch) -> list[int]:
    """The value of PRAGMA synchronous (1 normal, 2 full) at each commit."""
    made: list[int] = []
    commit = Database.commit

    def noted(self: Database) -> None:
        made.append(self._execute("PRAGMA synchronous").fetchone()[0])
        commit(self)

    monkeypatch.setattr(Database, "commit", noted)
    return made


class TestFile:
    async def test_nobody_else_may_read_it(self, store, path):
        await store.txn([], [Put("/a", b"1")])
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
        assert modes == {"netplug.db": 0o600, "netplug.db-wal": 0o600, "netplug.db-shm": 0o600, "netplug.db.lock": 0o600}
        assert path.parent.stat().st_mode & 0o777 == 0o700

    async def test_a_directory_that_was_there_keeps_its_mode(self, path):
        path.parent.mkdir(mode=0o750)
        await (await SqliteStore.open(path)).close()
        assert path.parent.stat().st_mode & 0o777 == 0o750

    async def test_one_of_the_first_shape_goes_on(self, path):
        """Keys and values in one tree, as stores were made at first."""
        path.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"BEGIN; {SCHEMA.replace(');', ') WITHOUT ROWID;', 1)} PRAGMA user_version = {VERSION}; COMMIT;")
        for number in range(2):
            store = await SqliteStore.open(path)
            await store.txn([Missing(f"/{number}")], [Put(f"/{number}", b""), Put("/last", b"%d" % number)])
            found = (await store.range("/"))[1]
            assert [pair.key for pair in found] == [*(f"/{one}" for one in range(number + 1)), "/last"]
            await store.close()

    async def test_a_second_opener_is_refused_while_the_first_lives(self, path):
        first = await SqliteStore.open(path)
        with pytest.raises(Conflict) as caught:
            await SqliteStore.open(path)
        assert str(caught.value) == f"another netplug daemon uses {path.parent}"
        await first.close()
        await (await SqliteStore.open(path)).close()

    async def test_a_killed_owner_leaves_its_transactions_and_no_lock(self, path):
        writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE)
        try:
            assert writer.stdout is not None
            assert await writer.stdout.readline() == b"written\n"
            with pytest.raises(Conflict):
                await SqliteStore.open(path)
        finally:
            writer.kill()
            await writer.wait()

        store = await SqliteStore.open(path)
        revision, pairs = await store.range("")
        assert revision == 20
        assert len(pairs) == 20
        await store.close()

    @pytest.mark.parametrize("damage", ["garbage", "header", "page", "foreign", "newer"])
    async def test_a_damaged_one_is_refused_and_left_as_it_is(self, path, damage):
        await spoil(path, damage)
        before = path.read_bytes()
        with pytest.raises(Unavailable, match="left as it is") as caught:
            await SqliteStore.open(path)
        assert str(caught.value).startswith(f"the store {path} ")
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before

    async def test_one_that_cannot_be_opened_says_why(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(Unavailable, match=r"cannot be opened: .*File exists"):
            await SqliteStore.open(tmp_path / "file" / "netplug.db")
        (tmp_path / "netplug.db").mkdir()
        with pytest.raises(Unavailable, match=r"cannot be opened: .*Is a directory"):
            await SqliteStore.open(tmp_path / "netplug.db")


WRITER = """
import asyncio, pathlib, sys
from netplug.store import Put
from netplug.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(pathlib.Path(sys.argv[1]))
    for number in range(20):
        await store.txn([], [Put(f"/{number}", b"value")])
    print("written", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def spoil(path: Path, how: str) -> None:
    path.parent.mkdir()
    if how == "garbage":
        path.write_bytes(os.urandom(8192))
        return
    if how == "foreign":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE somebodys (thing)")
        return
    store = await SqliteStore.open(path)
    for number in range(100):
        await store.txn([], [Put(f"/{number}", b"x" * 500)])
    await store.close()
    if how == "newer":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 7")
        return
    start = 0 if how == "header" else 3 * 4096
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 4096)


class TestGroups:
    async def test_what_comes_at_once_is_committed_at_once(self, store, commits):
        revisions = await asyncio.gather(*(store.txn([], [Put(f"/{number}", b"")], durable=True) for number in range(100)))
        assert len(commits) < 50

        assert await seen_until("/99", store, revisions[0]) == [[Event(f"/{number}", b"", number + 1)] for number in range(100)]

    async def test_a_lost_one_does_not_spoil_the_others(self, store, commits):
        lease = await store.lease(60)
        await store.revoke(lease)
        results = await asyncio.gather(
            store.txn([], [Put("/a", b"1")], durable=True),
            store.txn([Missing("/a")], [Put("/b", b"1")]),
            store.txn([], [Put("/c", b"1"), Put("/d", b"1", lease)]),
            store.txn([], [Put("/e", b"1")]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [int, Lost, NotFound, int]
        assert results[3] == results[0] + 1
        assert [pair.key for pair in (await store.range(""))[1]] == ["/a", "/e"]

    async def test_one_durable_transaction_makes_its_group_durable_and_no_other(self, store, commits):
        await store.txn([], [Put("/a", b"1")])
        await store.txn([], [Put("/a", b"2")], durable=True)
        await store.txn([], [Put("/a", b"3")])
        assert commits == [1, 2, 1]
        commits.clear()
        await asyncio.gather(*(store.txn([], [Put(f"/{number}", b"")], durable=number == 3) for number in range(5)))
        assert 2 in commits

    async def test_reading_commits_nothing(self, store, commits):
        await store.txn([], [Put("/a", b"1")])
        await asyncio.gather(store.get("/a"), store.range("/"))
        assert len(commits) == 1

    async def test_fault_points_lie_around_each_transaction(self, store, monkeypatch):
        monkeypatch.setattr(faults, "enabled", True)
        faults.arm(0)
        await asyncio.gather(*(store.txn([], [Put(f"/{number}", b"")], durable=number != 0) for number in range(3)))
        assert faults.passed == ["store.before", "store.after"] * 3

    async def test_a_cancelled_caller_harms_nobody(self, store):
        tasks = [asyncio.ensure_future(store.txn([], [Put(f"/{number}", b"")], durable=True)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert len((await store.range(""))[1]) == 3


class TestFullDisk:
    async def test_the_group_fails_nothing_is_half_done_and_it_goes_on_afterwards(self, store):
        revision = await store.txn([], [Put("/kept", b"1")])
        watching = asyncio.ensure_future(seen_until("/end", store, revision + 1))
        await limit_pages(store, 20)
        small = [store.txn([], [Put(f"/{number}", b"")], durable=True) for number in range(10)]
        big = store.txn([], [Put("/also", b""), Put("/big", b"x" * 200_000)], durable=True)
        results = await asyncio.gather(*small, big, return_exceptions=True)
        assert isinstance(results[-1], Unavailable)
        assert str(results[-1]).endswith("cannot be written: database or disk is full")
        assert {type(result) for result in results} <= {int, Unavailable}

        await limit_pages(store, 10_000)
        await store.txn([Missing("/also")], [Put("/end", b"")])
        made = [f"/{number}" for number, result in enumerate(results) if isinstance(result, int)] + ["/end"]
        expected = [[Event(key, b"", revision + 1 + index)] for index, key in enumerate(made)]
        assert {pair.key for pair in (await store.range(""))[1]} == {"/kept", *made}
        assert await watching == expected

    async def test_leases_are_what_they_were(self, store):
        await limit_pages(store, 20)
        lease = await store.lease(60)
        with pytest.raises(Unavailable):
            await store.txn([], [Put("/a", b"x" * 200_000, lease)])
        await store.txn([], [Put("/a", b"x", lease)])
        await store.keep_alive(lease)


class TestHistory:
    async def test_a_watch_that_asks_for_more_than_is_kept_is_told(self, path, monkeypatch):
        monkeypatch.setattr(store_module, "KEPT", 5)
        store = await SqliteStore.open(path)
        for number in range(8):
            await store.txn([], [Put("/a", b"%d" % number)])

        with pytest.raises(Compacted):
            await seen_until("/a", store, 3)
        assert await seen_until("/a", store, 4) == [[Event("/a", b"3", 4)]]
        await store.close()

    async def test_after_a_restart_only_what_comes_can_be_watched(self, path):
        store = await SqliteStore.open(path)
        revision = await store.txn([], [Put("/a", b"1")])
        await store.close()

        store = await SqliteStore.open(path)
        with pytest.raises(Compacted):
            await seen_until("/a", store, revision)
        await store.txn([], [Put("/a", b"2")])
        assert await seen_until("/a", store, revision + 1) == [[Event("/a", b"2", revision + 1)]]
        await store.close()

    async def test_watches_end_with_the_store(self, store):
        revision = await store.txn([], [Put("/a", b"1")])
        seen = []

        async def follow() -> None:
            async for events in store.watch("", revision):
                seen.append(events)

        task = asyncio.ensure_future(follow())
        await asyncio.sleep(0)
        await store.close()
        async with asyncio.timeout(10):
            await task
        assert seen == [[Event("/a", b"1", revision)]]


class TestLeasesOverRestarts:
    async def test_one_that_ran_out_meanwhile_is_over_at_once(self, path):
        store = await SqliteStore.open(path)
        await store.txn([], [Put("/a", b"1", await store.lease(60))])
        kept = await store.lease(60)
        await store.txn([], [Put("/b", b"1", kept)])
        await store.close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE lease SET deadline = ? WHERE id != ?", (time.time() - 1, kept))
            connection.commit()

        store = await SqliteStore.open(path)
        assert [pair.key for pair in (await store.range(""))[1]] == ["/b"]
        await store.keep_alive(kept)
        await store.close()

    def test_a_clock_that_was_set_back_does_not_prolong_it(self, path):
        database = Database(path)
        database.begin(durable=False)
        lease = database.grant(30)
        database._execute("UPDATE lease SET deadline = deadline + 1000000 WHERE id = ?", lease)
        database.commit()
        database.close()

        with closing(Database(path)) as database:
            deadline = database.next_deadline()
            assert deadline is not None
            assert deadline <= time.monotonic() + 30
