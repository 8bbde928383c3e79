"""The plugin's socket: root's alone. Every call is a POST of JSON to `/Interface.Method`; an error is answered as `{"Err": sentence}`.

The engine sends no Content-Type, asks again when it gets no answer, and holds its own start up while a plugin is silent: the socket
listens before anything else is ready, what is always the same is answered at once, and other calls wait (`ready`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from typing import Any

import msgspec

from netplug.controller import Controller
from netplug.engines import wire
from netplug.engines.connection import Connection
from netplug.engines.engine_api import EngineApi
from netplug.engines.greeting import ACTIVATE, GREETINGS
from netplug.engines.ipam_driver import IpamDriver
from netplug.engines.learner import Learner
from netplug.engines.listener import BACKLOG, Door, is_root, opened
from netplug.engines.network_driver import NetworkDriver
from netplug.engines.reception import Reception
from netplug.engines.routes import Fields, Outcome, Table
from netplug.engines.shapes import read
from netplug.engines.ties import Ties
from netplug.errors import InvalidArgument, NetplugError
from netplug.kernel.journal import actor
from netplug.shelter import Shelter
from netplug.store import Store

log = logging.getLogger(__name__)


class _NoMethod(NetplugError):
    """404 tells the engine that the plugin does without it."""

    http_status = 404


class PluginServer:
    """`await listen(path)` first of all, `await serve(…)` when the controller is ready, `await close()` at the end."""

    def __init__(self, reception: Reception | None = None) -> None:
        """`reception`: has opened the door already."""
        self._reception = reception
        self._table: Table = {}
        self._ready = asyncio.Event()
        self._calls = Shelter()
        self._door: Door | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._driver: NetworkDriver | None = None
        self._learner: Learner | None = None

    async def listen(self, path: str) -> None:
        loop, early = asyncio.get_running_loop(), list[socket.socket]()
        if self._reception is not None:
            self._door, early = self._reception.take_over()
        else:
            self._door = opened(path)
        # A Unix server of asyncio's would remove the socket's name when it is closed (since Python 3.13), also the service manager's.
        self._server = await loop.create_server(self._connection, sock=self._door.listener, backlog=BACKLOG)
        for waiting in early:
            await loop.connect_accepted_socket(self._connection, waiting)

    async def serve(self, controller: Controller, store: Store, engine: EngineApi | None = None) -> None:
        """`engine`: where names are learned."""
        ties = Ties(store)
        await ties.load()
        driver = self._driver = NetworkDriver(controller, ties)
        self._table = {**driver.table(), **IpamDriver(controller).table()}
        self._ready.set()
        if engine is not None:
            self._learner = Learner(controller, ties, driver, engine)
            self._learner.start()

    async def close(self) -> None:
        """An engine that starts meanwhile finds no socket of ours; one of the service manager's stays."""
        if self._server is None or self._door is None:
            return
        self._server.close()
        self._door.close()
        if self._learner is not None:
            await self._learner.stop()
        await self._calls.settle(10)
        for connection in tuple(self._connections):
            connection.close()
        await self._server.wait_closed()
        self._server = None

    def _connection(self) -> Connection:
        return Connection(self._answer, self._calls, self._connections)

    def _answer(self, request: wire.Request, caller: socket.socket) -> bytes | Coroutine[Any, Any, bytes]:
        """The response."""
        try:
            if not is_root(caller):
                return wire.failed("the plugin's socket is root's alone", 403, lasts=request.lasts)
            outcome = self._called(request)
        except Exception as error:
            return _refused(request, error)
        return _answer(request, outcome) if isinstance(outcome, dict) else _awaited(request, outcome)

    def _called(self, request: wire.Request) -> Outcome:
        if request.verb != "POST":
            raise InvalidArgument(f"{request.verb} {request.method!r:.80}: a POST is needed")
        if request.method == ACTIVATE and self._driver is not None:
            self._driver.begin()
        if request.method in GREETINGS:
            return GREETINGS[request.method]
        return self._handled(request) if self._ready.is_set() else self._once_ready(request)

    async def _once_ready(self, request: wire.Request) -> Fields:
        await self._ready.wait()
        outcome = self._handled(request)
        return outcome if isinstance(outcome, dict) else await outcome

    def _handled(self, request: wire.Request) -> Outcome:
        if request.method not in self._table:
            raise _NoMethod(f"no method {request.method!r:.80}")
        shape, handler = self._table[request.method]
        actor.set("docker")
        log.debug("%s %s", request.method, request.body)
        return handler(read(request.body, shape))


def _answer(request: wire.Request, fields: Fields) -> bytes:
    return wire.answer(msgspec.json.encode(fields), lasts=request.lasts)


async def _awaited(request: wire.Request, outcome: Coroutine[Any, Any, Fields]) -> bytes:
    try:
        return _answer(request, await outcome)
    except Exception as error:
        return _refused(request, error)


def _refused(request: wire.Request, error: Exception) -> bytes:
    if isinstance(error, NetplugError):
        log.info("%s: %s", request.method, error)
        return wire.failed(str(error), _status(error), lasts=request.lasts)
    log.error("%s", request.method, exc_info=error)
    return wire.failed(f"{type(error).__name__}: {error}", 500, lasts=request.lasts)


def _status(error: NetplugError) -> int:
    """Never 404 for something else."""
    if isinstance(error, _NoMethod):
        return 404
    return 400 if isinstance(error, InvalidArgument) else 500
