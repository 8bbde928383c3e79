"""Take a connection over from HTTP: attach and exec talk raw bytes in both directions on it.

The transport's protocol is swapped, because aiohttp's own closes the connection when the client closes its sending side, and the docker
command does so at once unless it was given `-i`. Of aiohttp's privates one is used, `_message_tail`: bytes that came behind the request.

Closing the sending side and closing the connection both read as end of file. Only poll(2) tells them apart (POLLHUP), so the socket is
also in an epoll of its own that reports nothing but the hang-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import struct
from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from netplug.api.call import BASE_HEADERS, Call
from netplug.api.services import Session

log = logging.getLogger(__name__)

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
STDOUT, STDERR = 1, 2
CHUNK = 8192

_FRAME = struct.Struct(">BxxxL")


def frame(stream: int, data: bytes) -> bytes:
    """Both outputs on one connection: which one, three zero bytes, length, data."""
    return _FRAME.pack(stream, len(data)) + data


def content_type(tty: bool) -> str:
    return RAW_STREAM if tty else MULTIPLEXED_STREAM


class _Protocol(asyncio.StreamReaderProtocol):
    """The raw connection; tells aiohttp's protocol of its end, or the server would count the connection for ever."""

    def __init__(self, reader: asyncio.StreamReader, old: asyncio.Protocol) -> None:
        super().__init__(reader)
        self._old = old

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._old.connection_lost(exc)


class Hijacked(web.Response):
    """What the handler hands to aiohttp: everything has been said already."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class Connection:
    """A client's connection after HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._epoll = select.epoll()
        descriptor: socket.socket = writer.get_extra_info("socket")
        self._epoll.register(descriptor.fileno(), 0)

    def on_hangup(self, callback: Callable[[], object]) -> None:
        """Call once when the client has gone altogether; at once if it has already."""
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self._epoll.fileno())
            callback()

        loop.add_reader(self._epoll.fileno(), gone)

    def abort(self) -> None:
        """Do not wait for a client that does not read."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Everything written still goes out."""
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def take_over(call: Call, tty: bool) -> Connection:
    """Swap the protocols and answer: 101 to a client that asked for the upgrade, 200 to one that just reads on."""
    transport, old = call.http.transport, call.http.protocol
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    reader = asyncio.StreamReader()
    protocol = _Protocol(reader, old)
    early, old._message_tail = bytes(old._message_tail), b""
    old.transport = None  # aiohttp closes the transport that it knows when the handler is done
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if early:
        reader.feed_data(early)
    transport.resume_reading()
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    writer.write(_head("upgrade" in call.http.headers.get("Connection", "").lower(), tty))
    return Connection(reader, writer)


def _head(upgrade: bool, tty: bool) -> bytes:
    first = "HTTP/1.1 101 UPGRADED" if upgrade else "HTTP/1.1 200 OK"
    last = ("Connection: Upgrade", "Upgrade: tcp") if upgrade else ("Connection: close",)
    headers = (f"{name}: {value}" for name, value in BASE_HEADERS.items())
    return "\r\n".join((first, f"Content-Type: {content_type(tty)}", *headers, *last, "", "")).encode()


async def pump(connection: Connection, session: Session, *, tty: bool, stdin: bool, outputs: frozenset[int]) -> None:
    """Bytes to and fro until the session ends or the client has gone; closes both."""
    output = asyncio.ensure_future(_send(connection.writer, session, tty, outputs))
    stdin_copy = asyncio.ensure_future(_receive(connection.reader, session, tty, stdin))
    connection.on_hangup(output.cancel)
    try:
        await asyncio.wait((output,))
    except asyncio.CancelledError:
        connection.abort()
        raise
    finally:
        for task in (output, stdin_copy):
            task.cancel()
        ends = await asyncio.gather(output, stdin_copy, return_exceptions=True)
        session.close()
        await connection.close()
        for error in ends:
            if isinstance(error, Exception):
                log.error("a stream broke off: %s", error, exc_info=error)


async def _send(writer: asyncio.StreamWriter, session: Session, tty: bool, outputs: frozenset[int]) -> None:
    with contextlib.suppress(ConnectionError):
        while (item := await session.read()) is not None:
            stream, data = item
            if tty or stream in outputs:
                writer.write(data if tty else frame(stream, data))
                await writer.drain()


async def _receive(reader: asyncio.StreamReader, session: Session, tty: bool, stdin: bool) -> None:
    """A terminal's end of file is a key of its own: who detaches from it must not close it for the next."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            if stdin:
                await session.write(data)
        if stdin and not tty:
            await session.close_stdin()
