"""`netplug preflight` on hosts with what spoils a container network: each spoiler with a control that shows the check content before."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netplug.cli.demo_hosts import Lan
from netplug.kernel.namespaces import open_socket
from netplug.kernel.parts import parts
from tests import nursery
from tests.bench.engines import Dockerd, create_container, remove_container
from tests.hosts import ApiError, Host, command
from tests.kernel.conftest import NO_SERVER
from tests.kernel.daily import IDLE, network, run

MTU = "com.docker.network.driver.mtu"
Finding = dict[str, str]


@pytest.fixture
def idle(lan: Lan) -> Iterator[Host]:
    """A host whose daemon has not been started."""
    with Host(lan, resolv_conf=NO_SERVER) as host:
        host.state_directory.mkdir()
        host.run_directory.mkdir()
        yield host


def look(host: Host, *arguments: str) -> list[Finding]:
    """Asks the daemon; the exit code fits what it says."""
    return _findings(host.argv(sys.executable, "-m", "netplug.cli", "preflight", "--format", "json", *arguments), host)


def look_without(host: Host, *arguments: str) -> list[Finding]:
    """As a daemon would that starts on this host now."""
    places = ("--state-dir", str(host.state_directory), "--run-dir", str(host.run_directory))
    return look(host, *host.flags, *places, *arguments)


def _findings(argv: list[str], host: Host) -> list[Finding]:
    done = nursery.run(argv, host.environment)
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == any(finding["Result"] == "error" for finding in found)
    return found


def results(found: list[Finding], check: str) -> set[str]:
    return {finding["Result"] for finding in found if finding["Check"] == check}


def said(found: list[Finding], check: str, result: str) -> str:
    """What was found and the remedies, of one check, where the result is that one."""
    return "\n".join(f"{one['Found']} | {one['Remedy']}" for one in found if (one["Check"], one["Result"]) == (check, result))


def vpn(host: Host, *routes: str, mtu: int = 1420) -> None:
    """An interface as a VPN makes one, with its routes (a tun device has no carrier until somebody opens it; a veth has)."""
    host.namespace.ip("link", "add", "tun0", "mtu", str(mtu), "type", "veth", "peer", "name", "far")
    for name in ("far", "tun0"):
        host.namespace.ip("link", "set", name, "up")
    host.namespace.ip("address", "add", "100.64.7.2/32", "dev", "tun0")
    for route in routes:
        host.namespace.ip("route", "add", route, "dev", "tun0")


# Pools


def test_pools_beside_a_vpn(host: Host):
    network(host, "--subnet", "10.7.0.0/24", "demo")
    before = look(host, "--subnet", "10.8.0.0/24")
    assert results(before, "pools") == {"ok"}
    assert "subnet 10.8.0.0/24 is free" in said(before, "pools", "ok")
    vpn(host, "10.0.0.0/8", "172.16.0.0/12", "10.9.9.0/24")
    found = look(host, "--subnet", "10.8.0.0/24", "--subnet", "10.9.0.0/16", "--subnet", "10.7.0.0/25")
    assert "network demo, 10.7.0.0/24 lies inside the host's route 10.0.0.0/8 by tun0" in said(found, "pools", "warning")
    assert "subnet 10.8.0.0/24 lies inside the host's route 10.0.0.0/8 by tun0" in said(found, "pools", "warning")
    assert "14 predefined pools are taken by 172.16.0.0/12 by tun0; next is 192.168.0.0/20" in said(found, "pools", "warning")
    assert "subnet 10.9.0.0/16 covers the host's route 10.9.9.0/24 by tun0" in said(found, "pools", "error")
    assert "subnet 10.7.0.0/25 overlaps network demo" in said(found, "pools", "error")
    # And what it says is what a create does.
    refused = host.netplug("network", "create", "--subnet", "10.9.0.0/16", "covering")
    assert "covers 10.9.9.0/24, which this host reaches by a route of its own" in refused.stderr
    warned = host.netplug("network", "create", "--subnet", "10.8.0.0/24", "inside")
    assert warned.returncode == 0
    assert warned.stderr.startswith("WARNING: 10.8.0.0/24 lies inside the host's route 10.0.0.0/8 by tun0")
    host.netplug("network", "create", "chosen", check=True)
    assert host.api("GET", "/networks/chosen")["IPAM"]["Config"][0]["Subnet"] == "192.168.0.0/20"


def test_a_vpn_that_takes_everything(host: Host):
    assert "tun0" not in said(look(host), "pools", "ok")
    vpn(host, "0.0.0.0/1", "128.0.0.0/1")
    found = look(host)
    assert results(found, "pools") == {"ok"}, "such routes stand in nobody's way"
    assert "0.0.0.0/1 goes by tun0, as a VPN writes it" in said(found, "pools", "ok")
    assert "above the 1420 of the way out, tun0" in said(found, "mtu", "warning")


def test_ipv6_pools_beside_routes(host: Host):
    assert results(look(host, "--subnet", "fd11:1::/64"), "pools") == {"ok"}
    host.namespace.ip("-6", "route", "add", "fd11::/16", "dev", "uplink")
    host.namespace.ip("-6", "route", "add", "fd12:1:1::/64", "dev", "uplink")
    found = look(host, "--subnet", "fd11:1::/64", "--subnet", "fd12:1::/32")
    assert "subnet fd11:1::/64 lies inside the host's route fd11::/16 by uplink" in said(found, "pools", "warning")
    assert "subnet fd12:1::/32 covers the host's route fd12:1:1::/64 by uplink" in said(found, "pools", "error")


def test_the_hosts_name_server_is_not_hidden(hosts: Callable[..., Host]):
    """It is behind the default route, where nothing but resolv.conf tells of it."""
    host = hosts(resolv_conf="nameserver 172.18.0.53\nnameserver fe80::1%uplink\nnameserver nonsense\nnameserver 127.0.0.1\n")
    found = look(host, "--subnet", "172.18.0.0/24")
    assert "subnet 172.18.0.0/24 has the address of the host's name server 172.18.0.53" in said(found, "pools", "warning")
    assert "1 predefined pools are taken by name server 172.18.0.53; next is 172.19.0.0/16" in said(found, "pools", "warning")
    network(host, "chosen")
    assert host.api("GET", "/networks/chosen")["IPAM"]["Config"][0]["Subnet"] == "172.19.0.0/16"
    warned = host.netplug("network", "create", "--subnet", "172.18.0.0/24", "asked")
    assert warned.returncode == 0, "a name server may be a container"
    assert warned.stderr.startswith("WARNING: 172.18.0.0/24 has the address of the host's name server 172.18.0.53")
    host.resolv_conf.write_text("nameserver 172.20.0.53\n")
    network(host, "later")
    assert host.api("GET", "/networks/later")["IPAM"]["Config"][0]["Subnet"] == "172.21.0.0/16"


def test_no_pool_is_left(idle: Host):
    assert results(look_without(idle), "pools") == {"ok"}
    vpn(idle, "172.16.0.0/12", "192.168.0.0/16")
    text = said(look_without(idle), "pools", "error")
    assert text.startswith("no predefined pool is left: routes of the host take them (172.16.0.0/12 by tun0, 192.168.0.0/16 by tun0)")
    assert "--default-address-pool" in text


# Ports


@contextlib.contextmanager
def taken(host: Host, address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM, *, listening: bool = True) -> Iterator[None]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with open_socket(host.namespace.path, family, kind) as server:
        server.bind((address, port))
        if listening and kind == socket.SOCK_STREAM:
            server.listen()
        yield


def test_ports_in_overlapping_forms(host: Host):
    apart = ("-p", "127.0.0.1:8080:80", "-p", "203.0.113.11:8080:80", "-p", "[::1]:8080:80", "-p", "8080:80/udp")
    assert results(look(host, *apart), "ports") == {"ok"}
    found = look(host, "-p", "127.0.0.1:8080:80", "-p", "0.0.0.0:8080:81", "-p", "[::]:8080:82", "-p", "8080:83")
    assert said(found, "ports", "error").splitlines() == [
        f"{one} and {other} are the same port 8080/tcp | publish one of them on another port"
        for one, other in [
            ("127.0.0.1:8080:80/tcp", "0.0.0.0:8080:81/tcp"),
            ("127.0.0.1:8080:80/tcp", "8080:83/tcp"),
            ("0.0.0.0:8080:81/tcp", "8080:83/tcp"),
            ("[::]:8080:82/tcp", "8080:83/tcp"),
        ]
    ]


@pytest.mark.parametrize("listening", [True, False])
def test_a_port_that_a_program_has(host: Host, listening: bool):
    wanted = ("-p", "127.0.0.1:8080:80", "-p", "8080-8081:80")
    assert "is taken" not in said(look(host, *wanted), "ports", "error")
    with taken(host, "0.0.0.0", 8080, listening=listening):
        text = said(look(host, *wanted), "ports", "error")
        assert f"127.0.0.1:8080:80/tcp is taken by {Path('/proc/self/comm').read_text().strip()}, pid {os.getpid()}" in text
        assert "8080-8081:80/tcp is taken" not in text, "one of a range is enough"
    with taken(host, "::", 8080):
        assert "127.0.0.1:8080:80/tcp is taken" in said(look(host, *wanted), "ports", "error"), ":: is IPv4 too"


def test_a_port_that_a_container_has(host: Host):
    network(host, "demo")
    assert results(look(host, "-p", "8080:80"), "ports") == {"ok"}
    run(host, "web", "--network", "demo", "-p", "8080:80", *IDLE)
    text = said(look(host, "-p", "8080:80", "-p", "127.0.0.1:8080:81"), "ports", "error")
    assert "8080:80/tcp is taken by container web | choose another host port, or end container web" in text
    assert "127.0.0.1:8080:81/tcp is taken by container web" in text
    host.netplug("stop", "-t", "0", "web", check=True)
    assert results(look(host, "-p", "8080:80"), "ports") == {"ok"}
    with taken(host, "0.0.0.0", 8080):
        assert "container web does not run, and 8080:80/tcp is taken by" in said(look(host), "ports", "warning")


def test_an_address_that_is_not_this_hosts(idle: Host):
    wanted = ("-p", "192.0.2.9:8080:80", "-p", "[2001:db8::9]:8080:80", "-p", "127.0.0.1:8080:80")
    found = look_without(idle, *wanted)
    assert "192.0.2.9:8080:80/tcp cannot be held: 192.0.2.9 is not an address of this host | give an" in said(found, "ports", "error")
    assert "2001:db8::9 is not an address of this host" in said(found, "ports", "error")
    assert "127.0.0.1:8080:80/tcp is free" in said(found, "ports", "ok")
    idle.namespace.ip("address", "add", "192.0.2.9/32", "dev", "lo")
    idle.namespace.ip("address", "add", "2001:db8::9/128", "dev", "lo", "nodad")
    assert results(look_without(idle, *wanted), "ports") == {"ok"}


def test_a_port_of_sctp(idle: Host):
    """Free only where the kernel has the protocol."""
    found = look_without(idle, "-p", "8080:80/sctp")
    words = "8080:80/sctp is free" if parts()["sctp"] else "8080:80/sctp cannot be held: this host's kernel has no SCTP"
    assert words in said(found, "ports", "ok" if parts()["sctp"] else "error")


# A second daemon


def test_a_second_daemon(idle: Host):
    assert results(look_without(idle), "daemon") == {"ok"}
    idle.start()
    assert idle.daemon is not None
    pid = idle.daemon.pid
    assert said(look(idle), "daemon", "ok").startswith(f"pid {pid}, alone on its directories"), "the daemon itself is no other"
    text = said(look_without(idle), "daemon", "error")
    for what in (f"--run-dir {idle.run_directory}", f"--state-dir {idle.state_directory}", f"--socket {idle.socket}"):
        assert f"another daemon uses {what}: pid {pid}" in text
    idle.stop()
    assert results(look_without(idle), "daemon") == {"ok"}


def test_a_second_daemon_with_directories_of_its_own(idle: Host, tmp_path: Path):
    """Its start is refused in this network namespace, so preflight says so; as often as it is asked."""
    own = ("--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run"), "--config", str(tmp_path / "own.toml"))
    (tmp_path / "own.toml").write_text(f'socket = "{tmp_path}/own.sock"\n')
    assert results(look(idle, *own), "daemon") == {"ok"}
    idle.start()
    assert idle.daemon is not None
    for _ in range(4):
        text = said(look(idle, *own), "daemon", "error")
        assert f"another daemon has its links and rules in this network namespace: pid {idle.daemon.pid} | end that one" in text
    assert results(look(idle), "daemon") == {"ok"}, "the daemon itself is no other"
    idle.stop()
    assert results(look(idle, *own), "daemon") == {"ok"}


# Forwarding


def test_forwarding_that_somebody_switched_off(hosts: Callable[..., Host]):
    host = hosts("--no-heal")
    assert results(look(host), "forwarding") == {"ok"}
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    assert "somebody has switched net.ipv4.ip_forward off" in said(look(host), "forwarding", "error")


def test_forwarding_that_the_daemon_will_not_switch_on(idle: Host):
    assert "the daemon switches it on" in said(look_without(idle), "forwarding", "ok")
    config = idle.directory / "off.toml"
    config.write_text("ip_forward = false\n")
    found = look_without(idle, "--config", str(config), "--subnet", "fd11::/64")
    assert "sysctl -w net.ipv4.ip_forward=1" in said(found, "forwarding", "error")
    assert "sysctl -w net.ipv6.conf.all.forwarding=1" in said(found, "forwarding IPv6", "error")


def test_an_uplink_that_lives_on_router_advertisements(idle: Host):
    idle.namespace.ip("-6", "route", "replace", "default", "via", "fe80::1", "dev", "uplink")
    assert results(look_without(idle), "accept_ra") == set(), "a route that somebody wrote stays"
    idle.namespace.ip("-6", "route", "replace", "default", "via", "fe80::1", "dev", "uplink", "proto", "ra")
    text = said(look_without(idle), "accept_ra", "warning")
    assert "uplink has its IPv6 default route from router advertisements" in text
    assert text.endswith("sysctl -w net.ipv6.conf.uplink.accept_ra=2 before the first network with --ipv6")
    idle.run("sysctl", "-qw", "net.ipv6.conf.uplink.accept_ra=2")
    assert results(look_without(idle), "accept_ra") == {"ok"}


def test_strict_reverse_paths(host: Host):
    host.run("sysctl", "-qw", "net.ipv4.conf.uplink.rp_filter=1")
    assert results(look(host), "rp_filter") == {"ok"}, "with one way out, strict is fine"
    vpn(host, "0.0.0.0/1", "128.0.0.0/1")
    text = said(look(host), "rp_filter", "warning")
    assert "several ways out (tun0, uplink) and rp_filter=1 on uplink" in text
    assert text.endswith("sysctl -w net.ipv4.conf.uplink.rp_filter=2")


def test_br_netfilter_is_told(host: Host):
    for value, words in ((1, "pass other tools' FORWARD rules too"), (0, "passes our own rules only")):
        host.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-iptables={value}")
        assert f"bridge-nf-call-iptables is {value}: " in said(look(host), "br_netfilter", "ok")
        assert words in said(look(host), "br_netfilter", "ok")


# Firewalls


@pytest.mark.parametrize("program", ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"])
@pytest.mark.parametrize("drops", [("-P", "FORWARD", "DROP"), ("-A", "FORWARD", "-j", "REJECT")], ids=["by policy", "by a rule"])
def test_a_forward_chain_that_drops(idle: Host, program: str, drops: tuple[str, ...]):
    idle.run(program, "-A", "FORWARD", "-p", "tcp", "--dport", "25", "-j", "DROP")
    assert results(look_without(idle), "firewall") == {"ok"}, "what drops what it names is somebody's will"
    idle.run(program, *drops)
    family = "ip6" if program.startswith("ip6") else "ip"
    assert f"{family} filter FORWARD drops what nothing in it allows | nothing to do" in said(look_without(idle), "firewall", "warning")
    idle.run(program, "-I", "FORWARD", "-m", "mark", "--mark", "0x1000/0x1000", "-m", "comment", "--comment", "netplug", "-j", "ACCEPT")
    assert "a rule of ours there lets through what our own rules have accepted" in said(look_without(idle), "firewall", "ok")


@pytest.mark.parametrize(("priority", "words"), [(0, "nothing to do: the daemon puts a rule"), (-20, "before our rules can say")])
def test_a_table_of_the_admins_that_drops(idle: Host, priority: int, words: str):
    table = "add table inet admin; add chain inet admin judge {{ type filter hook forward priority {}; policy {}; }}"
    idle.run("nft", table.format(priority, "accept"))
    assert results(look_without(idle), "firewall") == {"ok"}
    idle.run("nft", table.format(priority, "drop"))
    text = said(look_without(idle), "firewall", "warning")
    assert "inet admin judge drops what nothing in it allows" in text
    assert words in text


def test_a_firewall_that_nobody_opens_for_us(hosts: Callable[..., Host]):
    """With --iptables=false the rules are the administrator's business, and he is told which."""
    host = hosts("--iptables=false")
    assert results(look(host), "firewall") == {"ok"}
    host.run("iptables", "-P", "FORWARD", "DROP")
    text = said(look(host), "firewall", "error")
    assert "ip filter FORWARD drops what nothing in it allows: containers have no way in or out, and --iptables=false leaves it so" in text
    assert text.endswith("allow there what comes from and goes to the networks' bridges")


# MTU


def test_an_mtu_above_the_way_out(host: Host):
    network(host, "before")
    assert results(look(host, "--mtu", "1500"), "mtu") == {"ok"}
    host.namespace.ip("link", "set", "uplink", "mtu", "1420")
    found = look(host, "--mtu", "1450")
    assert "an MTU of 1450 is above the 1420 of the way out, uplink" in said(found, "mtu", "warning")
    assert f"--opt {MTU}=1420" in said(found, "mtu", "warning")
    assert "network before's MTU of 1500 is above the 1420" in said(found, "mtu", "warning")
    warned = host.netplug("network", "create", "after")
    assert warned.returncode == 0
    assert "WARNING: network after's MTU of 1500 is above the 1420 of the way out, uplink" in warned.stderr
    assert "network after's MTU of 1500" in host.said(), "the log has it too"
    for quiet in (("--opt", f"{MTU}=1420", "fitting"), ("--internal", "inner")):
        assert host.netplug("network", "create", *quiet).stderr == ""


def test_a_bridge_that_takes_less_than_its_network(host: Host):
    host.namespace.ip("link", "add", "mine", "mtu", "1300", "type", "bridge")
    host.namespace.ip("link", "set", "mine", "up")
    made = host.netplug("network", "create", "--opt", "com.docker.network.bridge.name=mine", "--opt", f"{MTU}=1400", "demo")
    assert made.returncode == 0
    text = said(look(host), "mtu", "warning")
    assert "the bridge mine of network demo takes 1300, its containers send 1400" in text
    host.namespace.ip("link", "set", "mine", "mtu", "1400")
    assert "the bridge mine" not in said(look(host), "mtu", "warning")


# Source addresses


def test_a_source_address_that_is_not_this_hosts(host: Host):
    option = "com.docker.network.host_ipv4"
    warned = host.netplug("network", "create", "--opt", f"{option}=203.0.113.99", "foreign")
    assert warned.returncode == 0
    assert "WARNING: 203.0.113.99 is not an address of this host" in warned.stderr
    assert host.netplug("network", "create", "--opt", f"{option}={host.address}", "own").stderr == ""


# What the kernel and the machine have


def test_parts_of_the_kernel(idle: Host):
    """Each part that is missing is named, with what it is for; this machine's own is the example."""
    found = look_without(idle)
    here = parts()
    assert {here["veth"], here["bridge"], here["nftables inet"]} == {True}
    text = said(found, "kernel", "warning") + said(found, "kernel", "error")
    missing = {name for name in ("dummy", "ipvlan", "vlan", "macvlan", "vxlan", "sctp") if not here[name]}
    missing -= {"dummy"} if here["ifb"] else set()
    assert {line.split(" is missing")[0] for line in text.splitlines()} == missing
    assert results(found, "kernel") <= {"ok", "warning"}


def test_trying_the_kernel_leaves_nothing(idle: Host):
    before = idle.state()
    look_without(idle)
    assert idle.state() == before


def test_a_program_that_is_missing(idle: Host):
    assert results(look_without(idle), "programs") == {"ok"}
    config = idle.directory / "other.toml"
    config.write_text('runtime = "no-such-runtime"\n')
    text = said(look_without(idle, "--config", str(config)), "programs", "error")
    assert text == "no-such-runtime is not installed; it runs containers | install no-such-runtime"


def test_a_state_directory_without_room(idle: Host):
    assert results(look_without(idle), "directories") == {"ok"}
    command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(idle.state_directory))
    text = said(look_without(idle), "directories", "error")
    assert f"{idle.state_directory} has 4 MiB left" in text


def test_a_mount_namespace_of_its_own(idle: Host):
    places = ("--state-dir", str(idle.state_directory), "--run-dir", str(idle.run_directory))
    argv = idle.argv(sys.executable, "-m", "netplug.cli", "preflight", "--format", "json", *places)
    assert results(_findings(argv, idle), "directories") == {"ok"}
    text = said(_findings(["unshare", "--mount", "--propagation", "private", *argv], idle), "directories", "warning")
    assert f"{idle.run_directory} is seen from a mount namespace of its own" in text


# All together


@pytest.fixture
def dockerd(lan: Lan) -> Iterator[Dockerd]:
    """A real dockerd on a host of its own, with a container on the default bridge whose port 80 is published as 8080."""
    with contextlib.closing(Dockerd(lan)) as dockerd, contextlib.closing(dockerd.api):
        create_container(dockerd.api, "web", "bridge", ports={80: 8080}, command=["httpd", "-f"])
        dockerd.api.call("POST", "/containers/web/start")
        yield dockerd
        remove_container(dockerd.api, "web")


def test_a_host_with_a_vpn_dockerd_and_a_port_clash(idle: Host, dockerd: Dockerd):
    wanted = ("-p", "8080:80", "--subnet", "10.7.0.0/24", "--subnet", "172.17.0.0/16")
    before = look_without(idle, *wanted)
    assert {results(before, check) == {"ok"} for check in ("firewall", "pools", "ports", "mtu")} == {True}
    # The same daemon, about to be started where dockerd is.
    idle.namespace, own = dockerd.namespace, idle.namespace
    try:
        vpn(idle, "10.0.0.0/8", "0.0.0.0/1", "128.0.0.0/1")
        found = look_without(idle, *wanted)
    finally:
        idle.namespace = own
    assert "dockerd keeps rules on this host" in said(found, "firewall", "ok")
    assert "ip filter FORWARD drops what nothing in it allows | nothing to do: the daemon puts" in said(found, "firewall", "warning")
    assert "1 predefined pools are taken by 172.17.0.0/16 by docker0; next is 172.18.0.0/16" in said(found, "pools", "warning")
    assert "subnet 10.7.0.0/24 lies inside the host's route 10.0.0.0/8 by tun0" in said(found, "pools", "warning")
    assert "subnet 172.17.0.0/16 covers the host's route 172.17.0.0/16 by docker0" in said(found, "pools", "error")
    assert "8080:80/tcp is taken by docker-proxy, pid " in said(found, "ports", "error")
    assert "the default bridge's MTU of 1500 is above the 1420 of the way out, tun0" in said(found, "mtu", "warning")


def test_the_api(host: Host):
    assert host.api("GET", "/netplug/preflight")[0]["Check"] == "daemon"
    asked = host.api("POST", "/netplug/preflight", {"Subnets": ["10.7.0.0/24"], "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    assert {"subnet 10.7.0.0/24 is free", "8080:80/tcp is free"} <= {finding["Found"] for finding in asked}
    for wrong, words in (({"Subnets": ["nope"]}, "invalid subnet nope"), ({"Subnets": "nope"}, "invalid JSON")):
        with pytest.raises(ApiError, match=words) as refused:
            host.api("POST", "/netplug/preflight", wrong)
        assert refused.value.status == 400
