"""One client's connection: who is at its other end, and what its loss means to the request that is under way."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

_CREDENTIALS = struct.Struct("3i")


class Connection(RequestHandler):
    """aiohttp's, except that the loss of the client breaks off what says so only. A change goes on: half a connect is worse."""

    __slots__ = ("broken_off", "peer")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(server, loop=loop, **options)
        self.broken_off: asyncio.Task[Any] | None = None
        """The task of a request that ends when its client has gone."""
        self.peer = ""
        """` uid 0 pid 4242`, as the kernel knows who has connected."""

    @classmethod
    def of(cls, request: web.BaseRequest) -> Connection:
        """The one that the request came on."""
        connection = request.protocol
        assert isinstance(connection, cls)
        return connection

    @property
    def lost(self) -> bool:
        """Its client has gone, or is going."""
        return self.transport is None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            self.peer = f" uid {uid} pid {pid}"

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.broken_off is not None:
            self.broken_off.cancel()
