"""Ten thousand ports of one container: one record, one element of the firewall, no process of their own, and every one of them held."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from collections.abc import Callable, Iterator

import pytest

from netplug.cli.demo_hosts import OUTSIDE_ADDRESS, OUTSIDE_ADDRESS6, Lan
from netplug.kernel.namespaces import open_socket
from tests.differences import differences
from tests.hosts import Host
from tests.kernel.conftest import both_backends
from tests.kernel.daily import IDLE, ask, inspected, network, run, serve

FIRST, LAST = 20000, 29999
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
SOME = (FIRST, FIRST + 1, 24567, LAST)


def held(host: Host, host_address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host_address else socket.AF_INET
    with open_socket(host.namespace.path, family, socket.SOCK_STREAM) as program:
        program.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            program.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            program.bind((host_address, port))
            program.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
        return False


@contextlib.contextmanager
def servers(host: Host, name: str, ports: tuple[int, ...]) -> Iterator[dict[int, socket.socket]]:
    """In the container, one for each port: they take one caller, and say who that was."""
    with contextlib.ExitStack() as stack:
        found = {}
        for port in ports:
            server = stack.enter_context(open_socket(host.sandbox(name), socket.AF_INET6, socket.SOCK_STREAM))
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            server.bind(("::", port))
            server.listen()
            server.settimeout(5)
            found[port] = server
        yield found


def caller(server: socket.socket, namespace: str, target: str, port: int) -> str:
    """Who the server sees when `target`:`port` is called."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with open_socket(namespace, family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect((target, port))
        accepted, peer = server.accept()
        with accepted:
            accepted.sendall(b"x")
            assert client.recv(1) == b"x"
        return str(peer[0]).removeprefix("::ffff:")


@both_backends
def test_ten_thousand_ports_on_both_ip_versions(host: Host, lan: Lan):
    network(host, "--ipv6", "demo")
    run(host, "idle", "--network", "demo", "-p", "8080:80", *IDLE)
    before, processes = host.state(), len(host.processes())
    run(host, "web", "--network", "demo", "-p", f"{FIRST}-{LAST}:{FIRST}-{LAST}", *IDLE)
    assert len(host.processes()) - processes <= 2, "more than the container and its supervisor"
    with servers(host, "web", SOME) as found:
        for port in SOME:
            assert caller(found[port], lan.outside.path, host.address, port) == OUTSIDE_ADDRESS
            assert caller(found[port], lan.outside.path, host.address6, port) == OUTSIDE_ADDRESS6
            assert caller(found[port], host.namespace.path, "::1", port) != ""
    for port in SOME:
        assert held(host, "0.0.0.0", port)
        assert held(host, "::", port)
    assert not held(host, "0.0.0.0", FIRST - 1)
    assert not held(host, "0.0.0.0", LAST + 1)
    assert f"0.0.0.0:{FIRST}-{LAST}->{FIRST}-{LAST}/tcp, [::]:{FIRST}-{LAST}->{FIRST}-{LAST}/tcp" in host.netplug("ps").stdout
    lines = host.netplug("port", "web").stdout.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (2 * (LAST - FIRST + 1), "20000/tcp -> 0.0.0.0:20000", "29999/tcp -> [::]:29999")
    assert inspected(host, "web")["Ports"]["24567/tcp"] == [
        {"HostIp": "0.0.0.0", "HostPort": "24567"},
        {"HostIp": "::", "HostPort": "24567"},
    ]
    assert len(host.container("web")["HostConfig"]["PortBindings"]) == LAST - FIRST + 1
    rules = json.dumps(host.state()["host"]["nft"])
    assert rules.count(str(FIRST)) < 20

    host.kill9()
    host.start()
    for port in SOME:
        assert held(host, "0.0.0.0", port)
        assert held(host, "::", port)
    said = host.netplug("run", "-d", "--name", "late", "-p", "127.0.0.1:24567:80", *IDLE)
    assert "Bind for 127.0.0.1:24567 failed: port is already allocated (by container web)" in said.stderr

    for name in ("web", "late"):
        assert host.netplug("rm", "-f", name).returncode == 0
    assert list(differences(host.state(), before)) == []
    for port in SOME:
        assert not held(host, "0.0.0.0", port)
        assert not held(host, "::", port)


@both_backends
def test_a_range_may_lead_to_other_numbers(host: Host, lan: Lan):
    network(host, "demo")
    run(host, "web", "--network", "demo", "-p", "127.0.0.1:9000-9099:80-179", "-p", "8000-8099:80-179/tcp", *IDLE)
    with servers(host, "web", (80, 179)) as found:
        assert caller(found[179], lan.outside.path, host.address, 8099) == OUTSIDE_ADDRESS
        assert caller(found[80], host.namespace.path, "127.0.0.1", 9000) != ""
    assert "127.0.0.1:9099->179/tcp" in host.netplug("ps", "--format", "{{.Ports}}").stdout


@both_backends
def test_a_port_in_the_middle_is_somebody_elses(host: Host, lan: Lan):
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "24567:80")
    before = host.state()
    said = host.netplug("run", "-d", "--name", "wide", "--network", "demo", "-p", f"{FIRST}-{LAST}:{FIRST}-{LAST}", *IDLE)
    assert "Bind for 0.0.0.0:24567 failed: port is already allocated (by container web)" in said.stderr
    assert host.netplug("rm", "wide").returncode == 0
    assert list(differences(host.state(), before)) == []
    assert not held(host, "0.0.0.0", FIRST)
    assert ask(lan.outside.path, host.address, 24567) == OUTSIDE_ADDRESS


def test_more_than_the_daemon_may_open(hosts: Callable[..., Host]):
    """One line that says what stands in the way, and everything else goes on."""
    host = hosts()
    assert host.daemon is not None
    host.run("prlimit", f"--pid={host.daemon.pid}", "--nofile=4000:4000")
    network(host, "demo")
    before = host.state()
    said = host.netplug("run", "-d", "--name", "wide", "--network", "demo", "-p", f"{FIRST}-{LAST}:{FIRST}-{LAST}", *IDLE)
    assert said.returncode == 125
    sentence = "failed: every port takes a file descriptor, and the daemon may have 4000 (raise its LimitNOFILE, or publish fewer ports)"
    assert sentence in said.stderr
    assert host.netplug("rm", "wide").returncode == 0
    assert list(differences(host.state(), before)) == []
    run(host, "web", "--network", "demo", "-p", f"{FIRST}-{FIRST + 999}:{FIRST}-{FIRST + 999}", *IDLE)


@both_backends
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_flows_by_any_port_of_the_range_end_with_it(host: Host, lan: Lan, kind: str):
    network(host, "demo")
    run(host, "web", "--network", "demo", "-p", f"8000-8099:8000-8099/{kind}", *IDLE)
    ports = (8000, 8042, 8099)
    with contextlib.ExitStack() as stack:
        stack.enter_context(servers(host, "web", ports))
        for port in ports:
            client = stack.enter_context(open_socket(lan.outside.path, socket.AF_INET, KINDS[kind]))
            client.connect((host.address, port))
            client.send(b"x")
        assert len(tracked(host, kind)) == 3
        assert host.netplug("rm", "-f", "web").returncode == 0
        assert tracked(host, kind) == []


def tracked(host: Host, kind: str) -> list[str]:
    listed = host.run("conntrack", "-L", "-p", kind).stdout.splitlines()
    return [line for line in listed if " dport=80" in line and f"dst={host.address}" in line]
