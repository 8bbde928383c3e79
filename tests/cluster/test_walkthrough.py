"""Networks over two hosts as a user meets them, from the first `network create` to the last `node ls`, with real packets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator

import dnslib
import pytest

from tests.cluster.neighbourhood import Neighbourhood, neighbourhood
from tests.hosts import OUTSIDE_ADDRESS, ApiError, Host, serving
from tests.kernel.daily import IDLE, address, address6, ask, network, run, serve
from tests.kernel.test_names import ask as lookup
from tests.kernel.test_names import found as resolved

PATIENCE = 10.0
ONE, TWO = ("10.90.0.11", "10.90.0.22")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes network namespaces")


def until(condition: Callable[[], object], what: str) -> None:
    """What one node does the others hear of a moment later."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not after {PATIENCE} s: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def place() -> Iterator[Neighbourhood]:
    """Two nodes, with `web` (and the port 8080) on one and `db` on the other, on the network `demo`."""
    with neighbourhood() as found:
        one, two = found.hosts
        network(one, "-d", "overlay", "--attachable", "--subnet", "10.90.0.0/24", "demo")
        until(lambda: "demo" in names_of_networks(two), "the other node knows the network")
        serve(one, "web", "--network", "demo", "--ip", ONE, "--network-alias", "www", "-p", "8080:80")
        serve(two, "db", "--network", "demo", "--ip", TWO, "--network-alias", "store", "-p", "8081:80")
        yield found
        for host in found.hosts:  # pytest shows it with a test that failed
            print(f"daemon of {host.namespace.name}:\n{host.said()}")


@pytest.fixture
def one(place: Neighbourhood) -> Host:
    return place.hosts[0]


@pytest.fixture
def two(place: Neighbourhood) -> Host:
    return place.hosts[1]


def names_of_networks(host: Host) -> list[str]:
    return [item["Name"] for item in host.api("GET", "/networks")]


def said(host: Host, *arguments: str) -> str:
    done = host.netplug(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(host: Host, *arguments: str) -> str:
    """The sentence."""
    done = host.netplug(*arguments)
    assert done.returncode != 0, done.stdout
    return next(line for line in done.stderr.splitlines() if "Error response" in line).partition("Error response from daemon: ")[2]


def pings(host: Host, container: str, target: str, *flags: str) -> bool:
    return host.netplug("exec", container, "ping", "-c1", "-W2", *flags, target).returncode == 0


def test_a_network_made_on_one_node_is_on_all(one: Host, two: Host):
    rows = [said(host, "network", "ls", "--filter", "scope=global", "--format", "{{.ID}} {{.Name}} {{.Driver}}") for host in (one, two)]
    assert rows[0] == rows[1]
    assert rows[0].endswith(" demo overlay\n")
    assert said(two, "network", "ls", "--filter", "scope=swarm", "-q") == ""
    assert said(two, "network", "inspect", "--format", "{{.Scope}} {{.Attachable}}", "demo") == "global true\n"


@pytest.mark.parametrize(("number", "container", "names"), [(0, "web", ("db", "store", "db.demo")), (1, "db", ("web", "www"))])
def test_containers_ping_each_other_by_name(place: Neighbourhood, number: int, container: str, names: tuple[str, ...]):
    host = place.hosts[number]
    for name in names:
        until(lambda name=name: pings(host, container, name), f"{container} reaches {name}")


def test_an_alias_on_both_nodes_gives_both_in_turn(one: Host, two: Host):
    """To who is asked on either; once one of them goes, only the other is named."""
    own = {one: "10.90.0.31", two: "10.90.0.32"}
    for number, (host, ip) in enumerate(own.items(), 1):
        run(host, f"shop{number}", "--network", "demo", "--ip", ip, "--network-alias", "shop", *IDLE)
    clients = ((one, "web"), (two, "db"))
    for host, client in clients:
        until(lambda host=host, client=client: set(resolved(host, client, "shop")) == set(own.values()), f"{client} is told both")
        told = [resolved(host, client, "shop") for _ in range(6)]
        assert all(sorted(addresses) == sorted(own.values()) for addresses in told)
        assert {addresses[0] for addresses in told} == set(own.values())
    said(two, "rm", "-f", "shop2")
    assert resolved(two, "db", "shop") == [own[one]], "here at once"
    until(lambda: resolved(one, "web", "shop") == [own[one]], "the other node names the rest only")
    assert all(resolved(host, client, "shop") == [own[one]] for host, client in clients for _ in range(6))
    said(one, "rm", "-f", "shop1")


def test_addresses_have_names_on_the_other_node(one: Host):
    answer = lookup(one.sandbox("web"), "22.0.90.10.in-addr.arpa", "PTR")
    assert [str(record.rdata) for record in answer.rr] == ["db.demo."]
    assert lookup(one.sandbox("web"), "nobody").header.rcode in (dnslib.RCODE.NXDOMAIN, dnslib.RCODE.SERVFAIL, dnslib.RCODE.REFUSED)


def test_a_connection_between_them_keeps_its_addresses(one: Host):
    assert ask(one.sandbox("web"), TWO, 80) == ONE


def test_a_published_port_is_that_nodes(place: Neighbourhood, one: Host, two: Host):
    """Whichever firewall it has: one in nftables, two in iptables."""
    outside = place.lan.outside.path
    for host, port, other in ((one, 8080, two), (two, 8081, one)):
        assert ask(outside, host.address, port) == OUTSIDE_ADDRESS
        assert ask(outside, other.address, port) == ""
    assert said(one, "port", "web") == "80/tcp -> 0.0.0.0:8080\n"
    assert said(one, "ps", "--format", "{{.Names}} {{.Ports}} {{.Networks}}") == "web 0.0.0.0:8080->80/tcp demo\n"
    assert one.container("web")["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}


def test_the_way_out_is_masqueraded(place: Neighbourhood, one: Host, two: Host):
    with serving(place.lan.outside, 9000):
        assert ask(one.sandbox("web"), OUTSIDE_ADDRESS, 9000) == one.address
        assert ask(two.sandbox("db"), OUTSIDE_ADDRESS, 9000) == two.address


def test_the_way_out_is_nobodys_network(one: Host):
    """It is there, and shown as Docker shows docker_gwbridge: in `network ls`, and not among a container's networks."""
    assert list(one.container("web")["NetworkSettings"]["Networks"]) == ["demo"]
    listed = said(one, "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").splitlines()
    assert "netplug_gwbridge bridge local" in listed
    container = one.container("web")
    members = one.api("GET", "/networks/netplug_gwbridge")["Containers"]
    assert members[container["Id"]]["Name"] == f"gateway_{container['Id'][:12]}"
    own = [line.split()[0] for line in said(one, "exec", "web", "cat", "/etc/hosts").splitlines() if container["Id"][:12] in line]
    assert own == [ONE, members[container["Id"]]["IPv4Address"].split("/")[0]]
    for arguments in (("disconnect", "netplug_gwbridge", "web"), ("connect", "netplug_gwbridge", "web")):
        assert "netplug_gwbridge" in refused(one, "network", *arguments)
    assert refused(one, "network", "rm", "netplug_gwbridge") == "netplug_gwbridge is a pre-defined network and cannot be removed"


def test_it_stays_hidden_after_a_restart(one: Host):
    """What a start concludes from the endpoints that it finds is what the user asked for, and what a container is started with again."""
    run(one, "again", "--network", "demo", *IDLE)
    one.restart()
    assert ask(one.sandbox("web"), TWO, 80) == ONE
    assert list(one.container("again")["NetworkSettings"]["Networks"]) == ["demo"]
    said(one, "stop", "-t", "0", "again")
    assert list(one.container("again")["NetworkSettings"]["Networks"]) == ["demo"]
    said(one, "rm", "again")


def test_inspect_shows_endpoints_of_other_nodes(one: Host, two: Host):
    """As Docker does: by their own ids, with the container's name."""
    here, there = (host.api("GET", "/networks/demo")["Containers"] for host in (one, two))
    remote = next(endpoint for key, endpoint in here.items() if key.startswith("ep-"))
    assert here[one.container("web")["Id"]]["Name"] == "web"
    assert remote["Name"] == "db"
    assert f"ep-{remote['EndpointID']}" in here
    assert remote == there[two.container("db")["Id"]]
    assert (remote["IPv4Address"], remote["MacAddress"]) == (f"{TWO}/24", "02:42:0a:5a:00:16")


def test_a_node_that_is_not_on_a_network_shows_nobody_on_it(one: Host, two: Host):
    network(one, "-d", "overlay", "--subnet", "10.94.0.0/24", "only1")
    run(one, "lonely", "--network", "only1", *IDLE)
    until(lambda: "only1" in names_of_networks(two), "the network is known")
    assert two.api("GET", "/networks/only1")["Containers"] == {}
    assert refused(two, "network", "rm", "--dry-run", "only1").endswith("has active endpoints (lonely)")
    for dry in ((), ("--dry-run",)):
        assert "only1" not in said(two, "network", "prune", "-f", *dry)
    said(one, "rm", "-f", "lonely")
    said(two, "network", "rm", "only1")
    until(lambda: "only1" not in names_of_networks(one), "it is gone on all nodes")


def test_a_name_is_taken_on_all_nodes(two: Host):
    sentence = "endpoint with name web already exists in network demo"
    assert refused(two, "run", "--rm", "--name", "web", "--network", "demo", *IDLE) == f"{sentence}."
    with contextlib.suppress(ApiError):
        two.api("DELETE", "/containers/web?force=1")
    assert refused(two, "run", "--dry-run", "-d", "--name", "web", "--network", "demo", *IDLE) == f"{sentence}."


def test_an_address_is_taken_on_all_nodes(one: Host):
    wanted = ("run", "--rm", "--name", "third", "--network", "demo", "--ip", TWO, *IDLE)
    assert refused(one, *wanted) == f"Address already in use: {TWO} belongs to db."


def test_a_network_in_use_elsewhere_stays(one: Host, two: Host):
    for host in (one, two):
        sentence = refused(host, "network", "rm", "demo")
        assert re.fullmatch(r"error while removing network: network demo id \w{64} has active endpoints \((db, web|web, db)\)", sentence)


def test_an_internal_network_has_no_way_out(place: Neighbourhood, one: Host, two: Host):
    network(one, "-d", "overlay", "--internal", "--subnet", "10.95.0.0/24", "shut")
    until(lambda: "shut" in names_of_networks(two), "the network is known")
    run(one, "inner1", "--network", "shut", *IDLE)
    run(two, "inner2", "--network", "shut", *IDLE)
    until(lambda: pings(one, "inner1", "inner2"), "they reach each other")
    with serving(place.lan.outside, 9000):
        assert ask(one.sandbox("inner1"), OUTSIDE_ADDRESS, 9000) == ""
    assert len(said(one, "exec", "inner1", "ip", "-o", "link").splitlines()) == 2
    assert list(one.container("inner1")["NetworkSettings"]["Networks"]) == ["shut"]
    for host, name in ((one, "inner1"), (two, "inner2")):
        said(host, "rm", "-f", name)


def test_ipv6_inside(one: Host, two: Host):
    network(one, "-d", "overlay", "--ipv6", "--subnet", "10.96.0.0/24", "--subnet", "fd96::/64", "both")
    until(lambda: "both" in names_of_networks(two), "the network is known")
    run(one, "six1", "--network", "both", *IDLE)
    run(two, "six2", "--network", "both", "--ip6", "fd96::66", *IDLE)
    until(lambda: pings(one, "six1", "six2", "-6"), "by IPv6")
    until(lambda: pings(two, "six2", "six1", "-6"), "and back")
    assert address6(two, "six2", "both") == "fd96::66"
    assert pings(one, "six1", address(two, "six2", "both"))
    for host, name in ((one, "six1"), (two, "six2")):
        said(host, "rm", "-f", name)


def test_pools_as_asked_for(one: Host, two: Host):
    """One range for all nodes: what one has given away the other does not give."""
    network(one, "-d", "overlay", "--subnet", "10.98.0.0/16", "--ip-range", "10.98.5.0/30", "--gateway", "10.98.5.3", "ranged")
    until(lambda: "ranged" in names_of_networks(two), "the network is known")
    for host, name in ((one, "first"), (two, "second"), (one, "third")):
        run(host, name, "--network", "ranged", *IDLE)
    given = {address(host, name, "ranged") for host, name in ((one, "first"), (two, "second"), (one, "third"))}
    assert given == {"10.98.5.0", "10.98.5.1", "10.98.5.2"}
    sentence = "no available IPv4 addresses on this network's address pools: ranged"
    assert refused(two, "run", "--rm", "--name", "fourth", "--network", "ranged", *IDLE).startswith(sentence)
    said(one, "rm", "-f", "first", "third")
    said(two, "rm", "-f", "second")


def test_what_cannot_be_made_is_said(place: Neighbourhood, one: Host, two: Host):
    """A dry run says it too, and writes nothing."""
    vni = "com.docker.network.driver.overlay.vxlanid_list"
    network(one, "-d", "overlay", "--subnet", "10.97.0.0/24", "-o", f"{vni}=5000", "numbered")
    until(lambda: "numbered" in names_of_networks(two), "the network is known")
    before = place.etcd.ctl("get", "--prefix", "/netplug/v1/networks")
    taken = f"is taken (5000 by network numbered): give it others with --opt {vni}=NUMBER[,FIRST-LAST…], or remove a network that has one"
    for arguments, sentence in (
        (("-o", f"{vni}=5000", "third"), f"network third: every VNI that it may have {taken}"),
        (("--opt", "encrypted", "third"), "overlay networks cannot be encrypted yet: their traffic would be plain between the nodes"),
        (("--scope", "local", "third"), "cannot downgrade network scope for overlay networks"),
        (("--subnet", "10.97.0.0/25", "third"), "Pool overlaps with other one on this address space"),
        (("demo",), "network with name demo already exists"),
    ):
        for dry in ((), ("--dry-run",)):
            assert refused(two, "network", "create", "-d", "overlay", *dry, *arguments) == sentence
    assert said(two, "network", "create", "--dry-run", "-d", "overlay", "third") == ""
    assert place.etcd.ctl("get", "--prefix", "/netplug/v1/networks") == before
    said(two, "network", "rm", "numbered")


def test_packets_that_no_tunnel_has_room_for_are_warned_of(one: Host):
    for mtu, warnings in ((1451, 1), (1450, 0)):
        done = one.netplug("network", "create", "-d", "overlay", "-o", f"com.docker.network.driver.mtu={mtu}", "wide")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("above the 1450 that a tunnel to another node has room for") == warnings
        assert ("--opt com.docker.network.driver.mtu=1450" in done.stderr) == bool(warnings)
        said(one, "network", "rm", "wide")


def test_nodes(one: Host, two: Host):
    assert [line.split() for line in said(one, "node", "ls").splitlines()] == [
        ["NAME", "STATUS", "ADDRESS", "VERSION"],
        ["n1", "*", "Ready", one.address, one.api("GET", "/version")["Version"]],
        ["n2", "Ready", two.address, one.api("GET", "/version")["Version"]],
    ]
    (node,) = json.loads(said(one, "node", "inspect", "n2"))
    assert (node["Name"], node["Status"], node["Self"], node["Endpoints"], node["Networks"]) == ("n2", "Ready", False, 1, ["demo"])
    assert refused(one, "node", "rm", "n2") == "node n2 is alive: stop its daemon first, or use --force"
    assert refused(one, "node", "rm", "--dry-run", "--force", "n1") == "node n1 is this one: remove it from another node"
    assert said(one, "node", "rm", "--dry-run", "--force", "n2") == ""
    assert refused(one, "node", "inspect", "n3") == "No such node: n3"
    assert said(one, "node", "ls", "--filter", "name=n2", "--format", "{{.Name}} {{.Self}}") == "n2 false\n"
    for host, told in ((one, one.address), (two, "uplink:2376")):
        info = host.api("GET", "/info")
        assert (info["ClusterStore"], info["ClusterAdvertise"]) == (f"etcd://{OUTSIDE_ADDRESS}:2379", told)


def test_a_removed_node_has_nothing(one: Host, two: Host):
    """And one that comes back after all has its place again."""
    two.kill9()
    said(one, "node", "rm", "--force", "n2")
    assert said(one, "node", "ls", "-q") == "n1\n"
    until(lambda: list(one.api("GET", "/networks/demo")["Containers"]) == [one.container("web")["Id"]], "its endpoints are gone")
    assert lookup(one.sandbox("web"), "db").rr == []
    two.start()
    until(lambda: pings(one, "web", "db"), "it is back")
    assert said(one, "node", "ls", "-q") == "n1\nn2\n"
