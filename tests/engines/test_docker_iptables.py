"""netplug on the iptables backend in containers where dockerd has rules of its own for 127.0.0.11: ours come first, whoever came last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.dockerd import Pair
from tests.engines.test_docker import make, own, reaches
from tests.hosts import Lan


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """The network `demo`, and `mine` of netplug's runtime on it."""
    with Lan() as lan, Pair(lan, "--firewall-backend", "iptables") as pair:
        pair.start()
        pair.start_dockerd("--live-restore")
        pair.import_image()
        identity = make(pair, "demo", "--subnet", "10.9.0.0/24")
        own(pair, "mine", identity)
        yield pair
        print(f"netplug:\n{pair.said()}\ndockerd:\n{pair.docker_said()}")
        pair.clean()


def chains(pair: Pair, name: str) -> list[str]:
    """Those that a question to 127.0.0.11 meets, in order."""
    path = pair.inspect(name)["NetworkSettings"]["SandboxKey"]
    rules = pair.run_here("nsenter", f"--net={path}", "iptables", "-t", "nat", "-S", "OUTPUT").splitlines()
    return [rule.split()[-1] for rule in rules if "127.0.0.11" in rule]


def test_after_a_live_restore(pair: Pair) -> None:
    pair.run_container("web", "--network", "demo")
    pair.until(lambda: reaches(pair, "web", "mine"))
    assert chains(pair, "web") == ["NETPLUG_OUTPUT", "DOCKER_OUTPUT"]

    pair.stop_dockerd()
    pair.start_dockerd("--live-restore")

    pair.until(lambda: reaches(pair, "web", "mine"))
    assert chains(pair, "web") == ["NETPLUG_OUTPUT", "DOCKER_OUTPUT"]
    pair.docker("rm", "-f", "web")


def test_in_a_container_that_gets_the_engines_resolver_later(pair: Pair) -> None:
    """On the default bridge it has none: dockerd puts its rule in front when the call that we have answered goes on."""
    pair.run_container("web")
    assert chains(pair, "web") == []

    pair.docker("network", "connect", "demo", "web")

    pair.until(lambda: reaches(pair, "web", "mine"))
    assert chains(pair, "web") == ["NETPLUG_OUTPUT", "DOCKER_OUTPUT"]
    pair.docker("rm", "-f", "web")


def test_after_netplugs_own_restart(pair: Pair) -> None:
    pair.run_container("web", "--network", "demo")
    pair.until(lambda: reaches(pair, "web", "mine"))
    path = pair.inspect("web")["NetworkSettings"]["SandboxKey"]
    for verb in (("-D", "OUTPUT"), ("-I", "OUTPUT")):
        pair.run_here("nsenter", f"--net={path}", "iptables", "-t", "nat", *verb, "-d", "127.0.0.11/32", "-j", "DOCKER_OUTPUT")

    pair.restart()

    assert reaches(pair, "web", "mine")
    assert chains(pair, "web") == ["NETPLUG_OUTPUT", "DOCKER_OUTPUT"]
    pair.docker("rm", "-f", "web")
