"""netplug as the plugin of a dockerd, beside that dockerd's own bridge: both in the same engine, which does the rest of each call itself.

The plugin's own calls are timed as the engine makes them: over its socket, one after the other.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import null_plugin, quiet
from tests.bench.engines import container, create_container, remove_container, timed
from tests.bench.null_plugin import NullPlugin
from tests.engines.dockerd import PLUGIN, Pair
from tests.hosts import Api, Lan

BRIDGE, NETPLUG = "bridge", "netplug"
DRIVERS = (BRIDGE, NETPLUG)
WITHOUT, ALIVE, SLOW, DEAD, HELD = "without", "alive", "starting too", "dead", "dead, its socket held by systemd"
SPACE = "netplug"
"""The address space of one host."""
PATIENCE = 120.0


@dataclass
class Plugged:
    """What was measured of the plugin."""

    floor: list[float] = field(default_factory=list)
    """Milliseconds of a `connect` by a plugin that does nothing: dockerd's own part of it."""
    calls: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Milliseconds, by driver: `connect`, `disconnect`, `run` and `remove` of a container by dockerd."""
    own: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds, by method of the plugin."""
    starts: dict[str, list[float]] = field(default_factory=dict)
    """Seconds until dockerd answers: `without` a network of the plugin's; with one, and the plugin `alive`, `dead`, or `slow`:
    starting itself."""


@contextlib.contextmanager
def pairs(lan: Lan) -> Iterator[Pair]:
    """Both daemons on one host."""
    with Pair(lan) as pair:
        pair.start()
        pair.start_dockerd()
        pair.import_image()
        pair.install_away()
        yield pair


def calls(pair: Pair, driver: str, rounds: int) -> dict[str, list[float]]:
    """What a user waits for, with networks of that driver."""
    samples: dict[str, list[float]] = {"connect": [], "disconnect": [], "run": [], "remove": []}
    with contextlib.closing(Api(pair.docker_socket)) as api, _network(api, "one", driver), _network(api, "two", driver):
        with container(api, "probe", "one"):
            for _ in range(rounds):
                samples["connect"].append(timed(api.call, "POST", "/networks/two/connect", {"Container": "probe"}))
                samples["disconnect"].append(timed(api.call, "POST", "/networks/two/disconnect", {"Container": "probe"}))
        for _ in range(max(1, rounds // 2)):
            samples["run"].append(timed(_run, api))
            samples["remove"].append(timed(remove_container, api, "probe"))
    return samples


def _run(api: Api) -> None:
    create_container(api, "probe", "one", ports={80: 20000})
    api.call("POST", "/containers/probe/start")


@contextlib.contextmanager
def _network(api: Api, name: str, driver: str) -> Iterator[None]:
    ipam = "default" if driver == BRIDGE else driver
    api.call("POST", "/networks/create", {"Name": name, "Driver": driver, "IPAM": {"Driver": ipam}})
    try:
        yield
    finally:
        api.call("DELETE", f"/networks/{name}")


def floor(pair: Pair, rounds: int) -> list[float]:
    """The same as `connect`, where the second network's plugin answers at once."""
    samples, path = [], pair.seen(PLUGIN.replace(NETPLUG, null_plugin.NAME))
    with (
        contextlib.closing(NullPlugin(path)),
        contextlib.closing(Api(pair.docker_socket)) as api,
        _network(api, "one", NETPLUG),
        _network(api, "two", null_plugin.NAME),
        container(api, "probe", "one"),
    ):
        for _ in range(rounds):
            samples.append(timed(api.call, "POST", "/networks/two/connect", {"Container": "probe"}))
            api.call("POST", "/networks/two/disconnect", {"Container": "probe"})
    Path(path).unlink()
    return samples


def own(pair: Pair, rounds: int) -> dict[str, list[float]]:
    """The plugin's calls of an endpoint's life (its link is made and deleted, and nobody takes it in)."""
    samples: dict[str, list[float]] = {}
    with contextlib.closing(Api(pair.seen(PLUGIN))) as api:

        def call(method: str, body: dict[str, Any]) -> dict[str, Any]:
            started = time.perf_counter()
            answer = api.call("POST", f"/{method}", body)
            samples.setdefault(method, []).append((time.perf_counter() - started) * 1000)
            return dict(answer)

        pool = call("IpamDriver.RequestPool", {"AddressSpace": SPACE, "Pool": "", "SubPool": "", "Options": {}, "V6": False})
        identity = pool["PoolID"]
        gateway = {"RequestAddressType": "com.docker.network.gateway"}
        asked = call("IpamDriver.RequestAddress", {"PoolID": identity, "Address": "", "Options": gateway})
        network = {"NetworkID": secrets.token_hex(32)}
        data = {"AddressSpace": SPACE, "Pool": pool["Pool"], "Gateway": asked["Address"], "AuxAddresses": {}}
        call("NetworkDriver.CreateNetwork", network | {"Options": {}, "IPv4Data": [data], "IPv6Data": []})
        for _ in range(rounds):
            address = call("IpamDriver.RequestAddress", {"PoolID": identity, "Address": "", "Options": {}})["Address"]
            endpoint = network | {"EndpointID": secrets.token_hex(32)}
            given = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
            call("NetworkDriver.CreateEndpoint", endpoint | {"Interface": given, "Options": {}})
            call("NetworkDriver.EndpointOperInfo", endpoint)
            call("NetworkDriver.Join", endpoint | {"SandboxKey": f"/var/run/docker/netns/{secrets.token_hex(6)}", "Options": {}})
            call("NetworkDriver.Leave", endpoint)
            call("NetworkDriver.DeleteEndpoint", endpoint)
            call("IpamDriver.ReleaseAddress", {"PoolID": identity, "Address": address.split("/")[0]})
        call("NetworkDriver.DeleteNetwork", network)
        call("IpamDriver.ReleaseAddress", {"PoolID": identity, "Address": asked["Address"].split("/")[0]})
        call("IpamDriver.ReleasePool", {"PoolID": identity})
    return samples


def starts(pair: Pair, rounds: int) -> dict[str, list[float]]:
    """How long dockerd takes to start, by what the plugin does meanwhile. It has a network of the plugin's, and a container on it."""
    samples: dict[str, list[float]] = {}
    states: dict[str, Callable[[Pair], contextlib.AbstractContextManager[None]]] = {ALIVE: _alive, SLOW: _slow, DEAD: _dead, HELD: _held}
    for _ in range(rounds):
        pair.stop_dockerd()
        samples.setdefault(WITHOUT, []).append(_started(pair))
    pair.docker("network", "create", "--driver", NETPLUG, "--ipam-driver", NETPLUG, "one")
    pair.run_container("probe", "--network", "one")
    for _ in range(rounds):
        for name, state in states.items():
            pair.stop_dockerd()
            with state(pair):
                samples.setdefault(name, []).append(_started(pair))
    pair.clean()
    return samples


def _started(pair: Pair) -> float:
    began = time.monotonic()
    pair.start_dockerd(ready=False)
    pair.await_dockerd(PATIENCE)
    return time.monotonic() - began


@contextlib.contextmanager
def _alive(pair: Pair) -> Iterator[None]:
    yield


@contextlib.contextmanager
def _dead(pair: Pair) -> Iterator[None]:
    """Killed: its socket's name has gone with it, and dockerd finds what `netplug install docker` has written (`pairs`)."""
    pair.kill9()
    try:
        yield
    finally:
        pair.start()


@contextlib.contextmanager
def _held(pair: Pair) -> Iterator[None]:
    """As a service manager does that starts it when somebody calls."""
    pair.kill9()
    listener = pair.hold()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(lambda: bool(select.select([listener], [], [], PATIENCE)[0]) and pair.start())
        yield
        started.result()
    pair.stop()
    pair.release()
    pair.start()


@contextlib.contextmanager
def _slow(pair: Pair) -> Iterator[None]:
    """It begins to start when dockerd does, as at boot."""
    pair.kill9()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(pair.start)
        yield
        started.result()


def measure(lan: Lan, rounds: int, batches: int, tick: Callable[[str], None]) -> Plugged:
    """The drivers take turns."""
    found = Plugged()
    with pairs(lan) as pair:
        for number in range(2 * batches):
            # Who goes first takes turns too; and what one leaves for later is not the next one's time.
            for driver in DRIVERS if number % 2 else reversed(DRIVERS):
                quiet.wait()
                for name, samples in calls(pair, driver, rounds).items():
                    found.calls.setdefault(driver, {}).setdefault(name, []).extend(samples)
            if number % 2:
                quiet.wait()
                found.floor += floor(pair, rounds)
                tick("the plugin of a dockerd")
        found.own = own(pair, rounds * batches * 5)
        tick("the plugin's calls")
        found.starts = starts(pair, 3)
        tick("dockerd's start")
    return found
