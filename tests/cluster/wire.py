"""What stands between a store and etcd in tests: a connection that breaks at the worst moment, and a stranger on etcd's port."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator


class Wire:
    """Forwards connections to a member, and can be told to swallow what comes from one side, which ends all connections.

    New connections are forwarded again, so that who comes back is served.
    """

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._swallow = ""
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def address(self) -> str:
        return "{}:{}".format(*self._server.sockets[0].getsockname())

    def lose_next_question(self) -> None:
        self._swallow = "question"

    def lose_next_answer(self) -> None:
        self._swallow = "answer"

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for writer in self._connections.values():
            await _closed(writer)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[asyncio.ensure_future(self._serve(reader, writer))] = writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = asyncio.ensure_future(asyncio.open_connection(self._host, self._port))
        try:
            far_reader, far_writer = await asyncio.shield(opening)
        except asyncio.CancelledError:  # half a connection cannot be closed
            await _closed((await opening)[1])
            raise
        ways = [
            asyncio.ensure_future(self._pump("question", reader, far_writer)),
            asyncio.ensure_future(self._pump("answer", far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, far_writer):  # before anything is waited for: the end of the test may come in between
                end.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A frame of HTTP/2's own housekeeping (no more than 17 + 13 bytes) is not what we wait for."""
        while data := await reader.read(1 << 16):
            if self._swallow == name and len(data) > 40:
                self._swallow = ""
                return
            writer.write(data)
            await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def babbler() -> AsyncIterator[str]:
    """The address of somebody who answers whatever comes with random bytes."""
    writers: list[asyncio.StreamWriter] = []

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
            writer.write(os.urandom(4096))
            await writer.drain()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        for writer in writers:
            await _closed(writer)
