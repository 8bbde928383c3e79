"""Attach, exec, logs: connections that are taken over, and answers that grow."""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp.web_protocol
import pytest
from api_fake_containers import FakeSession
from api_fakes import Api, eventually, serving

from netplug.api.call import json_line
from netplug.api.hijack import MULTIPLEXED_STREAM, RAW_STREAM


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as running:
        yield running


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def unframe(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    while data:
        stream, length = struct.unpack(">BxxxL", data[:8])
        frames.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return frames


class Raw:
    """A client that speaks HTTP by hand, as the docker command does when it takes a connection over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def post(cls, api: Api, path: str, body: bytes = b"", *, upgrade: bool = True) -> tuple[Raw, str]:
        """The connection behind the answer's head, and the head."""
        reader, writer = await asyncio.open_unix_connection(api.path)
        lines = [f"POST {path} HTTP/1.1", "Host: n", f"Content-Length: {len(body)}", "Content-Type: application/json"]
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        writer.write("\r\n".join((*lines, "", "")).encode() + body)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        return cls(reader, writer), head.decode()

    async def rest(self) -> bytes:
        data = await asyncio.wait_for(self.reader.read(), 20)
        self.writer.close()
        return data


async def run(api: Api, tty: bool = False) -> str:
    return await api.run("web", Tty=tty, OpenStdin=True)


async def test_the_private_attribute_that_the_take_over_needs() -> None:
    """aiohttp is pinned for this; a new version that has lost it must be seen here first."""
    assert "_message_tail" in aiohttp.web_protocol.RequestHandler.__slots__


async def test_attach_frames_both_outputs(api: Api) -> None:
    await run(api)
    raw, head = await Raw.post(api, "/v1.47/containers/web/attach?stream=1&stdout=1&stderr=1")
    assert head.startswith("HTTP/1.1 101 UPGRADED\r\n")
    assert f"Content-Type: {MULTIPLEXED_STREAM}\r\n" in head
    assert "Connection: Upgrade\r\nUpgrade: tcp\r\n" in head
    assert await raw.rest() == frame(1, b"out\n") + frame(2, b"err\n")


async def test_attach_to_one_output(api: Api) -> None:
    await run(api)
    raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stderr=1")
    assert await raw.rest() == frame(2, b"err\n")


async def test_a_terminal_is_not_framed(api: Api) -> None:
    await run(api, tty=True)
    raw, head = await Raw.post(api, "/containers/web/attach?stream=1&stdout=1&stderr=1")
    assert f"Content-Type: {RAW_STREAM}\r\n" in head
    assert await raw.rest() == b"out\nerr\n"


async def test_a_client_that_does_not_ask_for_the_upgrade(api: Api) -> None:
    await run(api)
    raw, head = await Raw.post(api, "/containers/web/attach?stream=1&stdout=1", upgrade=False)
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "Upgrade" not in head
    assert await raw.rest() == frame(1, b"out\n")


async def test_output_reaches_a_client_that_has_closed_its_sending_side(api: Api) -> None:
    """The docker command does that at once without -i."""
    await run(api)
    session = api.containers.session = FakeSession(ends=False)
    raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stdout=1")
    raw.writer.write_eof()
    await asyncio.sleep(0)
    for number in range(6):
        session.say((1, b"x%d" % number))
    session.say(None)
    assert unframe(await raw.rest()) == [(1, b"x%d" % number) for number in range(6)]
    assert not session.stdin_closed


async def test_input_goes_in_and_its_end_too(api: Api) -> None:
    await run(api)
    session = api.containers.session = FakeSession(ends=False)
    raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stdin=1&stdout=1")
    data = os.urandom(3 << 20)

    async def send() -> None:
        raw.writer.write(data)
        await raw.writer.drain()
        raw.writer.write_eof()

    sending = asyncio.ensure_future(send())
    echoed = b"".join(piece for _, piece in unframe(await raw.rest()))
    await sending
    assert hashlib.sha256(echoed).digest() == hashlib.sha256(data).digest()
    assert session.stdin_closed


async def test_the_end_of_input_is_not_passed_to_a_terminal(api: Api) -> None:
    """Who detaches from a terminal leaves it usable for the next."""
    await run(api, tty=True)
    session = api.containers.session = FakeSession(ends=False)
    raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stdin=1&stdout=1")
    raw.writer.write(b"ls\n")
    raw.writer.write_eof()
    assert await asyncio.wait_for(raw.reader.readexactly(3), 10) == b"ls\n"
    session.say(None)
    assert await raw.rest() == b""
    assert not session.stdin_closed


@pytest.mark.parametrize("half_closed_before", [False, True])
async def test_a_client_that_hangs_up_ends_its_session(api: Api, half_closed_before: bool) -> None:
    """Although the container says nothing: only a hang-up tells, end of file is no sign."""
    await run(api)
    session = api.containers.session = FakeSession(ends=False)
    raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stdout=1")
    if half_closed_before:
        raw.writer.write_eof()
        await asyncio.sleep(0.01)
        assert not session.closed.is_set()
    raw.writer.close()
    await asyncio.wait_for(session.closed.wait(), 10)


async def test_a_session_that_breaks_ends_the_connection(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeSession):
        async def read(self) -> tuple[int, bytes] | None:
            raise OSError("the pipe burst")

    await run(api)
    session = api.containers.session = Broken()
    raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stdout=1")
    assert await raw.rest() == b""
    await eventually(lambda: "the pipe burst" in caplog.text)
    assert session.closed.is_set()


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(api: Api) -> None:
    await run(api)
    session = api.containers.session = FakeSession(*((1, b"x" * 65536) for _ in range(64)), ends=False)
    raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stdout=1")
    raw.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.wait_for(api.application.close(grace=60), 10)
    assert session.closed.is_set()
    raw.writer.close()


async def test_a_taken_over_connection_does_not_stay_in_the_books(api: Api) -> None:
    await run(api)
    server = api.application._web
    assert server is not None
    for _ in range(3):
        api.containers.session = FakeSession((1, b"out\n"))
        raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stdout=1")
        await raw.rest()
    await eventually(lambda: not any(connection.transport is None for connection in server.connections))
    assert len(server.connections) == 1, "the test's own, which it keeps alive"


async def test_attach_with_what_was_logged_before(api: Api) -> None:
    await run(api)
    raw, _ = await Raw.post(api, "/containers/web/attach?logs=1&stream=1&stdout=1&stderr=1")
    assert unframe(await raw.rest()) == [(1, b"one\n"), (2, b"two\n"), (1, b"out\n"), (2, b"err\n")]
    raw, _ = await Raw.post(api, "/containers/web/attach?logs=1&stream=0&stdout=1&stderr=1")
    assert unframe(await raw.rest()) == [(1, b"one\n"), (2, b"two\n")]


async def test_attach_to_nothing(api: Api) -> None:
    await run(api)
    assert (await api.ask("POST", "/containers/nobody/attach?stream=1"), api.status) == ({"message": "No such container: nobody"}, 404)
    assert (await api.ask("POST", "/containers/web/attach"), api.status) == (
        {"message": "Bad parameters: you must choose at least one of logs and stream"},
        400,
    )


async def created_exec(api: Api, **more: Any) -> str:
    body = {"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Env": ["A=b"], "User": "me", **more}
    created = await api.ask("POST", "/containers/web/exec", body)
    assert api.status == 201
    return str(created["Id"])


async def test_exec(api: Api) -> None:
    container = await run(api)
    identity = await created_exec(api)
    raw, head = await Raw.post(api, f"/exec/{identity}/start", b'{"Detach":false,"Tty":false}')
    assert head.startswith("HTTP/1.1 101 UPGRADED\r\n")
    assert unframe(await raw.rest()) == [(1, b"out\n"), (2, b"err\n")]
    seen = await api.ask("GET", f"/exec/{identity}/json")
    assert (seen["ID"], seen["ContainerID"], seen["ExitCode"], seen["Running"]) == (identity, container, None, False)
    assert seen["ProcessConfig"] == {"tty": False, "entrypoint": "cat", "arguments": [], "privileged": False, "user": "me"}
    assert await api.ask("POST", f"/exec/{identity}/resize", h="24", w="80") is None
    assert (api.status, api.containers.sizes) == (200, [(identity, 24, 80)])


async def test_exec_of_a_terminal(api: Api) -> None:
    await run(api)
    identity = await created_exec(api, Tty=True)
    raw, head = await Raw.post(api, f"/exec/{identity}/start", b'{"Detach":false,"Tty":true}')
    assert f"Content-Type: {RAW_STREAM}\r\n" in head
    assert await raw.rest() == b"out\nerr\n"


async def test_exec_detached(api: Api) -> None:
    await run(api)
    identity = await created_exec(api, Detach=True)
    assert await api.ask("POST", f"/exec/{identity}/start", {"Detach": True}) is None
    assert api.status == 200


async def test_execs_that_make_no_sense(api: Api) -> None:
    await run(api)
    assert await api.ask("POST", "/containers/web/exec", {"Cmd": []}) == {"message": "No exec command specified"}
    assert await api.ask("POST", "/exec/nobody/start", {}) == {"message": "No such exec instance: nobody"}
    assert api.status == 404


async def test_resize(api: Api) -> None:
    identity = await run(api)
    await api.ask("POST", "/containers/web/resize", h="50", w="120")
    assert (api.status, api.containers.sizes) == (200, [(identity, 50, 120)])
    await api.ask("POST", "/containers/web/resize", h="50")
    assert api.status == 400


async def test_logs(api: Api) -> None:
    await run(api)
    query = "stdout=1&stderr=1&tail=5&timestamps=1&since=1700000000.5"
    async with api.http.get(f"http://n/containers/web/logs?{query}") as response:
        assert (response.status, response.content_type) == (200, MULTIPLEXED_STREAM)
        assert unframe(await response.read()) == [(1, b"one\n"), (2, b"two\n")]
    assert api.containers.log_requests == [
        {"follow": False, "stdout": True, "stderr": True, "since": 1700000000.5, "until": 0.0, "tail": 5, "timestamps": True}
    ]


async def test_many_log_lines(api: Api) -> None:
    """Several batches, in order, nothing twice."""
    await run(api)
    api.containers.lines = [(1, b"line %d\n" % number) for number in range(20_000)]
    async with api.http.get("http://n/containers/web/logs?stdout=1&tail=all") as response:
        assert unframe(await response.read()) == api.containers.lines


async def test_followed_logs_come_at_once_and_end_with_the_client(api: Api) -> None:
    await run(api)
    async with api.http.get("http://n/containers/web/logs?stdout=1&stderr=1&follow=1") as response:
        expected = frame(1, b"one\n") + frame(2, b"two\n")
        assert await asyncio.wait_for(response.content.readexactly(len(expected)), 10) == expected
    assert await api.ask("GET", "/containers/web/logs") == {"message": "Bad parameters: you must choose at least one stream"}
    assert api.status == 400


async def test_a_client_that_hangs_up_ends_what_only_says_something(api: Api) -> None:
    """Nothing is written to it, so that only its hang-up tells."""
    events = await api.http.get("http://n/events")
    assert api.application._events._listeners
    events.close()
    await eventually(lambda: not api.application._events._listeners)


async def test_a_client_that_is_just_hanging_up_is_no_error(
    api: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it waits for goes out in the very turn in which its connection ends."""

    def line(value: object) -> bytes:
        connection.transport.close()
        return json_line(value)

    monkeypatch.setattr("netplug.api.containers.json_line", line)
    await run(api)
    answer = await api.http.post("http://n/containers/web/wait?condition=next-exit")
    (connection,) = (found for found in api.application._web.connections if found._request_in_progress)
    await api.containers.kill("web")
    await eventually(lambda: connection.transport is None)
    await asyncio.sleep(0)
    answer.close()
    assert caplog.text == ""


async def test_closing_the_server_ends_every_stream(api: Api) -> None:
    await run(api)
    session = api.containers.session = FakeSession(ends=False)
    raw, _ = await Raw.post(api, "/containers/web/attach?stream=1&stdout=1")
    events = await api.http.get("http://n/events")
    await asyncio.wait_for(api.application.close(grace=5), 10)
    assert await raw.rest() == b""
    assert session.closed.is_set()
    assert not api.path.exists()
    events.close()
