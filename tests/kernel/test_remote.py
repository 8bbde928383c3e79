"""Networks of a Docker network plugin: created, run on, pinged across, restarted around, and gone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts import Host
from tests.kernel.plugin_lab import Plugin, plugged

IDLE = ("host", "busybox", "sleep", "1000")

Lab = tuple[Host, Plugin]


@pytest.fixture
def lab(hosts: Callable[..., Host], tmp_path: Path) -> Iterator[Lab]:
    with plugged(hosts, tmp_path) as made:
        yield made


def run(host: Host, name: str, *flags: str) -> None:
    host.netplug("run", "-d", "--name", name, "--network", "demo", *flags, *IDLE, check=True)


def ping(host: Host, client: str, server: str) -> bool:
    return host.netplug("exec", client, "busybox", "ping", "-c1", "-W2", server).returncode == 0


def test_a_life(lab: Lab):
    host, plugin = lab
    before = host.state()
    host.netplug("network", "create", "-d", "plug", "--subnet", "10.60.0.0/24", "-o", "colour=red", "demo", check=True)
    (network,) = [body for method, body in plugin.calls() if method == "CreateNetwork"]
    assert network["Options"]["com.docker.network.generic"] == {"colour": "red"}
    assert network["IPv4Data"] == [{"AddressSpace": "LocalDefault", "Pool": "10.60.0.0/24", "Gateway": "10.60.0.1/24", "AuxAddresses": {}}]
    run(host, "aa")
    run(host, "bb", "--mac-address", "02:00:00:00:00:bb")
    assert [method for method, _ in plugin.calls()] == ["CreateEndpoint", "Join"] * 2
    assert ping(host, "aa", "bb")
    assert ping(host, "aa", "10.60.0.1")
    inside = host.inside("aa", "ip", "-4", "route").stdout
    assert "default via 10.60.0.1 dev eth0" in inside
    assert "10.200.0.0/16 via 10.60.0.1 dev eth0" in inside
    assert "10.201.0.0/16 dev eth0" in inside
    seen = host.container("aa")["NetworkSettings"]["Networks"]["demo"]
    assert seen["MacAddress"].startswith("02:ee:00:")
    assert seen["MacAddress"] in host.inside("aa", "ip", "link", "show", "eth0").stdout
    assert "02:00:00:00:00:bb" in host.inside("bb", "ip", "link", "show", "eth0").stdout

    host.netplug("network", "create", "--subnet", "10.61.0.0/24", "other", check=True)
    host.netplug("network", "connect", "other", "aa", check=True)
    host.netplug("network", "disconnect", "demo", "aa", check=True)
    assert [method for method, _ in plugin.calls()] == ["Leave", "DeleteEndpoint"]
    assert "10.60.0" not in host.inside("aa", "ip", "-4", "address").stdout + host.inside("aa", "ip", "-4", "route").stdout
    host.netplug("network", "connect", "demo", "aa", check=True)
    assert ping(host, "aa", "bb")

    refused = host.netplug("network", "rm", "demo")
    assert re.search(r"network demo id \w+ has active endpoints \(bb, aa\)", refused.stderr)
    host.netplug("rm", "-f", "aa", "bb", check=True)
    host.netplug("network", "rm", "demo", "other", check=True)
    assert plugin.knows() == (0, 0)
    assert host.state() == before


def test_the_daemon_dies_and_comes_back(lab: Lab):
    host, plugin = lab
    before = host.state()
    host.netplug("network", "create", "-d", "plug", "--subnet", "10.60.0.0/24", "demo", check=True)
    run(host, "aa")
    run(host, "bb")
    running = host.state()
    plugin.calls()
    with host.flood("10.60.0.3", sandbox="aa") as flood:
        host.restart()
        assert host.state() == running
        host.kill9()
        plugin.kill()
        host.start()
        assert host.state() == running
        assert ping(host, "aa", "bb")
    assert flood.lost == []
    plugin.start()
    assert plugin.calls() == []
    run(host, "cc")
    assert ping(host, "cc", "aa")
    host.kill9()
    host.netplug("kill", "cc")
    host.start()
    host.netplug("rm", "-f", "aa", "bb", "cc", check=True)
    host.netplug("network", "rm", "demo", check=True)
    assert plugin.forgotten()
    assert host.state() == before


def test_addresses_prefixes_and_a_way_out_of_the_plugins_own(lab: Lab):
    host, plugin = lab
    options = ("-o", "subnet=10.62.0.0/24", "-o", "prefix=plug", "-o", "gateway=none")
    host.netplug("network", "create", "-d", "plug", "--ipam-driver", "null", *options, "demo", check=True)
    run(host, "aa", "-p", "8080:80")
    run(host, "bb")
    assert [host.container_address(name, "demo") for name in ("aa", "bb")] == ["10.62.0.2", "10.62.0.3"]
    assert ping(host, "aa", "bb")
    # The plugin gave no way out and did not mind: the gateway bridge is one, with the published port.
    links = host.inside("aa", "ip", "-o", "link").stdout
    assert "plug0@" in links
    assert ping(host, "aa", "203.0.113.1")
    assert host.netplug("port", "aa").stdout.startswith("80/tcp -> 0.0.0.0:8080")
    host.netplug("rm", "-f", "aa", "bb", check=True)
    host.netplug("network", "rm", "demo", check=True)
    assert plugin.knows() == (0, 0)


def test_both_ip_versions_and_no_way_out(lab: Lab):
    host, plugin = lab
    subnets = ("--subnet", "10.63.0.0/24", "--subnet", "fd63::/64")
    host.netplug("network", "create", "-d", "plug", "--internal", "--ipv6", *subnets, "demo", check=True)
    (asked,) = [body for method, body in plugin.calls() if method == "CreateNetwork"]
    assert asked["Options"]["com.docker.network.internal"] is True
    assert [pool["Pool"] for pool in asked["IPv6Data"]] == ["fd63::/64"]
    run(host, "aa")
    run(host, "bb", "--ip6", "fd63::9")
    assert host.inside("aa", "ping", "-6", "-c1", "-W2", "fd63::9").returncode == 0
    assert ping(host, "bb", "aa")
    assert "default" not in host.inside("aa", "ip", "-4", "route").stdout + host.inside("aa", "ip", "-6", "route").stdout
    host.restart()
    assert host.inside("aa", "ping", "-6", "-c1", "-W2", "fd63::9").returncode == 0
    host.netplug("rm", "-f", "aa", "bb", check=True)
    host.netplug("network", "rm", "demo", check=True)
    assert plugin.knows() == (0, 0)


def test_plugins_come_and_go_without_a_restart(lab: Lab):
    host, plugin = lab
    unknown = host.netplug("network", "create", "-d", "pigeon", "demo").stderr
    assert 'plugin "pigeon" not found: the drivers here are bridge, host' in unknown
    assert unknown.rstrip().endswith("the plugins here are plug")
    (plugin.socket.parent / "pigeon.spec").write_text(f"unix://{plugin.socket}\n")
    host.netplug("network", "create", "-d", "pigeon", "--subnet", "10.60.0.0/24", "demo", check=True)
    (plugin.socket.parent / "pigeon.spec").unlink()
    missing = host.netplug("run", "-d", "--name", "aa", "--network", "demo", *IDLE)
    assert 'plugin "pigeon" is not there' in missing.stderr
    (plugin.socket.parent / "pigeon.json").write_text(f'{{"Name": "pigeon", "Addr": "unix://{plugin.socket}"}}')
    host.netplug("start", "aa", check=True)
    host.netplug("rm", "-f", "aa", check=True)
    host.netplug("network", "rm", "demo", check=True)
    assert plugin.knows() == (0, 0)


def test_a_plugin_that_was_away_hears_of_it_later(lab: Lab):
    host, plugin = lab
    before = host.state()
    host.netplug("network", "create", "-d", "plug", "--subnet", "10.60.0.0/24", "demo", check=True)
    run(host, "aa")
    plugin.kill()
    refused = host.netplug("network", "connect", "demo", "bb").stderr
    assert "No such container: bb" in refused
    host.netplug("rm", "-f", "aa", check=True)
    host.netplug("network", "rm", "demo", check=True)
    assert [link["name"][:2] for link in host.state()["host"]["links"] if link["name"].startswith(("ph", "plug"))] != []
    host.restart()
    plugin.calls()
    plugin.start()
    assert plugin.forgotten(40)
    told = [method for method, _ in plugin.calls() if method != "Activate"]
    assert told == ["Leave", "DeleteEndpoint", "DeleteNetwork"]
    assert host.state() == before


def test_what_is_explained_and_put_back(lab: Lab):
    host, plugin = lab
    host.netplug("network", "create", "-d", "plug", "--subnet", "10.60.0.0/24", "demo", check=True)
    plugin.calls()
    dry = host.netplug("run", "--dry-run", "--name", "aa", "--network", "demo", *IDLE, check=True).stdout
    assert "# plugin plug is asked for a link, addresses and routes: what follows is known when it has answered" in dry
    assert "10.60.0" not in dry
    assert plugin.calls() == []
    explained = host.netplug("run", "--explain", "-d", "--name", "aa", "--network", "demo", *IDLE, check=True).stdout
    assert re.search(r"ip link set pc[0-9a-f]{7} netns \S+ name eth0\n", explained)
    for argv in (("route", "del", "10.200.0.0/16"), ("address", "flush", "dev", "eth0"), ("link", "set", "eth0", "down")):
        host.inside("aa", "ip", *argv)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and "10.200.0.0/16 via 10.60.0.1" not in host.inside("aa", "ip", "route").stdout:
            time.sleep(0.05)
        assert ping(host, "aa", "10.60.0.1"), argv
    gone = host.netplug("network", "disconnect", "--explain", "demo", "aa", check=True).stdout
    assert re.search(r"nsenter --net=\S+ ip link set eth0 netns \$\$ name pc[0-9a-f]{7}\n", gone)
