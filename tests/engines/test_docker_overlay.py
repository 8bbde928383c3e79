"""A container of the engine on an overlay network, whose other members are on another host and have no engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from netplug.cli.demo_dockerd import PLUGIN
from netplug.cli.demo_etcd import Etcd
from tests.engines.dockerd import Pair
from tests.engines.test_docker import SERVE, from_outside, make, own, reaches
from tests.engines.test_docker_names import answers, found
from tests.hosts import Api, Host, Lan


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Pair, Host]]:
    """A host with both daemons, and one with netplug's alone, in a cluster."""
    with Lan() as lan, Etcd(lan) as etcd, Pair(lan) as pair, Host(lan, resolv_conf="nameserver 127.0.0.1\n") as host:
        etcd.start()
        for name, one in (("n1", pair), ("n2", host)):
            one.start("--store", etcd.store, "--advertise", one.address, "--node", name)
        pair.start_dockerd()
        pair.import_image()
        yield pair, host
        print(f"netplug:\n{pair.said()}\ndockerd:\n{pair.docker_said()}")


def test_made_by_the_engine(two: tuple[Pair, Host]) -> None:
    pair, host = two
    make(pair, "wide", "--subnet", "10.66.0.0/24", "-o", "netplug.driver=overlay")
    pair.until(lambda: "wide" in {one["Name"] for one in host.api("GET", "/networks")})
    host.netplug("run", "-d", "--name", "far", "--network", "wide", "host", "sleep", "100000", check=True)
    pair.run_container("web", "--network", "wide", "-p", "8080:80", argv=SERVE)

    far = host.container_address("far", "wide")
    assert reaches(pair, "web", far)
    assert found(pair, "web", "far") == {far}
    pair.until(lambda: found_far(host, "far", "web") == {pair.docker_address("web", "wide")})
    assert reaches(pair, "web", "203.0.113.1"), "by the engine's docker_gwbridge"
    assert from_outside(pair, 8080) == "served"
    assert "80/tcp -> 0.0.0.0:8080" in pair.docker("port", "web").stdout, "which the engine shows"

    pair.docker("rm", "-f", "web")
    assert found_far(host, "far", "web") == set()
    host.netplug("rm", "-f", "far", check=True)
    pair.docker("network", "rm", "wide")
    pair.until(lambda: "wide" not in {one["Name"] for one in host.api("GET", "/networks")})


def test_joined_on_a_host_of_its_own(two: tuple[Pair, Host]) -> None:
    """The address is claimed in the whole cluster before the engine hears of it."""
    pair, host = two
    host.netplug("network", "create", "--driver", "overlay", "--subnet", "10.67.0.0/24", "long", check=True)
    host.netplug("run", "-d", "--name", "far", "--network", "long", "host", "sleep", "100000", check=True)
    pair.until(lambda: "long" in {one["Name"] for one in pair.api("GET", "/networks")})
    pair.docker("network", "create", "-d", "netplug", "--ipam-driver", "null", "-o", "netplug.network=long", "long")
    pair.run_container("web", "--network", "long")
    own(pair, "near", "long")

    assert reaches(pair, "web", host.container_address("far", "long"))
    assert reaches(pair, "web", pair.container_address("near", "long"))
    assert found(pair, "web", "far") == {host.container_address("far", "long")}
    host.netplug("rm", "-f", "far", check=True)
    pair.clean()


def found_far(host: Host, container: str, name: str) -> set[str]:
    return answers(host.inside(container, "busybox", "nslookup", name, "127.0.0.11", check=False).stdout)


def test_an_address_is_the_engines_from_when_it_is_told(two: tuple[Pair, Host]) -> None:
    """Between that and the endpoint another node cannot have it; what comes of nothing is given back."""
    pair, host = two
    network = make(pair, "held", "--subnet", "10.68.0.0/24", "-o", "netplug.driver=overlay")
    pair.until(lambda: "held" in {one["Name"] for one in host.api("GET", "/networks")})

    def ask(method: str, **body: Any) -> Any:
        with contextlib.closing(Api(pair.seen(PLUGIN))) as api:
            return api.call("POST", f"/{method}", body)

    def taken(address: str) -> str:
        return host.netplug("run", "-d", "--name", "far", "--network", "held", "--ip", address, "host", "sleep", "100000").stderr

    pool = ask("IpamDriver.RequestPool", AddressSpace="netplug", Pool="10.68.0.0/24")["PoolID"]
    address, other = (ask("IpamDriver.RequestAddress", PoolID=pool)["Address"].split("/")[0] for _ in range(2))
    for one in (address, other):
        assert f"Address already in use: {one} belongs to a container on another node" in taken(one)
        host.netplug("rm", "-f", "far")

    endpoint = {"NetworkID": network, "EndpointID": "e" * 64}
    ask("NetworkDriver.CreateEndpoint", **endpoint, Interface={"Address": f"{address}/24"})
    ask("IpamDriver.ReleaseAddress", PoolID=pool, Address=other)
    assert "in use" not in taken(other)
    assert host.container_address("far", "held") == other
    host.netplug("rm", "-f", "far", check=True)
    assert "Address already in use" in taken(address)
    host.netplug("rm", "-f", "far")
    ask("NetworkDriver.DeleteEndpoint", **endpoint)
    ask("IpamDriver.ReleaseAddress", PoolID=pool, Address=address)
    ask("IpamDriver.ReleasePool", PoolID=pool)
    assert "in use" not in taken(address)
    host.netplug("rm", "-f", "far", check=True)
    pair.docker("network", "rm", "held")
