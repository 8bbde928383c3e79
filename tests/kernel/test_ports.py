"""Published ports with real containers and real packets: every form, who may have a number, what a choice is worth, and what is refused."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from collections.abc import Callable, Iterator

import pytest

from netplug.cli.demo_hosts import OUTSIDE_ADDRESS, OUTSIDE_ADDRESS6, Lan
from netplug.cli.demo_traffic import serving
from netplug.kernel.namespaces import open_socket
from tests.differences import differences
from tests.hosts import Host
from tests.kernel.conftest import both_backends
from tests.kernel.daily import IDLE, address, address6, ask, inspected, network, run, serve

ANY4, ANY6 = "0.0.0.0", "::"


def chosen(host: Host, name: str, port: str = "80/tcp") -> int:
    """The host port, which must be the same on all addresses."""
    numbers = {int(entry["HostPort"]) for entry in inspected(host, name)["Ports"][port]}
    assert len(numbers) == 1
    return numbers.pop()


def shown(host: Host, name: str, *port: str) -> list[str]:
    return host.netplug("port", name, *port).stdout.splitlines()


@contextlib.contextmanager
def taken(host: Host, port: int, host_address: str = ANY4, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[None]:
    """Another program on the host has it. OSError if it cannot."""
    family = socket.AF_INET6 if ":" in host_address else socket.AF_INET
    with open_socket(host.namespace.path, family, kind) as program:
        program.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            program.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        program.bind((host_address, port))
        if kind == socket.SOCK_STREAM:
            program.listen()
        yield


def is_free(host: Host, port: int, host_address: str = ANY4, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    try:
        with taken(host, port, host_address, kind):
            return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False


def refused(host: Host, *argv: str) -> str:
    """What is said when nothing but that happens: one line, and the host as before."""
    before = host.state()
    done = host.netplug(*argv)
    assert done.returncode in (1, 125), done
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("WARNING", "See "))]
    assert len([line for line in lines if line]) == 1, done.stderr
    for name in host.netplug("ps", "-a", "--filter", "status=created", "--format", "{{.Names}}").stdout.split():
        assert host.netplug("rm", name).returncode == 0
    assert list(differences(host.state(), before)) == []
    return str(lines[0])


@both_backends
def test_every_form(host: Host, lan: Lan):
    """One container on both IP versions, asked from outside by TCP and UDP."""
    network(host, "--ipv6", "demo")
    forms = [
        *("-p", "80", "-p", "8081:80", "-p", "8081:80/udp", "-p", f"{host.address}::80", "-p", f"{host.address}:8082:80"),
        *("-p", "8090-8099:80", "-p", f"[{host.address6}]:8083:80", "-p", "[::]:8084:80", "-p", "0.0.0.0:8085:80"),
        *("-p", "published=8086,target=80,protocol=tcp", "-p", "127.0.0.1:8087:80"),
    ]
    serve(host, "web", "--network", "demo", *forms)

    def reached(port: int, kind: str = "tcp") -> tuple[bool, bool]:
        """From outside, by IPv4 and by IPv6; who calls is seen as he is."""
        found = (ask(lan.outside.path, host.address, port, kind), ask(lan.outside.path, host.address6, port, kind))
        assert found[0] in ("", OUTSIDE_ADDRESS)
        assert found[1] in ("", OUTSIDE_ADDRESS6)
        return bool(found[0]), bool(found[1])

    lines = shown(host, "web", "80/tcp")
    for port in (8081, 8082, 8083, 8084, 8085, 8086):
        expected = (port not in (8083, 8084), port not in (8082, 8085))
        assert reached(port) == expected, port
    assert reached(8081, "udp") == (True, True)
    assert reached(8082, "udp") == (False, False)
    assert reached(8087) == (False, False)
    assert ask(host.namespace.path, "127.0.0.1", 8087) != ""
    for line in (f"{host.address}:8082", f"[{host.address6}]:8083", "[::]:8084", "0.0.0.0:8085", "0.0.0.0:8086", "[::]:8086"):
        assert line in lines
    ranged = [line for line in lines if ":809" in line]
    assert ranged == ["0.0.0.0:8090", "[::]:8090"]
    assert reached(8090) == (True, True)
    ephemeral = {int(line.rpartition(":")[2]) for line in lines} - {*range(8081, 8091)}
    assert len(ephemeral) == 2
    assert sorted(map(reached, ephemeral)) == [(True, False), (True, True)]
    # In its list it is as Docker's command has it: address by address, neighbours as one.
    assert "0.0.0.0:8085->80/tcp, 0.0.0.0:8086->80/tcp" in host.netplug("ps", "--format", "{{.Ports}}").stdout


@both_backends
def test_publish_all_takes_what_is_exposed(host: Host, lan: Lan):
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-P", "--expose", "80", "--expose", "7000-7002/udp", "-p", "9000:7001/udp")
    ports = inspected(host, "web")["Ports"]
    assert sorted(ports) == ["7000/udp", "7001/udp", "7002/udp", "80/tcp"]
    assert ports["7001/udp"] == [{"HostIp": "0.0.0.0", "HostPort": "9000"}]
    low, high = map(int, host.run("sysctl", "-n", "net.ipv4.ip_local_port_range").stdout.split())
    numbers = [chosen(host, "web", port) for port in ("80/tcp", "7000/udp", "7002/udp")]
    assert all(low <= number <= high for number in numbers)
    assert ask(lan.outside.path, host.address, numbers[0]) == OUTSIDE_ADDRESS


def test_numbers_of_our_choice(host: Host):
    """From the host's range less the reserved ones, in turn, past those that somebody has; one for both IP versions."""
    network(host, "--ipv6", "demo")
    host.run("sysctl", "-w", "net.ipv4.ip_local_port_range=40000 40004", "net.ipv4.ip_local_reserved_ports=40001")

    def start(name: str) -> int:
        run(host, name, "--network", "demo", "-p", "80", *IDLE)
        return chosen(host, name)

    with taken(host, 40002, ANY6):
        assert [start("one"), start("two")] == [40000, 40003]
    assert host.netplug("rm", "-f", "one").returncode == 0
    assert start("three") == 40004
    assert start("four") == 40000
    assert start("five") == 40002
    said = refused(host, "run", "-d", "--network", "demo", "-p", "80", *IDLE)
    assert "Bind for 80/tcp failed: all ports of the host's range for outgoing connections are allocated" in said


@both_backends
def test_a_chosen_number_stays_where_it_can(host: Host):
    """Over a restart of the container and of its connection, but it never becomes a demand."""
    network(host, "demo")
    run(host, "other", "--network", "demo", *IDLE)
    run(host, "web", "--network", "demo", "-p", "80", "-p", "8000-8005:81", *IDLE)
    first, second = chosen(host, "web"), chosen(host, "web", "81/tcp")
    for again in (("stop", "-t", "0"), ("start",)):
        assert host.netplug(*again, "web").returncode == 0
    assert (chosen(host, "web"), chosen(host, "web", "81/tcp")) == (first, second)
    for again in ("disconnect", "connect"):
        assert host.netplug("network", again, "demo", "web").returncode == 0
    assert (chosen(host, "web"), chosen(host, "web", "81/tcp")) == (first, second)
    host.restart()
    assert host.netplug("network", "disconnect", "demo", "web").returncode == 0
    with taken(host, first), taken(host, second):
        assert host.netplug("network", "connect", "demo", "web").returncode == 0
        assert chosen(host, "web") != first
        assert chosen(host, "web", "81/tcp") in range(8001, 8006)
    asked = host.container("web")["HostConfig"]["PortBindings"]
    assert asked == {"80/tcp": [{"HostIp": "", "HostPort": ""}], "81/tcp": [{"HostIp": "", "HostPort": "8000-8005"}]}


def test_a_published_port_is_held(host: Host):
    network(host, "--ipv6", "demo")
    run(host, "web", "--network", "demo", "-p", "8080:80", "-p", "127.0.0.1:8081:81", "-p", "8082:82/udp", *IDLE)
    for where in (ANY4, "127.0.0.1", host.address, ANY6, "::1", host.address6):
        assert not is_free(host, 8080, where)
        assert is_free(host, 8080, where, socket.SOCK_DGRAM)
        assert not is_free(host, 8082, where, socket.SOCK_DGRAM)
        assert is_free(host, 8082, where)
    assert not is_free(host, 8081)
    assert is_free(host, 8081, host.address)
    assert is_free(host, 8081, ANY6)
    assert host.netplug("rm", "-f", "web").returncode == 0
    for where in (ANY4, ANY6):
        assert is_free(host, 8080, where)
        assert is_free(host, 8082, where, socket.SOCK_DGRAM)


def test_overlapping_forms_are_refused_with_both_named(host: Host):
    network(host, "--ipv6", "demo")
    run(host, "first", "--network", "demo", "-p", "8080:80", "-p", "127.0.0.1:9090:80", *IDLE)

    def said(*published: str) -> str:
        flags = [flag for one in published for flag in ("-p", one)]
        return refused(host, "run", "-d", "--name", "second", "--network", "demo", *flags, *IDLE)

    endpoint = "driver failed programming external connectivity on endpoint second ("
    for form, where in (("127.0.0.1:8080:80", "127.0.0.1:8080"), ("[::1]:8080:80", "[::1]:8080"), ("9090:80", "0.0.0.0:9090")):
        text = said(form)
        assert endpoint in text
        assert f"Bind for {where} failed: port is already allocated (by container first)" in text
    text = said("7000:80", "127.0.0.1:7000:81")
    assert endpoint in text
    assert "Bind for 127.0.0.1:7000 failed: port is already allocated (by 0.0.0.0:7000->80/tcp of the same container)" in text
    text = said("7000-7010:7000-7010", "7005:80")
    assert "Bind for 0.0.0.0:7005 failed: port is already allocated (by 0.0.0.0:7000-7010->7000-7010/tcp of the same container)" in text
    run(host, "third", "--network", "demo", "-p", "8080:80/udp", "-p", "127.0.0.2:9090:80", "-p", "[::]:9090:80", *IDLE)


def test_a_dry_run_notices_a_port_that_is_taken(host: Host):
    network(host, "demo")
    run(host, "first", "--network", "demo", "-p", "8080:80", *IDLE)
    run(host, "second", "--network", "none", *IDLE)
    by_first = "Bind for 0.0.0.0:8080 failed: port is already allocated (by container first)"
    assert by_first in refused(host, "run", "--dry-run", "-d", "--network", "demo", "-p", "8080:80", *IDLE)
    run(host, "third", "--network", "demo", "-p", "8081:80", "-p", "81", *IDLE)
    assert host.netplug("network", "disconnect", "demo", "third").returncode == 0
    with taken(host, 8081):
        said = refused(host, "network", "connect", "--dry-run", "demo", "third")
        assert "Bind for 0.0.0.0:8081 failed: address already in use on the host (by " in said
    planned = host.netplug("network", "connect", "--dry-run", "demo", "third")
    assert planned.returncode == 0
    assert "8081" in planned.stdout
    assert is_free(host, 8081)


@pytest.mark.parametrize(
    ("published", "sentence"),
    [
        ("198.51.100.77:8080:80", "Bind for 198.51.100.77:8080 failed: Cannot assign requested address (is 198.51.100.77 an address of"),
        ("[2001:db8:51::77]:8080:80", "Bind for [2001:db8:51::77]:8080 failed: Cannot assign requested address"),
        ("fe80::1%uplink:8080:80", "invalid IP address: fe80::1%uplink"),
        ("1.2.3:8080:80", "invalid IP address: 1.2.3"),
        ("8080:80/icmp", "invalid proto: icmp"),
        ("8080:0", "Invalid port: 0/tcp"),
        ("0-5:80", "invalid hostPort: 0-5"),
        ("70000:80", "invalid hostPort: 70000"),
        ("8000-8005:80-84", "invalid ranges specified for container and host Ports: 80-84 and 8000-8005"),
        ("target=80,colour=red", "invalid field key colour"),
    ],
)
def test_bad_input(host: Host, published: str, sentence: str):
    assert sentence in refused(host, "run", "-d", "-p", published, *IDLE)


def test_sctp_as_far_as_the_kernel_has_it(host: Host):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        said = refused(host, "run", "-d", "-p", "8080:80/sctp", *IDLE)
        assert "Bind for 0.0.0.0:8080 failed: this host's kernel has no SCTP" in said
    else:
        run(host, "web", "-p", "8080:80/sctp", *IDLE)
        assert shown(host, "web") == ["80/sctp -> 0.0.0.0:8080"]


@both_backends
def test_who_calls_is_seen_as_he_is(host: Host, lan: Lan):
    """From outside and from other networks, in both IP versions; a neighbour on the same network comes by way of the gateway."""
    for name in ("demo", "other"):
        network(host, "--ipv6", name)
    serve(host, "web", "--network", "demo", "-p", "8080:80", "-p", "8080:80/udp")
    run(host, "far", "--network", "other", *IDLE)
    run(host, "near", "--network", "demo", *IDLE)
    gateways = {pool["Gateway"] for pool in host.api("GET", "/networks/demo")["IPAM"]["Config"]}
    for kind in ("tcp", "udp"):
        assert ask(lan.outside.path, host.address, 8080, kind) == OUTSIDE_ADDRESS
        assert ask(lan.outside.path, host.address6, 8080, kind) == OUTSIDE_ADDRESS6
        assert ask(host.sandbox("far"), host.address, 8080, kind) == address(host, "far", "other")
        assert ask(host.sandbox("far"), host.address6, 8080, kind) == address6(host, "far", "other")
        for target in (host.address, host.address6):
            assert ask(host.sandbox("near"), target, 8080, kind) in gateways


@both_backends
def test_routed_ports_take_none_of_the_host(host: Host, lan: Lan):
    mode = "com.docker.network.bridge.gateway_mode_ipv6=routed"
    network(host, "--ipv6", "--opt", mode, "demo")
    with taken(host, 8080, ANY6):
        serve(host, "web", "--network", "demo", "-p", "8080:80", "-p", "[::1]:8081:81")
        assert inspected(host, "web")["Ports"] == {
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": ""}],
            "81/tcp": None,
        }
    own = address6(host, "web")
    lan.outside.ip("route", "add", f"{own}/128", "via", host.address6)
    assert ask(lan.outside.path, own, 80) == OUTSIDE_ADDRESS6
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    assert is_free(host, 8080, ANY6)
    assert not is_free(host, 8080)


@both_backends
def test_each_ip_version_is_published_where_its_replies_leave(host: Host, lan: Lan):
    """A network for IPv4 and another for IPv6: the second brings its ports, and takes them along when it goes."""
    network(host, "four")
    network(host, "--ipv6", "--ipv4=false", "six")
    serve(host, "web", "--network", "four", "-p", "8080:80", "-p", "81")
    ephemeral = chosen(host, "web", "81/tcp")
    assert shown(host, "web", "80/tcp") == ["0.0.0.0:8080"]
    assert host.netplug("network", "connect", "six", "web").returncode == 0
    assert shown(host, "web", "80/tcp") == ["0.0.0.0:8080", "[::]:8080"]
    assert chosen(host, "web", "81/tcp") == ephemeral
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    assert ask(lan.outside.path, host.address6, 8080) == OUTSIDE_ADDRESS6
    assert ask(host.namespace.path, "::1", 8080) != ""
    assert not is_free(host, 8080, ANY6)

    assert host.netplug("network", "disconnect", "four", "web").returncode == 0
    assert shown(host, "web", "80/tcp") == ["[::]:8080"]
    assert ask(lan.outside.path, host.address, 8080) == ""
    assert ask(lan.outside.path, host.address6, 8080) == OUTSIDE_ADDRESS6
    assert is_free(host, 8080)

    assert host.netplug("network", "connect", "four", "web").returncode == 0
    assert host.netplug("network", "disconnect", "six", "web").returncode == 0
    assert shown(host, "web", "80/tcp") == ["0.0.0.0:8080"]
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS


def test_a_port_that_cannot_come_along_is_told_of(host: Host):
    """A network for IPv6 is joined while somebody has the port there: refused, and nothing changes."""
    network(host, "four")
    network(host, "--ipv6", "--ipv4=false", "six")
    run(host, "web", "--network", "four", "-p", "8080:80", *IDLE)
    with taken(host, 8080, ANY6):
        said = refused(host, "network", "connect", "six", "web")
        assert "Bind for [::]:8080 failed: address already in use on the host (by " in said
        assert shown(host, "web") == ["80/tcp -> 0.0.0.0:8080"]
    assert not is_free(host, 8080)


@both_backends
def test_datagrams_follow_a_replaced_container_at_once(host: Host, lan: Lan):
    """A client that keeps one source port: each IP version has a tracked flow to the old container."""
    network(host, "--ipv6", "demo")
    with contextlib.ExitStack() as stack:
        clients = []
        for target, here in ((host.address, socket.AF_INET), (host.address6, socket.AF_INET6)):
            client = stack.enter_context(open_socket(lan.outside.path, here, socket.SOCK_DGRAM))
            client.settimeout(1)
            client.connect((target, 5353))
            clients.append(client)
        for number in range(3):
            run(host, "dns", "--network", "demo", "-p", "5353:53/udp", *IDLE)
            server = stack.enter_context(open_socket(host.sandbox("dns"), socket.AF_INET6, socket.SOCK_DGRAM))
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.bind(("::", 53))
            server.settimeout(1)
            for client in clients:
                client.send(b"question %d" % number)
                question, peer = server.recvfrom(100)
                assert question == b"question %d" % number
                server.sendto(b"answer", peer)
                assert client.recv(100) == b"answer"
            server.close()
            # Sent in vain, also to nobody: the flow that it makes must not be what the next container's datagrams go by.
            assert host.netplug("rm", "-f", "dns").returncode == 0
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"lost")
                    client.recv(100)


@both_backends
def test_only_flows_by_the_removed_port_are_forgotten(host: Host, lan: Lan):
    """Other containers' connections to the same number elsewhere go on."""
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    run(host, "client", "--network", "demo", *IDLE)
    with (
        serving(lan.outside, 8080),
        open_socket(lan.outside.path, socket.AF_INET, socket.SOCK_STREAM) as inwards,
        open_socket(host.sandbox("client"), socket.AF_INET, socket.SOCK_STREAM) as outwards,
    ):
        for client, target in ((inwards, host.address), (outwards, OUTSIDE_ADDRESS)):
            client.settimeout(1)
            client.connect((target, 8080))
            client.recv(100)
        assert tracked(host, 8080) == 2
        assert host.netplug("rm", "-f", "web").returncode == 0
        assert tracked(host, 8080) == 1
        # A reply finds its way to the container only by what is tracked.
        outwards.send(b"still there?")
        assert outwards.recv(100) == b"still there?"


def tracked(host: Host, port: int) -> int:
    listed = host.run("conntrack", "-L", "-p", "tcp", "--orig-port-dst", str(port)).stdout.splitlines()
    return len([line for line in listed if "ESTABLISHED" in line])


@both_backends
def test_ports_are_held_again_after_the_daemon_died(host: Host, lan: Lan):
    network(host, "--ipv6", "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80", "-p", "80", "-p", "5353:53/udp")
    before, ephemeral = shown(host, "web"), {int(line.rpartition(":")[2]) for line in shown(host, "web", "80/tcp")} - {8080}
    host.kill9()
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    host.start()
    assert shown(host, "web") == before
    for port in (8080, *ephemeral):
        for where in (ANY4, ANY6):
            assert not is_free(host, port, where)
    assert not is_free(host, 5353, ANY6, socket.SOCK_DGRAM)
    assert ask(lan.outside.path, host.address6, 8080) == OUTSIDE_ADDRESS6


@both_backends
def test_a_port_that_was_taken_meanwhile_still_leads_there(host: Host, lan: Lan):
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    host.kill9()
    with taken(host, 8080):
        host.start()
        assert "a port of web cannot be held (it still leads there): Bind for 0.0.0.0:8080 failed" in host.said()
        assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    assert host.netplug("rm", "-f", "web").returncode == 0
    assert is_free(host, 8080)


def test_a_server_that_has_just_stopped_leaves_its_port(host: Host, lan: Lan):
    """Its finished connections (TIME_WAIT) do not stand in the way."""
    network(host, "demo")
    with open_socket(host.namespace.path, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ANY4, 8080))
        server.listen()
        with open_socket(lan.outside.path, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect((host.address, 8080))
            server.accept()[0].close()
            assert client.recv(1) == b""
    assert "TIME-WAIT" in host.run("ss", "-Htan", "sport", "=", ":8080").stdout
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    assert not is_free(host, 8080)
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS


@both_backends
def test_the_address_that_a_network_publishes_on(hosts: Callable[..., Host], lan: Lan):
    host = hosts("--ip", "127.0.0.1")
    network(host, "--ipv6", "--opt", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    serve(host, "default", "-p", "8081:80", "-p", "8082:80/udp")
    assert shown(host, "web") == ["80/tcp -> 127.0.0.1:8080"]
    assert shown(host, "default") == ["80/tcp -> 127.0.0.1:8081", "80/udp -> 127.0.0.1:8082"]
    for port in (8080, 8081):
        assert ask(host.namespace.path, "127.0.0.1", port) != ""
        assert ask(lan.outside.path, host.address, port) == ""
        assert ask(lan.outside.path, host.address6, port) == ""
    listed = json.loads(host.netplug("ps", "--filter", "name=default", "--format", "json").stdout)
    assert listed["Ports"] == "127.0.0.1:8081->80/tcp, 127.0.0.1:8082->80/udp"


@both_backends
def test_a_port_follows_the_gateway_to_another_host_address(host: Host, lan: Lan):
    """There and back, by connecting and by disconnecting; also where the container starts with both networks."""
    network(host, "--opt", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "narrow")
    network(host, "any")
    serve(host, "web", "--network", "narrow", "-p", "8080:80", "-p", "90-95:90-95/udp")
    assert shown(host, "web")[0] == "80/tcp -> 127.0.0.1:8080"
    assert ask(lan.outside.path, host.address, 8080) == ""
    host.netplug("network", "connect", "any", "web", check=True)
    assert shown(host, "web")[0] == "80/tcp -> 0.0.0.0:8080"
    assert len(shown(host, "web")) == 7
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    assert not is_free(host, 8080)
    host.netplug("network", "disconnect", "any", "web", check=True)
    assert shown(host, "web")[0] == "80/tcp -> 127.0.0.1:8080"
    assert ask(lan.outside.path, host.address, 8080) == ""
    run(host, "two", "--network", "narrow", "--network", "any", "-p", "8081:80", *IDLE)
    assert shown(host, "two") == ["80/tcp -> 0.0.0.0:8081"]
    host.netplug("network", "disconnect", "any", "two", check=True)
    assert shown(host, "two") == ["80/tcp -> 127.0.0.1:8081"]
    assert host.said().count("is not published any more") == 0


@pytest.fixture
def legacy(hosts: Callable[..., Host]) -> Host:
    """A host whose own rule is in a legacy table, so that the daemon's are there too."""
    host = hosts()
    host.stop()
    host.run("iptables-legacy", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
    host.flags = (*host.flags, "--firewall-backend", "iptables")
    host.start()
    return host


CENTRAL = (
    test_every_form,
    test_who_calls_is_seen_as_he_is,
    test_datagrams_follow_a_replaced_container_at_once,
    test_ports_are_held_again_after_the_daemon_died,
)


@pytest.mark.parametrize("test", CENTRAL, ids=lambda test: test.__name__)
def test_ports_by_legacy_tables(legacy: Host, lan: Lan, test: Callable[[Host, Lan], None]):
    """What is true of ports is true there as well."""
    test(legacy, lan)
    rules = [legacy.run(f"{program}-legacy-save", "-t", "nat").stdout for program in ("iptables", "ip6tables")]
    assert all(":NETPLUG " in text and "-j MASQUERADE" in text for text in rules), rules
    assert "dnat" not in legacy.run("nft", "list", "ruleset").stdout
