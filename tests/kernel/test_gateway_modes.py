"""How a bridge network meets the world: gateway modes of each IP version, fixed sources, trusted interfaces, bridges of the user's own."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from tests.hosts import INTERNET_ADDRESS, INTERNET_ADDRESS6, OUTSIDE_ADDRESS, OUTSIDE_ADDRESS6, Host, Lan, serving
from tests.kernel.conftest import both_backends
from tests.kernel.daily import IDLE, SERVER, address, address6, ask, network, run, serve

OPTION = "com.docker.network."
BRIDGE = f"{OPTION}bridge."
SUBNETS = ("--ipv6", "--subnet", "10.70.0.0/24", "--subnet", "fd70::/64")


class Side(NamedTuple):
    """One IP version, as the tests see it."""

    host: str
    outside: str
    internet: str
    own: str
    """Of the container `web`."""
    client: str
    """Of a container on the network `other`."""


def opt(**options: str) -> list[str]:
    return [word for key, value in options.items() for word in ("--opt", f"{BRIDGE}{key}={value}")]


def scene(host: Host, lan: Lan, *options: str) -> dict[int, Side]:
    """`web` on `demo` serves port 80, published as 8080, and 81; `far` is on `other`; the neighbour outside has routes to both subnets."""
    network(host, *SUBNETS, *options, "demo")
    network(host, "--ipv6", "other")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    host.netplug("exec", "-d", "web", *SERVER[1:], "81", check=True)
    while not ask(host.sandbox("web"), "127.0.0.1", 81):
        assert host.container("web")["State"]["Running"]
    run(host, "far", "--network", "other", *IDLE)
    for subnet, via in (("10.70.0.0/24", host.address), ("fd70::/64", host.address6)):
        lan.outside.ip("route", "add", subnet, "via", via)
    return {
        4: Side(host.address, OUTSIDE_ADDRESS, INTERNET_ADDRESS, address(host, "web"), address(host, "far", "other")),
        6: Side(host.address6, OUTSIDE_ADDRESS6, INTERNET_ADDRESS6, address6(host, "web"), address6(host, "far", "other")),
    }


def pings(lan: Lan, target: str) -> bool:
    return lan.outside.run("ping", "-c1", "-W1", "-n", target, check=False).returncode == 0


def bridge_addresses(host: Host, name: str) -> list[str]:
    """All but those that the kernel makes of the MAC."""
    found = json.loads(host.run("ip", "-j", "address", "show", "dev", name).stdout)[0]["addr_info"]
    return [f"{one['local']}/{one['prefixlen']}" for one in found if not (one["local"].startswith("fe80") and "ff:fe" in one["local"])]


@both_backends
@pytest.mark.parametrize("family", [4, 6])
def test_nat(host: Host, lan: Lan, family: int):
    """In by published ports of the host only, out with the host's address."""
    side = scene(host, lan)[family]
    assert ask(lan.outside.path, side.host, 8080) == side.outside
    assert ask(lan.outside.path, side.own, 80) == ""
    assert ask(lan.outside.path, side.own, 81) == ""
    assert ask(host.sandbox("far"), side.own, 80) == ""
    assert ask(host.sandbox("far"), side.host, 8080) == side.client
    assert ask(host.namespace.path, side.own, 80) != ""
    assert not pings(lan, side.own)
    with serving(lan.outside, 7, "::"):
        assert ask(host.sandbox("web"), side.internet, 7) == side.host
    host.flush_for_good()
    assert ask(lan.outside.path, side.own, 80) == side.outside, "the control: it is rules that keep it out"
    assert pings(lan, side.own)


@both_backends
@pytest.mark.parametrize("family", [4, 6])
def test_nat_unprotected(host: Host, lan: Lan, family: int):
    """In by published ports and by every port of the container's own address; other networks by the host's address only."""
    side = scene(host, lan, *opt(**{f"gateway_mode_ipv{family}": "nat-unprotected"}))[family]
    assert ask(lan.outside.path, side.host, 8080) == side.outside
    assert ask(lan.outside.path, side.own, 80) == side.outside
    assert ask(lan.outside.path, side.own, 81) == side.outside
    assert pings(lan, side.own)
    assert ask(host.sandbox("far"), side.own, 80) == ""
    assert ask(host.sandbox("far"), side.host, 8080) == side.client
    with serving(lan.outside, 7, "::"):
        assert ask(host.sandbox("web"), side.internet, 7) == side.host


@both_backends
@pytest.mark.parametrize("family", [4, 6])
def test_routed(host: Host, lan: Lan, family: int):
    """In by the published ports of the container's own address, and ping; out with that address; no port of the host is taken."""
    sides = scene(host, lan, *opt(**{f"gateway_mode_ipv{family}": "routed"}))
    side, other = sides[family], sides[10 - family]
    assert ask(lan.outside.path, side.own, 80) == side.outside
    assert ask(lan.outside.path, side.own, 81) == ""
    assert pings(lan, side.own)
    assert ask(lan.outside.path, side.host, 8080) == ""
    assert ask(host.sandbox("far"), side.own, 80) == ""
    with serving(lan.outside, 7, "::"):
        assert ask(host.sandbox("web"), side.internet, 7) == side.own
        assert ask(host.sandbox("web"), other.internet, 7) == other.host, "the other IP version is as it always is"
    assert ask(lan.outside.path, other.host, 8080) == other.outside
    assert ask(lan.outside.path, other.own, 80) == ""
    with serving(host.namespace, 8080, side.host):
        assert ask(lan.outside.path, side.host, 8080) == side.outside, "the host's own program has the port"
    host.restart()
    assert ask(lan.outside.path, side.own, 80) == side.outside
    host.netplug("network", "disconnect", "demo", "web", check=True)
    host.netplug("network", "connect", "demo", "web", check=True)
    assert ask(lan.outside.path, address(host, "web") if family == 4 else address6(host, "web"), 80) == side.outside


@both_backends
def test_isolated(host: Host, lan: Lan):
    """The host has no address on the bridge, and containers no way to it: they have each other only."""
    network(host, *SUBNETS, "--internal", *opt(gateway_mode_ipv4="isolated", gateway_mode_ipv6="isolated", name="lab0"), "demo")
    assert bridge_addresses(host, "lab0") == []
    serve(host, "web", "--network", "demo")
    run(host, "client", "--network", "demo", *IDLE)
    assert (address(host, "web"), address6(host, "web")) == ("10.70.0.1", "fd70::1"), "no address is kept for a gateway"
    for own, client in ((address(host, "web"), address(host, "client")), (address6(host, "web"), address6(host, "client"))):
        assert ask(host.sandbox("client"), own, 80) == client
        assert ask(host.namespace.path, own, 80) == ""
    configured = host.api("GET", "/networks/demo")["IPAM"]["Config"]
    assert [pool.get("Gateway", "") for pool in configured] == ["", ""]
    refused = host.netplug("network", "create", *opt(gateway_mode_ipv4="isolated"), "bad")
    assert "gateway mode 'isolated' can only be used for an internal network" in refused.stderr
    host.restart()
    assert bridge_addresses(host, "lab0") == []
    assert ask(host.sandbox("client"), address6(host, "web"), 80) != ""


@both_backends
def test_isolated_in_ipv4_only(host: Host):
    network(host, *SUBNETS, "--internal", *opt(gateway_mode_ipv4="isolated", name="lab0"), "demo")
    assert bridge_addresses(host, "lab0") == ["fd70::1/64", "fe80::1/64"]
    serve(host, "web", "--network", "demo")
    assert ask(host.namespace.path, address(host, "web"), 80) == ""
    assert ask(host.namespace.path, address6(host, "web"), 80) == "fd70::1"


@both_backends
def test_inhibited_ipv4(host: Host, lan: Lan):
    """The bridge keeps what it has; the containers' gateway is somebody else: here the neighbour, who is plugged into the bridge."""
    host.run("ip", "link", "add", "lab0", "up", "type", "bridge")
    network(host, "--subnet", "10.70.0.0/24", "--gateway", "10.70.0.254", *opt(inhibit_ipv4="true", name="lab0"), "demo")
    assert bridge_addresses(host, "lab0") == []
    serve(host, "web", "--network", "demo")
    host.run("ip", "link", "add", "tap", "master", "lab0", "up", "type", "veth", "peer", "name", "lab", "netns", lan.outside.name)
    lan.outside.ip("address", "add", "10.70.0.254/24", "dev", "lab")
    lan.outside.ip("link", "set", "lab", "up")
    with serving(lan.outside, 7):
        assert ask(host.sandbox("web"), INTERNET_ADDRESS, 7) == address(host, "web")
    assert ask(lan.outside.path, address(host, "web"), 80) == "10.70.0.254"


@both_backends
@pytest.mark.parametrize("family", [4, 6])
def test_trusted_interfaces(host: Host, lan: Lan, family: int):
    """Who is behind one reaches every port by the container's own address."""
    side = scene(host, lan, *opt(trusted_host_interfaces="wg0:uplink"))[family]
    assert ask(lan.outside.path, side.own, 80) == side.outside
    assert ask(lan.outside.path, side.own, 81) == side.outside
    assert ask(host.sandbox("far"), side.own, 80) == ""
    assert ask(lan.outside.path, side.host, 8080) == side.outside


@both_backends
def test_a_source_of_its_own(host: Host, lan: Lan):
    """Containers go out with an address of the host that the network has been given."""
    host.namespace.ip("address", "add", "203.0.113.99/24", "dev", "uplink")
    host.namespace.ip("address", "add", "2001:db8:113::99/64", "dev", "uplink", "nodad")
    network(host, "--ipv6", "--opt", f"{OPTION}host_ipv4=203.0.113.99", "--opt", f"{OPTION}host_ipv6=2001:db8:113::99", "demo")
    network(host, "--ipv6", "other")
    run(host, "web", "--network", "demo", *IDLE)
    run(host, "far", "--network", "other", *IDLE)
    with serving(lan.outside, 7, "::"):
        assert ask(host.sandbox("web"), INTERNET_ADDRESS, 7) == "203.0.113.99"
        assert ask(host.sandbox("web"), INTERNET_ADDRESS6, 7) == "2001:db8:113::99"
        assert ask(host.sandbox("far"), INTERNET_ADDRESS, 7) == host.address
    host.netplug("rm", "-f", "web", check=True)
    host.netplug("network", "rm", "demo", check=True)


class TestUsersBridge:
    """A bridge that was there before: used as it is, and left as it was."""

    def state(self, host: Host) -> dict[str, object]:
        """What the user has made of it, its MAC apart, which is held fast."""
        link = json.loads(host.run("ip", "-j", "-d", "link", "show", "lab0").stdout)[0]
        names = ("accept_ra", "disable_ipv6", "forwarding")
        sysctls = [host.run("sysctl", "-n", f"net.ipv6.conf.lab0.{name}").stdout for name in names[:2]]
        return {"addresses": bridge_addresses(host, "lab0"), "group": link["group"], "mac": link["address"], "sysctls": sysctls}

    @both_backends
    def test_its_addresses_become_the_gateways(self, host: Host, lan: Lan):
        host.run("ip", "link", "add", "lab0", "type", "bridge")
        for one in ("10.71.0.7/24", "fd71::7/64", "192.0.2.1/32"):
            # The kernel looks for duplicates of an IPv6 address only once the bridge has a port: a second without answers.
            host.run("ip", "address", "add", one, "dev", "lab0", *(["nodad"] if ":" in one else []))
        host.run("ip", "link", "set", "lab0", "up")
        before = self.state(host)
        network(host, "--ipv6", *opt(name="lab0"), "demo")
        configured = host.api("GET", "/networks/demo")["IPAM"]["Config"]
        assert [(pool["Subnet"], pool["Gateway"]) for pool in configured] == [("10.71.0.0/24", "10.71.0.7"), ("fd71::/64", "fd71::7")]
        serve(host, "web", "--network", "demo", "-p", "8080:80")
        assert self.state(host)["mac"] == before["mac"], "a port does not change it"
        with serving(lan.outside, 7, "::"):
            assert ask(host.sandbox("web"), INTERNET_ADDRESS, 7) == host.address
            assert ask(host.sandbox("web"), INTERNET_ADDRESS6, 7) == host.address6
        assert ask(lan.outside.path, host.address6, 8080) == OUTSIDE_ADDRESS6
        host.kill9()
        host.start()
        assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
        host.netplug("rm", "-f", "web", check=True)
        host.netplug("network", "rm", "demo", check=True)
        assert self.state(host) == before

    def test_without_addresses_it_gets_ours_for_as_long_as_they_are_needed(self, host: Host):
        host.run("ip", "link", "add", "lab0", "up", "type", "bridge")
        before = self.state(host)
        network(host, *SUBNETS, *opt(name="lab0"), "demo")
        assert bridge_addresses(host, "lab0") == ["10.70.0.1/24", "fd70::1/64", "fe80::1/64"]
        serve(host, "web", "--network", "demo")
        assert ask(host.namespace.path, address6(host, "web"), 80) == "fd70::1"
        host.netplug("rm", "-f", "web", check=True)
        host.netplug("network", "rm", "demo", check=True)
        assert self.state(host) == before

    def test_another_gateway_in_its_subnet_is_refused(self, host: Host):
        host.run("ip", "link", "add", "lab0", "up", "type", "bridge")
        host.run("ip", "address", "add", "10.71.0.7/24", "dev", "lab0")
        before = host.state()
        refused = host.netplug("network", "create", *opt(name="lab0"), "--subnet", "10.71.0.0/24", "--gateway", "10.71.0.1", "demo")
        assert "gateway 10.71.0.1 is not an address of bridge lab0, which has 10.71.0.7 in 10.71.0.0/24" in refused.stderr
        assert host.state() == before

    @both_backends
    def test_without_icc_on_a_bridge_whose_mac_would_change(self, host: Host):
        """Its ports may speak to its MAC only, which must stay what it was when they were made."""
        host.run("ip", "link", "add", "lab0", "up", "type", "bridge")
        network(host, *SUBNETS, *opt(name="lab0", enable_icc="false"), "demo")
        for name in ("one", "two"):
            serve(host, name, "--network", "demo")
            assert ask(host.namespace.path, address(host, name), 80) == "10.70.0.1"
            assert ask(host.namespace.path, address6(host, name), 80) == "fd70::1"
        assert ask(host.sandbox("one"), address6(host, "two"), 80) == ""

    def test_what_is_no_bridge_is_refused(self, host: Host):
        before = host.state()
        refused = host.netplug("network", "create", *opt(name="uplink"), "--subnet", "10.72.0.0/24", "demo")
        assert "uplink is there already, and it is no bridge" in refused.stderr
        assert host.state() == before


@pytest.mark.parametrize("mtu", [1280, 9000])
def test_mtu(host: Host, mtu: int):
    network(host, *SUBNETS, *opt(name="lab0"), "--opt", f"{OPTION}driver.mtu={mtu}", "demo")
    serve(host, "web", "--network", "demo")
    assert json.loads(host.run("ip", "-j", "link", "show", "lab0").stdout)[0]["mtu"] == mtu
    assert json.loads(host.inside("web", "ip", "-j", "link", "show", "eth0").stdout)[0]["mtu"] == mtu
    for own, overhead in ((address(host, "web"), 28), (address6(host, "web"), 48)):
        for size, reached in ((mtu - overhead, True), (mtu - overhead + 1, False)):
            done = host.run("ping", "-c1", "-W1", "-M", "do", "-s", str(size), own, check=False)
            assert (done.returncode == 0) == reached, done.stdout


@both_backends
def test_the_guard_can_be_switched_off(host: Host):
    """An address that the container gives itself is heard only where nobody guards the port."""
    for name, options in (("guarded", ()), ("open", ("--opt", "netplug.antispoof=false"))):
        network(host, "--ipv6", *options, name)
        run(host, f"web-{name}", "--network", name, *IDLE)
        subnet4, subnet6 = (pool["Subnet"].split("/")[0] for pool in host.api("GET", f"/networks/{name}")["IPAM"]["Config"])
        own = (subnet4.removesuffix(".0") + ".77", subnet6 + "77")
        for extra, length in zip(own, (16, 64), strict=True):
            nodad = ["nodad"] if ":" in extra else []
            host.inside(f"web-{name}", "ip", "address", "add", f"{extra}/{length}", "dev", "eth0", *nodad)
            heard = host.run("ping", "-c1", "-W3", "-n", extra, check=False).returncode == 0
            assert heard == (name == "open"), extra


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        (f"{BRIDGE}gateway_mode_ipv4", "bridged", 'unknown gateway mode "bridged"'),
        (f"{BRIDGE}gateway_mode_ipv6", "isolated", "can only be used for an internal network"),
        (f"{BRIDGE}inhibit_ipv4", "maybe", "neither true nor false"),
        (f"{BRIDGE}trusted_host_interfaces", "eth0,eth1/", "is no name of an interface"),
        (f"{BRIDGE}host_binding_ipv6", "127.0.0.1", "is no IPv6 address"),
        (f"{OPTION}host_ipv4", "nowhere", "is no IPv4 address"),
        (f"{OPTION}host_ipv6", "10.0.0.1", "is no IPv6 address"),
        ("netplug.antispoof", "off", "neither true nor false"),
    ],
)
def test_bad_values_are_refused(host: Host, option: str, value: str, sentence: str):
    before = host.state()
    refused = host.netplug("network", "create", "--opt", f"{option}={value}", "bad")
    assert refused.returncode == 1
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert host.state() == before
