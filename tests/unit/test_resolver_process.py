"""A real resolver process on loopback, spoken to by a real client. Nothing here needs root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import dnslib
import msgspec
import pytest

from netplug.errors import InvalidArgument, Unavailable
from netplug.resolver import channel, wire
from netplug.resolver.client import Resolver
from netplug.resolver.model import EndpointNames, SandboxNames

DEADLINE = 10.0


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Short: the path of a Unix socket has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="np") as directory:
        yield Path(directory)


@pytest.fixture
async def resolver(run_dir: Path) -> AsyncIterator[Resolver]:
    resolver = Resolver(run_dir)
    await resolver.start()
    yield resolver
    await resolver.shutdown()


def endpoint(name: str, address: str, network: str = "n1") -> EndpointNames:
    return EndpointNames(network=network, endpoint=f"e-{name}", names=(name,), address=address, network_name="demo")


def sandbox(id: str = "s1", *networks: str, cookie: int = 0) -> SandboxNames:
    return SandboxNames(id=id, networks=networks or ("n1",), cookie=cookie, forward=False)


def listeners() -> tuple[socket.socket, socket.socket, int]:
    """A UDP and a TCP socket on one port."""
    while True:
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        try:
            tcp.bind(("127.0.0.1", port))
            tcp.listen(128)
        except OSError:
            udp.close()
            tcp.close()
            continue
        return udp, tcp, port


async def hand_over(resolver: Resolver, names: SandboxNames | None = None) -> int:
    """A sandbox that the process answers for; its port."""
    udp, tcp, port = listeners()
    await resolver.add_sandbox(names or sandbox(), udp, tcp)
    assert udp.fileno() == tcp.fileno() == -1
    return port


async def ask(port: int, name: str, qtype: str = "A") -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, qtype)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(("127.0.0.1", port))
        sock.send(query.pack())
        async with asyncio.timeout(DEADLINE):
            answer = dnslib.DNSRecord.parse(await asyncio.get_running_loop().sock_recv(sock, 4096))
    assert answer.header.id == query.header.id
    return answer


async def addresses(port: int, name: str) -> list[str]:
    return [str(rr.rdata) for rr in (await ask(port, name)).rr]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  another process's state has no event
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Not ended (a zombie has ended)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resident(pid: int) -> int:
    """KiB of memory."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_names_are_effective_when_put_returns_and_gone_when_drop_returns(resolver: Resolver) -> None:
    port = await hand_over(resolver)

    for number in range(20):
        await resolver.put(endpoint("web", f"10.0.0.{number}"))
        assert await addresses(port, "web") == [f"10.0.0.{number}"]
    await resolver.drop("n1", "e-web")

    assert (await ask(port, "web")).header.rcode == wire.SERVFAIL


async def test_links_and_networks_of_a_sandbox_can_change(resolver: Resolver) -> None:
    port = await hand_over(resolver)
    await resolver.put(endpoint("web", "10.0.0.2", "n2"))
    assert await addresses(port, "web") == []

    await resolver.update_sandbox(sandbox("s1", "n1", "n2"))
    assert await addresses(port, "web") == ["10.0.0.2"]

    await resolver.update_sandbox(SandboxNames(id="s1", networks=(), cookie=0, forward=False, extra={"web": "10.0.0.9"}))
    assert await addresses(port, "web") == ["10.0.0.9"]


async def test_names_and_networks_of_a_connect_are_one_message(resolver: Resolver) -> None:
    port = await hand_over(resolver)
    assert await addresses(port, "web") == []

    await resolver.put(endpoint("web", "10.0.0.2", "n2"), sandbox("s1", "n1", "n2"))
    assert await addresses(port, "web") == ["10.0.0.2"]

    await resolver.drop("n2", "e-web", sandbox("s1", "n1"))
    assert await addresses(port, "web") == []


async def test_many_names_change_together(resolver: Resolver) -> None:
    port = await hand_over(resolver)
    many = [endpoint(f"w{number}", f"10.0.{number >> 8}.{number & 255}") for number in range(2000)]

    await resolver.change(many, [])
    assert [await addresses(port, f"w{number}") for number in (0, 999, 1999)] == [["10.0.0.0"], ["10.0.3.231"], ["10.0.7.207"]]

    await resolver.change([endpoint("w0", "10.1.0.0")], [("n1", names.endpoint) for names in many])
    assert await addresses(port, "w0") == ["10.1.0.0"]
    assert (await ask(port, "w1999")).header.rcode == wire.SERVFAIL


async def test_a_process_that_does_not_read_is_told_the_rest_when_it_does(resolver: Resolver) -> None:
    port = await hand_over(resolver)
    connection = resolver._connection
    assert connection is not None
    os.kill(resolver.pid, signal.SIGSTOP)
    try:
        puts = [asyncio.ensure_future(resolver.put(endpoint(f"c{number}", "10.0.0.9"))) for number in range(1000)]
        while not connection._blocked:  # noqa: ASYNC110  it has no event
            await asyncio.sleep(0)
    finally:
        os.kill(resolver.pid, signal.SIGCONT)
    await asyncio.gather(*puts)
    assert await addresses(port, "c999") == ["10.0.0.9"]
    assert not connection._blocked
    assert not asyncio.get_running_loop().remove_writer(connection._sock)


async def test_several_questions_on_one_tcp_connection(resolver: Resolver) -> None:
    port = await hand_over(resolver)
    await resolver.put(endpoint("web", "10.0.0.2"))
    questions = [bytes(dnslib.DNSRecord.question("web" if number % 2 else "nobody").pack()) for number in range(50)]

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stream = b"".join(map(wire.frame, questions))
    writer.write(stream[:100])
    await writer.drain()
    writer.write(stream[100:])
    writer.write_eof()
    async with asyncio.timeout(DEADLINE):
        received = bytearray(await reader.read())
    writer.close()

    given = {}
    while (message := wire.take_frame(received)) is not None:
        given[message[:2]] = [str(rr.rdata) for rr in dnslib.DNSRecord.parse(message).rr]
    assert given == {question[:2]: ["10.0.0.2"] if number % 2 else [] for number, question in enumerate(questions)}


async def test_a_sandbox_with_too_many_connections_loses_the_quietest(resolver: Resolver) -> None:
    port = await hand_over(resolver)
    before = open_files(resolver.pid)
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(80)]

    async with asyncio.timeout(DEADLINE):
        assert await connections[0][0].read() == b""
    connections[-1][1].write(wire.frame(bytes(dnslib.DNSRecord.question("web").pack())))
    async with asyncio.timeout(DEADLINE):
        assert len(await connections[-1][0].readexactly(2)) == 2
    assert open_files(resolver.pid) == before + 64

    for _, writer in connections:
        writer.close()
    await until(lambda: open_files(resolver.pid) == before)


async def test_a_removed_sandbox_leaves_no_descriptor(resolver: Resolver) -> None:
    before = open_files(resolver.pid)
    port = await hand_over(resolver)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wire.frame(bytes(dnslib.DNSRecord.question("web").pack())))
    async with asyncio.timeout(DEADLINE):
        await reader.readexactly(2)

    await resolver.remove_sandbox("s1")
    await resolver.remove_sandbox("s1")

    assert open_files(resolver.pid) == before
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def test_a_client_that_asks_and_does_not_read_has_to_wait(resolver: Resolver) -> None:
    """Its answers must not pile up in the process, and all come once it reads."""
    udp, tcp, port = listeners()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    await resolver.add_sandbox(sandbox(), udp, tcp)
    await asyncio.gather(
        *(resolver.put(msgspec.structs.replace(endpoint(f"{number}", f"10.0.1.{number}"), names=("many",))) for number in range(200))
    )
    question = wire.frame(bytes(dnslib.DNSRecord.question("many").pack()))

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        sent = bytearray()
        with contextlib.suppress(BlockingIOError):
            while len(sent) < 10_000_000:
                sent += (question * 50)[: sock.send(question * 50)]
                await addresses(port, "nobody")  # the others are served meanwhile
        assert len(sent) < 10_000_000
        assert resident(resolver.pid) < 17 * 1024

        sock.shutdown(socket.SHUT_WR)
        received = await read_all(sock)
    assert received == (len(sent) // len(question)) * (2 + 12 + 10 + 200 * 16)


async def read_all(sock: socket.socket) -> int:
    size = 0
    async with asyncio.timeout(DEADLINE * 2):
        while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
            size += len(data)
    return size


async def test_an_empty_process_is_small_and_a_full_one_is_not_large(resolver: Resolver) -> None:
    assert resident(resolver.pid) < 14 * 1024
    endpoints = [
        EndpointNames(
            network="n1",
            endpoint=f"{number:064x}",
            names=(f"name{number}", f"alias{number}", f"{number:012x}"),
            address=f"10.0.{number >> 8}.{number & 255}",
            network_name="demo",
        )
        for number in range(1000)
    ]
    await resolver.sync(endpoints, [])
    assert resident(resolver.pid) < 16 * 1024


async def test_the_process_stays_when_the_daemon_goes_and_knows_everything_afterwards(run_dir: Path, resolver: Resolver) -> None:
    port = await hand_over(resolver)
    await resolver.put(endpoint("web", "10.0.0.2"))
    await resolver.stop()
    assert await addresses(port, "web") == ["10.0.0.2"]

    after = Resolver(run_dir)
    await after.start()
    try:
        assert after.pid == resolver.pid
        assert await after.sync([endpoint("web", "10.0.0.2"), endpoint("db", "10.0.0.3")], [sandbox()]) == set()
        assert await addresses(port, "db") == ["10.0.0.3"]
    finally:
        await after.shutdown()
    await until(lambda: not alive(resolver.pid))


async def test_sync_makes_the_state_exactly_this(resolver: Resolver) -> None:
    kept, stale = await hand_over(resolver, sandbox("kept")), await hand_over(resolver, sandbox("stale"))
    for name in ("old", "moved", "same"):
        await resolver.put(endpoint(name, "10.0.0.2"))

    missing = await resolver.sync([endpoint("same", "10.0.0.2"), endpoint("moved", "10.0.0.3")], [sandbox("kept"), sandbox("unheld")])

    assert missing == {"unheld"}
    assert [await addresses(kept, name) for name in ("same", "moved", "old")] == [["10.0.0.2"], ["10.0.0.3"], []]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", stale)


async def test_sync_of_nothing_empties_the_process(resolver: Resolver) -> None:
    port = await hand_over(resolver)

    assert await resolver.sync([], []) == set()

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_thousand_of_each_fit_through_the_channel(resolver: Resolver) -> None:
    """In many messages, sent without waiting, in both directions full."""
    port = await hand_over(resolver)
    endpoints = [endpoint(f"host{number}", f"10.0.{number >> 8}.{number & 255}") for number in range(1000)]

    await asyncio.gather(*map(resolver.put, endpoints))
    assert await addresses(port, "host999") == ["10.0.3.231"]
    assert await resolver.sync(endpoints, [sandbox("s1"), *(sandbox(f"{number:064}") for number in range(1000))]) == {
        f"{number:064}" for number in range(1000)
    }
    assert await addresses(port, "host999") == ["10.0.3.231"]


async def test_sockets_of_another_namespace_are_not_taken(resolver: Resolver) -> None:
    before = open_files(resolver.pid)
    udp, tcp, _ = listeners()
    own = channel.namespace_cookie(udp)

    with pytest.raises(Unavailable, match=f"namespace {own}, not to {own + 1}"):
        await resolver.add_sandbox(sandbox(cookie=own + 1), udp, tcp)

    assert udp.fileno() == tcp.fileno() == -1
    assert open_files(resolver.pid) == before


async def test_a_sandbox_in_a_new_namespace_must_be_handed_over_again(resolver: Resolver) -> None:
    udp, tcp, port = listeners()
    own = channel.namespace_cookie(udp)
    await resolver.add_sandbox(sandbox(cookie=own), udp, tcp)

    assert await resolver.sync([], [sandbox(cookie=own)]) == set()
    assert await resolver.sync([], [sandbox(cookie=own + 1)]) == {"s1"}

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_handing_over_twice_replaces(resolver: Resolver) -> None:
    first = await hand_over(resolver)
    second = await hand_over(resolver)

    assert (await ask(second, "web")).header.rcode == wire.SERVFAIL
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", first)


async def test_a_dead_process_is_replaced_and_the_daemon_told(resolver: Resolver) -> None:
    ports = []

    async def again() -> None:
        assert await resolver.sync([endpoint("web", "10.0.0.2")], [sandbox()]) == {"s1"}
        ports.append(await hand_over(resolver))

    resolver.on_lost = again
    await hand_over(resolver)
    first = resolver.pid
    os.kill(first, signal.SIGKILL)
    await resolver.put(endpoint("db", "10.0.0.3"))  # waits for the new process
    await until(lambda: bool(ports))

    assert resolver.pid != first
    assert not alive(first)
    assert await addresses(ports[0], "web") == ["10.0.0.2"]


async def test_two_daemons_start_one_process_and_the_last_one_has_it(run_dir: Path) -> None:
    first, second = Resolver(run_dir), Resolver(run_dir)
    await asyncio.gather(first.start(), second.start())
    try:
        assert first.pid == second.pid
        results = await asyncio.gather(*(one.put(endpoint("web", "10.0.0.2")) for one in (first, second)), return_exceptions=True)
        assert sorted(type(result) for result in results if result) == [Unavailable]
        assert "another daemon" in str(next(filter(None, results)))
    finally:
        await asyncio.gather(first.shutdown(), second.shutdown())


async def test_nothing_stays_without_daemon_and_sandboxes(run_dir: Path) -> None:
    resolver = Resolver(run_dir)
    await resolver.start()
    await hand_over(resolver)
    await resolver.remove_sandbox("s1")
    assert alive(resolver.pid)

    await resolver.stop()

    await until(lambda: not alive(resolver.pid))


async def test_broken_messages_do_not_end_the_names(run_dir: Path, resolver: Resolver) -> None:
    port = await hand_over(resolver)
    await resolver.put(endpoint("web", "10.0.0.2"))
    before = open_files(resolver.pid) - 1
    await resolver.stop()
    null = os.open(os.devnull, os.O_RDONLY)
    with channel.unconnected() as sock:
        sock.setblocking(True)
        sock.settimeout(DEADLINE)
        sock.connect(channel.socket_path(run_dir))

        def say(message: bytes, *descriptors: int) -> dict[str, object]:
            channel.send(sock, message, descriptors)
            answer: dict[str, object] = json.loads(sock.recv(65536))
            return answer

        assert "hello" in str(say(b'{"op": "remove", "id": "s1"}')["error"])
        assert (
            say(json.dumps({"op": "hello", "protocol": channel.PROTOCOL, "resolv_conf": "/etc/resolv.conf"}).encode())["pid"]
            == resolver.pid
        )
        for message in (b"\xff\xfe", b"{", b"[]", b"7", b"{}", b'{"op": "fly"}', b'{"op": "put"}', b'{"op": "add"}', b'{"op": "sync"}'):
            assert "error" in say(message, null)
        names = {"id": "s9", "networks": ["n1"], "cookie": 0, "servers": [], "forward": True, "extra": {}}
        assert "0 descriptors" in str(say(json.dumps({"op": "add", "sandbox": names}).encode())["error"])
        assert "error" in say(json.dumps({"op": "add", "sandbox": names}).encode(), null, null)
        bad = {"network": "n1", "endpoint": "e", "names": ["web"], "address": "10.0.0.999", "address6": "", "network_name": "demo"}
        assert "error" in say(json.dumps({"op": "put", "endpoint": bad}).encode())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.send(b"x" * (channel.MAX_MESSAGE + 1))
        assert sock.recv(100) == b""
    os.close(null)
    await until(lambda: open_files(resolver.pid) == before)

    assert await addresses(port, "web") == ["10.0.0.2"]


async def test_too_many_names_are_refused_and_do_not_hinder_others(resolver: Resolver) -> None:
    huge = EndpointNames(network="n1", endpoint="e", names=tuple(map(str, range(10000))), address="10.0.0.2", network_name="demo")

    with pytest.raises(InvalidArgument, match="too many names"):
        await resolver.put(huge)
    port = await hand_over(resolver)
    assert await resolver.sync([huge, endpoint("db", "10.0.0.3")], [sandbox()]) == set()
    assert await addresses(port, "db") == ["10.0.0.3"]

    await resolver.put(endpoint("web", "10.0.0.2"))


async def test_a_process_of_another_version_is_replaced(run_dir: Path) -> None:
    """After an upgrade: the old one is asked to end, its sandboxes are handed over to the new one."""
    said = []
    listener = channel.unconnected()
    listener.bind(channel.socket_path(run_dir))
    listener.listen()
    loop = asyncio.get_running_loop()

    async def old_process() -> None:
        sock, _ = await loop.sock_accept(listener)
        with sock, listener:
            while data := await loop.sock_recv(sock, 65536):
                said.append(json.loads(data)["op"])
                answer = {"protocol": 0, "pid": 1, "cookie": channel.namespace_cookie(sock)} if said[-1] == "hello" else {}
                await loop.sock_sendall(sock, json.dumps(answer).encode())
                if said[-1] == "quit":
                    return

    old = asyncio.create_task(old_process())
    resolver = Resolver(run_dir)
    await resolver.start()
    try:
        await old
        assert said == ["hello", "quit"]
        assert resolver.pid > 1
        assert await resolver.sync([], [sandbox()]) == {"s1"}
    finally:
        await resolver.shutdown()


async def test_a_process_that_cannot_start_is_reported(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")

    with pytest.raises(Unavailable, match=r"did not start .*resolver\.log"):
        await Resolver(run_dir).start()


async def test_a_stopped_resolver_says_so_at_once(resolver: Resolver) -> None:
    await resolver.stop()

    with pytest.raises(Unavailable):
        await resolver.put(endpoint("web", "10.0.0.2"))
