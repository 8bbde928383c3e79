"""A real dockerd with netplug as its network and IPAM plugin."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.engines.dockerd import FIREWALLS, IMAGE, Pair

SERVE = ("nc", "-ll", "-p", "80", "-e", "echo", "served")


def make(pair: Pair, name: str, *options: str, ipam: str = "netplug") -> str:
    """The id of a network that the engine has."""
    return pair.docker("network", "create", "--driver", "netplug", "--ipam-driver", ipam, *options, name).stdout.strip()


def own(pair: Pair, name: str, network: str, *options: str) -> None:
    """A container of netplug's runtime."""
    pair.netplug("run", "--detach", "--name", name, "--network", network, *options, "host", "sleep", "1000000", check=True)


def reaches(pair: Pair, container: str, target: str) -> bool:
    return pair.docker_exec(container, "ping", "-c", "1", "-W", "3", target, check=False).returncode == 0


def from_outside(pair: Pair, port: int, address: str = "") -> str:
    """What is served there; a server that has just been started may not be ready at once."""
    argv = ("busybox", "nc", "-w", "3", address or pair.address, str(port))
    for _ in range(5):
        if said := pair.lan.outside.run(*argv, check=False).stdout.strip():
            return said
        time.sleep(0.1)
    return ""


def test_a_container_of_the_engine_is_one_of_the_network(pair: Pair) -> None:
    identity = make(pair, "demo", "--subnet", "10.9.0.0/24")
    pair.run_container("web", "--network", "demo")
    own(pair, "mine", identity)

    address = pair.docker_address("web", "demo")
    assert address == "10.9.0.2"
    assert address in {one["IPv4Address"].split("/")[0] for one in pair.endpoints(identity).values()}
    assert reaches(pair, "web", pair.container_address("mine", pair.network_name(identity)))
    assert pair.inside("mine", "ping", "-c", "1", "-W", "3", address).returncode == 0
    assert reaches(pair, "web", "203.0.113.1"), "the way out"


def test_what_the_engine_says_of_its_network(pair: Pair) -> None:
    identity = make(
        pair, "demo", "--subnet", "10.9.0.0/16", "--ip-range", "10.9.5.0/24", "--gateway", "10.9.5.254", "--aux-address", "r=10.9.5.1"
    )
    pair.run_container("web", "--network", "demo")

    assert pair.docker_address("web", "demo") == "10.9.5.0"
    ours = pair.api("GET", f"/networks/{identity}")["IPAM"]["Config"][0]
    assert (ours["Subnet"], ours["IPRange"], ours["Gateway"]) == ("10.9.0.0/16", "10.9.5.0/24", "10.9.5.254")


def test_published_ports_are_reached_from_outside(pair: Pair) -> None:
    make(pair, "demo")
    pair.run_container("web", "--network", "demo", "-p", "8080:80", argv=SERVE)

    assert from_outside(pair, 8080) == "served"
    pair.docker("rm", "-f", "web")
    assert from_outside(pair, 8080) == ""


def test_a_port_that_is_taken_is_refused_with_its_owner(pair: Pair) -> None:
    identity = make(pair, "demo")
    own(pair, "mine", identity, "-p", "8080:80")

    refused = pair.docker("run", "-d", "--network", "demo", "-p", "8080:80", IMAGE, "sleep", "9", check=False)

    assert refused.returncode != 0
    assert "port is already allocated" in refused.stderr
    assert "mine" in refused.stderr


def test_ports_that_the_engine_leaves_open_are_chosen_here(pair: Pair) -> None:
    identity = make(pair, "demo")
    pair.run_container("web", "--network", "demo", "-p", "80", argv=SERVE)

    (port,) = pair.ports(identity)
    assert from_outside(pair, port) == "served"
    pair.until(lambda: pair.netplug("port", "web").stdout == f"80/tcp -> 0.0.0.0:{port}\n")
    assert pair.netplug("port", pair.inspect("web")["Id"][:12], "80").stdout == f"0.0.0.0:{port}\n"
    assert "No such container: nobody" in pair.netplug("port", "nobody").stderr


def test_static_addresses_and_macs(pair: Pair) -> None:
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    pair.run_container("web", "--network", "demo", "--ip", "10.9.0.77", "--mac-address", "02:42:01:02:03:04")

    assert pair.docker_address("web", "demo") == "10.9.0.77"
    assert "02:42:01:02:03:04" in pair.docker_exec("web", "ip", "addr", "show", "eth0").stdout


def test_an_address_belongs_to_one_whoever_gives_it(pair: Pair) -> None:
    """Two engines, one allocator."""
    identity = make(pair, "demo", "--subnet", "10.9.0.0/28")
    pair.run_container("one", "--network", "demo")
    own(pair, "two", identity)
    pair.run_container("three", "--network", "demo")

    name = pair.network_name(identity)
    assert [pair.docker_address("one", "demo"), pair.container_address("two", name), pair.docker_address("three", "demo")] == [
        "10.9.0.2",
        "10.9.0.3",
        "10.9.0.4",
    ]
    refused = pair.docker("run", "--network", "demo", "--ip", "10.9.0.3", IMAGE, "true", check=False)
    assert "Address already in use" in refused.stderr
    assert "10.9.0.2" in pair.netplug("run", "--network", identity, "--ip", "10.9.0.2", "host", "true").stderr


def test_connect_and_disconnect_while_it_runs(pair: Pair) -> None:
    make(pair, "demo", "--subnet", "10.9.0.0/24")
    second = make(pair, "other", "--subnet", "10.8.0.0/24")
    pair.run_container("web", "--network", "demo")
    own(pair, "mine", second)

    pair.docker("network", "connect", "other", "web")
    assert reaches(pair, "web", "10.8.0.2")
    pair.docker("network", "disconnect", "other", "web")
    assert not reaches(pair, "web", "10.8.0.2")
    pair.docker("network", "connect", "--ip", "10.8.0.9", "other", "web")
    assert pair.docker_address("web", "other") == "10.8.0.9"
    assert pair.inside("mine", "ping", "-c", "1", "-W", "3", "10.8.0.9").returncode == 0


def test_the_engines_own_bridge_and_ours_side_by_side(pair: Pair) -> None:
    """Ports go with the way out, as the engine has it; its firewall drops what is forwarded, and ours passes."""
    for program in FIREWALLS:
        assert "-P FORWARD DROP" in pair.run_here(program, "-S", "FORWARD").splitlines()
    make(pair, "demo")
    pair.docker("network", "create", "plain")
    pair.run_container("web", "--network", "plain", "-p", "8081:80", argv=SERVE)
    pair.docker("network", "connect", "demo", "web")

    assert from_outside(pair, 8081) == "served"
    pair.docker("network", "disconnect", "plain", "web")
    assert from_outside(pair, 8081) == "served", "by our network now"
    pair.docker("network", "connect", "plain", "web")
    assert from_outside(pair, 8081) == "served"


def test_internal_networks_lead_nowhere(pair: Pair) -> None:
    identity = make(pair, "demo", "--internal", "--subnet", "10.9.0.0/24")
    pair.run_container("web", "--network", "demo")
    own(pair, "mine", identity)

    assert "default" not in pair.docker_exec("web", "ip", "route").stdout
    assert not reaches(pair, "web", "203.0.113.1")
    assert reaches(pair, "web", "10.9.0.3")


def test_icc_false_keeps_containers_apart(pair: Pair) -> None:
    make(pair, "demo", "-o", "com.docker.network.bridge.enable_icc=false")
    pair.run_container("web", "--network", "demo")
    pair.run_container("db", "--network", "demo")

    assert not reaches(pair, "web", pair.docker_address("db", "demo"))
    assert reaches(pair, "web", "203.0.113.1")


def test_ipv6(pair: Pair) -> None:
    make(pair, "demo", "--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64")
    pair.run_container("web", "--network", "demo", "-p", "8080:80", argv=SERVE)
    pair.run_container("db", "--network", "demo")

    web = pair.inspect("web")["NetworkSettings"]["Networks"]["demo"]["GlobalIPv6Address"]
    assert web == "fd09::2"
    assert reaches(pair, "db", web)
    assert reaches(pair, "db", "2001:db8:113::1")
    assert from_outside(pair, 8080, pair.address6) == "served"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-o", "netplug.driver=nothere"), 'plugin "nothere" not found'),
        (("-o", "netplug.network=nothere"), "network nothere not found"),
        (("-o", "com.docker.network.driver.mtu=x"), "invalid MTU"),
        (("--ipam-driver", "default"), "give --ipam-driver netplug too"),
        (("--ipam-opt", "x=y"), "unknown --ipam-opt x"),
        (("--subnet", "127.0.0.0/24"), "invalid subnet 127.0.0.0/24"),
        (("--subnet", "203.0.113.0/24"), "which this host reaches by a route of its own"),
        (("-o", "netplug.network=bridge"), "for netplug's own containers only"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(pair: Pair, options: tuple[str, ...], said: str) -> None:
    before = pair.leftovers()

    ipam = () if "--ipam-driver" in options else ("--ipam-driver", "netplug")
    refused = pair.docker("network", "create", "--driver", "netplug", *ipam, *options, "demo", check=False)

    assert refused.returncode != 0
    assert said in refused.stderr
    assert pair.leftovers() == before


def test_a_network_with_containers_of_others_stays(pair: Pair) -> None:
    """The engine forgets its network whatever a plugin says; its subnet must not be anybody else's meanwhile."""
    identity = make(pair, "demo", "--subnet", "10.9.0.0/24")
    own(pair, "mine", identity)

    pair.docker("network", "rm", "demo")

    assert "active endpoints (mine)" in pair.docker_said()
    assert "10.9.0.0/24" in pair.leftovers()["pools"]
    assert pair.docker(
        "network", "create", "-d", "netplug", "--ipam-driver", "netplug", "--subnet", "10.9.0.0/25", "two", check=False
    ).returncode
    pair.netplug("rm", "-f", "mine", check=True)
    pair.netplug("network", "rm", identity, check=True)
    assert pair.leftovers() == {"networks": ["bridge", "host", "none"], "pools": []}


def test_macvlan(pair: Pair) -> None:
    pair.namespace.ip("link", "add", "lower", "type", "veth", "peer", "name", "upper")
    try:
        pair.namespace.ip("link", "set", "lower", "up")
        pair.namespace.ip("link", "set", "upper", "up")
        identity = make(pair, "lan", "--subnet", "10.7.0.0/24", "-o", "netplug.driver=macvlan", "-o", "parent=lower")
        pair.run_container("web", "--network", "lan")
        pair.run_container("db", "--network", "lan")
        own(pair, "mine", identity)

        assert reaches(pair, "web", pair.docker_address("db", "lan"))
        assert reaches(pair, "web", "10.7.0.4")
        pair.clean()
    finally:
        pair.namespace.ip("link", "del", "lower")


def test_everything_goes_with_what_it_was_for(pair: Pair) -> None:
    before = pair.state(sysctls=False)
    make(pair, "demo")
    pair.run_container("web", "--network", "demo", "-p", "8080:80")
    pair.docker("restart", "-t", "0", "web")
    pair.clean()

    assert without_docker(pair.state(sysctls=False)) == without_docker(before)
    assert pair.leftovers() == {"networks": ["bridge", "host", "none"], "pools": []}


def without_docker(state: dict[str, Any]) -> dict[str, Any]:
    """But for iptables' counters and the engine's own chains."""
    host = dict(state["host"])
    host["nft"] = [one for one in host["nft"]["nftables"] if "netplug" in json.dumps(one)]
    return {**state, "host": host}
