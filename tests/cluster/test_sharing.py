"""Nodes that do the same thing at once, through controllers over a real etcd: who is first is decided there, and everybody agrees on it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from netplug.controller import EndpointRequest, SandboxRequest
from netplug.controller.cluster import Cluster as ClusterStore
from netplug.controller.records import delete_endpoint
from netplug.errors import AddressesExhausted, AddressInUse, Conflict, NetworkInUse, NotFound, Unavailable, Undecided
from netplug.model import Endpoint, Network, encode, new_id
from netplug.store import PREFIX, Delete, Put
from tests.cluster.inprocess import Node, keys, network, nodes, within
from tests.etcd_members import Cluster


def stranger(network: Network, node: str, number: int, **changes: Any) -> Endpoint:
    """An endpoint that is in the cluster's store, and in nobody's records."""
    endpoint = Endpoint(
        id=new_id(),
        network=network.id,
        sandbox=new_id(),
        created="",
        container_name=f"stranger{number}",
        names=(f"stranger{number}",),
        address=f"10.0.0.{number}/24",
        mac=f"02:42:0a:00:00:{number:02x}",
        node=node,
        vtep="192.0.2.9",
    )
    return msgspec.structs.replace(endpoint, **changes)


async def put(node: Node, *endpoints: Endpoint) -> None:
    cluster = ClusterStore(node.shared, node.name, node.core.underlay, "")
    for endpoint in endpoints:
        await cluster.claim(endpoint)


async def test_addresses_come_in_docker_s_order(two: list[Node]):
    """The first that is free, whichever node asks; one that comes back is the first again."""
    made = await network(two)
    addresses = [(await two[number % 2].container(f"c{number}")).address for number in range(4)]
    assert addresses == ["10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24", "10.0.0.5/24"]
    await two[1].remove("c1")
    await within(["10.0.0.2", "10.0.0.4", "10.0.0.5"], lambda: two[0].taken(made.id))
    assert (await two[0].container("again")).address == "10.0.0.3/24"


async def test_addresses_that_both_ask_for_at_once(two: list[Node], etcd: Cluster):
    made = await network(two)
    endpoints = await asyncio.gather(*(node.container(f"{node.name}c{number}") for number in range(20) for node in two))
    addresses = [endpoint.address for endpoint in endpoints]
    assert len(set(addresses)) == 40
    assert len(keys(etcd, "addresses/")) == len(keys(etcd, "endpoint-names/")) == len(keys(etcd, "endpoints/")) == 40
    for node in two:
        await within(sorted(address.split("/")[0] for address in addresses), lambda node=node: sorted(node.taken(made.id)))


async def test_the_last_addresses_of_a_pool(two: list[Node]):
    """Everybody who could get one gets one."""
    await network(two, subnet="10.0.0.0/29")
    wanted = (node.container(f"{node.name}c{number}") for number in range(4) for node in two)
    results = await asyncio.gather(*wanted, return_exceptions=True)
    got = sorted(result.address for result in results if isinstance(result, Endpoint))
    assert got == [f"10.0.0.{number}/29" for number in range(2, 7)]
    assert all(isinstance(result, Endpoint | AddressesExhausted) for result in results)


async def test_one_address_that_both_want(two: list[Node]):
    await network(two)
    results = await asyncio.gather(*(node.container(node.name, address="10.0.0.77") for node in two), return_exceptions=True)
    (won,), (lost,) = ([result for result in results if isinstance(result, kind)] for kind in (Endpoint, AddressInUse))
    assert won.address == "10.0.0.77/24"
    assert "10.0.0.77" in str(lost)
    loser = next(node for node in two if node.name != won.node)
    await within(True, lambda: "10.0.0.77" in (loser.taken(won.network) if won.network in loser.core.joined else ["10.0.0.77"]))


async def test_one_name_that_both_want(two: list[Node], etcd: Cluster):
    await network(two)
    results = await asyncio.gather(*(node.container("web") for node in two), return_exceptions=True)
    (lost,) = (result for result in results if isinstance(result, Conflict))
    assert str(lost) == "endpoint with name web already exists in network demo"
    assert len(keys(etcd, "addresses/")) == 1


async def test_networks_that_both_make_at_once(two: list[Node], etcd: Cluster):
    """Names, VNIs and subnets are each network's own."""
    wanted = (node.network(f"net{node.name}{number}", subnet="") for number in range(8) for node in two)
    made = await asyncio.gather(*wanted)
    assert len({one.vni for one in made}) == len({one.pools[0].subnet for one in made}) == 16
    assert sorted(key.split("/")[1] for key in keys(etcd, "vnis/")) == sorted(str(one.vni) for one in made)
    for node in two:
        await within({one.id for one in made}, lambda node=node: set(node.core.records.networks))


async def test_one_network_that_both_make(two: list[Node], etcd: Cluster):
    results = await asyncio.gather(*(node.network("demo") for node in two), return_exceptions=True)
    assert [type(result) for result in results if not isinstance(result, Network)] == [Conflict]
    assert len(keys(etcd, "networks/")) == len(keys(etcd, "vnis/")) == 1


async def test_a_vni_that_nobody_s_network_has(two: list[Node]):
    """Something that is no network of ours stands in the way of the first number."""
    await two[0].shared.txn((), [Put(f"{PREFIX}vnis/4096", b"what?")])
    assert (await two[0].network()).vni == 4097


async def test_a_network_goes_only_when_nobody_is_on_it_anywhere(two: list[Node], etcd: Cluster):
    made = await network(two)
    await two[0].container("a")
    with pytest.raises(NetworkInUse, match="has active endpoints"):
        await two[1].controller.remove_network("demo")
    await two[0].remove("a")
    await two[1].controller.remove_network("demo")
    for node in two:
        await within(False, lambda node=node: made.id in node.core.records.networks)
    assert keys(etcd, "") == [f"{part}/{node.name}" for part in ("alive", "nodes") for node in two] + ["pools"]


async def test_joining_and_removing_at_once(two: list[Node], etcd: Cluster):
    """One of them wins, and nothing hangs in the air."""
    for turn in range(10):
        await network(two)
        joined, removed = await asyncio.gather(two[0].container("a"), two[1].controller.remove_network("demo"), return_exceptions=True)
        if isinstance(joined, Endpoint):
            assert isinstance(removed, NetworkInUse), turn
            await two[0].remove("a")
            await two[1].controller.remove_network("demo")
        else:
            assert isinstance(joined, NotFound), turn
        await within(set(), lambda: two[0].core.joined)
        await within([set(), set()], lambda: [set(node.core.records.networks) for node in two])
        assert [key for key in keys(etcd, "") if not key.startswith(("alive/", "nodes/", "pools"))] == []


async def test_a_disconnect_is_not_taken_for_a_loss(two: list[Node], etcd: Cluster):
    """The node hears of its own release while the record is there yet: it must not claim the place again."""
    await network(two)
    await asyncio.gather(*(two[0].container(f"c{number}") for number in range(20)))
    await asyncio.gather(*(two[0].disconnect(f"c{number}") for number in range(10)))
    await two[0].nodes._controller.cluster_back()
    await asyncio.gather(*(two[0].disconnect(f"c{number}") for number in range(10, 20)))
    assert keys(etcd, "endpoints/") == []
    await two[0].container("last")
    assert len(keys(etcd, "endpoints/")) == 1


async def test_who_connects_while_all_is_read_keeps_its_place(two: list[Node], etcd: Cluster):
    await network(two)
    await two[0].container("first")
    for _ in range(10):
        two[0].controller._membership.read_anew()
        name = f"c{new_id()[:8]}"
        await two[0].container(name)
    assert len(two[0].controller.endpoints()) == len(keys(etcd, "endpoints/")) == 11


async def test_what_was_taken_from_us_is_claimed_again(two: list[Node], etcd: Cluster):
    await network(two)
    endpoint = await two[0].container("a")
    await two[1].shared.txn((), delete_endpoint(endpoint))
    await within(1, lambda: len(keys(etcd, "addresses/")))
    await within(1, lambda: len(keys(etcd, "endpoint-names/")))
    assert two[0].controller.endpoints() == [endpoint]


async def test_who_has_lost_his_place_is_disconnected(two: list[Node], etcd: Cluster):
    """Another has the address by now: two containers with one address would be worse."""
    made = await network(two)
    await two[0].container("other")
    endpoint = await two[0].container("a")
    usurper = stranger(made, "n9", 3)
    await two[1].shared.txn(
        (),
        [
            Delete(f"{PREFIX}endpoints/{made.id}/{endpoint.id}"),
            Delete(f"{PREFIX}endpoint-names/{made.id}/a"),
            Put(f"{PREFIX}addresses/{made.id}/10.0.0.3", usurper.id.encode()),
            Put(f"{PREFIX}endpoints/{made.id}/{usurper.id}", encode(usurper)),
        ],
    )
    await within(["other"], lambda: [one.container_name for one in two[0].controller.endpoints()])
    await within({"10.0.0.3": "192.0.2.9"}, lambda: frames(two[0], made))


async def test_a_network_that_is_gone_disconnects_nobody(two: list[Node], etcd: Cluster):
    """As when the cluster's store was lost: containers run on as they are."""
    await network(two)
    await two[0].container("a")
    etcd.ctl("del", "--prefix", "")
    await two[0].controller.cluster_back()
    await within([], lambda: keys(etcd, "endpoints/"))
    await asyncio.sleep(0)
    assert [one.container_name for one in two[0].controller.endpoints()] == ["a"]


def frames(node: Node, network: Network) -> dict[str, str]:
    """By address, the node that frames go to."""
    entries = node.frames.entries.get(node.core.place(network), {})
    return {address: entries[mac] for address, mac in entries.items() if "." in address}


def named(node: Node, address: str) -> list[str]:
    return [names.names[0] for names in node.resolver.endpoints.values() if names.address == address]


async def test_an_address_that_changes_hands_at_once(etcd: Cluster):
    """A third node sees the new owner, whatever it hears last."""
    async with nodes(etcd, 3) as (one, two, three):
        made = await network([one, two, three])
        await three.container("witness")
        await two.container("other")
        for turn in range(10):
            await one.container(f"a{turn}", address="10.0.0.50")
            await one.remove(f"a{turn}")
            await within(False, lambda: "10.0.0.50" in two.taken(made.id))
            await two.container(f"b{turn}", address="10.0.0.50")
            await within("192.0.2.2", lambda: frames(three, made).get("10.0.0.50"))
            assert "10.0.0.50" in three.taken(made.id)
            await within([f"b{turn}"], lambda: named(three, "10.0.0.50"))
            await two.remove(f"b{turn}")
            await within(None, lambda: frames(three, made).get("10.0.0.50"))
            await within(False, lambda: "10.0.0.50" in three.taken(made.id))
            await within(False, lambda: "10.0.0.50" in one.taken(made.id) if made.id in one.core.joined else False)


async def test_a_claim_that_nobody_answered_is_given_back(two: list[Node], etcd: Cluster, monkeypatch: pytest.MonkeyPatch):
    """It was made, and the answer was lost: the user may try again at once with the same name and address."""
    await network(two)
    await two[0].container("first")
    claim = ClusterStore.claim

    async def unanswered(cluster: ClusterStore, endpoint: Endpoint) -> None:
        await claim(cluster, endpoint)
        raise Undecided("no answer")

    monkeypatch.setattr(ClusterStore, "claim", unanswered)
    with pytest.raises(Undecided):
        await two[0].container("web", address="10.0.0.9")
    monkeypatch.setattr(ClusterStore, "claim", claim)
    await within(1, lambda: len(keys(etcd, "endpoints/")))
    assert (await two[0].container("web", address="10.0.0.9")).address == "10.0.0.9/24"
    assert await two[0].local.range(f"{PREFIX}owed/") == (two[0].store.revision, [])


async def test_a_claim_that_comes_late_is_given_back(two: list[Node], etcd: Cluster):
    """A copy of a claim was on its way when all had given up: it is ours, and nobody knows it."""
    made = await network(two)
    await two[0].container("first")
    await put(two[1], stranger(made, "n1", 40), stranger(made, "n1", 41))
    await within(1, lambda: len(keys(etcd, "endpoints/")))
    await within(["10.0.0.2"], lambda: two[0].taken(made.id))


async def test_what_is_ours_and_unknown_goes_when_we_register(two: list[Node], etcd: Cluster):
    """Also of networks that this node is not on, and of a state directory that was lost."""
    made = await network(two)
    await two[0].stop()
    await put(two[1], *(stranger(made, "n1", number) for number in range(10, 13)), stranger(made, "n9", 20))
    two[0].store = type(two[0].store)()
    await two[0].start()
    await within([f"addresses/{made.id}/10.0.0.20"], lambda: keys(etcd, "addresses/"))


async def test_a_network_whose_making_nobody_answered_for(two: list[Node], monkeypatch: pytest.MonkeyPatch):
    """It is there after all: either the caller is told, or it is known like any other."""
    add = ClusterStore.add_network

    async def unanswered(cluster: ClusterStore, network: Network, guard: Any) -> int:
        await add(cluster, network, guard)
        if cluster.node == "n1":
            await within(True, lambda: two[0].controller._shared._making[network.id])
        raise Undecided("no answer")

    monkeypatch.setattr(ClusterStore, "add_network", unanswered)
    await two[0].network("one")
    with contextlib.suppress(Undecided):
        await two[1].network("two", subnet="10.1.0.0/24")
    await within([{"one", "two"}] * 2, lambda: [{known.name for known in node.core.records.networks.values()} for node in two])


async def test_while_the_cluster_is_away_a_disconnect_fails_and_an_end_does_not(two: list[Node], etcd: Cluster):
    made = await network(two)
    for name in ("a", "b"):
        await two[0].container(name)
    await two[1].container("c")
    await within({"10.0.0.4": "192.0.2.2"}, lambda: frames(two[0], made))
    member = etcd.members[0]
    member.stop()
    try:
        with pytest.raises(Unavailable):
            await two[0].disconnect("a")
        with pytest.raises(Unavailable):
            await two[0].container("new")
        await two[0].remove("b")
        assert [one.container_name for one in two[0].controller.endpoints()] == ["a"]
        assert frames(two[0], made) == {"10.0.0.4": "192.0.2.2"}
    finally:
        member.start()
    await within({"10.0.0.2": "192.0.2.1"}, lambda: frames(two[1], made))
    await two[0].disconnect("a")
    await within({}, lambda: frames(two[1], made))


async def test_a_node_that_does_not_come_back(two: list[Node], etcd: Cluster):
    """More of its endpoints than one transaction takes; others', and those on other networks, stay."""
    one = two[0]
    made, other = await network(two), await network(two, name="other", subnet="10.1.0.0/24")
    await one.container("mine")
    await put(one, *(stranger(made, "n9", number) for number in range(10, 60)), stranger(made, "n8", 77))
    await put(one, *(stranger(other, "n9", number, address=f"10.1.0.{number}/24") for number in range(10, 30)))
    await within(51, lambda: len(frames(one, made)))
    assert await one.nodes.remove("n9") == 70
    await within({"10.0.0.77": "192.0.2.9"}, lambda: frames(one, made))
    assert sorted(key.split("/")[2] for key in keys(etcd, "addresses/")) == ["10.0.0.2", "10.0.0.77"]
    with pytest.raises(NotFound, match="No such node: n9"):
        await one.nodes.remove("n9")
    with pytest.raises(Conflict, match="is this one"):
        await one.nodes.remove("n1")
    with pytest.raises(Conflict, match="node n2 is alive"):
        await one.nodes.remove("n2")


async def test_a_removal_that_was_interrupted_goes_on(two: list[Node], etcd: Cluster, monkeypatch: pytest.MonkeyPatch):
    made = await network(two)
    await put(two[0], *(stranger(made, "n9", number) for number in range(10, 60)))
    store, count = two[0].mortal, 0

    async def breaks(*arguments: Any, **options: Any) -> int:
        nonlocal count
        count += 1
        if count == 2:
            raise Unavailable("the cluster went")
        return await two[0].shared.txn(*arguments, **options)

    monkeypatch.setattr(store, "txn", breaks, raising=False)
    with pytest.raises(Unavailable):
        await two[0].nodes.remove("n9")
    left = len(keys(etcd, "endpoints/"))
    assert 0 < left < 50
    assert await two[0].nodes.remove("n9") == left
    assert keys(etcd, "addresses/") == keys(etcd, "endpoint-names/") == []


async def test_a_removal_beside_another(two: list[Node], etcd: Cluster):
    made = await network(two)
    await put(two[0], *(stranger(made, "n9", number) for number in range(10, 60)))
    counts = await asyncio.gather(*(node.nodes.remove("n9") for node in two))
    assert sum(counts) == 50
    assert keys(etcd, "endpoints/") == []


async def test_a_node_that_comes_back_while_it_is_removed(two: list[Node], etcd: Cluster):
    made = await network(two)
    await put(two[0], *(stranger(made, "n9", number) for number in range(10, 60)))
    await two[0].shared.txn((), [Put(f"{PREFIX}alive/n9", b"it")])
    with pytest.raises(Conflict, match="node n9 is alive"):
        await two[0].nodes.remove("n9")
    assert len(keys(etcd, "endpoints/")) == 50


async def test_a_living_node_that_is_removed_by_force_comes_back_whole(two: list[Node], etcd: Cluster):
    await network(two)
    endpoint = await two[0].container("a")
    assert await two[1].nodes.remove("n1", force=True) == 1
    await within(["alive/n1", "alive/n2"], lambda: keys(etcd, "alive/"))
    await within([f"addresses/{endpoint.network}/10.0.0.2"], lambda: keys(etcd, "addresses/"))
    await within(True, lambda: two[1].nodes.lives("n1"))


async def test_names_of_a_node_that_was_dead_before_we_heard_of_it(two: list[Node], etcd: Cluster):
    """It has endpoints, and nothing else says that it ever was."""
    made = await network(two)
    await put(two[0], stranger(made, "n9", 9))
    await two[0].container("a")
    await within({"10.0.0.9": "192.0.2.9"}, lambda: frames(two[0], made))
    assert [names.names for names in two[0].resolver.endpoints.values()] == [("a",)]
    await two[0].shared.txn((), [Put(f"{PREFIX}alive/n9", b"it")])
    await within({("a",), ("stranger9",)}, lambda: {names.names for names in two[0].resolver.endpoints.values()})


async def test_two_that_call_themselves_the_same(two: list[Node]):
    two[1].nodes._me = msgspec.structs.replace(two[1].nodes._me, name="n1")
    with pytest.raises(Conflict, match=r"another node at 192\.0\.2\.1 calls itself n1: give this one another --node NAME"):
        await two[1].nodes._register()


async def test_a_sandbox_of_the_cluster_s_network_ends_while_another_node_removes_that(two: list[Node]):
    for _ in range(10):
        made = await network(two)
        sandbox = await two[0].controller.create_sandbox(SandboxRequest(id=new_id(), name="a", namespace="/a", kind="given"))
        await two[0].controller.connect("demo", sandbox.id, EndpointRequest())

        async def remove() -> None:
            while True:
                try:
                    await two[1].controller.remove_network("demo")
                    return
                except NetworkInUse:
                    await asyncio.sleep(0)

        await asyncio.gather(two[0].controller.remove_sandbox(sandbox.id), remove())
        await within(False, lambda made=made: any(made.id in node.core.records.networks for node in two))
        await within(set(), lambda: two[0].core.joined)


async def test_a_node_that_comes_back_by_another_name_and_address(two: list[Node], etcd: Cluster):
    """Its containers run on: they keep their places, and the others send frames to where it is now."""
    made = await network(two)
    await two[0].container("a")
    await two[1].container("b")
    await two[0].kill()
    two[0].name, two[0].address = "renamed", "192.0.2.77"
    await two[0].start()
    await within({"10.0.0.2": "192.0.2.77"}, lambda: frames(two[1], made))
    assert frames(two[0], made) == {"10.0.0.3": "192.0.2.2"}
    assert [one.node for one in two[0].controller.endpoints()] == ["renamed"]
    await within({"a", "b"}, lambda: {names.names[0] for names in two[1].resolver.endpoints.values()})
    await two[0].remove("a")
    await within({}, lambda: frames(two[1], made))


async def test_a_name_of_a_node_that_is_away(two: list[Node], etcd: Cluster):
    """Another host by the same name takes nothing of it; the same host with a new state directory takes all back."""
    made = await network(two)
    await two[0].container("a")
    await two[0].kill()
    etcd.ctl("del", f"{PREFIX}alive/n1")
    registration = two[1].nodes._me
    two[1].nodes._me = msgspec.structs.replace(registration, name="n1")
    with pytest.raises(Conflict, match=r"a node n1 at 192\.0\.2\.1, which is away, is in the cluster already"):
        await two[1].nodes._register()
    two[1].nodes._me = registration
    assert len(keys(etcd, "endpoints/")) == 1
    two[0].store = type(two[0].store)()
    two[0].boots += 1
    await two[0].start()
    await within([], lambda: keys(etcd, f"endpoints/{made.id}"))
