"""Names: everybody's, in the engine's containers as in ours; and what the engine's own resolver knows besides."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.engines.dockerd import IMAGE, Pair
from tests.engines.test_docker import make, own, reaches

HERE = f"localhost:1/{IMAGE}"
"""A registry where nobody is: a swarm looks there first, and then takes the image that it has."""


def found(pair: Pair, container: str, name: str) -> set[str]:
    """Addresses that a container of the engine finds for a name; for an address, its names."""
    return answers(pair.docker_exec(container, "nslookup", name, check=False).stdout)


def ours(pair: Pair, container: str, name: str) -> set[str]:
    """The same for one of ours."""
    return answers(pair.inside(container, "busybox", "nslookup", name, "127.0.0.11", check=False).stdout)


def answers(said: str) -> set[str]:
    """What nslookup says behind its server's address."""
    lines = [line.partition(": ") for line in said.partition("\n\n")[2].replace("\t", " ").splitlines()]
    addresses = {value.strip() for key, _, value in lines if key == "Address"}
    return addresses or {line.partition("name =")[2].strip() for line in said.splitlines() if "name =" in line}


@contextlib.contextmanager
def dns_server(pair: Pair, name: str, address: str) -> Iterator[None]:
    """At 203.0.113.1, with one name."""
    argv = [
        "dnsmasq",
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        f"--address=/{name}/{address}",
        "--pid-file=",
    ]
    server = subprocess.Popen(pair.lan.outside.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def named(pair: Pair) -> Pair:
    """Network `demo`: `web` (alias `www`) of the engine, 10.9.0.2, and `mine` of ours, 10.9.0.3."""
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    pair.run_container("web", "--network", "demo", "--network-alias", "www")
    pair.until(lambda: pair.only_network() == "demo")
    own(pair, "mine", "demo", "--network-alias", "dein")
    pair.until(lambda: "web" in pair.endpoints("demo"))
    return pair


def test_everybody_is_found_by_everybody(named: Pair) -> None:
    short = named.inspect("web")["Id"][:12]
    for name in ("web", "www", short, "web.demo"):
        assert ours(named, "mine", name) == {"10.9.0.2"}
    for name in ("mine", "dein", "mine.demo", "web", "www"):
        assert found(named, "web", name) == {"10.9.0.2" if name.startswith("w") else "10.9.0.3"}
    assert ours(named, "mine", "10.9.0.2") == {"web.demo"}
    assert found(named, "web", "10.9.0.3") == {"mine.demo"}


def test_a_container_that_is_renamed_or_started_again_is_found(named: Pair) -> None:
    named.docker("rename", "web", "site")
    named.until(lambda: ours(named, "mine", "site") == {"10.9.0.2"})
    assert ours(named, "mine", "web") == set()

    named.docker("restart", "-t", "0", "site")
    named.until(lambda: ours(named, "mine", "site") == {named.docker_address("site", "demo")})
    assert found(named, "site", "mine") == {"10.9.0.3"}
    named.docker("rm", "-f", "site")
    assert ours(named, "mine", "site") == set()


@pytest.mark.parametrize("kill", [False, True])
def test_names_outlive_netplug(named: Pair, kill: bool) -> None:
    named.kill9() if kill else named.stop()
    assert found(named, "web", "mine") == {"10.9.0.3"}
    named.start()
    assert found(named, "web", "mine") == {"10.9.0.3"}
    assert ours(named, "mine", "www") == {"10.9.0.2"}
    named.run_container("late", "--network", "demo")
    named.until(lambda: ours(named, "mine", "late"))


def test_what_only_the_engine_knows_is_asked_of_it(named: Pair) -> None:
    """Links, names of other networks, and servers given with --dns."""
    named.docker("network", "create", "--subnet", "10.44.0.0/24", "plain")
    named.run_container("far", "--network", "plain")
    named.docker("network", "connect", "plain", "web")
    assert found(named, "web", "far") == {"10.44.0.2"}

    named.run_container("linked", "--network", "demo", "--link", "web:backend")
    assert found(named, "linked", "backend") == {"10.9.0.2"}


def test_dns_servers_of_the_engines_containers_are_asked(named: Pair) -> None:
    """By the engine's own resolver, from its own place."""
    with dns_server(named, "else.test", "192.0.2.77"):
        named.run_container("asks", "--network", "demo", "--dns", "203.0.113.1")
        assert found(named, "asks", "else.test") == {"192.0.2.77"}
        assert found(named, "asks", "mine") == {"10.9.0.3"}


def test_a_name_that_is_taken_stays_its_owners(named: Pair) -> None:
    named.run_container("mine", "--network", "demo")
    named.until(lambda: "another container on demo has that name" in named.said())
    assert found(named, "web", "mine") == {"10.9.0.3"}

    named.netplug("network", "create", "theirs", check=True)
    make(named, "theirs")
    named.until(lambda: "there is a network of that name" in named.said())


def test_what_the_engine_has_lost_is_taken_away(named: Pair) -> None:
    """It removes its network, whatever a plugin says, or does not say."""
    named.kill9()
    named.kill_dockerd()
    named.forget_networks()
    named.start()
    named.start_dockerd()
    named.netplug("rm", "-f", "mine", check=True)

    named.until(lambda: named.leftovers() == {"networks": ["bridge", "host", "none"], "pools": []}, 40)
    assert named.records("sandboxes/") == []


def test_an_engine_that_was_away_is_told_of_again(named: Pair) -> None:
    named.stop_dockerd()
    named.start_dockerd()
    named.docker("start", "web")
    named.until(lambda: ours(named, "mine", "web") == {named.docker_address("web", "demo")})
    assert found(named, "web", "mine") == {"10.9.0.3"}


def test_a_container_on_a_swarms_network_and_on_ours_finds_everybody(pair: Pair) -> None:
    """The container starts on the swarm's network and joins ours while it runs; then once more with a restart."""
    own(pair, "mine", make(pair, "demo", "--subnet", "10.9.0.0/24"))
    pair.docker("tag", IMAGE, HERE)
    pair.docker("swarm", "init", "--advertise-addr", pair.address)
    try:
        pair.docker("network", "create", "--driver", "overlay", "--attachable", "--subnet", "10.55.0.0/24", "wide")
        service = ("service", "create", "--detach", "--name", "shop", "--network", "wide", "--replicas", "2", "--stop-signal", "KILL")
        pair.docker(*service, "--no-resolve-image", HERE, "sleep", "1000")
        pair.run_container("web", "--network", "wide")
        pair.docker("network", "connect", "demo", "web")
        pair.until(lambda: len(found(pair, "web", "tasks.shop")) == 2)
        whole(pair)
        pair.docker("restart", "--time", "0", "web")
        pair.until(lambda: found(pair, "web", "mine"))
        whole(pair)
    finally:
        pair.docker("rm", "-f", "web", check=False)
        pair.docker("swarm", "leave", "--force")


def whole(pair: Pair) -> None:
    """All names are known to `web`, which reaches what they stand for; and its own to ours."""
    tasks, service = found(pair, "web", "tasks.shop"), found(pair, "web", "shop")
    assert len(tasks) == 2
    assert len(service) == 1
    assert all(one.startswith("10.55.0.") for one in tasks | service)
    assert found(pair, "web", "mine") == {"10.9.0.2"}
    for target in (*tasks, "10.9.0.2"):
        assert reaches(pair, "web", target)
    pair.until(lambda: ours(pair, "mine", "web") == {pair.docker_address("web", "demo")})
