"""The plugin's socket: root's alone. Every call is a POST of JSON to `/Interface.Method`; an error is answered as `{"Err": sentence}`.

The engine sends no Content-Type, asks again when it gets no answer, and holds its own start up while a plugin is silent: the socket
listens before anything else is ready, and calls wait for that (`ready`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from netplug.controller import Controller
from netplug.engines.engine_api import EngineApi
from netplug.engines.ipam_driver import IpamDriver
from netplug.engines.learner import Learner
from netplug.engines.listener import bound, inherited
from netplug.engines.network_driver import NetworkDriver
from netplug.engines.routes import Table
from netplug.engines.shapes import read
from netplug.engines.ties import Ties
from netplug.errors import InvalidArgument, NetplugError
from netplug.kernel.journal import actor
from netplug.plugins.calls import INSTANCE
from netplug.shelter import Shelter
from netplug.store import Store

log = logging.getLogger(__name__)

LARGEST_BODY = 1 << 20
_CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
_CREDENTIALS = struct.Struct("3i")
_BACKLOG = 128


class _NoMethod(NetplugError):
    """404 tells the engine that the plugin does without it."""

    http_status = 404


class PluginServer:
    """`await listen(path)` first of all, `await serve(…)` when the controller is ready, `await close()` at the end."""

    def __init__(self) -> None:
        self._table: Table = {}
        self._ready = asyncio.Event()
        self._calls = Shelter()
        self._server: asyncio.Server | None = None
        self._web: web.Server | None = None
        self._learner: Learner | None = None
        self._path = Path()
        self._inode = 0

    async def listen(self, path: str) -> None:
        listener = inherited()
        if listener is None:
            self._path = Path(path)
            listener = bound(self._path)
            self._inode = self._path.stat().st_ino
        self._web = web.Server(self._answer, access_log=None, auto_decompress=False)
        self._server = await asyncio.get_running_loop().create_unix_server(self._web, sock=listener, backlog=_BACKLOG)

    async def serve(self, controller: Controller, store: Store, engine: EngineApi | None = None) -> None:
        """`engine`: where names are learned."""
        ties = Ties(store)
        await ties.load()
        driver = NetworkDriver(controller, ties)
        self._table = {**driver.table(), **IpamDriver(controller).table()}
        self._ready.set()
        if engine is not None:
            self._learner = Learner(controller, ties, driver, engine)
            self._learner.start()

    async def close(self) -> None:
        """An engine that starts meanwhile finds no socket of ours; one of the service manager's stays."""
        if self._server is None or self._web is None:
            return
        self._server.close()
        with suppress(FileNotFoundError):
            if self._inode and self._path.stat().st_ino == self._inode:
                self._path.unlink()
        if self._learner is not None:
            await self._learner.stop()
        await self._calls.settle(10)
        await self._web.shutdown(timeout=1)
        await self._server.wait_closed()
        self._server = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if not _is_root(request):
                return _failed("the plugin's socket is root's alone", 403)
            return _told(await self._called(request.path.removeprefix("/"), await _body(request)))
        except NetplugError as error:
            log.info("%s: %s", request.path, error)
            return _failed(str(error), _status(error))
        except (RequestPayloadError, HttpProcessingError) as error:
            return _failed(f"the request's body cannot be read: {error}", 400)
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("%s", request.path)
            return _failed(f"{type(error).__name__}: {error}", 500)

    async def _called(self, method: str, body: bytes) -> dict[str, Any]:
        if method == "Plugin.Activate":
            return {"Implements": ["NetworkDriver", "IpamDriver"], "Instance": INSTANCE}
        await self._ready.wait()
        if method not in self._table:
            raise _NoMethod(f"no method {method!r:.80}")
        shape, handler = self._table[method]
        actor.set("docker")
        log.debug("%s %s", method, body)
        return await self._calls.finish(handler(read(body, shape)))


async def _body(request: web.BaseRequest) -> bytes:
    if request.method != "POST":
        raise InvalidArgument(f"{request.method} {request.path}: a POST is needed")
    data = await request.content.read(LARGEST_BODY + 1)
    while len(data) <= LARGEST_BODY and (more := await request.content.read(LARGEST_BODY)):
        data += more
    if len(data) > LARGEST_BODY:
        raise InvalidArgument(f"the request's body is larger than {LARGEST_BODY} bytes")
    return data


def _is_root(request: web.BaseRequest) -> bool:
    peer: socket.socket | None = request.get_extra_info("socket")
    if peer is None:
        return False
    _, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(uid == 0)


def _status(error: NetplugError) -> int:
    """Never 404 for something else."""
    if isinstance(error, _NoMethod):
        return 404
    return 400 if isinstance(error, InvalidArgument) else 500


def _told(answer: dict[str, Any]) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type=_CONTENT_TYPE)


def _failed(sentence: str, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode({"Err": sentence}), status=status, content_type=_CONTENT_TYPE)
