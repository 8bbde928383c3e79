"""The etcd store on bad days: members that die, hang or are strangers, watches that are cut; and what it promises of ranges."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from netplug.errors import InvalidArgument, Unavailable, Undecided
from netplug.store import Compacted, Event, KeyValue, Missing, Put, etcd_watch
from netplug.store.etcd import EtcdStore
from netplug.store.etcd_client import pb
from tests.cluster.stores import PATIENCE, A, B, following, in_thread, until_made
from tests.cluster.wire import babbler
from tests.etcd_members import Cluster, etcd_cluster, free_port


@pytest.fixture(scope="module")
def three_members() -> Iterator[Cluster]:
    with etcd_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def three(three_members: Cluster) -> Iterator[Cluster]:
    """All three run, and run again afterwards, with nothing in them."""
    yield three_members
    for member in three_members.running:
        member.resume()
    three_members.heal()
    three_members.ctl("del", "--prefix", "")


def states(store: EtcdStore) -> asyncio.Queue[bool]:
    """What the store says of its health from now on."""
    heard: asyncio.Queue[bool] = asyncio.Queue()
    store.on_state(heard.put_nowait)
    return heard


class Writer:
    """Makes one key after the other; `made` are those that the store said it has made, `failed` those of which it did not."""

    def __init__(self, store: EtcdStore) -> None:
        self.made: dict[str, int] = {}
        self.failed: dict[str, Exception] = {}
        self._store = store
        self._more = asyncio.Event()

    async def __aenter__(self) -> Writer:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def progress(self, count: int = 10) -> None:
        """That many more have been made."""
        goal = len(self.made) + count
        async with asyncio.timeout(PATIENCE):
            while len(self.made) < goal:
                assert not self._task.done(), self._task
                self._more.clear()
                await self._more.wait()

    async def _write(self) -> None:
        for number in itertools.count():
            key = f"/n/{number:06}"
            try:
                self.made[key] = await self._store.txn([Missing(key)], [Put(key, key.encode())])
            except Unavailable as error:
                self.failed[key] = error
            self._more.set()


class TestFailover:
    async def test_the_member_it_asks_is_killed(self, three, stores):
        store = await stores(three)
        revision = await store.txn([], [Put(A, b"1")])
        three.members[0].kill()
        assert await store.get(A) == KeyValue(A, b"1", revision)
        assert await store.txn([Missing(B)], [Put(B, b"2")]) == revision + 1
        assert store.healthy

    async def test_the_first_in_the_list_has_never_been_there(self, three, stores):
        store = await stores(three, members=[f"127.0.0.1:{free_port()}", three.addresses[1]])
        assert await store.txn([], [Put(A, b"1")])

    async def test_a_member_that_hangs_is_left_within_the_deadline(self, three, stores):
        """The one that neither leads nor answers: the others can do without it."""
        leader = three.leader()
        hanging, other = (member for member in three.members if member is not leader)
        store = await stores(three, members=[hanging.address, other.address, leader.address])
        hanging.pause()
        assert await store.txn([Missing(A)], [Put(A, b"1")])
        assert (await store.get(A)).value == b"1"

    async def test_a_dead_leader_fails_no_write_that_said_it_was_made(self, three, stores):
        store = await stores(three, timeout=4)
        async with Writer(store) as writer:
            await writer.progress()
            three.leader().kill()
            await writer.progress()
        await check_state(store, writer)
        assert not writer.failed

    async def test_restarting_all_in_turn_loses_no_event_and_no_write(self, three, stores):
        store = await stores(three)
        revision, _ = await store.range("/n/")
        seen: list[list[Event]] = []

        async def follow() -> None:
            async for events in store.watch("/n/", revision + 1):
                seen.append(events)
                if events[0].key == "/n/end":
                    return

        watching = asyncio.create_task(follow())
        async with Writer(store) as writer:
            for member in three.members:
                await writer.progress()
                await in_thread(member.restart)
            await writer.progress()
        end = await stores(three, timeout=PATIENCE)
        await end.txn([], [Put("/n/end", b"")])
        async with asyncio.timeout(PATIENCE):
            await watching

        pairs = await check_state(end, writer)
        assert seen == [[Event(pair.key, pair.value, pair.revision)] for pair in sorted(pairs, key=lambda pair: pair.revision)]

    async def test_without_a_majority_it_is_unavailable_and_says_why(self, three, stores):
        store = await stores(three)
        for member in three.members[1:]:
            member.kill()
        with pytest.raises(Unavailable):  # Undecided if it was asked before the member knew that it is alone
            await store.txn([], [Put(A, b"1")])
        with pytest.raises(Unavailable, match=f"{three.members[0].address}: etcdserver: no leader"):
            await store.get(A)
        three.heal()
        await until_made(store, A)

    async def test_all_gone(self, etcd_apart, stores):
        store = await stores(etcd_apart)
        heard = states(store)
        (member,) = etcd_apart.members
        member.kill()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        with pytest.raises(Unavailable) as caught:
            await store.get(A)
        assert loop.time() - begin < 2 * 2  # the promise is 2 s; what is above is the machine's
        assert str(caught.value) == (
            f"the etcd cluster does not answer ({member.address}: Connection refused): start it, or correct the list of its members"
        )
        assert not store.healthy
        member.start()
        await until_made(store, A)
        assert [await heard.get() for _ in range(2)] == [False, True]

    async def test_who_is_away_is_named_in_the_order_of_the_setting(self):
        """A log that leaves out what it has said last has it once."""
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        store = EtcdStore(addresses, timeout=0.5)
        expected = "; ".join(f"{address}: Connection refused" for address in addresses)
        for count in range(1, 6):
            store._members.pass_over(store._members.first)  # another begins
            with pytest.raises(Unavailable) as caught:
                await store.get(A)
            assert f"({expected})" in str(caught.value), count
        await store.close()

    async def test_a_stranger_on_the_port_is_no_member(self, etcd, stores):
        async with babbler() as stranger:
            with pytest.raises(Unavailable, match=f"does not answer .*{stranger}"):
                await EtcdStore.open([stranger], timeout=0.5)
            store = await stores(etcd, members=[stranger, *etcd.addresses])
            assert await store.txn([], [Put(A, b"1")])

    async def test_addresses_are_checked(self):
        for wrong in ([], [""], ["ftp://h:1"], ["https://h:1"]):
            with pytest.raises(InvalidArgument):
                EtcdStore(wrong)


@pytest.fixture
def etcd_apart() -> Iterator[Cluster]:
    """One member that a test may end."""
    with etcd_cluster() as cluster:
        yield cluster


async def check_state(store: EtcdStore, writer: Writer) -> list[KeyValue]:
    """What was said to be made is there at that revision; of the others, only what was in doubt may be."""
    _, pairs = await store.range("/n/")
    there = {pair.key: pair.revision for pair in pairs if pair.key != "/n/end"}
    doubtful = {key for key, error in writer.failed.items() if isinstance(error, Undecided)}
    assert {key: there.get(key) for key in writer.made} == writer.made
    assert set(there) - set(writer.made) <= doubtful
    return pairs


class TestWatches:
    async def test_one_stream_carries_them_all(self, etcd, store):
        revision, _ = await store.range("")
        before = gauge(etcd, "etcd_debugging_mvcc_watch_stream_total")
        watching = [asyncio.create_task(following(store, f"/{number}/", revision + 1, 1)) for number in range(50)]
        for number in range(50):
            await store.txn([], [Put(f"/{number}/x", b"")])
        seen = await asyncio.gather(*watching)
        assert [events[0].key for ((*events,),) in seen] == [f"/{number}/x" for number in range(50)]
        assert gauge(etcd, "etcd_debugging_mvcc_watch_stream_total") == before + 1

    async def test_a_given_up_one_is_given_back(self, etcd, store):
        revision = await store.txn([], [Put(A, b"")])
        for _ in range(3):  # etcd takes them in order: who sees the last one knows that those before are gone
            await following(store, A, revision, 1)
        assert gauge(etcd, "etcd_debugging_mvcc_watcher_total") <= 1

    async def test_a_transaction_in_fragments_is_one_list(self, store):
        """A batch of events above etcd's 2 MiB comes in several messages, cut anywhere."""
        revision, _ = await store.range("")
        for group in range(4):
            await store.txn([], [Put(f"/{group}/{number}", b"x" * 12_000) for number in range(90)])
        seen = await following(store, "/", revision + 1, 4)
        assert [[event.key for event in events] for events in seen] == [
            [f"/{group}/{number}" for number in range(90)] for group in range(4)
        ]

    async def test_a_transaction_that_fills_several_fragments_is_one_list(self, etcd, store):
        """As etcd would send it with smaller messages: three parts, the second and third of one revision."""
        watches = store._watches
        watch = store.watch("/", 1)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        number = next(iter(watches._active))

        def part(fragment: bool, *keys: tuple[bytes, int]) -> Any:
            events = [{"kv": {"key": key, "value": b"v", "mod_revision": revision}} for key, revision in keys]
            return pb.WatchResponse(watch_id=number, fragment=fragment, events=events)

        watches._take(part(True, (b"/a", 8), (b"/b", 9)))
        watches._take(part(True, (b"/c", 9)))
        watches._take(part(False, (b"/d", 9)))
        assert await waiting == [Event("/a", b"v", 8)]
        assert await anext(watch) == [Event(f"/{name}", b"v", 9) for name in "bcd"]
        await watch.aclose()

    async def test_a_slow_reader_gets_all_of_it(self, store, monkeypatch):
        monkeypatch.setattr(etcd_watch, "KEPT", 5)
        revision, _ = await store.range("")
        watch = store.watch("/n/", revision + 1)
        writes = [store.txn([], [Put(f"/n/{number:02}", b"")]) for number in range(50)]
        first = asyncio.ensure_future(anext(watch))
        for write in writes:
            await write
        seen = [await first, *[await asyncio.wait_for(anext(watch), PATIENCE) for _ in range(49)]]
        assert [events[0].key for events in seen] == [f"/n/{number:02}" for number in range(50)]
        await watch.aclose()

    async def test_compaction_is_told(self, etcd, store):
        revision = await store.txn([], [Put(A, b"1")])
        await store.txn([], [Put(A, b"2")])
        last = etcd.compact()
        with pytest.raises(Compacted, match=f"revision {revision} is no longer kept, the oldest is {last}"):
            await following(store, "", revision, 1)
        assert (await following(store, "", last, 1))[0][0].value == b"2"

    async def test_compaction_while_disconnected_is_told(self, three, stores):
        """The watch knows one member only, which is dead while the others go on and forget."""
        near, far = await stores(three, members=three.addresses[:1]), await stores(three)
        revision = await near.txn([], [Put(A, b"1")])
        heard = states(near)
        watching = asyncio.create_task(following(near, A, revision, 2))
        later = asyncio.create_task(following(near, B, revision + 1, 1))
        await following(near, A, revision, 1)
        three.members[0].kill()
        async with asyncio.timeout(PATIENCE):
            assert await heard.get() is False
        for _ in range(3):
            await until_made(far, A)
        three.compact()
        await in_thread(three.heal)
        for task in (watching, later):
            with pytest.raises(Compacted):
                await task
        assert await heard.get() is True

    async def test_one_at_a_member_that_hangs_goes_on_at_another(self, three, stores, monkeypatch):
        monkeypatch.setattr(etcd_watch, "QUIET", 0.2)
        leader = three.leader()
        hanging, other = (member for member in three.members if member is not leader)
        near, far = await stores(three, members=[hanging.address, other.address]), await stores(three, members=[other.address])
        revision = await far.txn([], [Put(A, b"1")])
        await following(near, A, revision, 1)
        watching = asyncio.create_task(following(near, A, revision + 1, 1))
        hanging.pause()
        assert (await far.txn([], [Put(A, b"2")])) == revision + 1
        assert await watching == [[Event(A, b"2", revision + 1)]]

    async def test_they_end_with_the_store(self, store):
        revision = await store.txn([], [Put(A, b"1")])
        watch = store.watch("", revision)
        assert await anext(watch) == [Event(A, b"1", revision)]
        waiting = asyncio.ensure_future(anext(watch, None))
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.wait_for(waiting, PATIENCE) is None
        assert [events async for events in store.watch("", revision)] == []


def gauge(cluster: Cluster, name: str) -> float:
    """One of etcd's own figures."""
    with urllib.request.urlopen(f"http://{cluster.addresses[0]}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


class TestRanges:
    async def test_ten_thousand_keys_are_of_one_revision(self, store):
        keys = [f"/many/{number:05}" for number in range(10_050)]
        for start in range(0, len(keys), 100):
            await store.txn([], [Put(key, key.encode()) for key in keys[start : start + 100]])
        async with Writer(store) as writer:
            await writer.progress(1)
            revision, pairs = await store.range("/")
            await writer.progress(1)
        assert [pair.key for pair in pairs if pair.key.startswith("/many/")] == keys
        assert {pair.key for pair in pairs} - set(keys) == {key for key, made in writer.made.items() if made <= revision}

    async def test_stores_with_other_prefixes_are_apart(self, etcd, stores):
        one, other = await stores(etcd, prefix="/one/"), await stores(etcd, prefix="/other")
        await one.txn([], [Put(A, b"1")])
        revision = await other.txn([Missing(A)], [Put(A, b"2")])
        assert await other.range("") == (revision, [KeyValue(A, b"2", revision)])
        assert etcd.ctl("get", "--prefix", "", "--keys-only").split() == [f"/one{A}", f"/other{A}"]

    async def test_bytes_that_are_no_text_go_through(self, etcd, store):
        revision = await store.txn([], [Put("/a\udcff", b"\xff\x00")])
        assert await store.range("/a") == (revision, [KeyValue("/a\udcff", b"\xff\x00", revision)])
        assert await following(store, "/a", revision, 1) == [[Event("/a\udcff", b"\xff\x00", revision)]]


def test_the_daemon_does_not_carry_the_client_without_a_cluster():
    """It is a quarter of the daemon's memory."""
    source = "import sys, netplug.daemon; print(sorted({'grpc', 'etcd3aio', 'google.protobuf'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
