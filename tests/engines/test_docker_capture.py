"""`netplug capture` of Docker's containers: their namespaces are that engine's, and known to netplug by what it was asked to join."""

from __future__ import annotations

from tests.capturing import capturing, without_times
from tests.engines.dockerd import Pair
from tests.engines.test_docker import make


def test_a_container_of_dockers(pair: Pair) -> None:
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    pair.run_container("web", "--network", "demo")
    pair.run_container("db", "--network", "demo")
    web, db = (pair.docker_address(name, "demo") for name in ("web", "db"))
    pair.docker("exec", "db", "ping", "-c1", web)

    with capturing("db", "icmp", environment=pair.environment) as seen:
        pair.docker("exec", "db", "ping", "-c1", web)

    assert seen.began.startswith("capturing on db/lo, db/eth0")
    assert [line.rsplit(" ", 1)[0] for line in without_times(seen.lines)] == [
        f"db/eth0 > {db} → {web} ICMP echo-request",
        f"db/eth0 < {web} → {db} ICMP echo-reply",
    ]
    with capturing("demo", "icmp", environment=pair.environment) as seen:
        pair.docker("exec", "db", "ping", "-c1", web)
    assert [line.split("/")[0] for line in without_times(seen.lines)] == ["db", "web", "web", "db"]
