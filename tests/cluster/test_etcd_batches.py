"""Group commit at a real member: transactions that were asked for at once go together, and each has its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from netplug.errors import NotFound, Unavailable
from netplug.store import Empty, Exists, Lost, Missing, Put
from netplug.store.etcd import EtcdStore
from netplug.store.etcd_client import pb
from tests.cluster.wire import Wire

ALL, KEPT = 200, "/netplug/v1/kept"


@pytest.fixture
async def store(etcd) -> AsyncIterator[EtcdStore]:
    store = await etcd.store(timeout=20)
    await store.txn([], [Put(KEPT, b"")])
    yield store
    await store.close()


@pytest.fixture
def requests(store, monkeypatch) -> list[Any]:
    """What goes to etcd as a transaction."""
    sent: list[Any] = []
    send = store._batches._send

    async def counted(request: bytes, until: float) -> Any:
        sent.append(pb.TxnRequest.FromString(request))
        return await send(request, until)

    monkeypatch.setattr(store._batches, "_send", counted)
    return sent


async def together(store: EtcdStore, transactions: list[tuple[list[Any], list[Any]]]) -> list[Any]:
    return await asyncio.gather(*(store.txn(*transaction) for transaction in transactions), return_exceptions=True)


async def test_many_go_in_few_requests(store, requests):
    assert all(await together(store, [([Missing(f"/many/{one}"), Exists(KEPT)], [Put(f"/many/{one}", b"")]) for one in range(ALL)]))
    assert len((await store.range("/many/"))[1]) == ALL
    assert len(requests) < ALL / 10


async def test_one_alone_waits_for_nobody(store, requests):
    revisions = [await store.txn([], [Put("/alone", b"%d" % number)]) for number in range(3)]
    assert revisions == sorted(set(revisions))
    assert [len(request.success) for request in requests] == [1, 1, 1]
    assert not any(request.success[0].HasField("request_txn") for request in requests)


async def test_those_of_one_turn_go_together(store, requests):
    """Nobody goes ahead alone where all were asked for before anything could be sent."""
    assert all(await together(store, [([], [Put(f"/turn/{one}", b"")]) for one in range(20)]))
    assert [len(request.success) for request in requests] == [20]


async def test_who_gives_up_before_anything_is_sent_holds_nobody_up(store, requests):
    asked = [asyncio.create_task(store.txn([], [Put(f"/up/{one}", b"")])) for one in range(3)]
    for _ in range(2):
        await asyncio.sleep(0)
        asked[0].cancel()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(outcome, int) for outcome in outcomes[1:]] == [True, True]


async def test_each_has_its_own_outcome(store):
    """Every third loses, and says by which of its compares."""
    wanted = [([Exists(KEPT), Missing(KEPT if one % 3 == 0 else f"/own/{one}")], [Put(f"/own/{one}", b"")]) for one in range(ALL)]
    outcomes = await together(store, wanted)
    for one, outcome in enumerate(outcomes):
        assert isinstance(outcome, Lost if one % 3 == 0 else int)
        assert one % 3 or outcome.failed == Missing(KEPT)
    made = {pair.key: pair.revision for pair in (await store.range("/own/"))[1]}
    assert made == {f"/own/{one}": outcome for one, outcome in enumerate(outcomes) if one % 3}


async def test_those_that_meet_are_made_one_after_the_other(store):
    """etcd looks at all compares of a request before it writes anything for any: two in one would both win."""
    wanted = [([Missing(f"/seat/{one % 7}")], [Put(f"/seat/{one % 7}", b"%d" % one), Put(f"/won/{one}", b"")]) for one in range(ALL)]
    outcomes = await together(store, wanted)
    assert sum(isinstance(outcome, int) for outcome in outcomes) == len((await store.range("/won/"))[1]) == 7


async def test_what_one_depends_on_another_does_not_write_beside_it(store):
    filler: tuple[list[Any], list[Any]] = ([], [Put("/filler", b"")])
    reading, writing = ([Missing("/door")], [Put("/in", b"")]), ([], [Put("/door", b"")])
    late, later = ([Missing("/door")], [Put("/late", b"")]), ([Empty("/do")], [Put("/later", b"")])
    *filled, before, written, after, afterwards = await together(store, [filler, filler, reading, writing, late, later])
    assert [type(outcome) for outcome in (*filled, written)] == [int, int, int]
    # Any order will do, but not at the same moment: that all would be written as if there were no door yet.
    for outcome in (before, after, afterwards):
        assert isinstance(outcome, Lost) or outcome < written


async def test_what_etcd_refuses_is_no_others_fault(store):
    wanted = [([], [Put(f"/leased/{one}", b"", lease=4711 if one % 10 == 5 else 0)]) for one in range(40)]
    outcomes = await together(store, wanted)
    assert [type(outcome) for outcome in outcomes] == [NotFound if one % 10 == 5 else int for one in range(40)]
    assert len((await store.range("/leased/"))[1]) == 36


async def test_who_goes_away_takes_nobody_along(store):
    asked = [asyncio.create_task(store.txn([], [Put(f"/stay/{one}", b"")])) for one in range(40)]
    await asyncio.sleep(0)
    for task in asked[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(outcome, int) for outcome in outcomes[1::2])
    assert {f"/stay/{one}" for one in range(1, 40, 2)} <= {pair.key for pair in (await store.range("/stay/"))[1]}


@pytest.mark.parametrize("lost", ["question", "answer"])
async def test_a_broken_connection_makes_none_of_them_twice(etcd, lost):
    """Whatever each is told, it is so: it has been made once, or not at all."""
    async with Wire(etcd.addresses[0]) as wire:
        store = await EtcdStore.open([wire.address], timeout=10)
        for turn in range(3):
            wanted = [([Missing(f"/once/{turn}/{one}")], [Put(f"/once/{turn}/{one}", b"%d" % one)]) for one in range(60)]
            wire.lose_next_question() if lost == "question" else wire.lose_next_answer()
            outcomes = await together(store, wanted)
            there = {pair.key: pair.revision for pair in (await store.range(f"/once/{turn}/"))[1]}
            assert there == {f"/once/{turn}/{one}": outcome for one, outcome in enumerate(outcomes)}
        await store.close()


async def test_no_member_is_no_endless_wait(etcd):
    store = EtcdStore(["127.0.0.1:9"], timeout=0.5)
    async with asyncio.timeout(10):
        outcomes = await together(store, [([], [Put(f"/never/{one}", b"")]) for one in range(20)])
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    await store.close()
