"""The daemon dies in the middle of what an engine asks, is there again and asked again: it is done once, and nothing is left in the end.

The protocol by itself, without an engine: what is asked again is what dockerd asks when its connection breaks. NETPLUG_SWEEP=1 dies at
every point, else at a few of each call.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.differences import differences
from tests.hosts import Api, ApiError, Host, Lan, Namespace, namespace_state
from tests.kernel.test_faults import rested

NETWORK, ENDPOINT = "a" * 64, "e" * 64
SUBNET, ADDRESS = "10.50.0.0/24", "10.50.0.7"
FIRST = {"NetworkID": "b" * 64, "EndpointID": "f" * 64}
"""Of a container that has a link of ours already."""
FEW = 3
"""Points of each call; the last is one of them, too."""


class Engine:
    """It knows the pool that it has been given."""

    def __init__(self, host: Host, running: Namespace) -> None:
        self.host, self.pool = host, ""
        self.key = f"/var/run/docker/netns/{'0' * 12}"
        """Of a namespace that is not there yet."""
        self.namespace, self.running = running, running.path
        self.ids = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        with contextlib.closing(Api(self.host.directory / "plugin.sock")) as api:
            return dict(api.call("POST", f"/{method}", body))

    def request_pool(self) -> None:
        self.pool = self.call("IpamDriver.RequestPool", AddressSpace="netplug", Pool=SUBNET)["PoolID"]

    def create_network(self) -> None:
        data = {"AddressSpace": "netplug", "Pool": SUBNET, "Gateway": "10.50.0.1/24"}
        self.call("NetworkDriver.CreateNetwork", NetworkID=NETWORK, Options={}, IPv4Data=[data], IPv6Data=[])

    def request_address(self) -> None:
        self.call("IpamDriver.RequestAddress", PoolID=self.pool, Address=ADDRESS)

    def create_endpoint(self) -> None:
        self.call("NetworkDriver.CreateEndpoint", **self.ids, Interface={"Address": f"{ADDRESS}/24"})

    def join(self) -> None:
        assert self.call("NetworkDriver.Join", **self.ids, SandboxKey=self.key)["InterfaceName"]["DstPrefix"] == "eth"

    def join_running(self) -> None:
        self.join_there(self.ids)
        assert f"{ADDRESS}/24" in self.namespace.ip("address").stdout

    def join_there(self, ids: dict[str, str]) -> None:
        """The link is there when the engine, which asks once more, tells the user."""
        assert "InterfaceName" not in self.call("NetworkDriver.Join", **ids, SandboxKey=self.running)
        assert self.call("NetworkDriver.EndpointOperInfo", **ids) == {"Value": {}}

    def first(self) -> None:
        """That container has links of ours alone from now on."""
        data = {"AddressSpace": "netplug", "Pool": "10.51.0.0/24", "Gateway": "10.51.0.1/24"}
        self.first_pool = self.call("IpamDriver.RequestPool", AddressSpace="netplug", Pool=data["Pool"])["PoolID"]
        self.call("NetworkDriver.CreateNetwork", NetworkID=FIRST["NetworkID"], Options={}, IPv4Data=[data], IPv6Data=[])
        self.call("NetworkDriver.CreateEndpoint", **FIRST, Interface={})
        self.join_there(FIRST)
        self.namespace.ip("link", "delete", "eth0")

    def last(self) -> None:
        self.namespace.ip("link", "add", "eth0", "type", "bridge")
        self.call("NetworkDriver.Leave", **FIRST)
        self.call("IpamDriver.ReleasePool", PoolID=self.first_pool)
        self.call("NetworkDriver.DeleteNetwork", NetworkID=FIRST["NetworkID"])

    def carry(self) -> None:
        ports = [{"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": 8080, "HostPortEnd": 8080}]
        self.call("NetworkDriver.ProgramExternalConnectivity", **self.ids, Options={"com.docker.network.portmap": ports})

    def leave(self) -> None:
        self.call("NetworkDriver.Leave", **self.ids)

    def delete_endpoint(self) -> None:
        self.call("NetworkDriver.DeleteEndpoint", **self.ids)
        self.call("IpamDriver.ReleaseAddress", PoolID=self.pool, Address=ADDRESS)

    def delete_network(self) -> None:
        self.call("IpamDriver.ReleasePool", PoolID=self.pool)
        self.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)


Step = Callable[[Engine], None]
BEGUN: tuple[Step, ...] = (Engine.request_pool, Engine.create_network, Engine.request_address)
JOINED: tuple[Step, ...] = (*BEGUN, Engine.create_endpoint, Engine.join)
END: tuple[Step, ...] = (Engine.leave, Engine.delete_endpoint, Engine.delete_network)
CALLS: dict[str, tuple[tuple[Step, ...], Step, tuple[Step, ...]]] = {
    "CreateNetwork": (BEGUN[:1], Engine.create_network, END[2:]),
    "CreateEndpoint": (BEGUN, Engine.create_endpoint, END[1:]),
    "Join": (JOINED[:-1], Engine.join, END),
    "Join of a running one": (JOINED[:-1], Engine.join_running, END),
    "Join of one that is here": ((Engine.first, *JOINED[:-1]), Engine.join_running, (*END, Engine.last)),
    "ProgramExternalConnectivity": (JOINED, Engine.carry, END),
    "Leave": (JOINED, Engine.leave, END[1:]),
    "DeleteEndpoint": (JOINED, Engine.delete_endpoint, END[2:]),
    "DeleteNetwork": (BEGUN[:2], Engine.delete_network, ()),
}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan())
        running = Namespace(f"{lan.label}-running")
        stack.callback(running.remove)
        running.ip("link", "add", "eth0", "type", "bridge")
        host = stack.enter_context(Host(lan, environment={"NETPLUG_FAULTS": "1"}))
        host.flags = (*host.flags, "--docker-plugin", str(host.directory / "plugin.sock"))
        host.start()
        yield Engine(host, running)


def kept(host: Host) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{host.state_directory}/netplug.db?mode=ro", uri=True)) as store:
        return sorted(key for (key,) in store.execute("select key from kv"))


def everything(engine: Engine) -> dict[str, Any]:
    kernel, inside = engine.host.state(sysctls=False)["host"], namespace_state(engine.running, sysctls=False)
    for link in (*kernel["links"], *inside["links"]):
        link.pop("address", None)
    return {"kernel": kernel, "store": kept(engine.host), "inside": inside}


def chosen(count: int) -> list[int]:
    if os.environ.get("NETPLUG_SWEEP"):
        return list(range(1, count + 1))
    return sorted({1 + (count - 1) * number // (FEW - 1) for number in range(FEW)})


@pytest.mark.parametrize("name", CALLS)
def test_the_daemon_dies_of_a_call(engine: Engine, name: str) -> None:
    before, call, after = CALLS[name]
    host = engine.host
    clean = everything(engine)
    for step in before:
        step(engine)
    assert rested(host)
    call(engine)
    assert rested(host, disarm=False)
    count = len(host.api("GET", "/netplug/faults")["passed"])
    assert count >= 2, "a call with hardly any fault point proves nothing"
    done = everything(engine)
    for step in after:
        step(engine)
    assert list(differences(everything(engine), clean)) == []

    deaths = 0
    for number in chosen(count):
        for step in before:
            step(engine)
        assert rested(host)
        host.api("POST", f"/netplug/faults?at={number}")
        deaths += dies(engine, call)
        host.start()
        call(engine)
        assert list(differences(comparable(everything(engine)), comparable(done))) == [], f"asked again after point {number}"
        for step in after:
            step(engine)
        assert list(differences(everything(engine), clean)) == [], f"ended after point {number}"
    assert deaths


def dies(engine: Engine, call: Step) -> bool:
    """Whether the daemon did, of itself; what goes on behind an answer takes a moment. Its socket's name ends with it."""
    with contextlib.suppress(ConnectionError, FileNotFoundError, http.client.HTTPException):
        call(engine)
    assert engine.host.daemon is not None
    try:
        return engine.host.daemon.wait(5) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        return False
    finally:
        engine.host.kill9()


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Pools have another id each time, and the resolver in a sandbox has other ports."""
    store = [re.sub("leased-(pools|addresses)/[0-9a-f]{64}", r"leased-\1", key) for key in found["store"]]
    return {**found, "store": store, "inside": json.loads(re.sub(r"\b[3-6]\d{4}\b", "0", json.dumps(found["inside"])))}


def test_an_endpoint_that_was_answered_for_and_lost_is_missed_with_a_sentence(engine: Engine) -> None:
    """Its record is written behind the answer."""
    clean = everything(engine)
    for step in BEGUN:
        step(engine)
    assert rested(engine.host)
    engine.host.api("POST", "/netplug/faults?at=1")
    assert dies(engine, Engine.create_endpoint)
    engine.host.start()

    with pytest.raises(ApiError, match="not found"):
        engine.join()

    for step in END:
        step(engine)
    assert list(differences(everything(engine), clean)) == []


def test_an_address_whose_note_was_lost_with_the_daemon_is_held_by_its_endpoint(engine: Engine) -> None:
    for step in BEGUN:
        step(engine)
    engine.host.kill9()
    with contextlib.closing(sqlite3.connect(f"{engine.host.state_directory}/netplug.db")) as store, store:
        store.execute("delete from kv where key like '%leased-addresses/%'")
    engine.host.start()
    engine.create_endpoint()
    engine.leave()
    with pytest.raises(ApiError, match="already in use"):
        engine.request_address()
    engine.call("IpamDriver.ReleaseAddress", PoolID=engine.pool, Address=ADDRESS)
    engine.request_address()
