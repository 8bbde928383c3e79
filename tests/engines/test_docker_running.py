"""A running container of the engine joins more networks: its link is put into it by netplug, and dockerd has nothing to take in."""

from __future__ import annotations

from tests.engines.dockerd import Pair
from tests.engines.test_docker import make, own, reaches


def test_it_has_the_link_when_the_call_returns_and_all_of_it_again_after_a_restart(pair: Pair) -> None:
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    other = make(pair, "other", "--subnet", "10.8.0.0/24", "--ipv6", "--subnet", "fd08::/64")
    pair.run_container("web", "--network", "demo")
    own(pair, "mine", other)

    pair.docker("network", "connect", "other", "web")
    address = pair.docker_address("web", "other")
    assert f"inet {address}/24" in pair.docker_exec("web", "ip", "addr", "show", "net1").stdout
    assert "fd08::" in pair.docker_exec("web", "ip", "-6", "addr", "show", "net1").stdout
    assert reaches(pair, "web", "10.8.0.2")
    assert pair.inside("mine", "ping", "-c", "1", "-W", "3", address).returncode == 0

    pair.docker("restart", "--time", "0", "web")
    assert reaches(pair, "web", "10.8.0.2")
    assert reaches(pair, "web", "10.9.0.1")

    pair.docker("network", "disconnect", "other", "web")
    assert not reaches(pair, "web", "10.8.0.2")
    assert reaches(pair, "web", "10.9.0.1")


def test_a_bridge_of_the_engines_own_comes_beside_it(pair: Pair) -> None:
    """dockerd counts its interfaces: ours are in nobody's way."""
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    pair.docker("network", "create", "theirs")
    pair.run_container("web", "--network", "theirs")

    pair.docker("network", "connect", "demo", "web")
    pair.docker("network", "disconnect", "theirs", "web")
    pair.docker("network", "connect", "theirs", "web")

    assert reaches(pair, "web", "10.9.0.1")
    gateway = pair.inspect("web")["NetworkSettings"]["Networks"]["theirs"]["Gateway"]
    assert reaches(pair, "web", gateway)
    assert reaches(pair, "web", "203.0.113.1"), "the way out"


def test_the_daemon_may_end_and_come_back_with_it(pair: Pair) -> None:
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    make(pair, "other", "--subnet", "10.8.0.0/24")
    pair.run_container("web", "--network", "demo")
    pair.docker("network", "connect", "other", "web")

    pair.kill9()
    assert reaches(pair, "web", "10.8.0.1")
    pair.start()

    assert reaches(pair, "web", "10.8.0.1")
    pair.docker("network", "disconnect", "other", "web")
    pair.docker("network", "connect", "other", "web")
    assert reaches(pair, "web", "10.8.0.1")


def test_what_the_kernel_refuses_is_told_and_leaves_nothing(pair: Pair) -> None:
    """A link may be made behind the answer to Join: dockerd hears what became of it before it says that the container is connected."""
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    other = make(pair, "other", "--subnet", "10.8.0.0/24")
    pair.run_container("web", "--network", "demo")
    pair.run_container("both", "-p", "8080:80")
    pair.docker("network", "connect", "demo", "both")
    pair.stop()
    pair.start("--no-heal")
    held = pair.leased()
    pair.run_here("ip", "link", "delete", f"br-{other[:12]}")

    for name in ("web", "both"):  # dockerd, which has ports of the second one to tell of, asks no more: Join itself says it
        refused = pair.docker("network", "connect", "other", name, check=False)
        assert refused.returncode != 0
        assert f"there is no link br-{other[:12]}" in refused.stderr

    assert other not in [one["network"] for one in pair.records("endpoints/")]
    assert pair.docker_exec("web", "ip", "addr", "show", "net1", check=False).returncode != 0
    pair.stop()
    pair.start()
    pair.docker("network", "disconnect", "other", "web")
    assert pair.leased() == held
    pair.docker("network", "connect", "other", "web")
    assert reaches(pair, "web", "10.8.0.1")


def test_a_prefix_that_the_engine_counts_by_too(pair: Pair) -> None:
    """The user's for both networks: what dockerd calls its next interface is free."""
    prefix = ("--opt", "com.docker.network.container_iface_prefix=eth")
    make(pair, "demo", "--subnet", "10.9.0.0/24", *prefix)
    pair.docker("network", "create", *prefix, "theirs")
    pair.run_container("web")

    pair.docker("network", "connect", "demo", "web")
    pair.docker("network", "connect", "theirs", "web")

    assert "inet 10.9.0.2/24" in pair.docker_exec("web", "ip", "addr", "show", "ethn1").stdout
    assert reaches(pair, "web", "10.9.0.1")
    assert reaches(pair, "web", pair.inspect("web")["NetworkSettings"]["Networks"]["theirs"]["Gateway"])
