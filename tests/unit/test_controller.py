"""The order of steps and what is undone when one fails, with doubles for kernel, store and resolver."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug.addressing import AddressPools, Ipams
from netplug.controller import Controller, Core, EndpointRequest, NetworkRequest, SandboxRequest, recording
from netplug.controller.addresses import SERIAL
from netplug.errors import (
    AddressesExhausted,
    AddressInUse,
    AddressOutOfRange,
    Ambiguous,
    Conflict,
    Forbidden,
    InvalidArgument,
    NetworkInUse,
    NotFound,
    PoolOverlap,
    PortTaken,
    StepFailed,
    Unavailable,
)
from netplug.kernel.journal import Journal
from netplug.model import PoolConfig, PortBinding, Sandbox
from netplug.plan import Address, Announce, DnsRedirect, Publish, Remove, Route, Veth, removal
from netplug.registry import Drivers
from tests.unit.doubles import MemoryExecutor, MemoryFirewall, MemoryResolver, MemoryStore

SUBNET = PoolConfig(subnet="10.50.0.0/24")


class Lab:
    """A controller and its doubles."""

    def __init__(self, folder: Path, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.executor = MemoryExecutor()
        self.resolver = MemoryResolver()
        self.journal = Journal(folder / "journal.jsonl")
        self.core = Core(
            store=self.store,
            executor=self.executor,
            firewall=MemoryFirewall(),
            resolver=self.resolver,
            drivers=Drivers(),
            ipams=Ipams(AddressPools()),
            journal=self.journal,
            run_dir=folder,
            incarnation="this boot",
        )
        self.controller = Controller(self.core)

    async def sandbox(self, name: str = "web", **changes: object) -> Sandbox:
        return await self.controller.create_sandbox(SandboxRequest(id=name.encode().hex().ljust(64, "f"), name=name, **changes))

    async def network(self, name: str = "demo", **changes: object):
        return await self.controller.create_network(NetworkRequest(name=name, **{"pools": (SUBNET,), **changes}))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr("netplug.kernel.namespaces.cookie", lambda path: 4711)
    monkeypatch.setattr("netplug.kernel.routes.host_subnets", lambda beside, known: [])
    monkeypatch.setattr("netplug.controller.endpoints.open_resolver_sockets", lambda sandbox: socket.socketpair())
    made = Lab(tmp_path)
    yield made
    made.core.ports.release_all()
    made.journal.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return probe.getsockname()[1]


async def test_connect_gives_address_mac_name_and_route(lab: Lab):
    network, sandbox = await lab.network(), await lab.sandbox()

    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",), aliases=("www",)))

    assert (endpoint.address, endpoint.gateway, endpoint.mac) == ("10.50.0.2/24", "10.50.0.1", "02:42:0a:32:00:02")
    assert lab.resolver.endpoints[(network.id, endpoint.id)].names == ("web", "www")
    assert lab.resolver.sandboxes[sandbox.id].networks == (network.id,)
    plan = lab.executor.applied[-1]
    assert Route(namespace=sandbox.namespace, destination="default", gateway="10.50.0.1", link="eth0") in plan
    assert [op for op in plan if isinstance(op, DnsRedirect)]
    assert lab.store.data[f"/netplug/v1/addresses/{network.id}/10.50.0.2"] == endpoint.id.encode()


async def test_disconnect_gives_everything_back(lab: Lab):
    network, sandbox = await lab.network(), await lab.sandbox()
    before = dict(lab.store.data)
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))

    await lab.controller.disconnect("demo", sandbox.id)

    # The sandbox keeps its resolver for the next network.
    assert {key for key in lab.store.data if "sandboxes" not in key} == {key for key in before if "sandboxes" not in key}
    assert lab.resolver.endpoints == {}
    assert any(isinstance(step, Remove) and isinstance(step.op, Veth) for step in lab.executor.removed[-1])
    again = await lab.controller.connect(network.id[:12], sandbox.id, EndpointRequest())
    assert again.address == endpoint.address


async def test_a_failed_step_leaves_nothing_behind(lab: Lab):
    """The kernel refuses in the middle: address, name, port and record are as before."""
    await lab.network()
    port = free_port()
    sandbox = await lab.sandbox(ports=(PortBinding(protocol="tcp", port=80, host_port=port),))
    before = dict(lab.store.data)
    lab.executor.fail_on = Address

    with pytest.raises(StepFailed, match="a step: the kernel said no"):
        await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))

    assert lab.store.data == before
    assert lab.controller.endpoints() == []
    assert lab.resolver.endpoints == {}
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", port))
    lab.executor.fail_on = None
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert endpoint.address == "10.50.0.2/24"


@pytest.mark.parametrize("others", [0, 1])
async def test_a_record_that_cannot_be_written_leaves_nothing_behind(lab: Lab, others: int):
    """The kernel has been changed by then, and the resolver told where it serves the container already."""
    sandbox = await lab.sandbox()
    for number in range(others):
        await lab.network(f"other{number}", pools=(PoolConfig(subnet=f"10.6{number}.0.0/24"),))
        await lab.controller.connect(f"other{number}", sandbox.id, EndpointRequest())
    await lab.network()
    data, names, endpoints = dict(lab.store.data), dict(lab.resolver.endpoints), lab.controller.endpoints()
    lab.store.full = True

    with pytest.raises(Unavailable, match="the disk is full"):
        await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))

    assert (lab.store.data, lab.resolver.endpoints, lab.controller.endpoints()) == (data, names, endpoints)
    assert lab.executor.removed[-1] == removal(lab.executor.applied[-1])
    lab.store.full = False
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))
    assert endpoint.address == "10.50.0.2/24"
    assert [one.names for one in lab.resolver.endpoints.values() if one.endpoint == endpoint.id] == [("web",)]


@pytest.mark.parametrize("others", [0, 1])
async def test_a_disconnect_that_cannot_be_written_leaves_all_as_it_was(lab: Lab, others: int):
    """The kernel has been changed by then, and the resolver told."""
    port = free_port()
    sandbox = await lab.sandbox(ports=(PortBinding(protocol="tcp", port=80, host_port=port),))
    for number in range(others):
        await lab.network(f"other{number}", pools=(PoolConfig(subnet=f"10.6{number}.0.0/24"),))
        await lab.controller.connect(f"other{number}", sandbox.id, EndpointRequest())
    await lab.network()
    await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))
    made = lab.executor.applied[-1]
    data, names, sandboxes = dict(lab.store.data), dict(lab.resolver.endpoints), dict(lab.resolver.sandboxes)
    endpoints, sandbox = lab.controller.endpoints(), lab.core.records.sandboxes[sandbox.id]
    lab.store.full = True

    with pytest.raises(Unavailable, match="the disk is full"):
        await lab.controller.disconnect("demo", sandbox.id)

    assert (lab.store.data, lab.resolver.endpoints, lab.resolver.sandboxes) == (data, names, sandboxes)
    assert sorted(lab.controller.endpoints(), key=lambda one: one.id) == sorted(endpoints, key=lambda one: one.id)
    assert lab.core.records.sandboxes[sandbox.id] == sandbox
    again = lab.executor.applied[-1]
    assert again is not made
    assert set(again) >= {step for step in made if not isinstance(step, DnsRedirect)}
    with socket.socket() as probe, pytest.raises(OSError, match="in use"):
        probe.bind(("0.0.0.0", port))
    lab.store.full = False
    await lab.controller.disconnect("demo", sandbox.id)
    assert not [one for one in lab.controller.endpoints() if one.address.startswith("10.50.")]


async def test_a_failed_network_leaves_nothing_behind(lab: Lab):
    before = dict(lab.store.data)
    lab.executor.fail_on = Address

    with pytest.raises(StepFailed):
        await lab.network()

    assert lab.store.data == before
    with pytest.raises(NotFound):
        lab.controller.network("demo")
    lab.executor.fail_on = None
    await lab.network()


async def test_gateway_and_ports_move_together(lab: Lab):
    """The network whose name comes first carries the default route and the published ports; when it goes, the next one does."""
    await lab.network("beta", pools=(PoolConfig(subnet="10.51.0.0/24"),))
    await lab.network("alpha", pools=(PoolConfig(subnet="10.52.0.0/24"),))
    port = free_port()
    sandbox = await lab.sandbox(ports=(PortBinding(protocol="tcp", port=80, host_port=port),))
    await lab.controller.connect("beta", sandbox.id, EndpointRequest())
    await lab.controller.connect("alpha", sandbox.id, EndpointRequest())
    assert {endpoint.address: bool(endpoint.ports) for endpoint in lab.controller.endpoints()} == {
        "10.51.0.2/24": False,
        "10.52.0.2/24": True,
    }
    moved = lab.executor.applied[-1]
    assert Remove(op=Publish(protocol="tcp", host_port=port, address="10.51.0.2", port=80)) in moved
    assert Publish(protocol="tcp", host_port=port, address="10.52.0.2", port=80) in moved
    assert Route(namespace=sandbox.namespace, destination="default", gateway="10.52.0.1", link="eth1") in moved

    await lab.controller.disconnect("alpha", sandbox.id)

    [left] = lab.controller.endpoints()
    assert [binding.host_port for binding in left.ports] == [port]
    assert Route(namespace=sandbox.namespace, destination="default", gateway="10.51.0.1", link="eth0") in lab.executor.removed[-1]


async def test_priority_beats_the_name(lab: Lab):
    await lab.network("alpha", pools=(PoolConfig(subnet="10.51.0.0/24"),))
    await lab.network("beta", pools=(PoolConfig(subnet="10.52.0.0/24"),))
    sandbox = await lab.sandbox()
    await lab.controller.connect("alpha", sandbox.id, EndpointRequest())
    await lab.controller.connect("beta", sandbox.id, EndpointRequest(gateway_priority=1))
    assert Route(namespace=sandbox.namespace, destination="default", gateway="10.52.0.1", link="eth1") in lab.executor.applied[-1]


async def test_internal_networks_give_no_route_and_forward_no_names(lab: Lab):
    await lab.network(internal=True)
    sandbox = await lab.sandbox()
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert endpoint.gateway == ""
    assert not [op for op in lab.executor.applied[-1] if isinstance(op, Route)]
    assert lab.resolver.sandboxes[sandbox.id].forward is False


async def test_a_taken_port_names_its_owner(lab: Lab):
    await lab.network()
    port = free_port()
    ports = (PortBinding(protocol="tcp", port=80, host_port=port),)
    first, second = await lab.sandbox("first", ports=ports), await lab.sandbox("second", ports=ports)
    await lab.controller.connect("demo", first.id, EndpointRequest())
    sentence = rf"endpoint second \([0-9a-f]+\): Bind for 0.0.0.0:{port} failed: port is already allocated \(by container first\)"
    with pytest.raises(PortTaken, match=sentence):
        await lab.controller.connect("demo", second.id, EndpointRequest())
    assert [endpoint.sandbox for endpoint in lab.controller.endpoints()] == [first.id]

    await lab.controller.remove_sandbox(first.id)
    await lab.controller.connect("demo", second.id, EndpointRequest())


async def test_a_port_range_takes_the_first_free_one(lab: Lab):
    await lab.network()
    port = free_port()
    first = await lab.sandbox("first", ports=(PortBinding(protocol="tcp", port=80, host_port=port),))
    second = await lab.sandbox("second", ports=(PortBinding(protocol="tcp", port=80, host_port=port, host_port_end=port + 20),))
    await lab.controller.connect("demo", first.id, EndpointRequest())
    endpoint = await lab.controller.connect("demo", second.id, EndpointRequest())
    assert port < endpoint.ports[0].host_port <= port + 20


async def test_bad_requests_are_refused_in_one_sentence_and_change_nothing(lab: Lab):
    network, sandbox = await lab.network(), await lab.sandbox()
    before = dict(lab.store.data)
    connect = lab.controller.connect
    refusals = [
        (NotFound, "network nope not found", connect("nope", sandbox.id, EndpointRequest())),
        (NotFound, "no such sandbox: x", connect("demo", "x", EndpointRequest())),
        (
            AddressOutOfRange,
            "does not belong to any of this network's subnets",
            connect("demo", sandbox.id, EndpointRequest(address="10.9.9.9")),
        ),
        (AddressInUse, "10.50.0.1 belongs to the gateway", connect("demo", sandbox.id, EndpointRequest(address="10.50.0.1"))),
        (InvalidArgument, "invalid IPv4 address: ten", connect("demo", sandbox.id, EndpointRequest(address="ten"))),
        (InvalidArgument, "invalid MAC address: nope", connect("demo", sandbox.id, EndpointRequest(mac="nope"))),
        (InvalidArgument, "no address of a single interface", connect("demo", sandbox.id, EndpointRequest(mac="01:00:5e:00:00:01"))),
        (Conflict, "network with name demo already exists", lab.network("demo")),
        (InvalidArgument, "invalid network name", lab.network("-demo")),
        (InvalidArgument, "name is empty", lab.network("")),
        (Forbidden, "operation is not permitted on predefined bridge network", lab.network("bridge")),
        (PoolOverlap, "Pool overlaps with other one on this address space", lab.network("other")),
        (Forbidden, 'only one instance of "host" network is allowed', lab.network("other", driver="host", pools=())),
        (NotFound, 'plugin "pigeon" not found', lab.network("other", driver="pigeon")),
        (InvalidArgument, '"maybe" is neither true nor false', lab.network("other", ipam_options={SERIAL: "maybe"})),
        (NotFound, f"container {sandbox.id} is not connected to network demo", lab.controller.disconnect("demo", sandbox.id)),
    ]
    for kind, sentence, attempt in refusals:
        with pytest.raises(kind, match=sentence) as refused:
            await attempt
        assert "\n" not in str(refused.value)
    assert lab.store.data == before
    assert lab.controller.networks() == [network]


@pytest.mark.parametrize(("text", "second"), [("", 2), ("False", 2), ("0", 2), ("true", 3), ("T", 3), ("1", 3)])
async def test_addresses_in_turn_are_asked_for_in_words_of_docker(lab: Lab, text: str, second: int):
    await lab.network(ipam_options={SERIAL: text})
    sandbox = await lab.sandbox()
    given = []
    for _ in range(2):
        given.append((await lab.controller.connect("demo", sandbox.id, EndpointRequest())).address)
        await lab.controller.disconnect("demo", sandbox.id)
    assert given == ["10.50.0.2/24", f"10.50.0.{second}/24"]


async def test_a_network_in_use_stays(lab: Lab):
    await lab.network()
    sandbox = await lab.sandbox()
    await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    with pytest.raises(NetworkInUse, match=r"network demo id [0-9a-f]{64} has active endpoints"):
        await lab.controller.remove_network("demo")


async def test_a_name_is_on_a_network_once(lab: Lab):
    await lab.network()
    one, other = await lab.sandbox("web"), await lab.controller.create_sandbox(SandboxRequest(id="ab" * 32, name="web"))
    await lab.controller.connect("demo", one.id, EndpointRequest())
    for sandbox in (one, other):
        with pytest.raises(Forbidden, match="endpoint with name web already exists in network demo"):
            await lab.controller.connect("demo", sandbox.id, EndpointRequest())


async def test_an_exhausted_pool_says_whose(lab: Lab):
    network = await lab.network(pools=(PoolConfig(subnet="10.50.0.0/30"),))
    first, second = await lab.sandbox("first"), await lab.sandbox("second")
    await lab.controller.connect("demo", first.id, EndpointRequest())
    with pytest.raises(AddressesExhausted, match=f"no available IPv4 addresses on this network's address pools: demo \\({network.id}\\)"):
        await lab.controller.connect("demo", second.id, EndpointRequest())
    await lab.controller.disconnect("demo", first.id)
    await lab.controller.connect("demo", second.id, EndpointRequest())


async def test_a_prefix_that_fits_two_is_ambiguous(lab: Lab):
    for number in range(17):
        await lab.network(f"n{number}", pools=(PoolConfig(subnet=f"10.60.{number}.0/24"),))
    first = {network.id[0] for network in lab.controller.networks()}
    twice = next(digit for digit in first if sum(network.id[0] == digit for network in lab.controller.networks()) > 1)
    with pytest.raises(Ambiguous, match=rf"network {twice} is ambiguous \(\d+ matches found on ID prefix\)"):
        lab.controller.network(twice)


async def test_fifty_connects_at_once_have_fifty_addresses(lab: Lab):
    for number in range(10):
        await lab.network(f"n{number}", pools=(PoolConfig(subnet=f"10.60.{number}.0/24"),))
    sandboxes = await asyncio.gather(*(lab.sandbox(f"c{number}") for number in range(50)))
    endpoints = await asyncio.gather(
        *(lab.controller.connect(f"n{number % 10}", sandbox.id, EndpointRequest()) for number, sandbox in enumerate(sandboxes))
    )
    assert len({endpoint.address for endpoint in endpoints}) == 50
    assert {key.rsplit("/", 1)[1] for key in lab.store.data if "/addresses/" in key} == {e.address.split("/")[0] for e in endpoints}


async def test_a_dry_run_changes_nothing(lab: Lab):
    await lab.network()
    sandbox = await lab.sandbox()
    before = dict(lab.store.data)
    plan = await lab.controller.plan_connect("demo", sandbox.id, EndpointRequest())
    assert await lab.controller.plan_connect("demo", sandbox.id, EndpointRequest(address="10.50.0.2"))
    assert [op.address for op in plan if isinstance(op, Address)] == ["10.50.0.2/24"]
    assert lab.store.data == before
    assert len(lab.executor.applied) == 2


async def test_recording_collects_what_was_applied(lab: Lab):
    await lab.network()
    sandbox = await lab.sandbox()
    with recording() as plans:
        await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert plans == [lab.executor.applied[-1]]
    lines = lab.controller.explain(plans)
    assert any(line.startswith("ip link add veth") for line in lines)
    assert "rule DnsRedirect" in lines


async def test_a_caller_that_goes_away_does_not_stop_a_change(lab: Lab):
    await lab.network()
    sandbox = await lab.sandbox()
    caller = asyncio.create_task(lab.controller.connect("demo", sandbox.id, EndpointRequest()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await lab.controller.stop()
    assert [endpoint.address for endpoint in lab.controller.endpoints()] == ["10.50.0.2/24"]


async def test_restart_knows_what_was_given(lab: Lab, tmp_path: Path):
    network, sandbox = await lab.network(), await lab.sandbox()
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))

    again = Lab(tmp_path, lab.store)
    await again.controller.start((), ())

    assert again.controller.endpoints() == [endpoint]
    assert again.resolver.endpoints[(network.id, endpoint.id)].names == ("web",)
    other = await again.sandbox("other")
    assert (await again.controller.connect("demo", other.id, EndpointRequest())).address == "10.50.0.3/24"
    again.journal.close()


async def test_another_boot_gives_everything_back(lab: Lab, tmp_path: Path):
    await lab.network()
    before = dict(lab.store.data)
    sandbox = await lab.sandbox()
    await lab.controller.connect("demo", sandbox.id, EndpointRequest())

    again = Lab(tmp_path, lab.store)
    again.core.incarnation = "next boot"
    await again.controller.start((), ())

    assert again.store.data == before
    assert again.controller.sandboxes() == []
    again.journal.close()


async def test_a_namespace_that_vanished_gives_everything_back(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    await lab.network()
    before = dict(lab.store.data)
    sandbox = await lab.sandbox()
    await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert not await lab.controller.sandbox_vanished(sandbox.id)

    monkeypatch.setattr("netplug.kernel.namespaces.cookie", lambda path: None)

    assert await lab.controller.sandbox_vanished(sandbox.id)
    assert lab.store.data == before


async def test_predefined_networks_come_once_and_follow_their_settings(lab: Lab):
    request = NetworkRequest(name="bridge", options={"com.docker.network.bridge.name": "netplug0"})
    await lab.controller.start((), (request,))
    first = lab.controller.network("bridge")
    assert first.pools[0].subnet == "172.17.0.0/16"
    await lab.controller.start((), (request,))
    assert lab.controller.network("bridge").id == first.id

    changed = NetworkRequest(name="bridge", options=request.options, pools=(PoolConfig(subnet="10.1.0.0/16", gateway="10.1.0.9"),))
    await lab.controller.start((), (changed,))

    assert lab.controller.network("bridge").pools[0].gateway == "10.1.0.9"
    with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
        await lab.controller.remove_network("bridge")
    sandbox = await lab.sandbox()
    with pytest.raises(InvalidArgument, match="user specified IP address is supported on user defined networks only"):
        await lab.controller.connect("bridge", sandbox.id, EndpointRequest(address="10.1.0.20"))
    with pytest.raises(InvalidArgument, match="network-scoped alias is supported only for containers in user defined networks"):
        await lab.controller.connect("bridge", sandbox.id, EndpointRequest(aliases=("x",)))


async def test_the_journal_says_what_happened(lab: Lab, tmp_path: Path):
    await lab.network()
    sandbox = await lab.sandbox()
    await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    reread = Journal(tmp_path / "journal.jsonl")
    assert [(entry.action, entry.subject) for entry in reread.entries()] == [
        ("network create", "demo"),
        ("sandbox create", "web"),
        ("network connect", "demo/web"),
    ]
    assert reread.entries() == lab.journal.entries()
    assert reread.entries(1)[0].steps == lab.executor.applied[-1]
    reread.close()


async def test_only_news_is_announced(lab: Lab):
    """A MAC made from the address is known to the neighbours already; one of the user's choice, or what follows it, is not."""
    await lab.network()
    sandbox = await lab.sandbox()

    async def announced(**request: str) -> bool:
        await lab.controller.connect("demo", sandbox.id, EndpointRequest(**request))
        plan = lab.executor.applied[-1]
        await lab.controller.disconnect("demo", sandbox.id)
        return any(isinstance(step, Announce) for step in plan)

    assert not await announced()
    assert await announced(mac="02:00:00:00:00:aa")
    assert await announced()
    assert not await announced()
