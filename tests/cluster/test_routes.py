"""The classic exercise: hosts on one LAN, a bridge network on each, and routes between them (`--opt netplug.routes=cluster`).

outside, etcd, "the internet" 203.0.113.1 --- switch --- one .11: 10.71.0.0/24, fd71::/64
                                                 '------ two .12: 10.72.0.0/24, fd72::/64
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable

import pytest

from netplug.cli.demo_ends import program
from tests.cluster.route_nodes import Node, eventually, lan, members, nodes
from tests.etcd_members import Cluster
from tests.hosts import INTERNET_ADDRESS, INTERNET_ADDRESS6, OUTSIDE_ADDRESS, Host, Lan, Namespace, command, serving
from tests.kernel.daily import IDLE, ROOT, address, address6, ask, network, run, serve

__all__ = ["lan", "members", "nodes"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes network namespaces")

OPTION = ("--opt", "netplug.routes=cluster")
SUBNETS = {
    name: ("--ipv6", "--subnet", f"10.{number}.0.0/24", "--subnet", f"fd{number}::/64") for name, number in (("one", 71), ("two", 72))
}
NEITHER = "no network of this host with netplug.routes=cluster has IPv"

Make = Callable[..., Node]


def routes(node: Node) -> list[str]:
    """Those of ours through a gateway."""
    found = [json.loads(node.run("ip", version, "-j", "route", "show", "proto", "112").stdout) for version in ("-4", "-6")]
    return [f"{one['dst']} via {one['gateway']} dev {one['dev']}" for told in found for one in told if "gateway" in one]


def listed(node: Node) -> dict[str, str]:
    return {way["Destination"]: way["Status"] for way in node.api("GET", "/netplug/routes")}


def ways_to(*nodes: tuple[Node, int]) -> list[str]:
    four = [f"10.{number}.0.0/24 via {node.address} dev uplink" for node, number in nodes]
    return four + [f"fd{number}::/64 via {node.address6} dev uplink" for node, number in nodes]


def pair(nodes: Make, *flags: str) -> tuple[Node, Node]:
    """Two nodes that have routes to each other's network `demo`."""
    one, two = nodes("one", *flags), nodes("two", *flags)
    for node in (one, two):
        network(node, *SUBNETS[node.name], *OPTION, "demo")
    eventually(lambda: routes(one), ways_to((two, 72)))
    eventually(lambda: routes(two), ways_to((one, 71)))
    return one, two


def reached(client: str, node: Node, port: int = 80, container: str = "web") -> list[str]:
    """Who the server says is asking, by IPv4 and IPv6; `""` for who is not heard."""
    return [ask(client, own(node, container), port) for own in (address, address6)]


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_containers_reach_one_another_by_their_own_addresses(nodes: Make, lan: Lan, backend: str):
    one, two = pair(nodes, "--firewall-backend", backend)
    network(two, "--ipv6", "other")
    serve(one, "web", "--network", "demo")
    serve(two, "web", "--network", "demo")
    serve(two, "far", "--network", "other")
    own = {node.name: [address(node, "web"), address6(node, "web")] for node in (one, two)}

    assert reached(one.sandbox("web"), two) == own["one"]
    assert reached(two.sandbox("web"), one) == own["two"]
    for target in own["two"]:
        assert one.inside("web", "ping", "-c1", "-W2", "-n", target, check=False).returncode == 0

    for subnet, via in (("10.71.0.0/24", one.address), ("fd71::/64", one.address6)):
        lan.outside.ip("route", "add", subnet, "via", via)
    assert reached(lan.outside.path, one) == ["", ""], "a third host on the LAN"
    assert reached(two.sandbox("far"), one) == ["", ""], "a network of the other host without the option"
    assert reached(two.sandbox("far"), two) == ["", ""], "nor are networks of one host open to each other"
    assert [ask(one.sandbox("web"), target(two, "far", "other"), 80) for target in (address, address6)] == ["", ""]
    with serving(lan.outside, 7, "::"):
        assert [ask(one.sandbox("web"), target, 7) for target in (INTERNET_ADDRESS, INTERNET_ADDRESS6)] == [one.address, one.address6]

    two.netplug("rm", "-f", "web", check=True)
    two.netplug("network", "rm", "demo", check=True)
    eventually(lambda: routes(one), [])
    assert listed(one) == {}
    assert routes(two) == [], "a host without such a network needs none"
    one.flush_for_good()
    assert ask(lan.outside.path, own["one"][0], 80) != "", "the control: it is rules that keep others out"


def test_a_restart_keeps_routes_also_without_the_cluster(nodes: Make, members: Cluster):
    one, two = pair(nodes)
    serve(one, "web", "--network", "demo")
    serve(two, "web", "--network", "demo")
    before = one.state()
    with one.flood(address(two, "web"), sandbox="web") as flood:
        one.restart()
        members.members[0].stop()
        one.kill9()
        one.start()
    assert flood.lost == []
    assert one.state() == before
    assert listed(one) == {"10.72.0.0/24": "installed", "fd72::/64": "installed"}
    refused = one.netplug("network", "create", *OPTION, "late")
    assert refused.returncode == 1
    assert "cluster" in refused.stderr, refused.stderr
    assert one.state() == before
    members.members[0].start()
    eventually(lambda: one.netplug("network", "create", *OPTION, "late").returncode, 0)


def test_what_went_while_the_daemon_was_away_goes_when_it_is_back(nodes: Make, members: Cluster):
    one, two = pair(nodes)
    one.stop()
    two.netplug("network", "rm", "demo", check=True)
    eventually(lambda: members.ctl("get", "--prefix", "--keys-only", "/netplug/v1/routes/two"), "")
    assert routes(one) == ways_to((two, 72))
    one.start()
    eventually(lambda: routes(one), [])


def test_routes_to_a_node_that_is_away_stay_until_it_is_removed(nodes: Make):
    one, two = pair(nodes)
    serve(two, "web", "--network", "demo")
    run(one, "client", "--network", "demo", *IDLE)
    two.kill9()
    eventually(lambda: {way["Alive"] for way in one.api("GET", "/netplug/routes")}, {False})
    assert routes(one) == ways_to((two, 72))
    table = one.netplug("route", "ls", check=True).stdout.splitlines()
    assert table[1].split() == ["10.72.0.0/24", two.address, "two", "demo", "installed,", "the", "node", "is", "away"]
    two.start()
    eventually(lambda: {way["Alive"] for way in one.api("GET", "/netplug/routes")}, {True})
    assert reached(one.sandbox("client"), two) == [address(one, "client"), address6(one, "client")]


def test_what_somebody_takes_away_comes_back(nodes: Make, members: Cluster):
    one, two = pair(nodes)
    one.run("ip", "route", "del", "10.72.0.0/24")
    one.run("ip", "-6", "route", "del", "fd72::/64")
    eventually(lambda: routes(one), ways_to((two, 72)))
    assert one.api("GET", "/netplug/healing")["healed"]["route"] == 2
    members.ctl("del", "--prefix", "/netplug/v1/routes/two")
    eventually(lambda: members.ctl("get", "--prefix", "--keys-only", "/netplug/v1/routes/two") != "", True)
    eventually(lambda: routes(one), ways_to((two, 72)))
    one.run("ip", "link", "set", "uplink", "down")
    eventually(lambda: routes(one), [])
    one.run("ip", "link", "set", "uplink", "up")
    one.run("ip", "-6", "address", "replace", f"{one.address6}/64", "dev", "uplink", "nodad")
    eventually(lambda: routes(one), ways_to((two, 72)))


def test_what_is_in_the_way_is_left_alone(nodes: Make):
    """Each with its reason, in the list and once in the log; what is no longer in the way makes room."""
    one, two = nodes("one"), nodes("two")
    one.namespace.ip("route", "add", "10.72.0.0/16", "via", "203.0.113.77")
    network(one, "--subnet", "10.80.0.0/24", "local")
    network(one, *SUBNETS["one"], *OPTION, "demo")
    network(two, *SUBNETS["two"], *OPTION, "demo")
    network(two, "--subnet", "10.80.0.0/16", *OPTION, "second")
    expected = {
        "10.72.0.0/24": "skipped: this host has a way to 10.72.0.0/16 through 203.0.113.77 already",
        "fd72::/64": "installed",
        "10.80.0.0/16": "skipped: it overlaps 10.80.0.0/24 of network local of this host",
    }
    eventually(lambda: listed(one), expected)
    assert routes(one) == [f"fd72::/64 via {two.address6} dev uplink"]
    assert one.said().count("no route to 10.80.0.0/16 of node two: it overlaps 10.80.0.0/24 of network local of this host") == 1
    one.netplug("network", "rm", "local", check=True)
    one.namespace.ip("route", "del", "10.72.0.0/16")
    eventually(lambda: set(listed(one).values()), {"installed"})
    # The same route by hand, as the exercise has it.
    one.run("ip", "route", "del", "10.72.0.0/24")
    one.run("ip", "route", "add", "10.72.0.0/24", "via", two.address)
    eventually(lambda: listed(one)["10.72.0.0/24"], "installed by somebody else")
    two.netplug("network", "rm", "demo", check=True)
    eventually(lambda: "10.72.0.0/24" in listed(one), False)
    assert "10.72.0.0/24" in one.run("ip", "route").stdout


def test_who_asks_before_there_is_a_way(nodes: Make):
    """His flow is tracked as masqueraded, and he never stops: it is decided anew."""
    one, two = nodes("one"), nodes("two")
    network(one, *SUBNETS["one"], *OPTION, "demo")
    run(one, "client", "--network", "demo", *IDLE)
    targets = ("10.72.0.2", "fd72::2")
    asking = [subprocess.Popen(["nsenter", f"--net={one.sandbox('client')}", "ping", "-n", "-i", "0.2", target]) for target in targets]
    try:
        for target in targets:
            eventually(lambda target=target: target in one.run("conntrack", "-L", "-d", target).stdout, True)
        network(two, *SUBNETS["two"], *OPTION, "demo")
        serve(two, "web", "--network", "demo")
        for client in ("10.71.0.2", "fd71::2"):
            eventually(lambda client=client: client in two.run("conntrack", "-L", "-s", client).stdout, True)
    finally:
        for ping in asking:
            ping.kill()
            ping.wait()


def test_subnets_are_chosen_apart(nodes: Make):
    one, two = nodes("one"), nodes("two")
    for node in (one, two):
        network(node, *OPTION, "demo")
    chosen = [node.api("GET", "/networks/demo")["IPAM"]["Config"][0]["Subnet"] for node in (one, two)]
    assert chosen == ["172.18.0.0/16", "172.19.0.0/16"]
    refused = two.netplug("network", "create", "--subnet", "172.18.5.0/24", *OPTION, "inside")
    assert "subnet 172.18.5.0/24 overlaps 172.18.0.0/16 of network demo on node one" in refused.stderr
    eventually(lambda: listed(one), {"172.19.0.0/16": "installed"})
    network(one, "plain")
    assert one.api("GET", "/networks/plain")["IPAM"]["Config"][0]["Subnet"] == "172.20.0.0/16", "what is routed elsewhere is taken"


def test_nodes_that_choose_at_once_choose_apart(nodes: Make):
    """Each sees what the others are about to have."""
    made = [nodes(f"n{number}") for number in range(3)]
    makers = [threading.Thread(target=network, args=(node, *OPTION, f"net{turn}")) for node in made for turn in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    subnets = [net["IPAM"]["Config"][0]["Subnet"] for node in made for net in node.api("GET", "/networks") if net["Name"].startswith("net")]
    assert len(subnets) == len(set(subnets)) == 9
    for node in made:
        eventually(lambda node=node: sorted(listed(node).values()), ["installed"] * 6)


def test_a_neighbour_by_another_router_gets_no_route(nodes: Make, lan: Lan):
    """It would take a route of the router's as well."""
    one, two = nodes("one"), nodes("two")
    two.namespace.ip("address", "add", "198.18.0.2/32", "dev", "lo")
    two.restart("--advertise", "198.18.0.2")
    one.namespace.ip("route", "add", "198.18.0.2/32", "via", two.address)
    for node in (one, two):
        network(node, *SUBNETS[node.name], *OPTION, "demo")
    reason = f"198.18.0.2 is no neighbour of this host: the way there leads through {two.address}"
    eventually(lambda: listed(one).get("10.72.0.0/24"), f"skipped: {reason}")
    assert listed(one)["fd72::/64"] == "skipped: node two has no IPv6 address beside the one that it advertises"
    assert f"no route to 10.72.0.0/24 of node two: {reason}" in one.said()


def test_the_commands_are_told(nodes: Make):
    one, two = nodes("one"), nodes("two")
    network(two, *SUBNETS["two"], *OPTION, "demo")
    eventually(lambda: len(listed(one)), 2)
    assert listed(one) == {"10.72.0.0/24": f"not needed: {NEITHER}4", "fd72::/64": f"not needed: {NEITHER}6"}
    before = one.state()
    create = ("network", "create", *SUBNETS["one"], *OPTION, "demo")
    told = one.netplug(*create, "--dry-run", check=True).stdout
    assert one.state() == before
    assert f"ip route replace 10.72.0.0/24 via {two.address} dev uplink proto 112" in told
    assert "conntrack -D -s 10.71.0.0/24 -d 10.72.0.0/24" in told
    assert f"ip -6 route replace fd72::/64 via {two.address6} dev uplink proto 112" in told
    assert """nft add element inet netplug reach4 '{ "uplink" . 10.72.0.0/24 . 10.71.0.0/24 }'""" in told
    assert f"ip route replace 10.72.0.0/24 via {two.address} dev uplink proto 112" in one.netplug(*create, "--explain", check=True).stdout
    assert "ip route del 10.72.0.0/24 dev uplink proto 112" in one.netplug("network", "rm", "--dry-run", "demo", check=True).stdout
    assert routes(one) == ways_to((two, 72))
    one.netplug("network", "rm", "demo", check=True)
    assert one.state() == before


def test_it_needs_a_cluster(lan: Lan):
    with Host(lan) as host:
        host.start()
        refused = host.netplug("network", "create", *OPTION, "demo")
        assert refused.returncode == 1
        assert "this host is in no cluster; start the daemon with --store" in refused.stderr
        assert listed(host) == {}


def test_a_node_that_is_removed(nodes: Make):
    one, two = pair(nodes)
    two.stop()
    one.api("DELETE", "/netplug/nodes/two?force=1")
    eventually(lambda: routes(one), [])
    two.start()
    eventually(lambda: routes(one), ways_to((two, 72)))


def test_the_page_by_hand(lan: Lan):
    """The commands of docs/routes.md, on two hosts without netplug; the container's name and the host's link are others here."""
    page = (ROOT / "docs" / "routes.md").read_text().partition("## With the option")[0]
    build, masquerade, route, source = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    with contextlib.ExitStack() as stack:
        hosts = [Namespace(f"{lan.label}-hand{number}") for number in (71, 72)]
        for host in hosts:
            stack.callback(host.remove)
            lan.plug(host, host.name[-6:], lan.free_address())
            host.ip("route", "add", "default", "via", OUTSIDE_ADDRESS)
        addresses = [json.loads(host.ip("-j", "-4", "address", "show", "uplink").stdout)[0]["addr_info"][0]["local"] for host in hosts]

        def paste(text: str) -> None:
            for position, host in enumerate(hosts):
                commands = text.replace("192.0.2.2", addresses[1 - position]).replace("oifname eth0", "oifname uplink")
                commands = re.sub(r"\bweb\b", f"{host.name}-web", commands)
                if position:
                    commands = commands.replace("10.71.", "10.0.").replace("10.72.", "10.71.").replace("10.0.", "10.72.")
                host.run("sh", "-ec", commands)

        stack.callback(lambda: [command("ip", "netns", "del", f"{host.name}-web", check=False) for host in hosts])
        paste(build)
        webs = [f"/run/netns/{host.name}-web" for host in hosts]
        paste(masquerade)
        with serving(lan.outside, 7):
            assert ask(webs[0], INTERNET_ADDRESS, 7) == addresses[0]
        paste(route)
        argv = ["nsenter", f"--net={webs[1]}", *program("serve", "0.0.0.0", "80")]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            seen = [ask(webs[0], "10.72.0.2", 80)]
            paste(source)
            seen.append(ask(webs[0], "10.72.0.2", 80))
            server.kill()
        assert seen == [addresses[0], "10.71.0.2"]
