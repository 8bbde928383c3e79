"""One connection to the plugin's socket: requests are answered one after the other, each to its end whatever becomes of the caller."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

from netplug.engines.wire import LARGEST_BODY, LARGEST_HEAD, Request, failed, parsed
from netplug.errors import InvalidArgument
from netplug.shelter import Shelter

Answering = Callable[[Request, socket.socket], bytes | Coroutine[Any, Any, bytes]]
"""Of a request and the socket that it came by, the response; raises nothing."""
_LINGER = 2.0
"""Seconds that a caller has to hang up once it has been told that this is the end."""
_MOST = LARGEST_BODY + LARGEST_HEAD
"""Bytes that wait, while a request is being answered, before no more are read."""


class Connection(asyncio.Protocol):
    """Handlers that have to wait run as tasks of `calls`, so that no further ones are made for them."""

    def __init__(self, answering: Answering, calls: Shelter, open_ones: set[Connection]) -> None:
        self._answering, self._calls, self._open = answering, calls, open_ones
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None
        self._busy = self._deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._data += data
        if not self._busy:
            self._next()
        elif len(self._data) > _MOST and self._transport is not None:
            self._transport.pause_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _next(self) -> None:
        while self._transport is not None and not self._deaf:
            try:
                request = parsed(self._data) if self._data else None
            except InvalidArgument as error:
                self._transport.write(failed(str(error), 400, lasts=False))
                self._end()
                return
            if request is None:
                self._transport.resume_reading()
                return
            del self._data[: request.size]
            answer = self._answering(request, self._transport.get_extra_info("socket"))
            if not isinstance(answer, bytes):
                self._busy = True
                self._calls.start(self._answered(request, answer))
                return
            self._write(answer, request)

    async def _answered(self, request: Request, answer: Coroutine[Any, Any, bytes]) -> None:
        found = await answer
        self._busy = False
        if self._transport is not None:
            self._write(found, request)
            self._next()

    def _write(self, answer: bytes, request: Request) -> None:
        assert self._transport is not None
        self._transport.write(answer)
        if not request.lasts:
            self._end()

    def _end(self) -> None:
        """A caller that is still sending would see a connection that breaks, and not the answer."""
        assert self._transport is not None
        self._deaf = True
        self._data.clear()
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER, self.close)
