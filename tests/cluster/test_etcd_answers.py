"""An etcd member that has got a transaction, and whose answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from netplug.errors import NotFound, Undecided
from netplug.store import Delete, Event, Exists, KeyValue, Lost, Missing, Put, Unchanged
from netplug.store.etcd import EtcdStore
from tests.cluster.stores import A, B, following
from tests.cluster.wire import Wire
from tests.etcd_members import Cluster


class TestLostAnswers:
    """Between the store and its only member is a wire that breaks when a transaction was sent."""

    @pytest.fixture
    async def wire(self, etcd: Cluster) -> AsyncIterator[Wire]:
        async with Wire(etcd.addresses[0]) as wire:
            yield wire

    @pytest.fixture
    async def far(self, etcd, wire, stores) -> EtcdStore:
        return await stores(etcd, members=[wire.address])

    @pytest.fixture(params=["question", "answer"])
    def lose(self, request, wire) -> Callable[[], None]:
        return {"question": wire.lose_next_question, "answer": wire.lose_next_answer}[request.param]

    async def test_what_can_be_made_only_once_is_made_once(self, store, far, lose):
        revision = await store.txn([], [Put(B, b"old")])
        lose()
        made = await far.txn([Missing(A), Unchanged(B, revision)], [Put(A, b"mine"), Delete(B)])
        assert made == revision + 1
        assert await store.range("") == (made, [KeyValue(A, b"mine", made)])

    async def test_a_real_loss_is_told_apart(self, store, far, lose):
        revision = await store.txn([], [Put(A, b"somebody's")])
        lose()
        with pytest.raises(Lost) as caught:
            await far.txn([Missing(B), Missing(A)], [Put(A, b"mine"), Put(B, b"mine")])
        assert caught.value.failed == Missing(A)
        assert await store.range("") == (revision, [KeyValue(A, b"somebody's", revision)])

    async def test_a_plain_write_is_never_repeated(self, store, far, wire):
        wire.lose_next_answer()
        made = await far.txn([], [Put(A, b"mine")])
        assert await store.range("") == (made, [KeyValue(A, b"mine", made)])

        wire.lose_next_question()
        with pytest.raises(Undecided, match=r"did not say whether it made a change .*look whether it is there"):
            await far.txn([], [Put(A, b"next")])
        assert await store.range("") == (made, [KeyValue(A, b"mine", made)])

    async def test_what_was_there_before_with_the_same_value_is_not_taken_for_ours(self, store, far, wire):
        made = await far.txn([], [Put(A, b"mine")])
        wire.lose_next_question()
        with pytest.raises(Undecided):
            await far.txn([], [Put(A, b"mine")])
        assert (await store.get(A)).revision == made

    async def test_who_deleted_cannot_be_told(self, store, far, wire):
        await store.txn([], [Put(A, b"1")])
        wire.lose_next_answer()
        with pytest.raises(Undecided):
            await far.txn([Exists(A)], [Delete(A)])
        assert await store.get(A) is None

    async def test_a_lease_is_made_once(self, etcd, far, wire):
        await far.get(A)
        wire.lose_next_answer()
        await far.lease(60)
        assert etcd.ctl("lease", "list").splitlines()[0] == "found 1 leases"

    async def test_reading_and_leases_just_go_on(self, store, far, lose):
        lease = await far.lease(60)
        lose()
        await far.keep_alive(lease)
        lose()
        await far.revoke(lease)
        lose()
        assert await far.get(A) is None
        with pytest.raises(NotFound):
            await far.keep_alive(lease)

    async def test_a_watch_goes_on_where_it_was(self, store, far, wire):
        revision, _ = await store.range("")
        watching = asyncio.create_task(following(far, "", revision + 1, 30))
        for number in range(30):
            if number % 10 == 5:
                wire.lose_next_answer()
            await store.txn([], [Put(f"/{number}", b"")])
        assert await watching == [[Event(f"/{number}", b"", revision + 1 + number)] for number in range(30)]
