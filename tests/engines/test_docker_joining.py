"""Networks that were there before: the engine's containers join them, with addresses from the one allocator that they have."""

from __future__ import annotations

import pytest

from tests.engines.dockerd import Pair
from tests.engines.test_docker import SERVE, from_outside, own, reaches


@pytest.fixture
def shared(pair: Pair) -> Pair:
    """With network `ours`, 10.6.0.0/24, and netplug's container `mine` on it, 10.6.0.2."""
    pair.netplug("network", "create", "--subnet", "10.6.0.0/24", "ours", check=True)
    own(pair, "mine", "ours")
    return pair


def join(pair: Pair, *options: str) -> None:
    pair.docker("network", "create", "--driver", "netplug", *options, "-o", "netplug.network=ours", "theirs")


@pytest.mark.parametrize("ipam", [("--ipam-driver", "null"), ("--ipam-driver", "netplug", "--subnet", "10.6.0.0/24")])
def test_containers_of_both_are_one_network(shared: Pair, ipam: tuple[str, ...]) -> None:
    join(shared, *ipam)
    shared.run_container("web", "--network", "theirs", "-p", "8080:80", argv=SERVE)
    own(shared, "more", "ours")

    assert shared.docker_exec("web", "ip", "-4", "addr", "show", "eth0").stdout.split("inet ")[1].split()[0] == "10.6.0.3/24"
    assert shared.container_address("more", "ours") == "10.6.0.4"
    assert reaches(shared, "web", "10.6.0.2")
    assert reaches(shared, "web", "mine")
    assert shared.inside("mine", "ping", "-c", "1", "-W", "3", "10.6.0.3").returncode == 0
    assert from_outside(shared, 8080) == "served"

    shared.docker("rm", "-f", "web")
    shared.docker("network", "rm", "theirs")
    assert sorted(shared.endpoints("ours")) == ["mine", "more"]
    own(shared, "again", "ours")
    assert shared.container_address("again", "ours") == "10.6.0.3", "it came back"


def test_another_subnet_is_no_way_to_join(shared: Pair) -> None:
    refused = shared.docker(
        "network", "create", "-d", "netplug", "--ipam-driver", "netplug", "-o", "netplug.network=ours", "theirs", check=False
    )

    assert "give --subnet 10.6.0.0/24, or --ipam-driver null" in refused.stderr
    assert shared.leftovers()["pools"] == []


def test_the_subnet_of_another_network_is_not_taken_by_chance(shared: Pair) -> None:
    refused = shared.docker(
        "network", "create", "-d", "netplug", "--ipam-driver", "netplug", "--subnet", "10.6.0.0/24", "theirs", check=False
    )

    assert "give -o netplug.network=ours to join it" in refused.stderr
    assert shared.leftovers()["pools"] == []


def test_without_any_ipam_the_network_has_its_own(pair: Pair) -> None:
    identity = pair.docker("network", "create", "-d", "netplug", "--ipam-driver", "null", "demo").stdout.strip()
    pair.run_container("web", "--network", "demo")
    own(pair, "mine", identity)

    assert reaches(pair, "web", pair.container_address("mine", pair.network_name(identity)))


def test_a_network_that_goes_is_missed_with_a_sentence(shared: Pair) -> None:
    join(shared, "--ipam-driver", "null")
    shared.netplug("rm", "-f", "mine", check=True)
    shared.netplug("network", "rm", "ours", check=True)

    refused = shared.docker("run", "--network", "theirs", "bench", "true", check=False)

    assert "network" in refused.stderr
    assert "not found" in refused.stderr
