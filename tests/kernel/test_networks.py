"""What people expect of container networks, with real containers and real packets: a daemon on a host of its own, a neighbour outside."""

from __future__ import annotations

import json
import socket

import pytest

from netplug.cli.demo_hosts import INTERNET_ADDRESS, OUTSIDE_ADDRESS, Lan
from netplug.cli.demo_traffic import serving
from netplug.kernel.namespaces import open_socket
from tests.hosts import Host
from tests.kernel.daily import IDLE, ROOT, SERVER, address, ask, inspected, network, run, serve


def test_containers_reach_each_other_by_name(host: Host):
    network(host, "demo")
    serve(host, "web", "--network", "demo", "--network-alias", "www", "--hostname", "webhost")
    done = host.netplug("run", "--rm", "--network", "demo", "host", "busybox", "ping", "-c1", "-W2", "web")
    assert done.returncode == 0, done.stderr + done.stdout
    run(host, "client", "--network", "demo", *IDLE)
    for name in ("web", "WEB", "www", "web.demo", host.container("web")["Id"][:12]):
        looked_up = host.netplug("exec", "client", "getent", "hosts", name)
        assert looked_up.stdout.split()[:1] == [address(host, "web")], f"{name}: {looked_up}"
    assert host.netplug("exec", "client", "getent", "hosts", address(host, "web")).stdout.split()[1] == "web.demo"
    assert host.netplug("exec", "client", "getent", "hosts", "webb").returncode != 0


def test_a_container_reaches_out_through_the_host(host: Host, lan: Lan):
    network(host, "demo")
    network(host, "--opt", "com.docker.network.bridge.enable_ip_masquerade=false", "bare")
    run(host, "client", "--network", "demo", *IDLE)
    run(host, "open", "--network", "bare", *IDLE)
    with serving(lan.outside, 7):
        for kind in ("tcp", "udp"):
            assert ask(host.sandbox("client"), OUTSIDE_ADDRESS, 7, kind) == host.address
        subnet = host.api("GET", "/networks/bare")["IPAM"]["Config"][0]["Subnet"]
        lan.outside.ip("route", "add", subnet, "via", host.address)
        assert ask(host.sandbox("open"), INTERNET_ADDRESS, 7) == address(host, "open", "bare")


def test_a_published_port_is_reached_from_everywhere(host: Host, lan: Lan):
    network(host, "demo")
    network(host, "other")
    serve(host, "web", "--network", "demo", "-p", "8080:80", "-p", "8080:80/udp", "-p", f"{host.address}:8081:80")
    run(host, "near", "--network", "demo", *IDLE)
    run(host, "far", "--network", "other", *IDLE)
    gateway = host.api("GET", "/networks/demo")["IPAM"]["Config"][0]["Gateway"]
    for kind in ("tcp", "udp"):
        assert ask(lan.outside.path, host.address, 8080, kind) == OUTSIDE_ADDRESS
        assert ask(host.namespace.path, host.address, 8080, kind) == host.address
        assert ask(host.namespace.path, "127.0.0.1", 8080, kind) == gateway
        assert ask(host.sandbox("far"), host.address, 8080, kind) == address(host, "far", "other")
        assert ask(host.sandbox("near"), host.address, 8080, kind) == gateway
        assert ask(host.sandbox("web"), host.address, 8080, kind) == gateway
    assert ask(lan.outside.path, host.address, 8081) == OUTSIDE_ADDRESS
    assert ask(host.namespace.path, "127.0.0.1", 8081) == ""
    assert host.netplug("port", "web", "80/tcp").stdout.splitlines() == ["0.0.0.0:8080", f"{host.address}:8081"]
    assert host.netplug("rm", "-f", "web").returncode == 0
    assert ask(lan.outside.path, host.address, 8080) == ""


def test_a_range_of_ports_and_an_ephemeral_one(host: Host, lan: Lan):
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "8000-8003:80-83", "-p", "80")
    assert ask(lan.outside.path, host.address, 8000) == OUTSIDE_ADDRESS
    chosen = [int(entry["HostPort"]) for entry in inspected(host, "web")["Ports"]["80/tcp"]]
    assert 8000 in chosen
    assert len(chosen) == 2
    for port in chosen:
        assert ask(lan.outside.path, host.address, port) == OUTSIDE_ADDRESS


def test_nothing_else_is_reached_from_outside(host: Host, lan: Lan):
    """A port on 127.0.0.1, and the container's own address, even when the neighbour has a route to it."""
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "127.0.0.1:8080:80", "-p", "8082:80")
    own = address(host, "web")
    lan.outside.ip("route", "add", f"{own}/32", "via", host.address)
    assert ask(host.namespace.path, "127.0.0.1", 8080) != ""
    assert ask(host.namespace.path, own, 80) != ""
    assert ask(lan.outside.path, host.address, 8082) != ""
    assert ask(lan.outside.path, host.address, 8080) == ""
    assert ask(lan.outside.path, own, 80) == ""
    lan.outside.ip("route", "add", "127.0.0.9/32", "via", host.address, "table", "main")
    assert ask(lan.outside.path, "127.0.0.1", 8080) == ""
    host.flush_for_good()
    assert ask(lan.outside.path, own, 80) != "", "the control: without rules it is reached"


def test_networks_are_isolated_and_icc_can_be_off(host: Host):
    network(host, "demo")
    network(host, "other")
    network(host, "--opt", "com.docker.network.bridge.enable_icc=false", "strict")
    serve(host, "web", "--network", "demo")
    run(host, "near", "--network", "demo", *IDLE)
    run(host, "far", "--network", "other", *IDLE)
    serve(host, "server", "--network", "strict", "-p", "8085:80")
    run(host, "client", "--network", "strict", *IDLE)
    assert ask(host.sandbox("near"), address(host, "web"), 80) == address(host, "near")
    assert ask(host.sandbox("far"), address(host, "web"), 80) == ""
    assert ask(host.sandbox("client"), address(host, "server", "strict"), 80) == ""
    assert ask(host.sandbox("client"), host.address, 8085) != ""
    assert ask(host.namespace.path, address(host, "server", "strict"), 80) != ""


def test_an_internal_network_has_no_way_in_or_out(host: Host, lan: Lan):
    network(host, "--internal", "inner")
    serve(host, "web", "--network", "inner", "-p", "8086:80")
    run(host, "client", "--network", "inner", *IDLE)
    assert ask(host.sandbox("client"), address(host, "web", "inner"), 80) == address(host, "client", "inner")
    with serving(lan.outside, 7):
        assert ask(host.sandbox("client"), INTERNET_ADDRESS, 7) == ""
        host.inside("client", "ip", "route", "add", "default", "via", host.api("GET", "/networks/inner")["IPAM"]["Config"][0]["Gateway"])
        assert ask(host.sandbox("client"), INTERNET_ADDRESS, 7) == ""
    assert ask(lan.outside.path, host.address, 8086) == ""
    assert ask(host.namespace.path, address(host, "web", "inner"), 80) != ""
    assert host.netplug("exec", "client", "getent", "hosts", "web").returncode == 0


def test_connect_and_disconnect_while_it_runs(host: Host):
    network(host, "--subnet", "10.90.0.0/24", "zeta")
    network(host, "--subnet", "10.91.0.0/24", "alpha")
    serve(host, "web", "--network", "zeta")

    def gateway() -> str:
        routes = json.loads(host.inside("web", "ip", "-j", "route", "show", "default").stdout)
        return str(routes[0]["gateway"]) if routes else ""

    assert gateway() == "10.90.0.1"
    assert host.netplug("network", "connect", "--ip", "10.91.0.77", "--alias", "second", "alpha", "web").returncode == 0
    assert gateway() == "10.91.0.1"
    run(host, "client", "--network", "alpha", *IDLE)
    assert host.netplug("exec", "client", "getent", "hosts", "second").stdout.split()[0] == "10.91.0.77"
    assert ask(host.sandbox("client"), "10.91.0.77", 80) == address(host, "client", "alpha")
    assert host.netplug("network", "disconnect", "alpha", "web").returncode == 0
    assert gateway() == "10.90.0.1"
    assert host.netplug("exec", "client", "getent", "hosts", "second").returncode != 0
    assert host.netplug("network", "disconnect", "zeta", "web").returncode == 0
    assert gateway() == ""
    assert inspected(host, "web")["Networks"] == {}


def test_static_address_and_mac_and_an_address_used_again(host: Host):
    """A neighbour that knew the address under another MAC reaches its new owner at once."""
    network(host, "--subnet", "10.92.0.0/24", "--gateway", "10.92.0.254", "demo")
    run(host, "client", "--network", "demo", *IDLE)
    for mac in ("02:00:00:00:00:aa", "02:00:00:00:00:bb"):
        serve(host, "web", "--network", "demo", "--ip", "10.92.0.50", "--mac-address", mac)
        assert inspected(host, "web")["Networks"]["demo"]["MacAddress"] == mac
        assert ask(host.sandbox("client"), "10.92.0.50", 80) == address(host, "client")
        neighbours = json.loads(host.inside("client", "ip", "-j", "neigh", "show", "10.92.0.50").stdout)
        assert neighbours[0]["lladdr"] == mac
        assert host.netplug("rm", "-f", "web").returncode == 0


def test_options_of_the_bridge_driver(host: Host, lan: Lan):
    option = "com.docker.network."
    network(
        host,
        *("--opt", f"{option}bridge.name=lab0"),
        *("--opt", f"{option}driver.mtu=1400"),
        *("--opt", f"{option}container_iface_prefix=lan"),
        *("--opt", f"{option}bridge.host_binding_ipv4=127.0.0.1"),
        "demo",
    )
    serve(host, "web", "--network", "demo", "-p", "8087:80")
    bridge = json.loads(host.run("ip", "-j", "link", "show", "lab0").stdout)[0]
    link = json.loads(host.inside("web", "ip", "-j", "link", "show", "lan0").stdout)[0]
    assert (bridge["mtu"], link["mtu"]) == (1400, 1400)
    assert inspected(host, "web")["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8087"}]
    assert ask(host.namespace.path, "127.0.0.1", 8087) != ""
    assert ask(lan.outside.path, host.address, 8087) == ""


def test_links_on_the_default_bridge(host: Host):
    """No names there, but what --link writes: a line in the hosts file, and the environment."""
    serve(host, "db", "--expose", "80")
    run(host, "app", "--link", "db:database", *IDLE)
    own = address(host, "db", "bridge")
    assert host.netplug("exec", "app", "getent", "hosts", "database").stdout.split()[0] == own
    environment = host.netplug("exec", "app", "env").stdout.splitlines()
    assert f"DATABASE_PORT_80_TCP_ADDR={own}" in environment
    assert "DATABASE_NAME=/app/database" in environment
    assert "127.0.0.11" not in host.netplug("exec", "app", "cat", "/etc/resolv.conf").stdout


def test_host_none_and_shared_namespaces(host: Host, lan: Lan):
    run(host, "alone", "--network", "none", *IDLE)
    assert [link["ifname"] for link in json.loads(host.inside("alone", "ip", "-j", "link").stdout)] == ["lo"]
    run(host, "bare", "--network", "host", "-v", f"{ROOT}:{ROOT}:ro", *SERVER, "8090")
    while not ask(lan.outside.path, host.address, 8090):
        assert host.container("bare")["State"]["Running"], host.netplug("logs", "bare")
    serve(host, "web")
    shared = host.netplug("run", "--rm", "--network", "container:web", "host", "ip", "-4", "-o", "address", "show", "eth0")
    assert address(host, "web", "bridge") in shared.stdout
    refused = host.netplug("network", "connect", "bridge", "bare")
    assert refused.returncode == 1
    assert "container sharing network namespace with another container or host cannot be connected to any other network" in refused.stderr


def test_a_container_that_has_left_none_is_on_other_networks_for_good(host: Host):
    """Docker's way out of `--network none`; the daemon that it was told to may die, and the container may start again."""
    network(host, "demo")
    run(host, "alone", "--network", "none", *IDLE)
    host.netplug("network", "disconnect", "none", "alone", check=True)
    host.kill9()
    host.start()
    host.netplug("network", "connect", "demo", "alone", check=True)
    assert host.inside("alone", "ping", "-c", "1", "-W", "3", inspected(host, "alone")["Networks"]["demo"]["Gateway"])

    host.netplug("stop", "-t", "0", "alone", check=True)
    host.netplug("start", "alone", check=True)

    assert list(inspected(host, "alone")["Networks"]) == ["demo"]
    assert address(host, "alone")
    again = host.netplug("network", "disconnect", "none", "alone")
    assert again.stderr.endswith("is not connected to network none\n")


def test_a_port_that_is_taken_names_its_owner(host: Host, lan: Lan):
    network(host, "demo")
    run(host, "first", "--network", "demo", "-p", "8088:80", *IDLE)
    before = host.state()
    refused = host.netplug("run", "-d", "--name", "second", "--network", "demo", "-p", "8088:80", *IDLE)
    assert refused.returncode == 125
    assert "Bind for 0.0.0.0:8088 failed: port is already allocated (by container first)" in refused.stderr
    with serving(host.namespace, 8089):
        refused = host.netplug("run", "-d", "--name", "third", "--network", "demo", "-p", "8089:80", *IDLE)
        assert "address already in use on the host (by " in refused.stderr
    assert host.netplug("rm", "second", "third").returncode == 0
    assert host.state() == before
    with open_socket(host.namespace.path, socket.AF_INET, socket.SOCK_STREAM) as intruder:
        intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            intruder.bind(("0.0.0.0", 8088))


def test_a_container_may_bind_port_53_itself(host: Host):
    network(host, "demo")
    serve(host, "dns", "--network", "demo", port=53)
    run(host, "web", "--network", "demo", *IDLE)
    assert ask(host.sandbox("web"), address(host, "dns"), 53, "udp") == address(host, "web")
    assert host.netplug("exec", "dns", "getent", "hosts", "web").stdout.split()[0] == address(host, "web")


def test_masquerade_and_names_go_on_while_the_daemon_is_dead(host: Host, lan: Lan):
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    run(host, "client", "--network", "demo", *IDLE)
    inside = host.sandbox("client")
    host.kill9()
    looked_up = host.run("nsenter", f"--net={inside}", "busybox", "nslookup", "-type=a", "web", "127.0.0.11")
    assert looked_up.stdout.count("Address") == 2
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    with serving(lan.outside, 7):
        assert ask(inside, INTERNET_ADDRESS, 7) == host.address
    host.start()
    assert host.netplug("ps", "-q").stdout.count("\n") == 2
