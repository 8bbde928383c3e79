"""Between two calls of dockerd's: subnets that it does not like and asks for again, and its death at any of them.

NETPLUG_SWEEP=1 lets it die at every call of each command, answered or not, else at a few.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.differences import differences
from tests.engines.dockerd import IMAGE, Pair
from tests.engines.relay import BEHIND, Relay
from tests.engines.test_docker import SERVE, from_outside, make, reaches, without_docker
from tests.hosts import Lan

POOL, FREE, GATEWAY = "IpamDriver.RequestPool", "IpamDriver.ReleasePool", "IpamDriver.RequestAddress"
NETWORK = "NetworkDriver.CreateNetwork"
CREATE = ("network", "create", "--driver", "netplug", "--ipam-driver", "netplug")
COMMANDS = {
    "create": (*CREATE, "new"),
    "run": ("run", "-d", "--name", "new", "--network", "demo", "-p", "8081:80", IMAGE, *SERVE),
    "connect": ("network", "connect", "other", "web"),
    "disconnect": ("network", "disconnect", "other", "web"),
    "rm": ("rm", "-f", "web"),
    "network rm": ("network", "rm", "empty"),
}
CALLS = {
    "create": (POOL, GATEWAY, NETWORK),
    "run": ("IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join", "NetworkDriver.ProgramExternalConnectivity"),
    "connect": ("IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join", "NetworkDriver.EndpointOperInfo"),
    "disconnect": ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress"),
    "rm": ("NetworkDriver.RevokeExternalConnectivity", "NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress"),
    "network rm": ("IpamDriver.ReleaseAddress", FREE, "NetworkDriver.DeleteNetwork"),
}
"""What dockerd asks, by command."""
FEW = (
    ("connect", "NetworkDriver.CreateEndpoint", False),
    ("network rm", FREE, False),
    ("create", NETWORK, False),
)
"""Command, call, and whether that is answered."""


@pytest.fixture(scope="module")
def relayed() -> Iterator[tuple[Pair, Relay]]:
    """netplug's own bridge has 10.200.0.0/20, the first of sixteen."""
    with Lan() as lan, Pair(lan, "--default-address-pool", "base=10.200.0.0/16,size=20") as pair:
        with contextlib.closing(Relay(pair)) as relay:
            pair.start("--docker-plugin", BEHIND)
            pair.start_dockerd()
            pair.import_image()
            yield pair, relay
        print(f"netplug:\n{pair.said()}\ndockerd:\n{pair.docker_said()}")


@pytest.fixture
def pair(relayed: tuple[Pair, Relay]) -> Iterator[Pair]:
    yield relayed[0]
    relayed[0].clean()


@pytest.fixture
def relay(relayed: tuple[Pair, Relay]) -> Relay:
    relayed[1].calls.clear()
    return relayed[1]


# Pools


@contextlib.contextmanager
def route(pair: Pair, subnet: str) -> Iterator[None]:
    """By a link of ours: netplug does not count it, and dockerd does."""
    pair.run_here("ip", "route", "add", subnet, "dev", "netplug0")
    try:
        yield
    finally:
        pair.run_here("ip", "route", "del", subnet)


def test_a_subnet_that_the_engine_rejects_is_held_until_there_is_a_better_one(pair: Pair, relay: Relay) -> None:
    for name, trouble in {"routed": route(pair, "10.200.18.0/24"), "asked": pair.nameserver("10.200.17.7")}.items():
        relay.calls.clear()
        with trouble:
            make(pair, name)
        assert relay.calls[-5:] == [POOL, POOL, FREE, GATEWAY, NETWORK]

    assert sorted(pair.leftovers()["pools"]) == ["10.200.32.0/20", "10.200.48.0/20"]
    assert "10.200.16.0" not in pair.netplug("ipam", "show", check=True).stdout
    make(pair, "better")
    assert pair.leftovers()["pools"].count("10.200.16.0/20") == 1, "it came back"


def test_where_the_engine_likes_none_all_come_back(pair: Pair, relay: Relay) -> None:
    """Half of all addresses by one link, as a VPN has it."""
    with route(pair, "0.0.0.0/1"):
        refused = pair.docker(*CREATE, "demo", check=False)
        assert "could not find an available, non-overlapping IPv4 address pool among the defaults" in refused.stderr
        assert [relay.calls.count(call) for call in (POOL, FREE)] == [16, 15]
        assert pair.leftovers() == {"networks": ["bridge", "host", "none"], "pools": []}
        make(pair, "demo", "--subnet", "10.200.16.0/20")


# Deaths


def deaths() -> list[tuple[str, str, bool]]:
    if not os.environ.get("NETPLUG_SWEEP"):
        return list(FEW)
    return [(command, call, answered) for command, calls in CALLS.items() for call in calls for answered in (True, False)]


def dies(pair: Pair, relay: Relay, command: str, call: str, answered: bool) -> None:
    """dockerd does, while it waits for that call's answer, and is there again."""
    with ThreadPoolExecutor() as threads, relay.holding(call, answered=answered) as hold:
        asking = threads.submit(pair.docker, *COMMANDS[command], check=False)
        assert hold.reached.wait(30), f"{call} was not asked: {relay.calls}"
        pair.kill_dockerd()
        assert asking.result().returncode != 0
    pair.start_dockerd()


def again(pair: Pair, command: str) -> None:
    """What was to be done can be done now, also before what was left of it has gone; then it is undone."""
    match command:
        case "run":
            pair.docker("start", "new")
            assert from_outside(pair, 8081) == "served"
            pair.docker("rm", "-f", "new")
        case "connect" | "disconnect":
            pair.docker("start", "web")
            if command == "connect":
                pair.docker(*COMMANDS[command])
            assert reaches(pair, "web", pair.inspect("web")["NetworkSettings"]["Networks"]["other"]["Gateway"])
            pair.docker("network", "disconnect", "other", "web")
        case "rm":
            pair.docker("rm", "-f", "web")
            pair.run_container("web", "--network", "demo")
        case "network rm":  # the engine does the rest when it starts
            make(pair, "empty")
            pair.docker("network", "rm", "empty")
        case "create":
            make(pair, "new")
            pair.docker("network", "rm", "new")


def everything(pair: Pair) -> dict[str, Any]:
    with contextlib.closing(sqlite3.connect(f"file:{pair.state_directory}/netplug.db?mode=ro", uri=True)) as store:
        keys = [key for (key,) in store.execute("select key from kv order by key")]
    return {"store": keys, "kernel": without_docker(pair.state(sysctls=False))}


def test_an_engine_that_dies_between_two_calls_leaves_nothing(pair: Pair, relay: Relay) -> None:
    """Networks that it knows stay all the time; what it does not know any more goes."""
    for name in ("demo", "other"):
        make(pair, name)
    # The engine is asked for a network's name a moment after it has been made.
    names = {f"/netplug/v1/network-names/{name}" for name in ("demo", "other")}
    pair.until(lambda: names.issubset(everything(pair)["store"]))
    before = everything(pair)
    pair.run_container("web", "--network", "demo")
    for command, call, answered in deaths():
        pair.docker("start", "web")
        if command == "network rm":
            make(pair, "empty")
        elif command == "disconnect":
            pair.docker("network", "connect", "other", "web")
        dies(pair, relay, command, call, answered)
        again(pair, command)

    pair.docker("rm", "-f", "web")
    with contextlib.suppress(AssertionError):
        pair.until(lambda: everything(pair) == before)
    assert list(differences(everything(pair), before)) == []


def test_a_network_goes_although_an_engine_has_died_on_it(pair: Pair, relay: Relay) -> None:
    """It removes a network that has nothing on it, as far as it knows."""
    before = everything(pair)
    make(pair, "demo")
    dies(pair, relay, "run", "NetworkDriver.CreateEndpoint", True)
    assert pair.leased(), "what is left of it"
    pair.docker("rm", "new")
    pair.docker("network", "rm", "demo")
    assert list(differences(everything(pair), before)) == []
