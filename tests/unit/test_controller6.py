"""What the controller tells of networks with IPv6: names to the resolver, pools to the user, the default bridge at a start."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_controller import Lab

from netplug.controller import EndpointRequest, NetworkRequest
from netplug.model import PoolConfig, PortBinding
from netplug.plan import Direct, Publish, Remove

POOLS = (PoolConfig(subnet="10.50.0.0/24"), PoolConfig(subnet="fd00:50::/64", gateway="fd00:50::fe"))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr("netplug.kernel.namespaces.cookie", lambda path: 4711)
    monkeypatch.setattr("netplug.kernel.routes.host_subnets", lambda beside, known: [])
    monkeypatch.setattr("netplug.controller.endpoints.open_resolver_sockets", lambda sandbox: socket.socketpair())
    made = Lab(tmp_path)
    yield made
    made.core.ports.release_all()
    made.journal.close()


@pytest.mark.parametrize(
    ("ipv4", "address", "address6"),
    [(True, "10.50.0.2", "fd00:50::1"), (False, "", "fd00:50::1")],
)
async def test_the_resolver_learns_the_addresses_that_there_are(lab: Lab, ipv4: bool, address: str, address6: str) -> None:
    network = await lab.network(ipv4=ipv4, ipv6=True, pools=POOLS if ipv4 else POOLS[1:])
    sandbox = await lab.sandbox()
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest(names=("web",)))
    told = lab.resolver.endpoints[network.id, endpoint.id]
    assert (told.address, told.address6) == (address, address6)


async def test_each_pool_shows_its_own_addresses_in_order(lab: Lab) -> None:
    network = await lab.network(ipv6=True, pools=POOLS)
    for name, wanted in (("ten", "fd00:50::10"), ("nine", "fd00:50::9")):
        sandbox = await lab.sandbox(name)
        await lab.controller.connect("demo", sandbox.id, EndpointRequest(address6=wanted))
    taken = [[(one.address, one.kind, one.owner) for one in usage.taken] for usage in lab.controller.pool_usage(network)]
    assert taken == [
        [("10.50.0.1", "gateway", "demo"), ("10.50.0.2", "endpoint", "ten"), ("10.50.0.3", "endpoint", "nine")],
        [("fd00:50::9", "endpoint", "nine"), ("fd00:50::10", "endpoint", "ten"), ("fd00:50::fe", "gateway", "demo")],
    ]
    assert lab.controller.pool_usage(network)[1].capacity > 2**63


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({}, {}, True),
        ({}, {"ipv6": True}, False),
        ({"ipv6": True, "pools": POOLS}, {"ipv6": True}, True),
        ({"ipv6": True, "pools": POOLS}, {"ipv6": True, "pools": POOLS[1:]}, True),
        ({"ipv6": True, "pools": POOLS}, {"ipv6": True, "pools": (PoolConfig(subnet="fd00:51::/64"),)}, False),
        ({"ipv6": True, "pools": POOLS}, {}, False),
    ],
)
async def test_the_default_bridge_is_made_anew_where_it_is_asked_for_differently(
    lab: Lab, first: dict[str, object], second: dict[str, object], same: bool
) -> None:
    made = []
    for asked in (first, second):
        await lab.controller.start((), [NetworkRequest(name="bridge", **asked)])  # type: ignore[arg-type]
        made.append(lab.controller.network("bridge").id)
        await lab.controller.stop()
    assert (made[0] == made[1]) == same


@pytest.mark.parametrize("direct", [True, False])
async def test_published_ports_are_opened_at_the_container_s_own_address_if_asked_for(lab: Lab, direct: bool) -> None:
    """Once for each address and port, and never for what is published on the host's loopback only."""
    lab.core.direct_routing = direct
    await lab.network(ipv6=True, pools=POOLS)
    ports = (
        PortBinding(protocol="tcp", port=80, host_ip="0.0.0.0"),
        PortBinding(protocol="tcp", port=80, host_ip="0.0.0.0"),
        PortBinding(protocol="tcp", port=90, host_ip="127.0.0.1"),
    )
    sandbox = await lab.sandbox(ports=ports)
    await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    plan = lab.executor.applied[-1]
    expected = [("10.50.0.2", 80)] if direct else []
    assert sorted((step.address, step.port) for step in plan if isinstance(step, Direct)) == expected
    assert sum(isinstance(step, Publish) for step in plan) == 3
    await lab.controller.disconnect("demo", sandbox.id)
    removed = [step.op for step in lab.executor.removed[-1] if isinstance(step, Remove)]
    assert sorted((op.address, op.port) for op in removed if isinstance(op, Direct)) == expected
