"""Ports that packets cannot reach: on ::1, and on an IP version that the container lacks. The process, by itself and with a daemon."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from netplug.cli.demo_hosts import OUTSIDE_ADDRESS6, Lan, owned_processes
from netplug.errors import Unavailable
from netplug.forwarder import udp
from netplug.forwarder.client import Forwarder
from netplug.forwarder.model import Relay
from netplug.kernel.namespaces import open_socket
from netplug.resolver.loop import Loop
from tests.hosts import Host
from tests.kernel.conftest import both_backends
from tests.kernel.daily import IDLE, address6, ask, network, run, serve
from tests.kernel.inside import command, in_host

PATIENCE = 5.0


def forwarder_pid(host: Host) -> int | None:
    return next((pid for pid in host.processes() if b"netplug.forwarder" in command_line(pid)), None)


def command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def connected(host: Host, target: str, port: int) -> socket.socket:
    """A connection that has been greeted."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    client = open_socket(host.namespace.path, family, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect((target, port))
    assert client.recv(100).endswith(b"\n")
    return client


def echoes(client: socket.socket, text: bytes = b"hello") -> bool:
    client.sendall(text)
    return client.recv(100) == text


# With a daemon


@both_backends
def test_the_hosts_own_loopback(host: Host, lan: Lan):
    network(host, "--ipv6", "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80", "-p", "8080:80/udp", "-p", "[::1]:8081:80", "-p", "[::1]:8082:80/udp")
    gateway = next(pool["Gateway"] for pool in host.api("GET", "/networks/demo")["IPAM"]["Config"] if ":" in pool["Gateway"])
    for port, kinds in ((8080, ("tcp", "udp")), (8081, ("tcp",)), (8082, ("udp",))):
        for kind in ("tcp", "udp"):
            assert ask(host.namespace.path, "::1", port, kind) == (gateway if kind in kinds else "")
            assert ask(lan.outside.path, host.address6, port, kind) == (OUTSIDE_ADDRESS6 if port == 8080 else "")


def test_a_host_without_such_ports_has_no_forwarder(host: Host):
    network(host, "demo")
    network(host, "--ipv6", "six")
    run(host, "web", "--network", "demo", "-p", "8080:80", *IDLE)
    run(host, "plain", "--network", "six", "-p", f"[{host.address6}]:8080:80", "-p", "0.0.0.0:8081:80", *IDLE)
    assert forwarder_pid(host) is None


@both_backends
def test_a_container_without_ipv6_is_reached_by_ipv6(host: Host, lan: Lan):
    """As with Docker's proxy the container sees its gateway. On an address, and on all."""
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", f"[{host.address6}]:8080:80", "-p", "[::]:8081:80", "-p", "[::]:8081:80/udp")
    gateway = host.api("GET", "/networks/demo")["IPAM"]["Config"][0]["Gateway"]
    assert ask(lan.outside.path, host.address6, 8080) == gateway
    assert ask(host.namespace.path, "::1", 8080) == ""
    for kind in ("tcp", "udp"):
        assert ask(lan.outside.path, host.address6, 8081, kind) == gateway
        assert ask(host.namespace.path, "::1", 8081, kind) == gateway
    assert ask(lan.outside.path, host.address, 8081) == ""


@both_backends
def test_a_container_without_ipv4_is_reached_by_ipv4(host: Host, lan: Lan):
    network(host, "--ipv6", "--ipv4=false", "demo")
    run(host, "web", "--network", "demo", "-p", "0.0.0.0:8080:80/udp", *IDLE)
    with open_socket(host.sandbox("web"), socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind((address6(host, "web"), 80))
        server.settimeout(PATIENCE)
        with open_socket(lan.outside.path, socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect((host.address, 8080))
            client.send(b"question")
            question, peer = server.recvfrom(100)
            server.sendto(b"answer to " + question, peer)
            assert client.recv(100) == b"answer to question"


@both_backends
def test_connections_go_on_while_the_daemon_is_dead_and_after(host: Host):
    network(host, "--ipv6", "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80", "-p", "8080:80/udp")
    process = forwarder_pid(host)
    assert process is not None
    with connected(host, "::1", 8080) as client:
        host.kill9()
        assert echoes(client)
        assert ask(host.namespace.path, "::1", 8080, "udp") != ""
        host.start()
        assert forwarder_pid(host) == process
        assert echoes(client)
        host.restart()
        assert forwarder_pid(host) == process
        assert echoes(client)
        with connected(host, "::1", 8080) as another:
            assert echoes(another)

        assert host.netplug("rm", "-f", "web").returncode == 0
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    assert ask(host.namespace.path, "::1", 8080) == ""
    until(lambda: forwarder_pid(host) is None, "the forwarder has nothing to do and stays")


def test_ports_that_went_while_the_daemon_was_dead_are_let_go(host: Host):
    network(host, "--ipv6", "demo")
    run(host, "web", "--network", "demo", "-p", "8080:80", *IDLE)
    run(host, "other", "--network", "demo", "-p", "8081:80", *IDLE)
    process = host.container("web")["State"]["Pid"]
    host.kill9()
    os.kill(process, signal.SIGKILL)
    host.start()
    until(lambda: host.netplug("ps", "-q").stdout.count("\n") == 1, "the dead container still runs")
    with open_socket(host.namespace.path, socket.AF_INET6, socket.SOCK_STREAM) as program:
        with pytest.raises(OSError, match="in use"):
            program.bind(("::1", 8081))
        program.bind(("::1", 8080))


def test_a_forwarder_that_dies_is_replaced(host: Host):
    network(host, "--ipv6", "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80", "-p", "8080:80/udp")
    process = forwarder_pid(host)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    until(lambda: forwarder_pid(host) not in (None, process), "no forwarder came back")
    for kind in ("tcp", "udp"):
        until(lambda kind=kind: ask(host.namespace.path, "::1", 8080, kind) != "", f"no {kind} on ::1")


def test_a_port_is_free_again_with_its_connections_just_closed(host: Host):
    """The forwarder closes first, so that the host has the finished connections (TIME_WAIT)."""
    network(host, "--ipv6", "demo")
    for _ in range(2):
        serve(host, "web", "--network", "demo", "-p", "8080:80")
        with open_socket(host.namespace.path, socket.AF_INET6, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("::1", 8080))
            client.recv(100)
            host.inside("web", "ss", "-K", "sport", "=", ":80", check=False)
        assert host.netplug("rm", "-f", "web").returncode == 0


# By itself


@contextlib.asynccontextmanager
async def relaying(run_dir: Path, relay: Relay, *sockets: socket.socket) -> AsyncIterator[Forwarder]:
    """A process that relays this for the owner `me`; ended afterwards."""
    forwarder = Forwarder(run_dir)
    assert await forwarder.resume() == []
    await forwarder.put("me", [(relay, sockets)])
    try:
        yield forwarder
    finally:
        await forwarder.stop()
        for pid in owned_processes("/proc/thread-self/ns/net", run_dir):
            os.kill(pid, signal.SIGKILL)


class Sockets(contextlib.ExitStack):
    """Opened for a test, closed after it."""

    def held(self, kind: socket.SocketKind = socket.SOCK_STREAM, host_ip: str = "::1") -> tuple[socket.socket, int]:
        """As the daemon holds a port: bound, and not listening."""
        sock = self.enter_context(socket.socket(socket.AF_INET6, kind))
        sock.bind((host_ip, 0))
        return sock, sock.getsockname()[1]

    def server(self) -> tuple[socket.socket, int]:
        sock = self.enter_context(socket.create_server(("127.0.0.1", 0)))
        sock.settimeout(PATIENCE)
        return sock, sock.getsockname()[1]

    def datagrams(self) -> tuple[socket.socket, int]:
        sock = self.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        return sock, sock.getsockname()[1]

    def client(self, port: int) -> socket.socket:
        return self.enter_context(socket.create_connection(("::1", port), PATIENCE))


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as opened:
        yield opened


def to(port: int, host_port: int, **changes: object) -> Relay:
    fields = {"protocol": "tcp", "host_ip": "::1", "host_port": host_port, "address": "127.0.0.1", "port": port}
    return Relay(**{**fields, **changes})


def received(sock: socket.socket, count: int = -1) -> str:
    """The digest of so many bytes, or of all until the end."""
    digest = hashlib.sha256()
    while count and (piece := sock.recv(min(count, 65536) if count > 0 else 65536)):
        digest.update(piece)
        count -= len(piece) if count > 0 else 0
    return digest.hexdigest()


@in_host
async def test_half_close_and_every_byte_both_ways(tmp_path: Path, sockets: Sockets):
    """More than all buffers hold, to readers that begin late; each side ends when it wants to."""
    data = os.urandom(16) * 500_000
    digest = hashlib.sha256(data).hexdigest()
    (listener, port), (sock, host_port) = sockets.server(), sockets.held()
    async with relaying(tmp_path, to(port, host_port), sock):
        with ThreadPoolExecutor(1) as other, sockets.client(host_port) as outer:
            inner = sockets.enter_context(listener.accept()[0])
            for end in (outer, inner):
                end.settimeout(PATIENCE)
            for sender, reader in ((inner, outer), (outer, inner)):
                sending = other.submit(sender.sendall, data)
                assert received(reader, len(data)) == digest
                sending.result(PATIENCE)
            outer.shutdown(socket.SHUT_WR)
            assert inner.recv(10) == b""
            # Half of it is closed; the other half goes on.
            sending = other.submit(inner.sendall, data)
            assert received(outer, len(data)) == digest
            sending.result(PATIENCE)
            inner.close()
            assert outer.recv(10) == b""


@in_host
async def test_what_a_server_said_last_is_not_lost_on_a_slow_client(tmp_path: Path, sockets: Sockets):
    """It closes with all its words on their way, after the client has said that it will say nothing more."""
    data = os.urandom(16) * 500_000
    (listener, port), (sock, host_port) = sockets.server(), sockets.held()
    async with relaying(tmp_path, to(port, host_port), sock):
        with ThreadPoolExecutor(1) as other, sockets.client(host_port) as outer:
            outer.shutdown(socket.SHUT_WR)
            inner = listener.accept()[0]
            with inner:
                assert inner.recv(10) == b""
                sending = other.submit(inner.sendall, data)
                first = outer.recv(1)
                digest = hashlib.sha256(first)
                while not sending.done():
                    digest.update(outer.recv(1000))
            while piece := outer.recv(65536):
                digest.update(piece)
            assert digest.digest() == hashlib.sha256(data).digest()


@in_host
async def test_resets_and_refusals_come_through(tmp_path: Path, sockets: Sockets):
    (listener, port), (sock, host_port) = sockets.server(), sockets.held()
    async with relaying(tmp_path, to(port, host_port), sock):
        for outer_first in (False, True):
            outer = sockets.client(host_port)
            outer.sendall(b"x")
            inner = sockets.enter_context(listener.accept()[0])
            inner.settimeout(PATIENCE)
            assert inner.recv(10) == b"x"
            first, second = (outer, inner) if outer_first else (inner, outer)
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
            with pytest.raises(ConnectionResetError):
                second.recv(10)
        listener.close()
        with pytest.raises(ConnectionResetError):
            sockets.client(host_port).recv(10)


@in_host
async def test_a_wildcard_answers_nobody_but_loopback(tmp_path: Path, sockets: Sockets):
    """Everybody else is led by NAT; were it gone, the container must not be open to whom the rules would keep out."""
    command("ip", "address", "add", "2001:db8::1/64", "dev", "lo", "nodad")
    (listener, port), (sock, host_port) = sockets.server(), sockets.held(host_ip="::")
    (inner, inner_port), (datagrams, udp_port) = sockets.datagrams(), sockets.held(socket.SOCK_DGRAM, "::")
    async with relaying(tmp_path, to(port, host_port, host_ip="::", loopback=True), sock) as forwarder:
        await forwarder.put("you", [(to(inner_port, udp_port, protocol="udp", host_ip="::", loopback=True), [datagrams])])
        for target in ("2001:db8::1", "127.0.0.1"):
            with contextlib.suppress(ConnectionResetError), socket.create_connection((target, host_port), PATIENCE) as outer:
                assert outer.recv(10) == b""
            with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as outer:
                outer.sendto(b"not this", (target, udp_port))
        outer = sockets.client(host_port)
        sockets.enter_context(listener.accept()[0]).sendall(b"hello")
        assert outer.recv(10) == b"hello"
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"but this", ("::1", udp_port))
            assert inner.recv(100) == b"but this"


@in_host
async def test_answers_come_from_the_address_that_was_asked(tmp_path: Path, sockets: Sockets):
    """A socket on all addresses; clients with sockets of their own, and one that uses two addresses of the host."""
    for own in ("2001:db8::1/64", "2001:db8::2/64"):
        command("ip", "address", "add", own, "dev", "lo", "nodad")
    (sock, host_port), (inner, port) = sockets.held(socket.SOCK_DGRAM, "::"), sockets.datagrams()
    async with relaying(tmp_path, to(port, host_port, protocol="udp", host_ip="::"), sock):
        outer, another = (sockets.held(socket.SOCK_DGRAM, "::")[0] for _ in range(2))
        peers = set()
        for sender, target in ((outer, "2001:db8::1"), (outer, "2001:db8::2"), (another, "2001:db8::1")):
            sender.settimeout(PATIENCE)
            sender.sendto(target.encode(), (target, host_port))
            question, peer = inner.recvfrom(100)
            peers.add(peer)
            inner.sendto(question, peer)
            answer, source = sender.recvfrom(100)
            assert (answer.decode(), source[0], source[1]) == (target, target, host_port)
        assert len(peers) == 3


def test_flows_that_are_quiet_end(sockets: Sockets):
    sock, host_port = sockets.held(socket.SOCK_DGRAM)
    port = udp.Port(Loop(), sock, ("127.0.0.1", 9), loopback=False)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as outer:
        outer.sendto(b"x", ("::1", host_port))
        assert select.select([sock], [], [], PATIENCE)[0]
        port._receive(0)
    now = time.monotonic()
    assert port.expire(now + udp.IDLE - 1)
    assert not port.expire(now + udp.IDLE + 1)
    port.close()


@in_host
async def test_another_daemon_takes_over(tmp_path: Path, sockets: Sockets):
    """It gets the sockets back, also more than one message holds; connections know nothing of it."""
    listener, port = sockets.server()
    row = [sockets.held()[0] for _ in range(600)]
    single, single_port = sockets.held()
    relay = to(port, row[0].getsockname()[1], count=len(row))
    async with relaying(tmp_path, relay, *row) as first:
        await first.put("you", [(to(port, single_port), [single])])
        outer = sockets.client(single_port)
        inner = sockets.enter_context(listener.accept()[0])

        second = Forwarder(tmp_path)
        (one, its), (other, others) = await second.resume()
        for back in (*its, *others):
            sockets.callback(back.close)
        assert second.pid == first.pid
        assert (one, [sock.getsockname() for sock in its]) == (relay, [sock.getsockname() for sock in row])
        assert (other, [sock.getsockname() for sock in others]) == (to(port, single_port), [single.getsockname()])
        with pytest.raises(Unavailable, match="another daemon"):
            await first.put("third", [(to(1, 2), [single])])

        await second.put("you", [(other, others)])
        await second.settle()
        outer.sendall(b"hello")
        assert inner.recv(10) == b"hello"
        third = Forwarder(tmp_path)
        (kept, again), *none = await third.resume()
        sockets.callback(again[0].close)
        assert (kept, none) == (other, [])
        for forwarder in (second, third):
            await forwarder.stop()


@in_host
async def test_a_process_whose_run_directory_is_gone_ends(tmp_path: Path, sockets: Sockets):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    sock, host_port = sockets.held()
    async with relaying(run_dir, to(9, host_port), sock) as forwarder:
        process = os.pidfd_open(forwarder.pid)
        for path in run_dir.iterdir():
            path.unlink()
        run_dir.rmdir()
        await forwarder.stop()
        assert select.select([process], [], [], PATIENCE)[0]
        os.close(process)
