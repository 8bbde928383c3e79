"""`netplug doctor` where Docker's containers are on networks of ours."""

from __future__ import annotations

from tests.engines.dockerd import Pair
from tests.engines.test_docker import make


def examine(pair: Pair) -> list[str]:
    return [f"{found['Subject']}: {found['Found']}" for found in pair.api("GET", "/netplug/doctor")]


def test_dockers_containers_are_as_the_records_say(pair: Pair) -> None:
    """Those with ports, those that were connected while they ran, and what has been lost of one."""
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    make(pair, "more", "--subnet", "10.10.0.0/24")
    pair.run_container("web", "--network", "demo", "-p", "8080:80")
    pair.run_container("late", "--network", "demo")
    pair.docker("network", "connect", "more", "late")
    assert examine(pair) == []

    explained = pair.netplug("explain", "web", check=True).stdout
    assert f"ip addr add {pair.docker_address('web', 'demo')}/24 brd + dev eth0" in explained
    pair.docker("stop", "-t", "0", "late")
    assert examine(pair) == []
