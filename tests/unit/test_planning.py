"""Plans that are made without being carried out, where networks of a cluster and the gateway bridge are concerned."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netplug.capability import Underlay
from netplug.controller import EndpointRequest, NetworkRequest, SandboxRequest
from netplug.controller.cluster import Cluster
from netplug.controller.exits import GATEWAY
from netplug.errors import AddressInUse, Conflict, Forbidden, NetplugError, NetworkInUse, Unavailable
from netplug.model import Endpoint, Network, PoolConfig, Sandbox, now
from netplug.plan import Bridge, Fdb, Netns, Plan, Remove, Route, Veth, Vxlan
from netplug.store.sqlite import SqliteStore
from tests.unit.doubles import MemoryExecutor
from tests.unit.test_controller import Lab

HERE = Underlay(address="192.0.2.1", folder="/run/netplug/netns")
SUBNET = PoolConfig(subnet="10.70.0.0/24", gateway="10.70.0.1")
NEW = SandboxRequest(id="a" * 64, name="new")


class NodesExecutor(MemoryExecutor):
    async def resync(self, plan: Plan) -> tuple[Plan, list[NetplugError], int]:
        return plan, [], 0


@pytest.fixture
async def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    """Of a node; its cluster's store is a file."""
    monkeypatch.setattr("netplug.kernel.namespaces.cookie", lambda path: 4711)
    monkeypatch.setattr("netplug.kernel.routes.host_subnets", lambda beside, known: [])
    monkeypatch.setattr("netplug.controller.endpoints.open_resolver_sockets", lambda sandbox: socket.socketpair())
    made = Lab(tmp_path)
    made.core.underlay = HERE
    made.core.executor = NodesExecutor()
    store = await SqliteStore.open(tmp_path / "cluster.db")
    made.core.cluster = Cluster(store, "n1", HERE, "this boot")
    yield made
    await made.controller.stop()
    await store.close()
    made.core.ports.release_all()
    made.journal.close()


async def shared(lab: Lab) -> Network:
    """A network with `db` on another node, and nobody here."""
    network = await lab.network("demo", driver="overlay", pools=(SUBNET,))
    db = {"container_name": "db", "address": "10.70.0.2/24", "mac": "02:42:0a:46:00:02", "node": "n2", "vtep": "192.0.2.2"}
    assert lab.core.cluster is not None
    await lab.core.cluster.claim(Endpoint(id="d" * 64, network=network.id, sandbox="e" * 64, created=now(), **db))
    return network


def made(plan: Plan) -> list[type]:
    return [type(step) for step in plan if isinstance(step, Netns | Vxlan | Fdb | Bridge | Veth | Route)]


async def test_a_network_that_this_node_is_not_on_comes_first(lab: Lab) -> None:
    network = await shared(lab)
    sandbox = await lab.sandbox()
    known, networks = dict(lab.core.records.endpoints), dict(lab.core.records.networks)

    plan = await lab.controller.plan_connect("demo", sandbox.id, EndpointRequest())

    assert made(plan) == [Netns, Bridge, Vxlan, Fdb, Veth, Bridge, Veth, Route]
    assert any("10.70.0.3/24" in line for line in lab.core.explain([plan]))
    assert (lab.core.records.endpoints, lab.core.records.networks, lab.core.joined) == (known, networks, set())
    assert lab.core.records.network_named(GATEWAY) is None
    assert "10.70.0.2" not in lab.core.allocators[network.id][0][1].taken()


async def test_what_others_have_is_refused(lab: Lab) -> None:
    await shared(lab)
    with pytest.raises(Conflict, match="endpoint with name db already exists in network demo"):
        await lab.controller.plan_connect("demo", (await lab.sandbox("db")).id, EndpointRequest())
    with pytest.raises(AddressInUse):
        await lab.controller.plan_connect("demo", (await lab.sandbox()).id, EndpointRequest(address="10.70.0.2"))
    with pytest.raises(NetworkInUse, match=r"has active endpoints \(db\)"):
        await lab.controller.plan_network_removal("demo")


async def test_a_new_sandbox_on_several_networks(lab: Lab) -> None:
    """The way out is made for the first, and goes when the second leads out itself."""
    await shared(lab)
    await lab.network("other", pools=(PoolConfig(subnet="10.71.0.0/24"),))
    plans = await lab.controller.plan_sandbox(NEW, [("demo", EndpointRequest()), ("other", EndpointRequest())])
    assert [made(plan) for plan in plans] == [[Netns], [Netns, Bridge, Vxlan, Fdb, Veth, Bridge, Veth, Route], [Veth, Route]]
    assert [type(step.op) for step in plans[2] if isinstance(step, Remove)].count(Veth) == 1
    assert lab.core.records.network_named(GATEWAY) is None


async def test_nobody_is_put_on_the_gateway_bridge_by_hand(lab: Lab) -> None:
    await shared(lab)
    sandbox = await lab.sandbox()
    await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert {endpoint.implied for endpoint in lab.controller.endpoints(sandbox=sandbox.id)} == {True, False}
    calls = (
        lab.controller.connect(GATEWAY, sandbox.id, EndpointRequest()),
        lab.controller.disconnect(GATEWAY, sandbox.id),
        lab.controller.plan_connect(GATEWAY, sandbox.id, EndpointRequest()),
        lab.controller.plan_disconnect(GATEWAY, sandbox.id),
        lab.controller.plan_sandbox(NEW, [(GATEWAY, EndpointRequest())]),
    )
    for call in calls:
        with pytest.raises(Forbidden, match="by themselves"):
            await call
    assert len(lab.controller.endpoints(sandbox=sandbox.id)) == 2
    await lab.controller.remove_sandbox(sandbox.id)


async def test_a_gateway_bridge_of_the_users_own(lab: Lab) -> None:
    """With a subnet of their choice, as with Docker; but a way out is never a network of the cluster."""
    await shared(lab)
    with pytest.raises(Forbidden, match=f"{GATEWAY} is the way out of other networks"):
        await lab.network(GATEWAY, driver="overlay", pools=())
    gateway = await lab.network(GATEWAY, pools=(PoolConfig(subnet="10.79.0.0/24"),))
    sandbox = await lab.sandbox()
    assert [Veth, Route] == made(await lab.controller.plan_connect("demo", sandbox.id, EndpointRequest()))[-2:]
    await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert [endpoint.address for endpoint in lab.controller.endpoints(network=gateway.id)] == ["10.79.0.2/24"]
    await lab.controller.remove_sandbox(sandbox.id)


async def test_what_goes_with_the_last_endpoint(lab: Lab) -> None:
    await shared(lab)
    first, second = await lab.sandbox("web"), await lab.sandbox("api")
    for sandbox in (first, second):
        await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert not any(removes(plan, Vxlan) for plan in await ends(lab, first))
    await lab.controller.remove_sandbox(second.id)
    assert all(removes(plan, Vxlan) for plan in await ends(lab, first))
    assert all(removes(plan, Veth) == 2 for plan in await ends(lab, first))
    await lab.controller.remove_sandbox(first.id)


async def ends(lab: Lab, sandbox: Sandbox) -> list[Plan]:
    return [await lab.controller.plan_disconnect("demo", sandbox.id), await lab.controller.plan_sandbox_removal(sandbox.id)]


def removes(plan: Plan, kind: type) -> int:
    return sum(isinstance(step, Remove) and isinstance(step.op, kind) for step in plan)


async def test_pools_show_what_other_nodes_have(lab: Lab) -> None:
    network = await shared(lab)
    await lab.controller.connect("demo", (await lab.sandbox()).id, EndpointRequest())
    (usage,) = lab.controller.pool_usage(network)
    assert [(taken.address, taken.owner) for taken in usage.taken] == [("10.70.0.1", "demo"), ("10.70.0.2", "db"), ("10.70.0.3", "web")]
    with pytest.raises(AddressInUse, match=r"10\.70\.0\.2 belongs to db"):
        await lab.controller.plan_connect("demo", (await lab.sandbox("api")).id, EndpointRequest(address="10.70.0.2"))


async def test_a_dry_network_is_written_nowhere(lab: Lab) -> None:
    await shared(lab)
    assert lab.core.cluster is not None
    before = await lab.core.cluster.store.range("/")
    assert await lab.controller.plan_network(NetworkRequest(name="other", driver="overlay")) == ()
    with pytest.raises(Conflict, match="network with name demo already exists"):
        await lab.controller.plan_network(NetworkRequest(name="demo", driver="overlay"))
    assert await lab.core.cluster.store.range("/") == before


async def test_an_overlay_network_needs_a_cluster(lab: Lab) -> None:
    lab.core.cluster = None
    for call in (lab.controller.create_network, lab.controller.plan_network):
        with pytest.raises(Unavailable, match="this host is in no cluster: start the daemon with --store etcd://HOST:PORT"):
            await call(NetworkRequest(name="demo", driver="overlay"))
