"""Names and addresses of both IP versions as containers and users see them: files in /etc, 127.0.0.11, inspect, the docker command."""

from __future__ import annotations

import ipaddress
import os
import shutil
from collections.abc import Callable

import dnslib
import pytest

from tests.hosts import OUTSIDE_ADDRESS, Host, Lan, command
from tests.kernel.daily import IDLE, network, run
from tests.kernel.test_names import Upstream, found, lookup, shown

DOCKER = next((path for path in ("/usr/local/bin/docker", "/usr/bin/docker") if os.access(path, os.X_OK)), shutil.which("docker"))


def address6(host: Host, name: str, network_name: str = "demo") -> str:
    return str(host.container(name)["NetworkSettings"]["Networks"][network_name]["GlobalIPv6Address"])


def dual(host: Host, name: str = "demo", number: int = 70, *flags: str) -> None:
    network(host, "--ipv6", "--subnet", f"10.{number}.0.0/24", "--subnet", f"fd00:{number}::/64", *flags, name)


def six(host: Host, name: str = "six", number: int = 71, *flags: str) -> None:
    network(host, "--ipv6", "--ipv4=false", "--subnet", f"fd00:{number}::/64", *flags, name)


# The files


def test_hosts_has_a_line_for_each_address(host: Host):
    dual(host)
    six(host)
    run(host, "web", "--network", "demo", "--hostname", "web", *IDLE)
    own, own6 = host.container_address("web", "demo"), address6(host, "web")
    assert shown(host, "web", "hosts").splitlines()[-2:] == [f"{own}\tweb", f"{own6}\tweb"]
    assert "::1\tlocalhost ip6-localhost ip6-loopback\n" in shown(host, "web", "hosts")
    assert host.netplug("network", "connect", "six", "web").returncode == 0
    assert shown(host, "web", "hosts").splitlines()[-1] == f"{address6(host, 'web', 'six')}\tweb"
    assert host.netplug("network", "disconnect", "six", "web").returncode == 0
    assert shown(host, "web", "hosts").splitlines()[-2:] == [f"{own}\tweb", f"{own6}\tweb"]


def test_hosts_of_a_container_that_wants_no_ipv6(host: Host):
    network(host, "--subnet", "10.72.0.0/24", "demo")
    off = ("--sysctl", "net.ipv6.conf.all.disable_ipv6=1", "--add-host", "db:2001:db8::1", "--add-host", "db:192.0.2.1")
    run(host, "web", "--network", "demo", "--hostname", "web", *off, *IDLE)
    own = host.container_address("web", "demo")
    assert shown(host, "web", "hosts") == f"127.0.0.1\tlocalhost\n192.0.2.1\tdb\n{own}\tweb\n"


def test_the_default_bridge_with_ipv6(hosts: Callable[..., Host]):
    """What the daemon's flags make of it, the servers that its containers get, `host-gateway`, and links."""
    text = "nameserver 2001:db8:53::1\nnameserver 203.0.113.1\nnameserver ::1\n"
    host = hosts("--ipv6", "--bip6", "fd00:73::9/64", "--fixed-cidr-v6", "fd00:73::100/120", resolv_conf=text)
    bridge = host.api("GET", "/networks/bridge")
    assert (bridge["EnableIPv4"], bridge["EnableIPv6"]) == (True, True)
    gateway, pool6 = bridge["IPAM"]["Config"][0]["Gateway"], bridge["IPAM"]["Config"][1]
    assert pool6 == {"Subnet": "fd00:73::/64", "IPRange": "fd00:73::100/120", "Gateway": "fd00:73::9"}

    run(host, "db", "--expose", "5432", *IDLE)
    db, db6, short = host.container_address("db", "bridge"), address6(host, "db", "bridge"), host.container("db")["Id"][:12]
    assert db6.startswith("fd00:73::1")
    run(host, "web", "--link", "db:data", "--add-host", "gate:host-gateway", *IDLE)
    lines = shown(host, "web", "hosts").splitlines()
    assert [line for line in lines if line.endswith("gate")] == [f"{gateway}\tgate", "fd00:73::9\tgate"]
    assert [line for line in lines if "data" in line] == [f"{db}\tdata {short} db", f"{db6}\tdata {short} db"]
    assert f"DATA_PORT_5432_TCP_ADDR={db}\n" in host.netplug("exec", "web", "env").stdout
    assert shown(host, "web", "resolv.conf") == "nameserver 2001:db8:53::1\nnameserver 203.0.113.1\n"
    settings = host.container("web")["NetworkSettings"]
    assert (settings["GlobalIPv6Address"], settings["GlobalIPv6PrefixLen"], settings["IPv6Gateway"]) == (
        address6(host, "web", "bridge"),
        64,
        "fd00:73::9",
    )


def test_the_default_bridge_gets_ipv6_with_the_next_start(hosts: Callable[..., Host]):
    """Its containers are what keeps it as it is; without any it is made anew. Without --ipv6, IPv6 servers are no use to a container."""
    host = hosts(resolv_conf="nameserver 2001:db8:53::1\n")
    run(host, "old", *IDLE)
    assert (address6(host, "old", "bridge"), shown(host, "old", "resolv.conf")) == ("", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n")
    host.restart("--ipv6")
    assert not host.api("GET", "/networks/bridge")["EnableIPv6"]
    assert host.netplug("rm", "-f", "old").returncode == 0
    host.restart("--ipv6")
    run(host, "new", *IDLE)
    assert address6(host, "new", "bridge").startswith("fd")
    assert shown(host, "new", "resolv.conf") == "nameserver 2001:db8:53::1\n"


def test_a_link_on_a_network_without_ipv4(host: Host):
    six(host)
    run(host, "db", "--network", "six", *IDLE)
    run(host, "web", "--network", "six", "--link", "db:data", *IDLE)
    lines = shown(host, "web", "hosts").splitlines()
    assert [line.split("\t")[0] for line in lines if "data" in line] == [address6(host, "db", "six")]


# What 127.0.0.11 answers


def test_names_of_both_ip_versions(hosts: Callable[..., Host], lan: Lan):
    """A name that is known without an address of the version asked for is an empty answer, and nobody else is asked."""
    host = hosts(resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n")
    dual(host)
    six(host)
    network(host, "--subnet", "10.74.0.0/24", "four")
    run(host, "web", "--network", "name=demo,ip=10.70.0.9,ip6=fd00:70::9,alias=www", *IDLE)
    run(host, "client", "--network", "demo", "--network", "six", "--network", "four", *IDLE)
    run(host, "only6", "--network", "name=six,ip6=fd00:71::9", *IDLE)
    run(host, "only4", "--network", "name=four,ip=10.74.0.9", *IDLE)
    with Upstream(lan.outside.path, OUTSIDE_ADDRESS, "192.0.2.1") as upstream:
        for name in ("web", "www", "web.demo", "WEB"):
            assert (found(host, "client", name), found(host, "client", name, "AAAA")) == (["10.70.0.9"], ["fd00:70::9"])
        assert sorted(found(host, "client", "web", "ANY")) == ["10.70.0.9", "fd00:70::9"]
        assert found(host, "client", "only6", "AAAA") == ["fd00:71::9"]
        for name, kind in (("only6", "A"), ("only6.six", "A"), ("only4", "AAAA"), ("only4.four", "AAAA")):
            answer = lookup(host, "client", name, kind)
            assert (answer.header.rcode, answer.rr) == (dnslib.RCODE.NOERROR, []), (name, kind)
        assert found(host, "client", reverse("fd00:70::9"), "PTR") == ["web.demo."]
        assert found(host, "client", reverse("fd00:71::9"), "PTR") == ["only6.six."]
        service = lookup(host, "client", "_8080._tcp.web", "SRV")
        assert sorted(str(record.rdata) for record in service.ar) == ["10.70.0.9", "fd00:70::9"]
        service = lookup(host, "client", "_8080._tcp.only6", "SRV")
        assert [(str(record.rname), str(record.rdata)) for record in service.ar] == [("only6.", "fd00:71::9")]
        assert upstream.asked == []
        assert host.netplug("network", "disconnect", "six", "only6").returncode == 0
        assert (found(host, "client", "only6", "AAAA"), len(upstream.asked)) == ([], 1)


def reverse(address: str) -> str:
    """The name that a reverse lookup of an IPv6 address asks for."""
    return ipaddress.IPv6Address(address).reverse_pointer


def test_a_container_without_ipv4(hosts: Callable[..., Host], lan: Lan):
    """127.0.0.11 is there all the same: names of neighbours lead to them, and names of others are asked for by the host."""
    host = hosts(resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n")
    six(host)
    for name in ("web", "client"):
        run(host, name, "--network", "six", *IDLE)
    expected = address6(host, "web", "six")
    assert shown(host, "client", "resolv.conf") == "nameserver 127.0.0.11\noptions ndots:0\n"
    assert found(host, "client", "web", "AAAA") == [expected]
    assert host.netplug("exec", "client", "getent", "ahostsv6", "web").stdout.split()[0] == expected
    assert host.netplug("exec", "client", "ping", "-6", "-c1", "-W2", "web").returncode == 0
    with Upstream(lan.outside.path, OUTSIDE_ADDRESS, "192.0.2.1"):
        assert found(host, "client", "www.example.org") == ["192.0.2.1"]


def test_names_go_on_after_a_restart_of_the_daemon(host: Host):
    dual(host)
    for name in ("web", "client"):
        run(host, name, "--network", "demo", *IDLE)
    expected = [address6(host, "web")]
    host.kill9()
    host.start()
    assert found(host, "client", "web", "AAAA") == expected
    assert [address6(host, "web")] == expected
    run(host, "new", "--network", "demo", *IDLE)
    assert found(host, "client", "new", "AAAA") == [address6(host, "new")]


def test_the_host_s_server_has_an_ipv6_address(hosts: Callable[..., Host], lan: Lan):
    host = hosts(resolv_conf="nameserver 2001:db8:53::1\n")
    lan.outside.ip("address", "add", "2001:db8:53::1/64", "dev", "uplink", "nodad")
    host.namespace.ip("address", "add", "2001:db8:53::11/64", "dev", "uplink", "nodad")
    network(host, "--subnet", "10.75.0.0/24", "four")
    run(host, "client", "--network", "four", *IDLE)
    with Upstream(lan.outside.path, "2001:db8:53::1", "192.0.2.1") as upstream:
        assert found(host, "client", "www.example.org") == ["192.0.2.1"]
        assert upstream.asked == [("www.example.org", "2001:db8:53::11")]


@pytest.mark.parametrize("ipv4", [True, False])
def test_a_server_of_dns_has_an_ipv6_address(host: Host, ipv4: bool):
    """It is asked from the container, by IPv6, whether the container has IPv4 or not."""
    dual(host) if ipv4 else six(host, "demo", 70)
    run(host, "server", "--network", "demo", "--ip6", "fd00:70::53", *IDLE)
    run(host, "client", "--network", "demo", "--dns", "fd00:70::53", *IDLE)
    assert shown(host, "client", "resolv.conf") == "nameserver 127.0.0.11\noptions ndots:0\n"
    with Upstream(host.sandbox("server"), "fd00:70::53", "192.0.2.1") as upstream:
        assert found(host, "client", "www.example.org") == ["192.0.2.1"]
        assert upstream.asked == [("www.example.org", address6(host, "client"))]


# What users see


def test_inspect_ls_and_ipam(host: Host):
    dual(host, "demo", 70, "--gateway", "fd00:70::fe", "--aux-address", "router=fd00:70::2")
    run(host, "web", "--network", "demo", "--ip6", "fd00:70::9", *IDLE)
    web = host.container("web")
    settings = web["NetworkSettings"]["Networks"]["demo"]
    assert (settings["IPAMConfig"], settings["GlobalIPv6Address"], settings["GlobalIPv6PrefixLen"], settings["IPv6Gateway"]) == (
        {"IPv6Address": "fd00:70::9"},
        "fd00:70::9",
        64,
        "fd00:70::fe",
    )
    inspected = host.api("GET", "/networks/demo")
    assert inspected["IPAM"]["Config"][1] == {
        "Subnet": "fd00:70::/64",
        "Gateway": "fd00:70::fe",
        "AuxiliaryAddresses": {"router": "fd00:70::2"},
    }
    member = inspected["Containers"][web["Id"]]
    assert (member["IPv4Address"], member["IPv6Address"]) == (f"{settings['IPAddress']}/24", "fd00:70::9/64")
    assert host.netplug("network", "ls", "-f", "name=demo", "--format", "{{.Name}} {{.IPv4}} {{.IPv6}}").stdout == "demo true true\n"

    drawn = host.netplug("ipam", "show", "demo").stdout
    pools = drawn.split("10.70.0.0/24")[1].split("fd00:70::/64")
    assert (settings["IPAddress"] in pools[0], "fd00:" in pools[0]) == (True, False)
    lines = [line.split()[:3] for line in pools[1].splitlines() if line.strip().startswith("fd00:")]
    assert lines == [["fd00:70::2", "reserved", "router"], ["fd00:70::9", "container", "web"], ["fd00:70::fe", "gateway", "demo"]]
    assert "1 of about 2^64 in use (under 0.1 %)" in pools[1]


def test_ports_of_both_ip_versions_are_shown(host: Host):
    dual(host)
    run(host, "web", "--network", "demo", "-p", "8080:80", "-p", "[::1]:8081:81", "-p", "127.0.0.1:8082:82", *IDLE)
    shown_ports = "127.0.0.1:8082->82/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, [::1]:8081->81/tcp"
    assert sorted(host.netplug("ps", "--format", "{{.Ports}}").stdout.strip().split(", ")) == sorted(shown_ports.split(", "))
    assert host.netplug("port", "web", "80").stdout.splitlines() == ["0.0.0.0:8080", "[::]:8080"]
    assert host.container("web")["NetworkSettings"]["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "81/tcp": [{"HostIp": "::1", "HostPort": "8081"}],
        "82/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8082"}],
    }
    assert host.container("web")["HostConfig"]["PortBindings"]["80/tcp"] == [{"HostIp": "", "HostPort": "8080"}]


def test_settings_stay_with_a_container_that_starts_again(host: Host):
    """An address of the user's choice, given at creation or by connect, is the same after a stop and a start."""
    dual(host)
    six(host)
    run(host, "web", "--network", "demo", "--ip6", "fd00:70::9", *IDLE)
    assert host.netplug("network", "connect", "--ip6", "fd00:71::9", "six", "web").returncode == 0
    assert host.netplug("stop", "-t", "0", "web").returncode == 0
    run(host, "other", "--network", "demo", *IDLE)
    assert host.netplug("start", "web").returncode == 0
    assert (address6(host, "web"), address6(host, "web", "six")) == ("fd00:70::9", "fd00:71::9")


def test_new_networks_take_the_daemon_s_options(hosts: Callable[..., Host]):
    host = hosts("--default-network-opt", "bridge=com.docker.network.enable_ipv6=true", "--default-network-opt", "bridge=x=y")
    network(host, "demo")
    network(host, "--ipv6=false", "plain")
    assert host.api("GET", "/networks/demo")["EnableIPv6"]
    plain = host.api("GET", "/networks/plain")
    assert (plain["EnableIPv6"], plain["Options"]) == (False, {"x": "y"})


def test_prefixes_of_our_own_stay_the_same(hosts: Callable[..., Host]):
    """Unique local prefixes (RFC 4193) come of an id that is made once for a state directory, so that no two hosts have the same."""
    host = hosts()
    network(host, "--ipv6", "one")
    first = host.api("GET", "/networks/one")["IPAM"]["Config"][1]["Subnet"]
    assert host.netplug("network", "rm", "one").returncode == 0
    host.restart()
    network(host, "--ipv6", "one")
    assert host.api("GET", "/networks/one")["IPAM"]["Config"][1]["Subnet"] == first
    other = hosts()
    network(other, "--ipv6", "one")
    assert other.api("GET", "/networks/one")["IPAM"]["Config"][1]["Subnet"][:14] != first[:14]


@pytest.mark.skipif(not DOCKER, reason="there is no docker command here")
def test_the_docker_command(host: Host):
    def docker(*arguments: str) -> str:
        assert DOCKER
        return command(DOCKER, "-H", f"unix://{host.socket}", *arguments, env={"HOME": str(host.directory), "PATH": os.defpath}).stdout

    docker("network", "create", "--ipv6", "--subnet", "10.76.0.0/24", "--subnet", "fd00:76::/64", "--gateway", "fd00:76::1", "demo")
    docker("run", "-d", "--name", "web", "--network", "demo", "--ip6", "fd00:76::9", *IDLE)
    docker("run", "-d", "--name", "client", "--network", "demo", *IDLE)
    format6 = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} via {{.IPv6Gateway}}{{end}}"
    assert docker("inspect", "-f", format6, "web") == "fd00:76::9/64 via fd00:76::1\n"
    assert docker("network", "inspect", "-f", "{{.EnableIPv6}} {{(index .IPAM.Config 1).Subnet}}", "demo") == "true fd00:76::/64\n"
    assert "1 received" in docker("exec", "client", "ping", "-6", "-c1", "web")
    docker("network", "create", "--ipv6", "auto")
    docker("network", "connect", "auto", "web")
    assert docker("inspect", "-f", "{{.NetworkSettings.Networks.auto.GlobalIPv6Address}}", "web").startswith("fd")
