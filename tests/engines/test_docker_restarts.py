"""Either daemon ends, politely or not, while containers of the engine run; then it is there again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engines.dockerd import Pair
from tests.engines.test_docker import SERVE, from_outside, make, own, reaches
from tests.hosts import Lan


@pytest.fixture
def busy(pair: Pair) -> Pair:
    """Network `demo` with `web` (10.9.0.2, published at 8080) and netplug's `mine` (10.9.0.3)."""
    identity = make(pair, "demo", "--subnet", "10.9.0.0/24")
    pair.run_container("web", "--network", "demo", "--restart", "always", "-p", "8080:80", argv=SERVE)
    own(pair, "mine", identity)
    return pair


def whole(pair: Pair) -> bool:
    """Everything of `busy` is as it was."""
    return (
        reaches(pair, "web", "10.9.0.3")
        and reaches(pair, "web", "mine")
        and pair.inside("mine", "ping", "-c", "1", "-W", "3", "10.9.0.2", check=False).returncode == 0
        and from_outside(pair, 8080) == "served"
    )


@pytest.mark.parametrize("kill", [False, True])
def test_netplug_restarts(busy: Pair, kill: bool) -> None:
    with busy.flood("10.9.0.2") as flood:
        busy.kill9() if kill else busy.stop()
        assert reaches(busy, "web", "10.9.0.3"), "without the daemon"
        busy.start()
    assert flood.lost == []
    assert whole(busy)

    busy.docker("rm", "-f", "web")
    busy.run_container("web", "--network", "demo", "-p", "8080:80", argv=SERVE)
    assert whole(busy)


def test_what_the_engine_asks_while_netplug_is_away_waits_for_it(busy: Pair) -> None:
    """It asks again and again for half a minute."""
    busy.kill9()
    with ThreadPoolExecutor() as threads:
        removal = threads.submit(busy.docker, "rm", "-f", "web")
        busy.until(lambda: "retrying in" in busy.docker_said())
        busy.start()
        assert removal.result().returncode == 0
    assert list(busy.endpoints(busy.only_network())) == ["mine"]
    busy.run_container("web", "--network", "demo", "-p", "8080:80", argv=SERVE)
    assert whole(busy)


@pytest.mark.parametrize("kill", [False, True])
def test_the_engine_restarts(busy: Pair, kill: bool) -> None:
    """Without live-restore it ends its containers, and starts those again that are to be."""
    busy.kill_dockerd() if kill else busy.stop_dockerd()
    busy.start_dockerd()

    busy.until(lambda: whole(busy))
    assert len(busy.endpoints(busy.only_network())) == 2


def test_the_engine_dies_for_good(busy: Pair) -> None:
    """Its container goes on without it, and so does what it has of ours."""
    busy.kill_dockerd()
    try:
        busy.restart()
        assert busy.inside("mine", "ping", "-c", "1", "-W", "3", "10.9.0.2").returncode == 0
        assert from_outside(busy, 8080) == "served"
    finally:
        busy.start_dockerd()


def test_live_restore() -> None:
    """The engine's containers outlive it, and their resolver listens elsewhere afterwards."""
    with Lan() as lan, Pair(lan) as pair:
        pair.start()
        pair.start_dockerd("--live-restore")
        pair.import_image()
        identity = make(pair, "demo", "--subnet", "10.9.0.0/24")
        pair.run_container("web", "--network", "demo", "-p", "8080:80", argv=SERVE)
        own(pair, "mine", identity)
        with pair.flood("10.9.0.2") as flood:
            pair.stop_dockerd()
            pair.start_dockerd("--live-restore")
        assert flood.lost == []
        assert whole(pair)
        pair.docker("rm", "-f", "web")
        assert list(pair.endpoints(identity)) == ["mine"]
        pair.clean()


@pytest.mark.parametrize("delay", [0.03, 0.1, 0.2, 0.35])
def test_netplug_dies_in_the_middle_of_a_start(pair: Pair, delay: float) -> None:
    """The engine asks again what it had no answer to: nothing is there twice, and what was given in vain comes back.

    What it had sent already it sends without a body; then it fails, and nothing is left.
    """
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    with ThreadPoolExecutor() as threads:
        start = threads.submit(pair.run_container, "web", "--network", "demo", "-p", "8080:80", argv=SERVE)
        time.sleep(delay)
        pair.kill9()
        pair.start()
        if failure := start.exception():
            assert "the request has no body" in str(failure)
            pair.docker("rm", "-f", "web")
            pair.until(lambda: pair.leased() == [] == list(pair.endpoints(pair.only_network())))
            pair.run_container("web", "--network", "demo", "-p", "8080:80", argv=SERVE)

    own(pair, "mine", pair.only_network())
    address = pair.docker_address("web", "demo")
    assert reaches(pair, "web", pair.container_address("mine", "demo"))
    pair.until(lambda: reaches(pair, "web", "mine"))
    assert from_outside(pair, 8080) == "served"
    pair.until(lambda: sorted(pair.endpoints("demo")) == ["mine", "web"])
    pair.until(lambda: pair.leased() == [address])
