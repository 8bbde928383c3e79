"""The server: finds a request's handler, turns errors into answers, listens on the unix socket."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import re
import socket
import stat
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from netplug.api import containers, execs, extensions, images, networks, nodes, points, streams, system
from netplug.api.background import Background
from netplug.api.call import Call, failed
from netplug.api.connection import Connection
from netplug.api.eventlog import EventLog
from netplug.api.routes import Route
from netplug.api.services import Services
from netplug.errors import Conflict, NetplugError
from netplug.kernel.journal import actor

log = logging.getLogger(__name__)

SOCKET_GROUP = "netplug"
"""Whoever is in it may do all that root may, as with Docker's group."""
BACKLOG = 1024
GRACE = 10.0
LARGEST_BODY = 8 << 20

_ROOMS = (system, networks, containers, streams, execs, images, nodes, points, extensions)
_VERSION = re.compile(r"/v1\.\d+(?=/)")


class Application:
    """The API of one daemon: `await start(path)`, and `await close()` at the end."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._events = EventLog()
        self._background = Background()
        self._routes = _table()
        self._unsubscribe: tuple[Callable[[], None], ...] = (
            services.controller.events.subscribe(self._events.on_controller),
            services.containers.events.subscribe(self._events.on_container),
        )
        self._server: asyncio.Server | None = None
        self._web: web.Server | None = None
        self._path: Path | None = None
        self._inode = 0

    async def start(self, path: str | os.PathLike[str]) -> None:
        """Listen on the unix socket `path`; a socket that a dead daemon left is replaced, a living one's is not."""
        self._path = Path(path)
        listener = await _bind(self._path)
        self._inode = self._path.stat().st_ino
        self._web = web.Server(self._serve, request_factory=self._request)
        loop = asyncio.get_running_loop()
        connection = partial(Connection, self._web, loop, access_log=None, logger=_unreadable_log(), auto_decompress=False)
        self._server = await loop.create_unix_server(connection, sock=listener, backlog=BACKLOG)

    async def close(self, grace: float = GRACE) -> None:
        """Take no more requests, end the streams, let the changes under way come to their end."""
        unsubscribe, self._unsubscribe = self._unsubscribe, ()
        for end in unsubscribe:
            end()
        if self._server and self._web and self._path:
            self._server.close()
            if self._path.exists() and self._path.stat().st_ino == self._inode:
                self._path.unlink()
            self._web.pre_shutdown()
            await self._background.close(grace)
            await self._web.shutdown(timeout=1)
            await self._server.wait_closed()
            self._server = None

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """aiohttp's request, with room for a body of many labels."""
        return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=LARGEST_BODY)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._dispatch(request)
        except NetplugError as error:
            return self._failed(request, str(error), error.http_status)
        except web.HTTPRequestEntityTooLarge:
            return self._failed(request, f"the request body is larger than {LARGEST_BODY} bytes", 413)
        except (RequestPayloadError, HttpProcessingError) as error:
            return self._failed(request, f"unreadable request body: {error}", 400)
        except ConnectionError:
            if Connection.of(request).lost:
                raise asyncio.CancelledError from None  # nobody is left to be told, and the log need not tell it for an error
            raise
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            return self._failed(request, f"{type(error).__name__}: {error}", 500)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        route, parameters = self._find(request.method, request.path)
        if route is None:
            return failed("page not found", 404)
        call = Call(request, parameters, self._services, self._events, self._background)
        connection = Connection.of(request)
        actor.set(_agent(request) + connection.peer)
        if route.changes:
            return await self._background.finish(route.handler(call))
        connection.broken_off = task = asyncio.current_task()
        if route.streams and task is not None:
            self._background.watch(task)
        try:
            return await route.handler(call)
        finally:
            connection.broken_off = None

    def _find(self, method: str, path: str) -> tuple[Route | None, Mapping[str, str]]:
        version = _VERSION.match(path)
        path = path[version.end() :] if version else path
        for route in self._routes.get((method, path.split("/", 2)[1] if path.startswith("/") else ""), ()):
            found = route.pattern.fullmatch(path)
            if found:
                return route, found.groupdict()
        return None, {}

    def _failed(self, request: web.BaseRequest, message: str, status: int) -> web.StreamResponse:
        """Once an answer has begun, only the end of the connection can say that it went wrong."""
        if request.writer.output_size > 0:
            raise ConnectionResetError(message)
        if request.transport is None:
            log.warning("after its client had gone, a request failed: %s", message)
        return failed(message, status)


def application(services: Services) -> Application:
    """The API over these rooms, not listening yet."""
    return Application(services)


def _table() -> Mapping[tuple[str, str], list[Route]]:
    """Routes by method and first word of the path, each list in the order of its room."""
    table: dict[tuple[str, str], list[Route]] = defaultdict(list)
    for room in _ROOMS:
        for route in room.ROUTES:
            table[route.method, route.word].append(route)
    return dict(table)


def _agent(request: web.BaseRequest) -> str:
    """Who asks, for the journal, as it calls itself: `docker/28.2.2`."""
    return request.headers.get("User-Agent", "API").split(" ")[0][:64]


def _unreadable_log() -> logging.Logger:
    """Where aiohttp tells of requests that are no HTTP: what is wrong in one line, not where in aiohttp it was found."""
    found = log.getChild("unreadable")
    found.addFilter(_in_one_line)
    return found


def _in_one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args, record.exc_info = "%s", (" ".join(str(error).split()),), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


async def _bind(path: Path) -> socket.socket:
    """A bound socket that only root, and the group if there is one, may connect to. It does not listen yet, so nobody was let in early."""
    if path.exists():
        await _replace(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        _protect(path)
    except OSError as error:
        listener.close()
        raise NetplugError(f"cannot listen on {path}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


async def _replace(path: Path) -> None:
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise Conflict(f"cannot listen on {path}: it exists, and is no socket")
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        path.unlink(missing_ok=True)
    else:
        writer.close()
        raise Conflict(f"cannot listen on {path}: another daemon answers there")


def _protect(path: Path) -> None:
    try:
        group = grp.getgrnam(SOCKET_GROUP).gr_gid
    except KeyError:
        path.chmod(0o600)
        return
    os.chown(path, -1, group)
    path.chmod(0o660)
