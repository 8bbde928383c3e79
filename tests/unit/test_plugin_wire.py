"""HTTP as the plugin's socket reads it; and who answers there before the daemon does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.engines.listener import bound
from netplug.engines.reception import Reception
from netplug.engines.server import PluginServer
from netplug.engines.wire import LARGEST_BODY, LARGEST_HEAD, Request, parsed, read
from netplug.errors import InvalidArgument
from tests.unit.doubles import MemoryStore
from tests.unit.test_controller import Lab

ACTIVATE = b"POST /Plugin.Activate HTTP/1.1\r\nHost: plugin\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n"
DISCOVER = b"POST /NetworkDriver.DiscoverNew HTTP/1.1\r\nHost: plugin\r\nContent-Length: 2\r\n\r\n{}"


def test_requests_follow_one_another():
    data = ACTIVATE + DISCOVER
    first = parsed(data)
    assert first == Request("POST", "Plugin.Activate", b"", len(ACTIVATE), True)
    assert parsed(data[first.size :]) == Request("POST", "NetworkDriver.DiscoverNew", b"{}", len(DISCOVER), True)


@pytest.mark.parametrize("host", [b"", b" plugin"])
def test_a_request_as_dockerd_writes_it(host: bytes):
    """Is read in a shorter way, and no other than by the long one."""
    lines = (b"POST /IpamDriver.RequestAddress HTTP/1.1", b"Host:%s" % (host or b" "), b"User-Agent: Go-http-client/1.1")
    more = (b"Content-Length: 2", b"Accept: application/vnd.docker.plugins.v1.2+json", b"Accept-Encoding: gzip")
    whole = b"\r\n".join((*lines, *more, b"", b"{}"))
    assert parsed(whole + b"POST") == read(whole + b"POST") == Request("POST", "IpamDriver.RequestAddress", b"{}", len(whole), True)
    for end in range(len(whole)):
        assert parsed(whole[:end]) is read(whole[:end]) is None
    with pytest.raises(InvalidArgument, match="larger"):
        parsed(whole.replace(b"Length: 2", b"Length: %d" % (LARGEST_BODY + 1)))


@pytest.mark.parametrize(
    ("head", "body", "expected", "lasts"),
    [
        (b"POST /a HTTP/1.0\r\n\r\n", b"", b"", False),
        (b"POST /a HTTP/1.1\r\nHost: p\r\nCONNECTION: Close\r\n\r\n", b"", b"", False),
        (b"POST /a HTTP/1.1\r\nHost: p\r\ncontent-length:  3 \r\n\r\n", b"abc", b"abc", True),
        (CHUNKED, b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n", b"abcd", True),
        (CHUNKED, b"A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", b"0123456789", True),
    ],
)
def test_bodies(head: bytes, body: bytes, expected: bytes, lasts: bool):
    whole = head + body
    assert parsed(whole + b"POST") == Request("POST", "a", expected, len(whole), lasts)
    for end in range(len(whole)):
        assert parsed(whole[:end]) is None, whole[:end]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 TLS\r\n\r\n",
        b"POST /a HTTP/2\r\n\r\n",
        b"POST a HTTP/1.1\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: p\r\nno header\r\n\r\n",
        b"POST /a HTTP/1.1\r\n folded: x\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: p\r\nContent-Length: -1\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: p\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"POST /a HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /a HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n" % (LARGEST_BODY + 1),
        b"POST /a HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (LARGEST_BODY + 1) + b"x" * (LARGEST_BODY + 1),
        CHUNKED + b"1\r\nx\r\n" * (LARGEST_BODY // 5),
        b"x" * (LARGEST_HEAD + 1),
    ],
)
def test_what_is_no_request(data: bytes):
    with pytest.raises(InvalidArgument) as raised:
        parsed(data)
    assert len(str(raised.value)) < 200


@given(st.binary(max_size=200))
def test_anything_at_all(data: bytes):
    """Is a request, the beginning of one, or refused."""
    for text in (data, b"POST /a HTTP/1.1\r\nHost: p\r\n" + data, CHUNKED + data):
        try:
            found = parsed(text)
        except InvalidArgument:
            continue
        assert found is None or found.size <= len(text)


def ask(path: Path, request: bytes) -> tuple[socket.socket, Any]:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    client.sendall(request)
    return client, client.recv(4096) if request == ACTIVATE else None


def test_greetings_are_answered_before_there_is_a_daemon(tmp_path: Path):
    """The rest waits for it; connections are the daemon's then."""
    path = tmp_path / "netplug.sock"
    reception = Reception(bound(path))
    greeted, answer = ask(path, ACTIVATE)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["Implements"] == ["NetworkDriver", "IpamDriver"]
    waiting, _ = ask(path, DISCOVER)
    half, _ = ask(path, ACTIVATE[:-10])

    async def daemon() -> list[bytes]:
        lab, server = Lab(tmp_path), PluginServer(reception)
        await server.listen(str(path))
        await server.serve(lab.controller, MemoryStore())
        greeted.sendall(DISCOVER)
        half.sendall(ACTIVATE[-10:])
        answers = [await asyncio.to_thread(one.recv, 4096) for one in (greeted, waiting, half)]
        await server.close()
        lab.journal.close()
        return answers

    answers = asyncio.run(daemon())
    for client in (greeted, waiting, half):
        client.close()
    assert [answer.split(b" ")[1] for answer in answers] == [b"200"] * 3
    assert answers[0].endswith(b"{}")
    assert not path.exists()


def test_a_reception_that_nobody_takes_over_leaves_nothing(tmp_path: Path):
    reception = Reception(bound(tmp_path / "netplug.sock"))
    client, _ = ask(tmp_path / "netplug.sock", DISCOVER)
    reception.close()
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert list(tmp_path.iterdir()) == []


def test_the_name_ends_with_the_process(tmp_path: Path):
    """Also where it is killed; whoever comes after it has the name for itself."""
    path = tmp_path / "netplug.sock"
    program = "import pathlib, sys, time; from netplug.engines.listener import bound; door = bound(pathlib.Path(sys.argv[1]))"
    program += "; print(1, flush=True); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ask(path, DISCOVER)[0].close()
        assert path.stat().st_mode & 0o777 == 0o600
        process.kill()
        process.wait()
    assert not path.exists()
    assert path.is_symlink()
    door = bound(path)
    ask(path, DISCOVER)[0].close()
    door.close()
    assert list(tmp_path.iterdir()) == []


async def test_the_service_managers_socket_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "held.sock"
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
        held.listen()
        descriptor = os.dup(held.fileno())
        monkeypatch.setattr("netplug.engines.listener._FIRST", descriptor)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDNAMES", "docker-plugin")
        server = PluginServer()
        await server.listen("/nowhere")
        await server.close()
        assert path.exists()
        ask(path, DISCOVER)[0].close()
