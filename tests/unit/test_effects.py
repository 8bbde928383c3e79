"""Drivers that act outside the kernel: when they are asked, what is taken back, and what they hear later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from netplug.capability import Effectful
from netplug.controller import Controller, EndpointRequest, farewells
from netplug.errors import Conflict, NetplugError, NetworkInUse, NotFound, PoolOverlap, StepFailed, Unavailable
from netplug.model import Attachment, Endpoint, Network, PoolConfig, Sandbox
from netplug.plan import Address, Remove, Route
from netplug.testing.fake import FakeDriver
from tests.unit.test_controller import Lab, lab

__all__ = ["lab"]

GIVEN = Attachment(link="far0", prefix="lan", gateway="10.50.0.1", mac="02:00:00:00:00:01")


class Outside(FakeDriver):
    """Remembers what it was asked; `fail` is what it raises, `hold` what it waits for, by method."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fail: dict[str, NetplugError] = {}
        self.hold: dict[str, Callable[[], Awaitable[object]]] = {}

    async def _do(self, method: str) -> None:
        self.asked.append(method)
        if method in self.hold:
            await self.hold[method]()
        if method in self.fail:
            raise self.fail[method]

    async def make(self, network: Network) -> None:
        await self._do("make")

    async def unmake(self, network: str) -> None:
        await self._do("unmake")

    async def attach(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        assert (endpoint.mac, endpoint.gateway, endpoint.attachment) == ("", "", None)
        await self._do("attach")
        return GIVEN

    async def detach(self, network: str, endpoint: str) -> None:
        await self._do("detach")


@pytest.fixture
async def outside(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Outside]:
    monkeypatch.setattr(farewells, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(farewells, "PATIENCE", 0.2)
    driver = Outside()
    lab.core.drivers._loaded["", "outside"] = driver
    yield driver
    await lab.controller._farewells.close()


async def connected(lab: Lab) -> tuple[Network, Sandbox, Endpoint]:
    network, sandbox = await lab.network(driver="outside"), await lab.sandbox()
    return network, sandbox, await lab.controller.connect("demo", sandbox.id, EndpointRequest())


def farewell_keys(lab: Lab) -> list[str]:
    return [key for key in lab.store.data if "/farewells/" in key]


async def test_answers_are_stored_and_planned_with(lab: Lab, outside: Outside):
    assert isinstance(outside, Effectful)
    _, sandbox, endpoint = await connected(lab)
    assert outside.asked == ["make", "attach"]
    assert (endpoint.attachment, endpoint.gateway, endpoint.mac, endpoint.interface) == (GIVEN, "10.50.0.1", GIVEN.mac, "lan0")
    assert Route(namespace=sandbox.namespace, destination="default", gateway="10.50.0.1", link="lan0") in lab.executor.applied[-1]
    assert farewell_keys(lab) == []

    again = Lab(lab.core.run_dir, lab.store)
    again.core.drivers._loaded["", "outside"] = outside
    await again.controller.start((), ())
    assert again.controller.endpoints() == [endpoint]
    assert outside.asked == ["make", "attach"], "the answer is known"
    await again.controller.stop()
    again.journal.close()


@pytest.mark.parametrize("error", [Unavailable("it hangs"), NetplugError("it says no")])
async def test_a_network_that_it_does_not_make(lab: Lab, outside: Outside, error: NetplugError):
    outside.fail["make"] = error
    with pytest.raises(type(error), match=str(error)):
        await lab.network(driver="outside")
    assert outside.asked == ["make", "unmake"]
    assert (lab.controller.networks(), lab.store.data) == ([], {})


async def test_an_endpoint_that_it_does_not_make(lab: Lab, outside: Outside):
    network, sandbox = await lab.network(driver="outside"), await lab.sandbox()
    outside.fail["attach"] = Unavailable("it hangs")
    with pytest.raises(Unavailable, match="it hangs"):
        await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert outside.asked == ["make", "attach", "detach"]
    assert (lab.controller.endpoints(), farewell_keys(lab)) == ([], [])
    assert [taken.kind for pool in lab.controller.pool_usage(network) for taken in pool.taken] == ["gateway"]


async def test_a_plan_that_fails_is_told_to_it(lab: Lab, outside: Outside):
    await lab.network(driver="outside")
    sandbox = await lab.sandbox()
    lab.executor.fail_on = Address
    with pytest.raises(StepFailed):
        await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert outside.asked == ["make", "attach", "detach"]
    assert (lab.controller.endpoints(), farewell_keys(lab)) == ([], [])


async def test_what_goes_while_it_is_asked(lab: Lab, outside: Outside):
    """No lock is held: the sandbox may be gone when the answer comes."""
    await lab.network(driver="outside")
    sandbox = await lab.sandbox()
    outside.hold["attach"] = lambda: lab.controller.remove_sandbox(sandbox.id)
    with pytest.raises(NotFound, match=f"no such sandbox: {sandbox.id}"):
        await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert outside.asked == ["make", "attach", "detach"]
    assert (lab.controller.endpoints(), farewell_keys(lab)) == ([], [])


async def test_who_is_quicker(lab: Lab, outside: Outside):
    """Another network takes the interface's number meanwhile; the same network cannot be joined twice."""
    await lab.network(driver="outside")
    await lab.network("other", pools=(PoolConfig(subnet="10.51.0.0/24"),), options={"com.docker.network.container_iface_prefix": "lan"})
    sandbox = await lab.sandbox()
    outside.hold["attach"] = lambda: lab.controller.connect("other", sandbox.id, EndpointRequest())
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert endpoint.interface == "lan1"


async def test_a_network_stays_while_somebody_joins_it(lab: Lab, outside: Outside):
    await lab.network(driver="outside")
    sandbox = await lab.sandbox()
    seen: list[str] = []

    async def remove() -> None:
        with pytest.raises(NetworkInUse, match="web"):
            await lab.controller.remove_network("demo")
        seen.append("refused")

    outside.hold["attach"] = remove
    await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert seen == ["refused"]


async def test_a_network_that_is_being_made_keeps_its_name_and_subnet(lab: Lab, outside: Outside):
    sandbox = await lab.sandbox()
    seen: list[str] = []

    async def interfere() -> None:
        with pytest.raises(Conflict, match="network with name demo already exists"):
            await lab.network("demo", pools=(PoolConfig(subnet="10.51.0.0/24"),))
        with pytest.raises(PoolOverlap):
            await lab.network("other")
        with pytest.raises(Conflict, match="network demo is being made: try again"):
            await lab.controller.connect("demo", sandbox.id, EndpointRequest())
        with pytest.raises(Conflict, match="network demo is being made: try again"):
            await lab.controller.remove_network("demo")
        seen.append("refused")

    outside.hold["make"] = interfere
    await lab.network(driver="outside")
    assert seen == ["refused"]


async def test_it_hears_later_what_it_could_not_be_told(lab: Lab, outside: Outside):
    network, sandbox, endpoint = await connected(lab)
    outside.fail["detach"] = Unavailable("it is away")
    await lab.controller.disconnect("demo", sandbox.id)
    await lab.controller.remove_network("demo")
    assert (lab.controller.endpoints(), lab.controller.networks()) == ([], [])
    assert len(farewell_keys(lab)) == 2
    assert "unmake" not in outside.asked, "its endpoint comes first"
    await lab.controller._farewells.close()

    outside.fail.clear()
    outside.asked.clear()
    again = Controller(lab.core)
    await again._farewells.start()
    await asyncio.gather(*again._farewells._tellers.values())
    assert farewell_keys(lab) == []
    assert outside.asked == ["detach", "unmake"]
    (brought_home,) = [plan for plan in lab.executor.removed if any(isinstance(step, Remove) for step in plan)][-1:]
    assert brought_home == outside.leave(network, endpoint, sandbox)
    await again._farewells.close()


async def test_what_it_refuses_is_let_go_of(lab: Lab, outside: Outside, caplog: pytest.LogCaptureFixture):
    _, sandbox, _ = await connected(lab)
    outside.fail["detach"] = NetplugError("never heard of it")
    await lab.controller.disconnect("demo", sandbox.id)
    await asyncio.gather(*lab.controller._farewells._tellers.values())
    assert farewell_keys(lab) == []
    assert outside.asked.count("detach") == farewells.REFUSALS
    assert "endpoint of web on network demo: gone here, and no more is done about it there: never heard of it" in caplog.text


async def test_what_is_new_waits_for_farewells(lab: Lab, outside: Outside):
    """The driver may still believe that somebody has the address which is given again."""
    _, sandbox, first = await connected(lab)
    outside.fail["detach"] = Unavailable("it is away")
    await lab.controller.disconnect("demo", sandbox.id)
    outside.fail.clear()
    outside.asked.clear()
    second = await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    assert outside.asked == ["detach", "attach"]
    assert second.address == first.address


async def test_the_end_of_the_daemon_waits_for_no_driver(lab: Lab, outside: Outside):
    await lab.network(driver="outside")
    sandbox = await lab.sandbox()
    begun = asyncio.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    outside.hold["attach"] = forever
    joining = asyncio.create_task(lab.controller.connect("demo", sandbox.id, EndpointRequest()))
    await begun.wait()
    lab.controller.ending()
    with pytest.raises(Unavailable, match="the daemon is stopping: outside was not waited for"):
        await joining
    assert lab.controller.endpoints() == []


async def test_a_hanging_driver_is_waited_for_once(lab: Lab, outside: Outside):
    """Many containers may end while it hangs."""
    await lab.network(driver="outside")
    sandboxes = [await lab.sandbox(name) for name in ("aa", "bb", "cc")]
    for sandbox in sandboxes:
        await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    going = asyncio.Event()
    outside.hold["detach"] = going.wait
    waits: list[bool] = []
    for sandbox in sandboxes:
        before = asyncio.get_running_loop().time()
        await lab.controller.remove_sandbox(sandbox.id)
        waits.append(asyncio.get_running_loop().time() - before >= farewells.PATIENCE)
    assert waits == [True, False, False]
    going.set()
    await asyncio.gather(*lab.controller._farewells._tellers.values())
    assert outside.asked.count("detach") == 3
    assert farewell_keys(lab) == []
