"""The resolver process among network namespaces: a host, its sandboxes, and DNS servers here and there."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import dnslib
import msgspec
import pytest

from netplug.kernel import namespaces
from netplug.resolver import wire
from netplug.resolver.client import Resolver
from netplug.resolver.model import EndpointNames, SandboxNames
from tests.hosts import Namespace

DEADLINE = 10.0


class Sandbox:
    """A network namespace whose resolver sockets can be handed over."""

    def __init__(self, name: str) -> None:
        self.namespace, self.id, self.port = Namespace(name), name, 0

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        udp = namespaces.open_socket(self.namespace.path, socket.AF_INET, socket.SOCK_DGRAM)
        tcp = namespaces.open_socket(self.namespace.path, socket.AF_INET, socket.SOCK_STREAM)
        udp.bind(("127.0.0.11", 0))
        self.port = udp.getsockname()[1]
        tcp.bind(("127.0.0.11", self.port))
        tcp.listen(64)
        return udp, tcp

    def names(self, *servers: str, forward: bool = True) -> SandboxNames:
        cookie = namespaces.cookie(self.namespace.path) or 0
        return SandboxNames(id=self.id, networks=("n1",), cookie=cookie, servers=servers, forward=forward)

    async def ask(self, name: str, qtype: str = "A", *, udp_len: int = 0) -> dnslib.DNSRecord:
        query = question(name, qtype, udp_len)
        with namespaces.open_socket(self.namespace.path, socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.11", self.port))
            sock.send(query)
            async with asyncio.timeout(DEADLINE):
                return same(query, await asyncio.get_running_loop().sock_recv(sock, 65536))

    async def ask_tcp(self, name: str, qtype: str = "A") -> dnslib.DNSRecord:
        query = question(name, qtype)
        sock = await self.connect_tcp()
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(wire.frame(query))
        async with asyncio.timeout(DEADLINE):
            length = int.from_bytes(await reader.readexactly(2), "big")
            answer = await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()
        return same(query, answer)

    async def connect_tcp(self) -> socket.socket:
        sock = namespaces.open_socket(self.namespace.path, socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.11", self.port))
        return sock


def question(name: str, qtype: str, udp_len: int = 0) -> bytes:
    record = dnslib.DNSRecord.question(name, qtype)
    if udp_len:
        record.add_ar(dnslib.EDNS0(udp_len=udp_len))
    return bytes(record.pack())


def same(query: bytes, answer: bytes) -> dnslib.DNSRecord:
    """The answer, if it is one to the query."""
    record, asked = dnslib.DNSRecord.parse(answer), dnslib.DNSRecord.parse(query)
    assert (record.header.id, record.header.qr, record.q) == (asked.header.id, 1, asked.q)
    return record


def addresses(record: dnslib.DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in record.rr]


class Upstream:
    """A DNS server at `server`, port 53, in a namespace: answers every A with `address`, over UDP and TCP.

    `behave` gets the honest answer and returns what is really sent, one after the other.
    """

    def __init__(self, namespace: str, server: str, address: str) -> None:
        self.address = address
        self.behave: Callable[[bytes], list[bytes]] = lambda answer: [answer]
        self.asked: list[tuple[str, str, str]] = []
        """(protocol, name, type)."""
        self.ports: set[int] = set()
        self._udp = namespaces.open_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = namespaces.open_socket(namespace, socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self._udp, self._tcp):
            sock.setblocking(False)
            sock.bind((server, 53))
        self._tcp.listen()
        self._tasks = {asyncio.create_task(self._serve_udp()), asyncio.create_task(self._serve_tcp())}

    async def _serve_udp(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            query, peer = await loop.sock_recvfrom(self._udp, 65536)
            self.ports.add(peer[1])
            for answer in self.behave(self._answer("udp", query)):
                self._udp.sendto(answer, peer)

    async def _serve_tcp(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._tcp)
            with sock:
                buffer = bytearray()
                while (query := wire.take_frame(buffer)) is None and (data := await loop.sock_recv(sock, 65536)):
                    buffer += data
                for answer in self.behave(self._answer("tcp", query)) if query else []:
                    await loop.sock_sendall(sock, wire.frame(answer))

    def _answer(self, protocol: str, query: bytes) -> bytes:
        record = dnslib.DNSRecord.parse(query)
        self.asked.append((protocol, str(record.q.qname), dnslib.QTYPE[record.q.qtype]))
        reply = record.reply(aa=0)
        if record.q.qtype == wire.A:
            reply.add_answer(dnslib.RR(record.q.qname, dnslib.QTYPE.A, rdata=dnslib.A(self.address), ttl=60))
        return bytes(reply.pack())

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._udp.close()
        self._tcp.close()


class World:
    """A host namespace, where the tests' main thread is, and sandboxes made as needed."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack, self.directory, self._count = stack, directory, 0
        self.host = self.sandbox().namespace
        self.resolv_conf = directory / "resolv.conf"
        self.resolv_conf.write_text("nameserver 127.0.0.53\n")

    def sandbox(self) -> Sandbox:
        self._count += 1
        sandbox = Sandbox(f"n{os.getpid()}-{self._count}")
        self._stack.callback(sandbox.namespace.remove)
        return sandbox

    def upstream(self, namespace: Namespace, server: str, address: str) -> Upstream:
        upstream = Upstream(namespace.path, server, address)
        self._stack.callback(upstream.close)
        return upstream

    def resolver(self) -> Resolver:
        return Resolver(self.directory, host_resolv_conf=str(self.resolv_conf))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """The thread is in the host's namespace meanwhile, and so is what it starts."""
    with ExitStack() as stack:
        world = World(stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="np"))))
        stack.enter_context(namespaces.entered(world.host.path))
        yield world


@pytest.fixture
async def resolver(world: World) -> AsyncIterator[Resolver]:
    resolver = world.resolver()
    await resolver.start()
    yield resolver
    await resolver.shutdown()


@pytest.fixture
async def sandbox(world: World, resolver: Resolver) -> Sandbox:
    """One that asks the host's servers."""
    sandbox = world.sandbox()
    await resolver.add_sandbox(sandbox.names(), *sandbox.sockets())
    return sandbox


def endpoint(name: str, address: str, id: str = "") -> EndpointNames:
    return EndpointNames(network="n1", endpoint=id or name, names=(name,), address=address, network_name="demo")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  the kernel has no event for it
            await asyncio.sleep(0.01)


def links(namespace: Namespace) -> str:
    return namespace.ip("-br", "link").stdout


async def test_names_over_udp_and_tcp_from_several_namespaces(world: World, resolver: Resolver) -> None:
    sandboxes = [world.sandbox() for _ in range(3)]
    for sandbox in sandboxes:
        await resolver.add_sandbox(sandbox.names(forward=False), *sandbox.sockets())
    await resolver.put(endpoint("web", "10.0.0.2"))

    for sandbox in sandboxes:
        for answer in (await sandbox.ask("Web"), await sandbox.ask_tcp("web.demo"), await sandbox.ask("web", udp_len=1232)):
            assert addresses(answer) == ["10.0.0.2"]
        assert (await sandbox.ask("web", "AAAA")).header.rcode == wire.NOERROR
        assert addresses(await sandbox.ask("2.0.0.10.in-addr.arpa", "PTR")) == ["web.demo."]


async def test_two_hundred_addresses_are_cut_over_udp_and_whole_over_tcp(resolver: Resolver, sandbox: Sandbox) -> None:
    expected = {f"10.0.0.{number}" for number in range(200)}
    await asyncio.gather(*(resolver.put(endpoint("many", address, address)) for address in expected))

    cut = await sandbox.ask("many")
    assert (cut.header.tc, len(cut.rr)) == (1, 30)
    assert len((await sandbox.ask("many", udp_len=1232)).rr) == 74
    whole = await sandbox.ask("many", udp_len=4096)
    assert (whole.header.tc, set(addresses(whole))) == (0, expected)
    assert set(addresses(await sandbox.ask_tcp("many"))) == expected
    firsts = {addresses(await sandbox.ask("many"))[0] for _ in range(16)}
    assert len(firsts) == 16


@pytest.mark.parametrize("servers", [(), ("127.0.0.2",)], ids=["the host's, from the host", "the sandbox's, from the sandbox"])
async def test_other_names_are_asked_upstream(world: World, resolver: Resolver, sandbox: Sandbox, servers: tuple[str, ...]) -> None:
    """Both servers are on loopback, each in its namespace: nobody could be asked from the wrong one."""
    at_host = world.upstream(world.host, "127.0.0.53", "192.0.2.1")
    at_sandbox = world.upstream(sandbox.namespace, "127.0.0.2", "192.0.2.2")
    used, other = (at_sandbox, at_host) if servers else (at_host, at_sandbox)
    await resolver.update_sandbox(sandbox.names(*servers))
    await resolver.put(endpoint("web", "10.0.0.2"))

    assert addresses(await sandbox.ask("Example.org")) == [used.address]
    assert addresses(await sandbox.ask_tcp("example.org")) == [used.address]
    await asyncio.gather(*(sandbox.ask(f"name{number}.example.org") for number in range(20)))
    assert addresses(await sandbox.ask("web")) == ["10.0.0.2"]
    assert addresses(await sandbox.ask("web", "AAAA")) == []

    assert used.asked[:2] == [("udp", "Example.org.", "A"), ("tcp", "example.org.", "A")]
    assert len(used.asked) == 22
    assert len(used.ports) > 15  # a port of its own for each question
    assert other.asked == []


async def test_an_internal_network_asks_nobody(world: World, resolver: Resolver, sandbox: Sandbox) -> None:
    upstream = world.upstream(world.host, "127.0.0.53", "192.0.2.1")
    await resolver.update_sandbox(sandbox.names(forward=False))

    for answer in (await sandbox.ask("example.org"), await sandbox.ask_tcp("example.org")):
        assert (answer.header.rcode, answer.rr) == (wire.SERVFAIL, [])
    assert upstream.asked == []


async def test_changes_of_the_hosts_resolv_conf_are_followed(world: World, sandbox: Sandbox) -> None:
    world.upstream(world.host, "127.0.0.53", "192.0.2.1")
    world.upstream(world.host, "127.0.0.54", "192.0.2.2")
    assert addresses(await sandbox.ask("example.org")) == ["192.0.2.1"]

    (world.directory / "new").write_text("search example\nnameserver 127.0.0.54\n")
    os.replace(world.directory / "new", world.resolv_conf)

    async with asyncio.timeout(DEADLINE):
        while addresses(await sandbox.ask("example.org")) != ["192.0.2.2"]:  # noqa: ASYNC110  looked at once a second at most
            await asyncio.sleep(0.05)


async def test_a_truncated_answer_is_passed_on_and_the_client_comes_by_tcp(world: World, sandbox: Sandbox) -> None:
    """Although the server does not even repeat the question; clients want to see theirs."""
    upstream = world.upstream(world.host, "127.0.0.53", "192.0.2.1")

    def cut_over_udp(answer: bytes) -> list[bytes]:
        if upstream.asked[-1][0] == "tcp":
            return [answer]
        record = dnslib.DNSRecord.parse(answer)
        return [bytes(record.truncate().pack())]

    upstream.behave = cut_over_udp

    assert (await sandbox.ask("example.org")).header.tc == 1
    assert addresses(await sandbox.ask_tcp("example.org")) == ["192.0.2.1"]


def spoiled(answer: bytes) -> list[bytes]:
    """Guesses of an attacker, then the truth."""
    other_id = bytes([answer[0] ^ 1]) + answer[1:]
    other_name = answer.replace(b"example", b"exbmple")
    other_type = answer[:25] + b"\0\x1c" + answer[27:]
    return [b"", answer[:5], other_id, other_name, other_type, answer[:2] + b"\1\0" + answer[4:], answer]


async def test_answers_to_other_questions_are_not_believed(world: World, sandbox: Sandbox) -> None:
    upstream = world.upstream(world.host, "127.0.0.53", "192.0.2.1")
    upstream.behave = spoiled

    answer = await sandbox.ask("example.org")

    assert str(answer.q.qname) == "example.org."
    assert addresses(answer) == ["192.0.2.1"]


@pytest.mark.parametrize("failure", ["nobody there", "server failure", "refused without the question"])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_the_next_server_is_asked_when_one_fails(world: World, sandbox: Sandbox, failure: str, protocol: str) -> None:
    world.resolv_conf.write_text("nameserver 127.0.0.52\nnameserver 127.0.0.53\n")
    if failure != "nobody there":
        first = world.upstream(world.host, "127.0.0.52", "192.0.2.9")
        rcode = b"\x82" if failure == "server failure" else b"\x85"
        rest = slice(4, None) if failure == "server failure" else slice(0, 0)
        first.behave = lambda answer: [answer[:3] + rcode + (answer[rest] or bytes(8))]
    world.upstream(world.host, "127.0.0.53", "192.0.2.1")

    answer = await (sandbox.ask("example.org") if protocol == "udp" else sandbox.ask_tcp("example.org"))

    assert addresses(answer) == ["192.0.2.1"]


async def test_a_silent_server_is_not_waited_for(world: World, sandbox: Sandbox) -> None:
    """And what it says late still counts, if it is first."""
    world.resolv_conf.write_text("nameserver 127.0.0.52\nnameserver 127.0.0.53\n")
    silent = world.upstream(world.host, "127.0.0.52", "192.0.2.9")
    silent.behave = lambda answer: []
    second = world.upstream(world.host, "127.0.0.53", "192.0.2.1")

    answer = await sandbox.ask("example.org")

    assert addresses(answer) == ["192.0.2.1"]
    assert [asked[1] for asked in (*silent.asked, *second.asked)] == ["example.org."] * 2


async def test_when_no_server_can_help_it_is_said_before_the_client_gives_up(world: World, sandbox: Sandbox) -> None:
    silent = world.upstream(world.host, "127.0.0.53", "192.0.2.1")
    silent.behave = lambda answer: []

    async with asyncio.timeout(5):
        answers = await asyncio.gather(sandbox.ask("example.org"), sandbox.ask_tcp("example.com"))

    assert [answer.header.rcode for answer in answers] == [wire.SERVFAIL] * 2


async def test_questions_on_their_way_are_bounded(world: World, resolver: Resolver, sandbox: Sandbox) -> None:
    """A sandbox whose server is dead gets SERVFAIL at once beyond a number, and the others' questions go on."""
    silent = world.upstream(sandbox.namespace, "127.0.0.2", "192.0.2.2")
    silent.behave = lambda answer: []
    world.upstream(world.host, "127.0.0.53", "192.0.2.1")
    await resolver.update_sandbox(sandbox.names("127.0.0.2"))
    other = world.sandbox()
    await resolver.add_sandbox(other.names(), *other.sockets())

    with namespaces.open_socket(sandbox.namespace.path, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.11", sandbox.port))
        for number in range(300):
            sock.send(question(f"name{number}", "A"))
        async with asyncio.timeout(1):
            refused = [dnslib.DNSRecord.parse(await asyncio.get_running_loop().sock_recv(sock, 512)) for _ in range(300 - 256)]
    assert {answer.header.rcode for answer in refused} == {wire.SERVFAIL}

    assert addresses(await other.ask("example.org")) == ["192.0.2.1"]
    await resolver.remove_sandbox(sandbox.id)
    assert addresses(await other.ask("example.org")) == ["192.0.2.1"]


async def test_a_removed_sandbox_lets_its_namespace_go(world: World, resolver: Resolver, sandbox: Sandbox) -> None:
    """With a TCP connection and a question upstream open; the peer of a veth dies with the namespace."""
    silent = world.upstream(sandbox.namespace, "127.0.0.2", "192.0.2.2")
    silent.behave = lambda answer: []
    await resolver.update_sandbox(sandbox.names("127.0.0.2"))
    world.host.ip("link", "add", "witness", "type", "veth", "peer", "name", "eth0", "netns", sandbox.namespace.name)
    connection = await sandbox.connect_tcp()
    connection.send(wire.frame(question("example.org", "A")))
    await until(lambda: bool(silent.asked))
    connection.close()
    silent.close()
    control = Namespace(f"{world.host.name}-control")
    world.host.ip("link", "add", "control", "type", "veth", "peer", "name", "eth0", "netns", control.name)
    sandbox.namespace.remove()
    control.remove()
    await until(lambda: "control" not in links(world.host))  # the kernel has ended what nobody holds
    assert "witness" in links(world.host)

    await resolver.remove_sandbox(sandbox.id)

    await until(lambda: "witness" not in links(world.host))


DAEMON = """
import asyncio, sys
from pathlib import Path
import msgspec
from netplug.kernel import namespaces
from netplug.resolver.client import Resolver
from netplug.resolver.model import EndpointNames, SandboxNames
import socket

async def main(run_dir, namespace, endpoint, names):
    resolver = Resolver(Path(run_dir))
    await resolver.start()
    udp = namespaces.open_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM)
    tcp = namespaces.open_socket(namespace, socket.AF_INET, socket.SOCK_STREAM)
    udp.bind(("127.0.0.11", 0))
    tcp.bind(("127.0.0.11", udp.getsockname()[1]))
    tcp.listen(64)
    print(udp.getsockname()[1], flush=True)
    await resolver.put(msgspec.json.decode(endpoint, type=EndpointNames))
    await resolver.add_sandbox(msgspec.json.decode(names, type=SandboxNames), udp, tcp)
    print(resolver.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_names_go_on_when_the_daemon_is_killed(world: World) -> None:
    sandbox = world.sandbox()
    arguments = [msgspec.json.encode(record).decode() for record in (endpoint("web", "10.0.0.2"), sandbox.names())]
    daemon = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DAEMON, str(world.directory), sandbox.namespace.path, *arguments), stdout=asyncio.subprocess.PIPE
    )
    assert daemon.stdout
    sandbox.port, pid = int(await daemon.stdout.readline()), int(await daemon.stdout.readline())
    assert addresses(await sandbox.ask("web")) == ["10.0.0.2"]

    daemon.send_signal(signal.SIGKILL)
    await daemon.wait()
    assert addresses(await sandbox.ask("web")) == ["10.0.0.2"]
    assert addresses(await sandbox.ask_tcp("web")) == ["10.0.0.2"]

    new = world.resolver()
    await new.start()
    try:
        assert new.pid == pid
        assert await new.sync([endpoint("web", "10.0.0.3")], [sandbox.names()]) == set()
        assert addresses(await sandbox.ask("web")) == ["10.0.0.3"]
    finally:
        await new.shutdown()


async def test_a_process_in_another_namespace_is_replaced(world: World, resolver: Resolver) -> None:
    """A daemon that comes back in another namespace must not have its questions asked from the old one."""
    other = world.sandbox()
    with namespaces.entered(other.namespace.path):
        moved = world.resolver()
        await moved.start()
    try:
        assert moved.pid != resolver.pid
        assert os.readlink(f"/proc/{moved.pid}/ns/net") != os.readlink("/proc/thread-self/ns/net")
    finally:
        await moved.shutdown()
        await resolver.stop()


async def test_a_dead_process_comes_back_with_all_its_sandboxes(world: World, resolver: Resolver, sandbox: Sandbox) -> None:
    back = asyncio.Event()

    async def again() -> None:
        assert await resolver.sync([endpoint("web", "10.0.0.2")], [sandbox.names()]) == {sandbox.id}
        await resolver.add_sandbox(sandbox.names(), *sandbox.sockets())
        back.set()

    resolver.on_lost = again
    os.kill(resolver.pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        await back.wait()

    assert addresses(await sandbox.ask("web")) == ["10.0.0.2"]


async def test_what_differs_is_told_and_nothing_changes(resolver: Resolver, sandbox: Sandbox) -> None:
    web, known = endpoint("web", "10.0.0.2"), sandbox.names()
    await resolver.put(web)
    assert await resolver.compare([web], [known]) == (set(), set(), 0)

    other, elsewhere = endpoint("db", "10.0.0.3"), endpoint("web", "10.0.0.9")
    absent = msgspec.structs.replace(known, id="absent")
    assert await resolver.compare([elsewhere, other], [known, absent]) == ({"absent"}, {"web", "db"}, 0)
    assert await resolver.compare([], [sandbox.names(forward=False)]) == ({sandbox.id}, set(), 1)
    assert await resolver.compare([], []) == (set(), set(), 2)

    assert await resolver.compare([web], [known]) == (set(), set(), 0)
    assert addresses(await sandbox.ask("web")) == ["10.0.0.2"]
