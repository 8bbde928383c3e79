"""The cluster is asked while the kernel is at work: what it refuses, or does not answer, leaves nothing behind, and nothing missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from netplug.controller import EndpointRequest, SandboxRequest, recording
from netplug.errors import Unavailable
from netplug.model import Endpoint, new_id
from netplug.plan import Announce, Veth
from netplug.store import Put
from tests.cluster.inprocess import Node, nodes, within
from tests.etcd_members import Cluster

ADDRESSES = "/netplug/v1/addresses"


@pytest.fixture
async def node(etcd: Cluster) -> AsyncIterator[Node]:
    """On network `demo`, with a container `first`."""
    async with nodes(etcd, 1) as (made,):
        await made.network()
        await made.container("first")
        yield made


def state(node: Node) -> tuple[set[str], set[tuple[str, ...]], list[str]]:
    """Links, names that the resolver knows, and taken addresses."""
    (network,) = (one for one in node.core.records.networks.values() if one.scope == "global")
    return set(node.frames.links), {names.names for names in node.resolver.endpoints.values()}, node.taken(network.id)


def links(*endpoints: Endpoint) -> set[str]:
    return {endpoint.host_interface for endpoint in endpoints}


async def test_an_address_of_another_s(node: Node):
    """Its link has been made already when the cluster says no: it goes, and the next address has one."""
    (first,) = node.controller.endpoints()
    await node.shared.txn((), [Put(f"{ADDRESSES}/{first.network}/10.0.0.3", b"another's")])

    with recording() as plans:
        second = await node.container("second")

    assert second.address == "10.0.0.4/24"
    veths = [step.name for plan in node.frames.applied for step in plan if isinstance(step, Veth)]
    assert len(veths) == 3, "the cluster was asked before the kernel was at work"
    assert node.frames.links == links(first, second)
    assert node.controller.endpoints() == [first, second]
    assert [names.address for names in node.resolver.endpoints.values()] == ["10.0.0.2", "10.0.0.4"]
    told = [step.name for plan in plans for step in plan if isinstance(step, Veth)]
    assert told == [second.host_interface], "what was undone is told as if it had been done"


@pytest.mark.parametrize("answered", [True, False], ids=["away", "silent"])
async def test_a_connect_that_the_cluster_fails(node: Node, etcd: Cluster, monkeypatch: pytest.MonkeyPatch, answered: bool):
    """Whether or not it has made the change: it is taken back there as well, and the next one finds a clean house."""
    before = state(node)
    with monkeypatch.context() as patch:
        patch.setattr(node.mortal, "txn", _failing(node, made=not answered))
        with pytest.raises(Unavailable, match="no answer"):
            await node.container("second")

    assert state(node) == before
    await within(1, lambda: len(etcd.ctl("get", "--prefix", "--keys-only", "/netplug/v1/endpoints/").split()))
    second = await node.container("second")
    assert second.container_name == "second"
    assert len(node.frames.links) == 2


async def test_neighbours_hear_of_it_once_it_is_granted(node: Node, monkeypatch: pytest.MonkeyPatch):
    """They know the address by its former owner's MAC."""

    def announced() -> list[str]:
        return [step.address for plan in node.frames.applied for step in plan if isinstance(step, Announce)]

    await node.container("odd", mac="02:42:00:00:00:99")
    await node.remove("odd")
    node.frames.applied.clear()
    with monkeypatch.context() as patch:
        patch.setattr(node.mortal, "txn", _failing(node, made=False))
        with pytest.raises(Unavailable, match="no answer"):
            await node.container("second")
    assert announced() == []

    assert (await node.container("second")).address == "10.0.0.3/24"

    assert announced() == ["10.0.0.3"]


async def test_a_disconnect_that_the_cluster_fails(node: Node, monkeypatch: pytest.MonkeyPatch):
    """All is again as it was: the link, the names, and the address is nobody else's."""
    before, known = state(node), node.controller.endpoints()
    with monkeypatch.context() as patch:
        patch.setattr(node.mortal, "txn", _failing(node, made=False))
        with pytest.raises(Unavailable, match="no answer"):
            await node.disconnect("first")

    assert node.controller.endpoints() == known
    assert state(node) == before
    assert (await node.container("second")).address == "10.0.0.3/24"


@pytest.fixture
def away(node: Node, monkeypatch: pytest.MonkeyPatch) -> Node:
    """The cluster is known to be away."""
    node.mortal.healthy = False
    monkeypatch.setattr(node.mortal, "txn", _failing(node, made=False))
    return node


async def test_a_disconnect_while_the_cluster_is_known_to_be_away(away: Node):
    """Traffic that could go on is not cut for the moment until it is clear that nothing can be changed."""
    away.frames.removed.clear()

    with pytest.raises(Unavailable, match="no answer"):
        await away.disconnect("first")

    assert away.frames.removed == []
    assert len(away.frames.links) == 1


async def test_a_connect_while_the_cluster_is_known_to_be_away(away: Node):
    """Nothing is made that would have to go at once."""
    away.frames.applied.clear()

    with pytest.raises(Unavailable, match="no answer"):
        await away.container("second")

    assert away.frames.applied == []


async def test_a_connect_that_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch):
    """As by a daemon that ends: what the cluster will have made of it is owed."""
    before, asked, over = state(node), asyncio.Event(), asyncio.Event()

    async def silent(*arguments: Any, **options: Any) -> int:
        asked.set()
        await over.wait()
        raise Unavailable("no answer")

    sandbox = await node.controller.create_sandbox(SandboxRequest(id=new_id(), name="second", namespace="/second", kind="given"))
    with monkeypatch.context() as patch:
        patch.setattr(node.mortal, "txn", silent)
        connecting = asyncio.create_task(node.controller._endpoints.connect("demo", sandbox.id, EndpointRequest()))
        await asked.wait()
        connecting.cancel()
        over.set()
        await asyncio.wait([connecting])

    assert connecting.cancelled()
    assert node.core.cluster is not None
    assert node.core.cluster.claiming == set()
    await within({}, node.controller._debts.owed)
    assert state(node) == before


def _failing(node: Node, *, made: bool) -> Any:
    """The cluster's next transactions: done (`made`) or not, nobody hears of it."""

    async def txn(*arguments: Any, **options: Any) -> int:
        if made:
            await node.shared.txn(*arguments, **options)
        raise Unavailable("no answer")

    return txn
