"""Deleting links: many at once, told by the kernel's notification, also when that is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from netplug.errors import KernelError
from netplug.kernel import links, monitor, namespaces
from netplug.kernel.deletion import Deletions
from netplug.kernel.links import Link
from netplug.kernel.monitor import Monitor
from netplug.kernel.netlink import Kept, Socket
from netplug.kernel.outcome import Outcome
from netplug.plan import DOOMED_GROUP, LINK_GROUP, Bridge, Remove, Veth
from tests.kernel.inside import Sandboxes, command, in_host, ip


@asynccontextmanager
async def deleting() -> AsyncIterator[Deletions]:
    host = Kept()
    deletions = Deletions(host)
    deletions.start()
    try:
        yield deletions
    finally:
        await deletions.close()
        host.close()


def make_veths(count: int, master: str = "") -> list[Link]:
    with Socket() as netlink:
        port = links.find(netlink, master).index if master else 0  # type: ignore[union-attr]
        messages = []
        for number in range(count):
            op = Veth(name=f"near{number}", peer=f"far{number}", peer_namespace="", mac="02:42:00:00:00:02", master=master)
            messages += links.new_veth(op, links.choose_index(), links.choose_index(), None, port)
        assert set(netlink.send(messages)) == {None}
        return [link for name, link in links.dump(netlink).items() if name.startswith("near")]


def removals(*names: str) -> list[Remove]:
    return [Remove(op=Veth(name=name, peer="x", peer_namespace="", mac="02:42:00:00:00:02")) for name in names]


def names() -> list[str]:
    return [one["ifname"] for one in ip("link")]


@in_host
async def test_thirty_links_go_together():
    found = make_veths(30)
    async with deleting() as deletions:
        started = time.monotonic()
        await deletions.delete_links(found)
        took = time.monotonic() - started

    assert names() == ["lo"]
    assert took < 30 * 0.02, "as slow as one after another, with their acks"


@in_host
async def test_the_loop_goes_on_meanwhile():
    """The reaper's thread waits for the kernel, not the loop."""
    found = make_veths(30)
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            before = time.monotonic()
            await asyncio.sleep(0)
            worst = max(worst, time.monotonic() - before)

    async with deleting() as deletions:
        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(deletions.delete_links([link]) for link in found))
        ticking.cancel()

    assert names() == ["lo"]
    assert worst < 0.2


@in_host
async def test_a_bridge_goes_with_its_ports():
    command("ip", "link", "add", "kbr", "group", str(LINK_GROUP), "up", "type", "bridge")
    make_veths(5, "kbr")
    async with deleting() as deletions:
        outcome = Outcome()
        steps = [Remove(op=Bridge(name="kbr", mac="")), *removals(*(f"near{number}" for number in range(5)))]
        await deletions.done(deletions.delete("", steps, outcome))

    assert names() == ["lo"]
    assert outcome.changed() == tuple(steps)
    assert outcome.failures == []


@in_host
async def test_only_ours_go():
    command("ip", "link", "add", "theirs", "type", "veth", "peer", "name", "far")
    async with deleting() as deletions:
        outcome = Outcome()
        await deletions.done(deletions.delete("", removals("theirs", "missing", "lo"), outcome))

    assert "theirs" in names()
    assert (outcome.changed(), outcome.failures) == ((), [])


@in_host
async def test_two_may_delete_the_same():
    make_veths(1)
    async with deleting() as deletions:
        outcomes = [Outcome(), Outcome()]
        departures = [deletions.delete("", removals("near0"), outcome) for outcome in outcomes]
        await asyncio.gather(*(deletions.done(departure) for departure in departures))
        deletions.delete("", removals("near0"), Outcome())

    assert names() == ["lo"]
    assert all(outcome.failures == [] for outcome in outcomes)


@in_host
async def test_a_link_gone_before_it_is_marked_is_fine():
    found = make_veths(2)
    command("ip", "link", "del", "near0")
    async with deleting() as deletions:
        await deletions.delete_links(found)
        await deletions.finished([("", "near0"), ("", "near1")])

    assert names() == ["lo"]


@in_host
async def test_a_stranger_in_the_group_does_not_stop_the_reaper():
    """The kernel refuses to delete a group with a link in it that cannot be deleted, such as `lo`."""
    command("ip", "link", "set", "lo", "group", str(DOOMED_GROUP))
    found = make_veths(3)
    async with deleting() as deletions:
        await deletions.delete_links(found)

    assert names() == ["lo"]


@in_host
async def test_lost_notifications_are_made_up_for(caplog: pytest.LogCaptureFixture):
    """The kernel says ENOBUFS when it had no room: whatever is waited for is looked at."""
    found = make_veths(3)
    listening = Monitor()
    listening.start()
    departures = [listening.departure(link.index) for link in found]
    listening._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    make_and_delete(10)
    for link in found:
        command("ip", "link", "del", link.name)

    await asyncio.wait_for(listening.gone(departures), 0.5)

    assert "looking at 3 links" in caplog.text
    listening.close()


def make_and_delete(count: int) -> None:
    """Many notifications, which nobody reads meanwhile."""
    with Socket() as netlink:
        for _ in range(count):
            index = links.choose_index()
            messages = links.new_bridge(Bridge(name="noise", mac="02:42:00:00:00:03"), index)
            assert set(netlink.send([*messages, links.delete(index)])) == {None}


@in_host
async def test_without_any_notification_the_link_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(monitor, "_CHECK_AFTER", 0.01)
    (found,) = make_veths(1)
    listening = Monitor()
    listening.start()
    asyncio.get_running_loop().remove_reader(listening._socket)
    departure = listening.departure(found.index)
    command("ip", "link", "del", found.name)

    await asyncio.wait_for(listening.gone([departure]), 5)

    listening.close()


@in_host
async def test_a_link_that_stays_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(monitor, "_CHECK_AFTER", 0.01)
    (found,) = make_veths(1)
    listening = Monitor()
    listening.start()

    with pytest.raises(KernelError) as raised:
        await listening.gone([listening.departure(found.index)])

    assert raised.value.errno == errno.ETIMEDOUT
    listening.close()


@in_host
async def test_who_gives_up_waiting_keeps_nobody_else_from_it():
    (found,) = make_veths(1)
    listening = Monitor()
    listening.start()
    departure = listening.departure(found.index)
    impatient, patient = (asyncio.create_task(listening.gone([departure])) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])

    command("ip", "link", "del", found.name)

    await asyncio.wait_for(patient, 5)
    assert impatient.cancelled()
    listening.close()


@in_host
async def test_a_link_that_somebody_sets_down_stays():
    """The kernel tells of that as it does of one that it closes to delete it, but for what has changed."""
    found, marker = make_veths(2)
    listening = Monitor()
    listening.start()
    departure = listening.departure(found.index)
    command("ip", "link", "set", found.name, "down")
    command("ip", "link", "del", marker.name)
    await asyncio.wait_for(listening.gone([listening.departure(marker.index)]), 5)
    assert not departure.done()

    command("ip", "link", "del", found.name)  # down already: it is not closed again

    await asyncio.wait_for(listening.gone([departure]), 0.5)
    listening.close()


@in_host
async def test_a_deletion_that_was_waited_for_is_no_surprise():
    """Who waits is told when the link is closed; that it is deleted is heard of afterwards."""
    ours, theirs = make_veths(2)
    surprises: set[str] = set()
    surprised = asyncio.Event()

    def unexpected(name: str) -> None:
        surprises.add(name)
        if name == theirs.name:
            surprised.set()

    async with deleting() as deletions:
        deletions.watch(unexpected)
        await deletions.delete_links([ours])
        command("ip", "link", "del", theirs.name)
        await asyncio.wait_for(surprised.wait(), 5)

        assert ours.name not in surprises
        assert deletions._monitor._closed == set()


@in_host
async def test_no_packet_comes_out_of_a_link_that_has_departed(tmp_path: Path):
    """Nor does anybody who asks the kernel find it: he waits for the rest of the deletion."""
    with Sandboxes(tmp_path, 1) as sandboxes:
        place = sandboxes[0]
        command("ip", "link", "add", "near", "group", str(LINK_GROUP), "up", "type", "veth", "peer", "name", "far", "netns", place)
        command("ip", "link", "set", "far", "up", namespace=place)
        async with deleting() as deletions:
            with Socket() as netlink:
                found = links.find(netlink, "near")
                assert found is not None
                await deletions.delete_links([found])
                assert links.find(netlink, "near") is None
        assert [one["ifname"] for one in ip("link", namespace=place)] == ["lo"]


@in_host
async def test_a_port_that_leaves_its_bridge_is_not_a_link_that_goes():
    """The bridge family's RTM_DELLINK has the same index."""
    command("ip", "link", "add", "kbr", "up", "type", "bridge")
    (found,) = make_veths(1, "kbr")
    listening = Monitor()
    listening.start()
    departure = listening.departure(found.index)
    command("ip", "link", "set", "near0", "nomaster")
    marker = listening.departure(command_index("kbr"))
    command("ip", "link", "del", "kbr")

    await asyncio.wait_for(listening.gone([marker]), 5)

    assert not departure.done()
    listening.close()


def command_index(name: str) -> int:
    return next(int(one["ifindex"]) for one in ip("link") if one["ifname"] == name)


@in_host
async def test_links_in_other_namespaces_are_deleted_there(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        command("ip", "link", "add", "kbr", "group", str(LINK_GROUP), "type", "bridge", namespace=sandboxes[0])
        step = Remove(op=Bridge(name="kbr", mac="", namespace=sandboxes[0]))
        async with deleting() as deletions:
            outcomes = [Outcome(), Outcome(), Outcome()]
            await deletions.done(deletions.delete(sandboxes[0], [step], outcomes[0]))
            await deletions.done(deletions.delete(sandboxes[0], [step], outcomes[1]))
            await deletions.done(deletions.delete(sandboxes[0] + "-missing", [step], outcomes[2]))
            await deletions.delete_links(make_veths(3))  # by threads that were started for another namespace

        assert names() == ["lo"]
        assert [one["ifname"] for one in ip("link", namespace=sandboxes[0])] == ["lo"]
        assert [outcome.changed() for outcome in outcomes] == [(step,), (), ()]
        assert [outcome.failures for outcome in outcomes] == [[], [], []]


@in_host
async def test_a_namespace_that_goes_meanwhile_is_not_kept(tmp_path: Path):
    """Whoever waits for its links holds it only until they are gone."""
    with Sandboxes(tmp_path, 1) as sandboxes:
        place = sandboxes[0]
        assert namespaces.cookie(place)  # now the thread's own namespace has been opened, once for all
        open_before = len(os.listdir("/proc/self/fd"))
        for name in ("one", "two"):
            command("ip", "link", "add", name, "group", str(LINK_GROUP), "type", "veth", "peer", "name", f"{name}-far", namespace=place)
        steps = [Remove(op=Veth(name=name, peer="x", peer_namespace="", mac="", namespace=place)) for name in ("one", "two")]
        outcome = Outcome()
        async with deleting() as deletions:
            departures = deletions.delete(place, steps, outcome)
            namespaces.remove(place)
            await deletions.done(departures)

    assert (outcome.changed(), outcome.failures) == (tuple(steps), [])
    assert len(os.listdir("/proc/self/fd")) == open_before
