"""What is learned from the engine, with a double in its place: names, what makes no sense, and what is not its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from netplug.engines.learner import Learner
from netplug.engines.network_driver import NetworkDriver
from netplug.engines.ties import Ties
from tests.unit.test_docker_plugin import ELSEWHERE, ENDPOINT, IPAM, KEY, NET, NETWORK, OTHER, Plugin, plugin

__all__ = ["plugin"]


class Engine:
    """Its lists, and events that a test says."""

    def __init__(self, *networks: dict[str, Any]) -> None:
        self.networks = list(networks)
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.streams = 0
        self.looks = 0
        """At all containers, for what is not theirs."""

    async def get(self, *path: str) -> Any:
        self.looks += path == ("containers", "json?all=1")
        match path:
            case ("networks",):
                return self.networks
            case ("networks", _):
                return {"Containers": None}
            case _:
                return []

    @contextlib.asynccontextmanager
    async def events(self, *actions: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        self.streams += 1
        yield self._events()

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield await self.said.get()

    async def close(self) -> None: ...


@contextlib.asynccontextmanager
async def learning(plugin: Plugin, engine: Engine) -> AsyncIterator[None]:
    ties = Ties(plugin.lab.store)
    await ties.load()
    learner = Learner(plugin.lab.controller, ties, NetworkDriver(plugin.lab.controller, ties), engine)  # type: ignore[arg-type]
    learner.start()
    try:
        yield
    finally:
        await learner.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  nobody says when a record has changed
            await asyncio.sleep(0.005)


def created(identity: Any, attributes: Any) -> dict[str, Any]:
    return {"Type": "network", "Action": "create", "Actor": {"ID": identity, "Attributes": attributes}}


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"Type": [], "Action": {}},
        {"Type": "network", "Action": "create", "Actor": ["x"]},
        {"Type": "container", "Action": "start", "Actor": "x"},
        {"Type": "container", "Action": "start", "Actor": {"ID": {}}},
        created(NETWORK, ["name"]),
        created(NETWORK, {"name": {"x": "y"}}),
        created(7, {"name": "x"}),
    ],
)
async def test_an_event_that_makes_no_sense_is_passed_over(plugin: Plugin, event: dict[str, Any]) -> None:
    """And the stream goes on: what would be said while it is opened anew would be missed."""
    await plugin.network()
    engine = Engine({"Id": NETWORK, "Name": NETWORK[:12]})
    async with learning(plugin, engine):
        engine.said.put_nowait(event)
        engine.said.put_nowait(created(NETWORK, {"name": "demo"}))
        await until(lambda: plugin.lab.controller.network(NETWORK).name == "demo")
    assert engine.streams == 1


@pytest.mark.parametrize(
    "name",
    ["a/b", "a b", "a\nb", "-x", "../x", "x" * 300, "netplug_gwbridge", "bridge", "none", ELSEWHERE, "other"],
)
async def test_a_network_that_cannot_be_called_so_keeps_its_id(plugin: Plugin, name: str, caplog: pytest.LogCaptureFixture) -> None:
    await plugin.network()
    await plugin.network(ELSEWHERE, "10.51.0.0/24")
    await plugin.lab.controller.name_network(ELSEWHERE, "other")
    before = dict(plugin.lab.store.data)
    for _ in range(2):
        await plugin.lab.controller.name_network(NETWORK, name)

    assert plugin.lab.controller.network(NETWORK).name == NETWORK[:12]
    assert plugin.lab.controller.network(ELSEWHERE).name == "other"
    assert plugin.lab.store.data == before
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert NETWORK[:12] in said
    assert len(said) < 250
    assert "\n" not in said
    await plugin.lab.controller.name_network(NETWORK, "x" * 255)
    assert plugin.lab.controller.network(NETWORK).name == "x" * 255


async def test_what_the_engine_has_lost_goes_and_what_another_netplug_has_stays(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both use the plugin; the engine's lists say nothing of the other's."""
    monkeypatch.setattr("netplug.engines.learner._DOUBT_SECONDS", 0)
    await plugin.network()
    await plugin.endpoint()
    await plugin.join()
    await plugin.pool("10.52.0.0/24")
    theirs = await another_netplug(plugin)
    spare = await plugin.pool("10.61.0.0/24", Options={"netplug.request": "spare/0"})
    controller, engine = plugin.lab.controller, Engine()

    async with learning(plugin, engine):
        await until(lambda: not {"10.50.0.0/24", "10.52.0.0/24"} & {pool.subnet for pool in controller.leases.pools.values()})
    assert engine.looks <= 3, "two, and one that finds nothing: what has gone with a network or an endpoint is not doubted anew"

    assert [network.id for network in controller.networks()] == [ELSEWHERE]
    assert [endpoint.id for endpoint in controller.endpoints()] == [OTHER]
    assert controller.leases.pools.keys() == {theirs, spare}
    assert controller.leases.addresses(theirs) == {"10.60.0.9", "10.60.0.10"}


class Slow(Engine):
    """Between two looks it makes an endpoint of an address that it has been given before, and knows of it a little later."""

    def __init__(self, plugin: Plugin, address: str) -> None:
        super().__init__({"Id": NETWORK, "Name": NETWORK[:12]})
        self.plugin, self.address = plugin, address

    async def get(self, *path: str) -> Any:
        if path == ("networks",) and self.looks == 1:
            await self.plugin.endpoint(Address=f"{self.address}/24")
        if path == ("networks", NETWORK) and self.looks > 2:
            return {"Containers": {"x": {"EndpointID": ENDPOINT}}}
        return await super().get(*path)


async def test_an_address_of_an_endpoint_that_is_being_made_stays(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netplug.engines.learner._DOUBT_SECONDS", 0)
    pool = await plugin.network()
    await plugin.ok(IPAM + "RequestAddress", {"PoolID": pool, "Address": "10.50.0.9"})
    engine = Slow(plugin, "10.50.0.9")
    async with learning(plugin, engine):
        await until(lambda: engine.looks == 3)
    assert plugin.lab.controller.leases.addresses(pool) == {"10.50.0.9"}
    assert [endpoint.id for endpoint in plugin.lab.controller.endpoints()] == [ENDPOINT]


async def another_netplug(plugin: Plugin) -> str:
    """The pool of a network with a container that runs, and an address that is still to be used."""
    pool = await plugin.pool("10.60.0.0/24", Options={"netplug.request": "net/0"})
    for number in (9, 10):
        asked = {"PoolID": pool, "Address": f"10.60.0.{number}", "Options": {"netplug.request": f"{number}/4"}}
        await plugin.ok(IPAM + "RequestAddress", asked)
    data = {"AddressSpace": "LocalDefault", "Pool": "10.60.0.0/24", "Gateway": "10.60.0.1/24", "AuxAddresses": {}}
    options = {"netplug.takes": True, "com.docker.network.enable_ipv6": False, "com.docker.network.generic": {}}
    await plugin.ok(NET + "CreateNetwork", {"NetworkID": ELSEWHERE, "Options": options, "IPv4Data": [data], "IPv6Data": []})
    ids = {"NetworkID": ELSEWHERE, "EndpointID": OTHER}
    await plugin.ok(NET + "CreateEndpoint", {**ids, "Interface": {"Address": "10.60.0.9/24"}, "Options": {}})
    await plugin.ok(NET + "Join", {**ids, "SandboxKey": f"{KEY}cd", "Options": {"netplug.takes": True}})
    return pool
