"""Finding plugins by their files, and asking one that may answer anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netplug.errors import InvalidArgument, Unavailable
from netplug.plugins import places
from netplug.plugins.calls import Plugin, PluginRefused, Unsupported
from netplug.plugins.places import Place, Tls


class Anything(msgspec.Struct):
    Value: int = 0


class Server:
    """Answers as it is told to, on a unix socket or on TCP; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: dict[str, bytes] = {}
        self.implements = ["NetworkDriver"]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = first.split()[1]
            self.asked.append((path, headers, body))
            manifest = json.dumps({"Implements": self.implements}).encode()
            answer = self.answers.get(path, answered(manifest if path.endswith("/Plugin.Activate") else b'{"Value": 7}'))
            if answer == b"HANG":
                await reader.read()  # until whoever asked has gone
                answer = b""
            writer.write(answer)
            await writer.drain()
        writer.close()


def answered(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    first, second = tmp_path / "run", tmp_path / "etc"
    first.mkdir()
    second.mkdir()
    monkeypatch.setenv("NETPLUG_PLUGIN_PATH", f"{first}:{second}")
    return tmp_path


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
    served = Server()
    listening = await asyncio.start_unix_server(served.serve, folder / "run/plug.sock")
    yield served
    listening.close()


async def call(body: dict[str, Any] | None = None) -> Anything:
    return await Plugin("plug", "NetworkDriver").call("Join", body or {"NetworkID": "n"}, Anything)


def listening(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def test_names_are_those_of_files(folder: Path):
    listening(folder / "run/weave.sock")
    listening(folder / "run/inner/inner.sock")
    listening(folder / "run/inner/other.sock")
    (folder / "run/flat.sock").write_text("no socket")
    (folder / "etc/far.spec").write_text("tcp://192.0.2.1:8080")
    (folder / "etc/notes.txt").write_text("")
    assert places.names() == ["far", "inner", "weave"]
    assert places.find("inner").socket == str(folder / "run/inner/inner.sock")


def test_a_socket_goes_before_what_a_file_says(folder: Path):
    (folder / "etc/weave.spec").write_text("tcp://192.0.2.1:8080")
    assert places.find("weave").url == "http://192.0.2.1:8080"
    listening(folder / "run/weave.sock")
    assert places.find("weave").socket == str(folder / "run/weave.sock")


@pytest.mark.parametrize("name", ["pigeon", "../etc/far", "", "."])
def test_what_is_not_there(folder: Path, name: str):
    (folder / "etc/far.spec").write_text("tcp://192.0.2.1:8080")
    with pytest.raises(Unavailable, match=r'plugin "[./a-z]*" is not there: no .*\.sock, \.spec or \.json in /'):
        places.find(name)


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("p.spec", " unix:///run/other.sock\n", Place(socket="/run/other.sock")),
        ("p.spec", "tcp://[2001:db8::1]:80", Place(url="http://[2001:db8::1]:80")),
        ("p.spec", "https://example.com/docker/", Place(url="https://example.com/docker")),
        ("p.json", '{"Name": "p", "Addr": "tcp://h:1", "TLSConfig": {"CAFile": "/ca"}}', Place(url="https://h:1", tls=Tls(ca_file="/ca"))),
        ("p.json", '{"Addr": "unix:///run/other.sock", "TLSConfig": null}', Place(socket="/run/other.sock")),
    ],
)
def test_files_that_name_a_place(folder: Path, file: str, text: str, place: Place):
    (folder / "etc" / file).write_text(text)
    found = places.find("p")
    assert found.token
    assert msgspec.structs.replace(found, token="") == place


@pytest.mark.parametrize(
    ("file", "text"),
    [("p.spec", "somewhere"), ("p.spec", "tcp://h:port"), ("p.spec", "npipe://x"), ("p.json", "{"), ("p.json", '{"Addr": 1}')],
)
def test_files_that_cannot_be_used(folder: Path, file: str, text: str):
    (folder / "etc" / file).write_text(text)
    with pytest.raises(InvalidArgument, match=rf"plugin file {folder}/etc/{file} cannot be used: "):
        places.find("p")


async def test_it_is_greeted_once_and_asked_as_docker_asks(server: Server, folder: Path):
    plugin = Plugin("plug", "NetworkDriver")
    for _ in range(2):
        assert (await plugin.call("Join", {"NetworkID": "n"}, Anything)).Value == 7
    assert [path for path, _, _ in server.asked] == ["/Plugin.Activate", "/NetworkDriver.Join", "/NetworkDriver.Join"]
    _, headers, body = server.asked[1]
    assert json.loads(body) == {"NetworkID": "n"}
    assert headers["accept"] == "application/vnd.docker.plugins.v1.2+json"
    assert "content-type" not in headers
    (folder / "run/plug.sock").unlink()
    again = await asyncio.start_unix_server(server.serve, folder / "run/plug.sock")
    await plugin.call("Join", {}, Anything)
    assert [path for path, _, _ in server.asked][3:] == ["/Plugin.Activate", "/NetworkDriver.Join"]
    again.close()


async def test_one_behind_a_url(folder: Path):
    served = Server()
    listening = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    (folder / "etc/plug.spec").write_text(f"http://127.0.0.1:{port}/docker")
    assert (await call()).Value == 7
    assert [path for path, _, _ in served.asked] == ["/docker/Plugin.Activate", "/docker/NetworkDriver.Join"]
    listening.close()


async def test_one_that_is_something_else(server: Server):
    server.implements = ["VolumeDriver"]
    with pytest.raises(PluginRefused, match='plugin "plug" is no NetworkDriver: it implements VolumeDriver'):
        await call()


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (answered(b'{"Err": "no\\n\\u0000 way"}'), PluginRefused, 'plugin "plug" refused NetworkDriver.Join: no way'),
        (answered(b'{"Err": "broken"}', "500 Oh"), PluginRefused, 'plugin "plug" refused NetworkDriver.Join: broken'),
        (answered(b"plain words", "400 Bad"), PluginRefused, 'plugin "plug" refused NetworkDriver.Join: plain words'),
        (answered(b"", "500 Oh"), PluginRefused, 'plugin "plug" refused NetworkDriver.Join: HTTP status 500'),
        (answered(b"404 page not found", "404 Not Found"), Unsupported, 'plugin "plug" does not know NetworkDriver.Join'),
        (answered(b"[]"), Unavailable, 'plugin "plug" answered NetworkDriver.Join with something else than it should: '),
        (answered(b'{"Value": "x"}'), Unavailable, 'plugin "plug" answered NetworkDriver.Join with something else than it should: '),
        (answered(b"\xff" * 9), Unavailable, 'plugin "plug" answered NetworkDriver.Join with something else than it should: '),
        (answered(b" " * (1 << 21)), Unavailable, 'plugin "plug" answered NetworkDriver.Join with more than 1048576 bytes'),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
            PluginRefused,
            "refused NetworkDriver.Join: HTTP",
        ),
        (b"\x00\x01 no HTTP\r\n\r\n", Unavailable, 'plugin "plug" does not answer NetworkDriver.Join: '),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", Unavailable, 'plugin "plug" does not answer NetworkDriver.Join: '),
        (b"", Unavailable, 'plugin "plug" does not answer NetworkDriver.Join: '),
        (b"HANG", Unavailable, 'plugin "plug" did not answer NetworkDriver.Join within 2 s'),
    ],
)
async def test_answers_that_are_none(server: Server, monkeypatch: pytest.MonkeyPatch, answer: bytes, kind: type[Exception], text: str):
    monkeypatch.setenv("NETPLUG_PLUGIN_TIMEOUT", "2")
    server.answers["/NetworkDriver.Join"] = answer
    with pytest.raises(kind) as raised:
        await call()
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_success_without_a_word(server: Server):
    server.answers["/NetworkDriver.Join"] = answered(b"")
    assert (await call()).Value == 0


async def test_a_socket_that_nobody_listens_on(folder: Path):
    listening(folder / "run/plug.sock")
    with pytest.raises(Unavailable, match=r'plugin "plug" does not answer Plugin\.Activate: '):
        await call()
