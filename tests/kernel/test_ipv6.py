"""IPv6 networks with real containers and real packets: dual stack, IPv6 alone, unique local addresses, and what changes while they run."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from typing import Any

import pytest

from netplug.cli.demo_hosts import end_processes
from tests.hosts import INTERNET_ADDRESS6, OUTSIDE_ADDRESS6, Host, Lan, command, serving
from tests.kernel.conftest import both_backends
from tests.kernel.daily import IDLE, address, address6, ask, inspected, network, run, serve

PREFIX = "com.docker.network."
EVERYWHERE = "::"


def default_route(host: Host, name: str, family: str = "-6") -> str:
    """`gateway interface` of a container's default route; `""` if it has none."""
    routes = json.loads(host.inside(name, "ip", family, "-j", "route", "show", "default").stdout)
    return f"{routes[0]['gateway']} {routes[0]['dev']}" if routes else ""


def addresses(host: Host, name: str, link: str = "eth0") -> list[str]:
    """Of global scope, with their prefixes."""
    found = json.loads(host.inside(name, "ip", "-j", "address", "show", "dev", link, "scope", "global").stdout)[0]
    return [f"{one['local']}/{one['prefixlen']}" for one in found["addr_info"] if one]


def pools(host: Host, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.api("GET", f"/networks/{name}")["IPAM"]["Config"]
    return found


def subnet6(host: Host, name: str) -> ipaddress.IPv6Network:
    (found,) = (pool["Subnet"] for pool in pools(host, name) if ":" in pool["Subnet"])
    return ipaddress.IPv6Network(found)


def neighbour(host: Host, name: str, target: str) -> str:
    """The MAC that a container has for an address."""
    found = json.loads(host.inside(name, "ip", "-j", "neigh", "show", target).stdout)
    return str(found[0].get("lladdr", "")) if found else ""


@both_backends
def test_dual_stack(host: Host, lan: Lan):
    """Everything that IPv4 does, IPv6 does too: neighbours, the host, out with the host's address, in by a published port."""
    network(host, "--ipv6", "--subnet", "10.80.0.0/24", "--subnet", "fd80::/64", "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80", "-p", "8080:80/udp")
    run(host, "client", "--network", "demo", *IDLE)
    assert addresses(host, "web") == ["10.80.0.2/24", "fd80::2/64"]
    assert (address(host, "web"), address6(host, "web")) == ("10.80.0.2", "fd80::2")
    assert default_route(host, "web") == "fd80::1 eth0"
    assert default_route(host, "web", "-4") == "10.80.0.1 eth0"
    for kind in ("tcp", "udp"):
        assert ask(host.sandbox("client"), "fd80::2", 80, kind) == "fd80::3"
        assert ask(host.namespace.path, "fd80::2", 80, kind) == "fd80::1"
        assert ask(lan.outside.path, host.address6, 8080, kind) == OUTSIDE_ADDRESS6
        assert ask(lan.outside.path, host.address, 8080, kind) != ""
    assert ask(host.sandbox("client"), "fd80::1", 8080) != "", "its neighbour's port, by the gateway's address"
    with serving(lan.outside, 7, EVERYWHERE):
        for kind in ("tcp", "udp"):
            assert ask(host.sandbox("client"), OUTSIDE_ADDRESS6, 7, kind) == host.address6
    assert ask(host.sandbox("web"), "::1", 80) == "::1"


@both_backends
def test_only_published_ports_are_reached_from_outside(host: Host, lan: Lan):
    """The container's own address is not, even when the neighbour has a route to it; nor by another network."""
    network(host, "--ipv6", "demo")
    network(host, "--ipv6", "other")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    run(host, "far", "--network", "other", *IDLE)
    own = address6(host, "web")
    lan.outside.ip("route", "add", f"{own}/128", "via", host.address6)
    assert ask(lan.outside.path, host.address6, 8080) == OUTSIDE_ADDRESS6
    assert ask(lan.outside.path, own, 80) == ""
    assert ask(host.sandbox("far"), own, 80) == ""
    assert ask(host.sandbox("far"), host.address6, 8080) == address6(host, "far", "other")
    host.flush_for_good()
    assert ask(lan.outside.path, own, 80) != "", "the control: without rules it is reached"


@both_backends
def test_without_ipv4(host: Host, lan: Lan):
    network(host, "--ipv4=false", "--ipv6", "six")
    serve(host, "web", "--network", "six", "-p", "8080:80")
    run(host, "client", "--network", "six", *IDLE)
    own = address6(host, "web", "six")
    assert addresses(host, "web") == [f"{own}/64"]
    assert address(host, "web", "six") == ""
    assert default_route(host, "web", "-4") == ""
    assert [pool["Subnet"] for pool in pools(host, "six")] == [str(subnet6(host, "six"))]
    assert ask(host.sandbox("client"), own, 80) == address6(host, "client", "six")
    assert ask(lan.outside.path, host.address6, 8080) == OUTSIDE_ADDRESS6
    with serving(lan.outside, 7, EVERYWHERE):
        assert ask(host.sandbox("client"), INTERNET_ADDRESS6, 7) == host.address6


def test_subnets_are_unique_local_and_the_host_s_own(host: Host):
    """/64s in order, out of one /48 that stays the same; what the host reaches by a route is passed over."""
    network(host, "--ipv6", "one")
    first = subnet6(host, "one")
    assert first.prefixlen == 64
    assert first.subnet_of(ipaddress.IPv6Network("fd00::/8"))
    assert int(first.network_address) >> 64 & 0xFFFF == 0
    assert pools(host, "one")[1]["Gateway"] == str(first[1])
    second, third = (ipaddress.IPv6Network((int(first.network_address) + (number << 64), 64)) for number in (1, 2))
    host.run("ip", "route", "add", str(second), "via", OUTSIDE_ADDRESS6)
    host.restart()
    network(host, "--ipv6", "two")
    assert subnet6(host, "two") == third
    assert host.netplug("network", "rm", "one", "two").returncode == 0
    network(host, "--ipv6", "again")
    assert subnet6(host, "again") == first


def test_a_network_without_ipv6_has_none_of_it(host: Host):
    """Not even a link-local address; but its own loopback works as on any host."""
    network(host, "four")
    serve(host, "web", "--network", "four")
    assert host.inside("web", "ip", "-6", "address", "show", "dev", "eth0").stdout == ""
    assert ask(host.sandbox("web"), "::1", 80) == "::1"
    assert inspected(host, "web")["Networks"]["four"]["GlobalIPv6Address"] == ""


def test_static_addresses(host: Host):
    network(host, "--ipv6", "--subnet", "fd81::/64", "--subnet", "10.81.0.0/24", "demo")
    run(host, "one", "--network", "demo", "--ip6", "fd81::abcd", *IDLE)
    assert addresses(host, "one") == ["10.81.0.2/24", "fd81::abcd/64"]
    for asked, sentence in (
        ("fd81::abcd", "Address already in use"),
        ("fd81::1", "Address already in use"),
        ("fd99::1", "It does not belong to any of this network's subnets"),
    ):
        refused = host.netplug("run", "-d", "--name", "two", "--network", "demo", "--ip6", asked, *IDLE)
        assert refused.returncode == 125
        assert sentence in refused.stderr
        assert host.netplug("rm", "two").returncode == 0
    run(host, "two", "--network", "demo", *IDLE)
    assert addresses(host, "two") == ["10.81.0.3/24", "fd81::2/64"], "what was refused has kept nothing"


FIRST = 0.9
"""Seconds: a second packet would be sent after one."""


def test_the_first_packet_arrives(host: Host, lan: Lan):
    """No duplicate-address detection, no waiting for a router: the answer to the first packet comes at once, in all directions."""
    network(host, "demo")
    network(host, "--ipv6", "six")
    serve(host, "web", "--network", "demo")
    serve(host, "old", "--network", "six")
    with serving(lan.outside, 7, EVERYWHERE):
        for _ in range(5):
            host.api("POST", "/networks/six/connect", {"Container": "web"})
            assert ask(host.sandbox("web"), INTERNET_ADDRESS6, 7, patience=FIRST) == host.address6
            host.api("POST", "/networks/six/disconnect", {"Container": "web"})
            host.api("POST", "/networks/six/connect", {"Container": "web"})
            assert ask(host.sandbox("web"), address6(host, "old", "six"), 80, patience=FIRST) == address6(host, "web", "six")
            host.api("POST", "/networks/six/disconnect", {"Container": "web"})
            host.api("POST", "/networks/six/connect", {"Container": "web"})
            assert ask(host.sandbox("old"), address6(host, "web", "six"), 80, patience=FIRST) == address6(host, "old", "six")
            host.api("POST", "/networks/six/disconnect", {"Container": "web"})
            host.api("POST", "/networks/six/connect", {"Container": "web"})
            assert ask(host.namespace.path, address6(host, "web", "six"), 80, patience=FIRST) != ""
            host.api("POST", "/networks/six/disconnect", {"Container": "web"})


def test_default_routes_move_each_by_itself(host: Host, lan: Lan):
    """alpha has IPv4 only, so IPv6 goes by beta, until a network with both comes."""
    network(host, "--subnet", "10.82.0.0/24", "alpha")
    network(host, "--ipv4=false", "--ipv6", "--subnet", "fd82::/64", "beta")
    network(host, "--ipv6", "--subnet", "10.83.0.0/24", "--subnet", "fd83::/64", "gamma")
    serve(host, "web", "--network", "alpha", "-p", "8080:80")

    def routes() -> tuple[str, str]:
        return default_route(host, "web", "-4"), default_route(host, "web")

    assert routes() == ("10.82.0.1 eth0", "")
    host.netplug("network", "connect", "beta", "web", check=True)
    assert routes() == ("10.82.0.1 eth0", "fd82::1 eth1")
    with serving(lan.outside, 7, EVERYWHERE):
        assert ask(host.sandbox("web"), INTERNET_ADDRESS6, 7) == host.address6
    assert ask(lan.outside.path, host.address, 8080) != ""
    host.netplug("network", "connect", "gamma", "web", check=True)
    assert routes() == ("10.83.0.1 eth2", "fd83::1 eth2")
    assert ask(lan.outside.path, host.address6, 8080) == OUTSIDE_ADDRESS6
    host.netplug("network", "disconnect", "gamma", "web", check=True)
    assert routes() == ("10.82.0.1 eth0", "fd82::1 eth1")
    host.netplug("network", "disconnect", "beta", "web", check=True)
    assert routes() == ("10.82.0.1 eth0", "")


@pytest.mark.parametrize("flags", [("--ipv4=false",), ()], ids=["ipv6", "dual"])
def test_an_address_with_another_mac_is_answered_at_once(host: Host, flags: tuple[str, ...]):
    """A neighbour, and the host, that knew the address under another MAC are told of the new one."""
    network(host, *flags, "--ipv6", "--subnet", "fd84::/64", "demo")
    run(host, "client", "--network", "demo", *IDLE)
    for mac in ("02:00:00:00:00:aa", "02:00:00:00:00:bb"):
        serve(host, "web", "--network", "demo", "--ip6", "fd84::50", "--mac-address", mac)
        assert ask(host.sandbox("client"), "fd84::50", 80) == address6(host, "client")
        assert ask(host.namespace.path, "fd84::50", 80) == "fd84::1"
        assert neighbour(host, "client", "fd84::50") == mac
        assert host.netplug("rm", "-f", "web").returncode == 0
    serve(host, "web", "--network", "demo", "--ip6", "fd84::50")
    assert ask(host.sandbox("client"), "fd84::50", 80) == address6(host, "client")
    assert neighbour(host, "client", "fd84::50") not in ("", "02:00:00:00:00:bb")


def test_an_ipv6_address_beside_another_ipv4_address(host: Host):
    """The MAC is made of the IPv4 address: where an IPv6 address meets another one, its neighbours must hear of it."""
    network(host, "--ipv6", "--subnet", "10.85.0.0/24", "--subnet", "fd85::/64", "demo")
    run(host, "client", "--network", "demo", *IDLE)
    for ipv4 in ("10.85.0.77", "10.85.0.78"):
        serve(host, "web", "--network", "demo", "--ip6", "fd85::50", "--ip", ipv4)
        assert ask(host.sandbox("client"), "fd85::50", 80) == address6(host, "client")
        assert neighbour(host, "client", "fd85::50") == inspected(host, "web")["Networks"]["demo"]["MacAddress"]
        assert host.netplug("rm", "-f", "web").returncode == 0


@both_backends
def test_an_internal_network_has_no_way_in_or_out(host: Host, lan: Lan):
    network(host, "--ipv6", "--internal", "--subnet", "fd86::/64", "inner")
    serve(host, "web", "--network", "inner", "-p", "8086:80")
    run(host, "client", "--network", "inner", *IDLE)
    assert default_route(host, "client") == ""
    client, own, target = host.sandbox("client"), address6(host, "client", "inner"), address6(host, "web", "inner")
    assert ask(client, target, 80) == own
    assert ask(host.namespace.path, target, 80) == "fd86::1"
    lan.outside.ip("route", "add", "fd86::/64", "via", host.address6)
    assert ask(lan.outside.path, host.address6, 8086) == ""
    with serving(lan.outside, 7, EVERYWHERE):
        host.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        host.inside("client", "ip", "-6", "route", "add", "default", "via", "fd86::1")
        assert ask(client, INTERNET_ADDRESS6, 7) == ""
        assert ask(lan.outside.path, target, 80) == ""
        host.flush_for_good()
        assert ask(client, INTERNET_ADDRESS6, 7) == own, "the control"


@both_backends
def test_without_icc_neighbours_are_apart_in_ipv6_too(host: Host):
    network(host, "--ipv6", "--opt", f"{PREFIX}bridge.enable_icc=false", "strict")
    serve(host, "server", "--network", "strict", "-p", "8085:80")
    run(host, "client", "--network", "strict", *IDLE)
    assert ask(host.sandbox("client"), address6(host, "server", "strict"), 80) == ""
    assert ask(host.sandbox("client"), host.address6, 8085) != ""
    assert ask(host.namespace.path, address6(host, "server", "strict"), 80) != ""


@both_backends
def test_everything_is_given_back(host: Host):
    """By disconnecting, removing, a failed start, and a daemon that dies meanwhile: the lowest address is free again each time."""
    before = host.state()
    network(host, "--ipv6", "--subnet", "10.87.0.0/24", "--subnet", "fd87::/64", "demo")
    run(host, "first", "--network", "demo", *IDLE)
    for _ in range(2):
        host.api("POST", "/networks/demo/disconnect", {"Container": "first"})
        host.api("POST", "/networks/demo/connect", {"Container": "first"})
    assert addresses(host, "first") == ["10.87.0.2/24", "fd87::2/64"]
    assert host.netplug("run", "-d", "--name", "bad", "--network", "demo", "-p", "1:80", "--ip6", "fd87::2", *IDLE).returncode == 125
    refused = host.netplug("run", "-d", "--network", "name=demo,driver-opt=com.docker.network.endpoint.ifname=no/name", *IDLE)
    assert "invalid com.docker.network.endpoint.ifname" in refused.stderr
    assert host.netplug("rm", "-f", "bad").returncode == 0
    run(host, "second", "--network", "demo", *IDLE)
    assert addresses(host, "second") == ["10.87.0.3/24", "fd87::3/64"]
    host.kill9()
    kept = host.state()["sandboxes"]
    host.start()
    assert host.state()["sandboxes"] == kept, "who lives keeps all"
    run(host, "third", "--network", "demo", *IDLE)
    assert addresses(host, "third") == ["10.87.0.4/24", "fd87::4/64"]
    sandbox, process = host.sandbox("second"), host.container("second")["State"]["Pid"]
    host.kill9()
    end_processes([process])
    command("umount", sandbox)
    host.start()
    assert host.netplug("rm", "-f", "second").returncode == 0
    run(host, "fourth", "--network", "demo", *IDLE)
    assert addresses(host, "fourth") == ["10.87.0.3/24", "fd87::3/64"], "a namespace that is gone gives back what it had"
    assert host.netplug("rm", "-f", "first", "third", "fourth").returncode == 0
    assert host.netplug("network", "rm", "demo").returncode == 0
    assert host.state() == before


def test_sysctls_and_a_name_of_one_s_own(host: Host):
    network(host, "--ipv6", "demo")
    network(host, "four")
    option = "driver-opt=com.docker.network.endpoint"
    sysctls = f"{option}.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2"
    run(host, "web", "--network", f'name=demo,{option}.ifname=uplink7,"{sysctls}"', "--network", "four", *IDLE)
    read = host.inside("web", "sysctl", "-n", "net.ipv4.conf.uplink7.log_martians", "net.ipv6.conf.uplink7.accept_ra").stdout.split()
    assert read == ["1", "2"]
    assert addresses(host, "web", "eth0") == [f"{address(host, 'web', 'four')}/16"]
    host.restart()
    assert {link["ifname"] for link in json.loads(host.inside("web", "ip", "-j", "link").stdout)} == {"lo", "uplink7", "eth0"}
    network(host, "third")
    refused = host.netplug("network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=eth0", "third", "web")
    assert 'the interface name "eth0" is in use by another network of the container' in refused.stderr
    refused = host.netplug(
        "network", "connect", "--driver-opt", "com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1", "third", "web"
    )
    assert "unrecognised network interface sysctl 'net.ipv4.ip_forward=1'" in refused.stderr
    refused = host.netplug(
        "network", "connect", "--driver-opt", "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nonsense=1", "third", "web"
    )
    assert "sysctl net.ipv4.conf.eth1.nonsense: No such file or directory" in refused.stderr
    host.netplug("network", "connect", "third", "web", check=True)
    assert addresses(host, "web", "eth1") == [f"{address(host, 'web', 'third')}/16"], "what failed has kept nothing"


def test_ranges_and_reserved_addresses(hosts: Callable[..., Host]):
    host = hosts("--default-address-pool", "base=fd8c::/56,size=64")
    ranges = ("--ip-range", "fd8b::1:0/112", "--gateway", "fd8b::9", "--aux-address", "nas=fd8b::1:0")
    ranges4 = ("--ip-range", "10.88.0.128/25", "--aux-address", "printer=10.88.0.129")
    network(host, "--ipv6", "--subnet", "10.88.0.0/24", "--subnet", "fd8b::/64", *ranges, *ranges4, "demo")
    run(host, "web", "--network", "demo", *IDLE)
    assert addresses(host, "web") == ["10.88.0.130/24", "fd8b::1:1/64"]
    assert default_route(host, "web") == "fd8b::9 eth0"
    network(host, "--ipv6", "pooled")
    assert subnet6(host, "pooled") == ipaddress.IPv6Network("fd8c::/64")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--ipv6", "--subnet", "fd00::1/64"), "invalid subnet fd00::1/64: it should be fd00::/64"),
        (("--ipv6", "--subnet", "ff02::/64"), "multicast"),
        (("--ipv6", "--subnet", "fe80::/72"), "clashes with the Link-Local prefix 'fe80::/64'"),
        (("--ipv6", "--subnet", "fd88::/64", "--subnet", "fd89::/64"), "bridge driver doesn't support multiple subnets"),
        (("--ipv6", "--subnet", "2001:db8:113::/64"), "which this host reaches by a route of its own"),
        (("--ipv6", "--opt", f"{PREFIX}driver.mtu=1000"), "1000 is too small for IPv6, which needs 1280"),
        (("--ipv4=false",), "IPv4 or IPv6 must be enabled"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(host: Host, arguments: tuple[str, ...], sentence: str):
    before = host.state()
    refused = host.netplug("network", "create", *arguments, "bad")
    assert refused.returncode == 1
    assert sentence in refused.stderr
    assert host.state() == before


def test_two_networks_never_overlap(host: Host):
    network(host, "--ipv6", "--subnet", "fd8a::/64", "one")
    refused = host.netplug("network", "create", "--ipv6", "--subnet", "fd8a::/80", "two")
    assert "Pool overlaps with other one on this address space" in refused.stderr


def test_forwarding_can_be_left_to_the_admin(hosts: Callable[..., Host]):
    host = hosts("--ip-forward=false")
    network(host, "--ipv6", "demo")
    assert host.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout.strip() == "0"


def test_a_small_mtu_has_no_ipv6(host: Host):
    network(host, "--opt", f"{PREFIX}driver.mtu=1000", "small")
    serve(host, "web", "--network", "small")
    assert ask(host.namespace.path, address(host, "web", "small"), 80) != ""
