"""What every store promises, for each backend in BACKENDS (an opener of stores on the same data, which belong to a directory)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from netplug.errors import NotFound, Unavailable
from netplug.store import (
    MAX_OPERATIONS,
    Compacted,
    Delete,
    Empty,
    Event,
    Exists,
    KeyValue,
    Lost,
    Missing,
    Put,
    Store,
    Unchanged,
)
from netplug.store.sqlite import SqliteStore

Open = Callable[[], Awaitable[Store]]


def sqlite(request: pytest.FixtureRequest, directory: Path) -> Open:
    return lambda: SqliteStore.open(directory / "netplug.db")


def etcd(request: pytest.FixtureRequest, directory: Path) -> Open:
    """A real member; the directory's name is the prefix, with an end so that none begins with another."""
    cluster = request.getfixturevalue("etcd")
    return lambda: cluster.store(prefix=f"{directory}:", timeout=PATIENCE)


BACKENDS: dict[str, Callable[[pytest.FixtureRequest, Path], Open]] = {"sqlite": sqlite, "etcd": etcd}
A, B, C = (f"/netplug/v1/things/{name}" for name in "abc")
PATIENCE = 10


@pytest.fixture(params=sorted(BACKENDS))
def reopen(request, tmp_path) -> Open:
    """Opens the store on the same data each time."""
    return BACKENDS[request.param](request, tmp_path)


@pytest.fixture
async def store(reopen) -> AsyncIterator[Store]:
    store = await reopen()
    yield store
    await store.close()


async def following(store: Store, prefix: str, revision: int, count: int) -> list[list[Event]]:
    """The next `count` transactions that a watch sees."""
    seen: list[list[Event]] = []
    async with asyncio.timeout(PATIENCE):
        async for events in store.watch(prefix, revision):
            seen.append(events)
            if len(seen) == count:
                break
    return seen


class TestReadingAndWriting:
    async def test_a_key_comes_back_with_the_revision_of_its_last_change(self, store):
        assert await store.get(A) is None
        first = await store.txn([], [Put(A, b"1")])
        await store.txn([], [Put(B, b"x")])
        assert await store.get(A) == KeyValue(A, b"1", first)

        second = await store.txn([], [Put(A, b"\x00\xff")])
        assert await store.get(A) == KeyValue(A, b"\x00\xff", second)
        assert second == first + 2

    async def test_all_writes_of_a_transaction_have_one_revision(self, store):
        await store.txn([], [Put(C, b"3")])
        revision = await store.txn([], [Put(A, b"1"), Put(B, b"2"), Delete(C)])
        assert (await store.range(""))[1] == [KeyValue(A, b"1", revision), KeyValue(B, b"2", revision)]

    async def test_a_transaction_that_changes_nothing_has_no_revision_of_its_own(self, store):
        revision = await store.txn([], [Put(A, b"1")])
        assert await store.txn([Exists(A)], []) == revision
        assert await store.txn([], [Delete(B)]) == revision
        assert await store.txn([], [Put(A, b"1")]) == revision + 1

    async def test_range_gives_what_starts_with_the_prefix_in_key_order(self, store):
        keys = ["a", "a%", "a/1", "a/10", "a/2", "a/é", "a/\ud7ff", "a/\ue000", "a/\U0010ffff", "a0", "b"]
        revision = await store.txn([], [Put(key, b"") for key in reversed(keys)])
        for prefix in ["", "a", "a/", "a/1", "a%", "a/\ud7ff", "a/\U0010ffff", "\U0010ffff", "c"]:
            assert await store.range(prefix) == (revision, [KeyValue(key, b"", revision) for key in keys if key.startswith(prefix)])

    async def test_what_was_committed_is_there_after_opening_again(self, reopen):
        store = await reopen()
        durable = await store.txn([], [Put(A, b"1")], durable=True)
        await store.txn([], [Put(B, b"2")])
        last = await store.txn([], [Delete(B)])
        await store.close()

        store = await reopen()
        assert await store.range("") == (last, [KeyValue(A, b"1", durable)])
        assert await store.txn([], [Put(B, b"3")]) == last + 1
        await store.close()

    async def test_too_large_a_transaction_is_refused(self, store):
        writes = [Put(f"/{number}", b"") for number in range(MAX_OPERATIONS)]
        await store.txn([], writes)
        with pytest.raises(ValueError, match=f"101 operations: {MAX_OPERATIONS} at most"):
            await store.txn([Exists("/0")], writes)

    async def test_a_key_can_be_written_once_in_a_transaction(self, store):
        with pytest.raises(ValueError, match="twice"):
            await store.txn([], [Put(A, b"1"), Delete(A)])
        assert await store.get(A) is None

    async def test_a_closed_store_says_so(self, store):
        await store.close()
        await store.close()
        with pytest.raises(Unavailable, match="the store is closed"):
            await store.get(A)

    async def test_what_was_asked_before_closing_is_done(self, reopen):
        store = await reopen()
        asked = [asyncio.ensure_future(store.txn([], [Put(f"/{number}", b"")])) for number in range(20)]
        await asyncio.sleep(0)  # lets each of them ask
        await store.close()
        revisions = await asyncio.gather(*asked)

        store = await reopen()
        assert (await store.range(""))[0] == max(revisions)
        assert len((await store.range(""))[1]) == 20
        await store.close()


class TestCompares:
    @pytest.mark.parametrize("compare", [Missing(B), Exists(A), Unchanged(B, 0), Empty(B), Empty(f"{A}/")])
    async def test_writes_happen_if_it_holds(self, store, compare):
        await store.txn([], [Put(A, b"1")])
        await store.txn([compare], [Put(C, b"3")])
        assert await store.get(C) is not None

    @pytest.mark.parametrize("compare", [Missing(A), Exists(B), Unchanged(A, 0), Unchanged(B, 1), Empty(A), Empty(A[:-1]), Empty("")])
    async def test_nothing_happens_if_it_does_not(self, store, compare):
        before = await store.txn([], [Put(A, b"1")])
        with pytest.raises(Lost) as caught:
            await store.txn([Exists(A), compare, Missing(A)], [Put(C, b"3"), Delete(A)])
        assert caught.value.failed == compare
        assert await store.range("") == (before, [KeyValue(A, b"1", before)])

    async def test_unchanged_holds_until_the_key_is_written_or_deleted(self, store):
        revision = await store.txn([], [Put(A, b"1")])
        revision = await store.txn([Unchanged(A, revision)], [Put(A, b"1")])
        await store.txn([], [Put(B, b"2")])
        await store.txn([Unchanged(A, revision)], [Delete(A)])
        with pytest.raises(Lost):
            await store.txn([Unchanged(A, revision)], [Put(A, b"2")])

    async def test_of_many_who_create_one_key_one_wins(self, store):
        results = await asyncio.gather(
            *(store.txn([Missing(A)], [Put(A, b"%d" % number), Put(f"/mine/{number}", b"")]) for number in range(50)),
            return_exceptions=True,
        )
        winners = [number for number, result in enumerate(results) if isinstance(result, int)]
        assert len(winners) == 1
        assert sum(isinstance(result, Lost) for result in results) == 49
        assert (await store.get(A)).value == b"%d" % winners[0]
        assert [pair.key for pair in (await store.range("/mine/"))[1]] == [f"/mine/{winners[0]}"]

    async def test_concurrent_read_and_write_back_loses_no_count(self, store):
        await store.txn([], [Put(A, b"0")])

        async def count() -> None:
            while True:
                pair = await store.get(A)
                try:
                    await store.txn([Unchanged(A, pair.revision)], [Put(A, b"%d" % (int(pair.value) + 1))])
                except Lost:
                    continue
                return

        await asyncio.gather(*(count() for _ in range(12)))
        assert (await store.get(A)).value == b"12"


class TestWatches:
    async def test_it_gives_a_list_per_transaction_from_the_revision_on(self, store):
        await store.txn([], [Put(A, b"0")])
        first = await store.txn([], [Put(A, b"1"), Put("/other", b""), Put(B, b"1")])
        await store.txn([], [Put("/other", b"2")])
        second = await store.txn([], [Delete(A)])

        assert await following(store, "/netplug/v1/", first, 2) == [
            [Event(A, b"1", first), Event(B, b"1", first)],
            [Event(A, None, second)],
        ]

    async def test_it_waits_for_what_comes(self, store):
        revision, _ = await store.range("")
        watching = [asyncio.ensure_future(following(store, prefix, revision + 1, 1)) for prefix in ("", A)]
        later = asyncio.ensure_future(following(store, "", revision + 2, 1))
        first = await store.txn([], [Put(A, b"1")])
        second = await store.txn([], [Put(B, b"1")])

        assert await asyncio.gather(*watching) == [[[Event(A, b"1", first)]]] * 2
        assert await later == [[Event(B, b"1", second)]]

    async def test_range_and_watch_together_miss_nothing(self, store):
        """Readers start at any moment of a stream of writes; what they read plus what they then see is always all of it."""

        async def write() -> None:
            for number in range(60):
                await store.txn([], [Put(f"/n/{number:02}", b"")])

        async def read() -> list[str]:
            revision, pairs = await store.range("/n/")
            missing = 60 - len(pairs)
            events = await following(store, "/n/", revision + 1, missing) if missing else []
            return [pair.key for pair in pairs] + [event.key for group in events for event in group]

        async def read_late(turns: int) -> list[str]:
            for _ in range(turns):
                await store.get("/n/00")
            return await read()

        _, *readers = await asyncio.gather(write(), *(read_late(turns) for turns in range(0, 60, 6)))
        assert readers == [[f"/n/{number:02}" for number in range(60)]] * 10

    async def test_a_lost_transaction_is_not_seen(self, store):
        revision = await store.txn([], [Put(A, b"1")])
        with pytest.raises(Lost):
            await store.txn([Missing(A)], [Put(A, b"2")])
        after = await store.txn([], [Put(A, b"3")])
        assert await following(store, "", revision, 2) == [[Event(A, b"1", revision)], [Event(A, b"3", after)]]


class TestLeases:
    async def test_its_keys_vanish_when_nobody_keeps_it_alive(self, store):
        lease = await store.lease(0.3)
        revision = await store.txn([], [Put(A, b"1", lease), Put(B, b"1", lease), Put(C, b"1")])
        (gone,) = await following(store, "", revision + 1, 1)
        assert gone == [Event(A, None, revision + 1), Event(B, None, revision + 1)]
        assert [pair.key for pair in (await store.range(""))[1]] == [C]

    async def test_it_lives_as_long_as_it_is_kept_alive(self, store):
        kept, dropped = await store.lease(0.7), await store.lease(1.0)
        revision = await store.txn([], [Put(A, b"1", kept), Put(B, b"1", dropped)])
        gone = asyncio.ensure_future(following(store, "", revision + 1, 1))
        while not gone.done():
            await store.keep_alive(kept)
            await asyncio.wait([gone], timeout=0.05)
        assert gone.result() == [[Event(B, None, revision + 1)]]
        assert await store.get(A) is not None

    async def test_a_revoked_one_takes_its_keys_at_once(self, store):
        lease = await store.lease(60)
        revision = await store.txn([], [Put(A, b"1", lease), Put(B, b"1", lease)])
        await store.txn([], [Put(B, b"2")])  # no longer the lease's
        await store.revoke(lease)
        assert await store.range("") == (revision + 2, [KeyValue(B, b"2", revision + 1)])
        await store.revoke(lease)

    async def test_one_that_is_gone_is_refused(self, store):
        lease = await store.lease(60)
        await store.revoke(lease)
        with pytest.raises(NotFound, match=f"lease {lease} not found"):
            await store.keep_alive(lease)
        with pytest.raises(NotFound, match=f"lease {lease} not found"):
            await store.txn([], [Put(A, b"1"), Put(B, b"1", lease)])
        assert await store.get(A) is None


KEYS = st.sampled_from(["/a", "/a/1", "/a/2", "/b", "/é"])
COMPARES = st.builds(Missing, KEYS) | st.builds(Exists, KEYS) | st.builds(Unchanged, KEYS, st.integers(0, 12))
WRITES = st.builds(Put, KEYS, st.binary(max_size=4)) | st.builds(Delete, KEYS)


class StoreMachine(RuleBasedStateMachine):
    """Random transactions against a dict of key to (value, revision)."""

    backend: Callable[[Path], Open]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.reopen = type(self).backend(Path(self.directory.name))
        self.store = self.runner.run(self.reopen())
        self.model: dict[str, tuple[bytes, int]] = {}
        self.revision, _ = self.runner.run(self.store.range(""))
        self.oldest = self.revision + 1
        self.events: list[list[Event]] = []

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.directory.cleanup()

    @rule(
        compares=st.lists(COMPARES, max_size=2),
        writes=st.lists(WRITES, max_size=3, unique_by=lambda write: write.key),
        durable=st.booleans(),
    )
    def txn(self, compares, writes, durable):
        failed = next((compare for compare in compares if not self.holds(compare)), None)
        asked = self.made(compares, writes, durable)
        if failed is not None:
            with pytest.raises(Lost) as caught:
                self.runner.run(asked)
            assert caught.value.failed == failed
            return
        effective = [write for write in writes if isinstance(write, Put) or write.key in self.model]
        self.revision += 1 if effective else 0
        assert self.runner.run(asked) == self.revision
        for write in effective:
            if isinstance(write, Put):
                self.model[write.key] = (write.value, self.revision)
            else:
                del self.model[write.key]
        if effective:
            self.events.append([Event(write.key, getattr(write, "value", None), self.revision) for write in effective])

    async def made(self, compares, writes, durable) -> int:
        return await self.store.txn(compares, writes, durable=durable)

    @rule(prefix=KEYS | st.just(""))
    def range(self, prefix):
        expected = [KeyValue(key, *self.model[key]) for key in sorted(self.model) if key.startswith(prefix)]
        assert self.runner.run(self.store.range(prefix)) == (self.revision, expected)

    @rule(key=KEYS)
    def get(self, key):
        assert self.runner.run(self.store.get(key)) == (KeyValue(key, *self.model[key]) if key in self.model else None)

    @rule()
    def watch_from_the_beginning(self):
        count = self.revision - self.oldest + 1
        seen = self.runner.run(following(self.store, "", self.oldest, count)) if count else []
        assert seen == self.events[len(self.events) - count :]

    @rule()
    def close_and_open(self):
        """What was before is no longer kept, or is kept all the same: a watch says which."""
        self.runner.run(self.store.close())
        self.store = self.runner.run(self.reopen())
        if self.revision >= self.oldest:
            try:
                self.runner.run(following(self.store, "", self.oldest, 1))
            except Compacted:
                self.oldest = self.revision + 1

    def holds(self, compare):
        value, revision = self.model.get(compare.key, (None, 0))
        match compare:
            case Missing():
                return value is None
            case Exists():
                return value is not None
            case Unchanged():
                return revision == compare.revision


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_random_transactions_match_a_dict(name, request):
    machine = type("Machine", (StoreMachine,), {"backend": staticmethod(partial(BACKENDS[name], request))})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None))
