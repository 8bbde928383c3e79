"""A container's streams: attach, logs, and the size of its terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from netplug.api.call import Call, done, open_stream
from netplug.api.hijack import STDERR, STDOUT, Hijacked, content_type, frame, pump, take_over
from netplug.api.routes import get, post
from netplug.api.services import Session
from netplug.errors import InvalidArgument
from netplug.runtime.model import Container

BATCH = 64 << 10


async def attach(call: Call) -> web.StreamResponse:
    """`logs` replays what was, `stream` goes on from now."""
    container = call.services.containers.get(call.name)
    replay, live = call.flag("logs"), call.flag("stream")
    if not (replay or live):
        raise InvalidArgument("Bad parameters: you must choose at least one of logs and stream")
    session = await call.services.containers.attach(container.id) if live else None
    try:
        connection = take_over(call, container.config.tty)
    except BaseException:
        if session:
            session.close()
        raise
    history = _history(call, container) if replay else None
    joined = _Joined(history, session)
    call.background.stream(pump(connection, joined, tty=container.config.tty, stdin=live and call.flag("stdin"), outputs=_outputs(call)))
    return Hijacked()


async def logs(call: Call) -> web.StreamResponse:
    container = call.services.containers.get(call.name)
    outputs = _outputs(call)
    if not outputs:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    records = call.services.containers.logs(
        container.id,
        follow=call.flag("follow"),
        stdout=STDOUT in outputs,
        stderr=STDERR in outputs,
        since=call.moment("since"),
        until=call.moment("until"),
        tail=_tail(call),
        timestamps=call.flag("timestamps"),
    )
    response = await open_stream(call, content_type(container.config.tty))
    await _copy(records, response.write, container.config.tty)
    return response


async def resize(call: Call) -> web.Response:
    height, width = dimensions(call)
    await call.services.containers.resize(call.services.containers.get(call.name).id, height, width)
    return done({}, 200)


def dimensions(call: Call) -> tuple[int, int]:
    """Rows and columns."""
    height, width = call.number("h"), call.number("w")
    if height is None or width is None or not (0 <= height <= 65535 and 0 <= width <= 65535):
        raise InvalidArgument("invalid size of a terminal: give h and w, rows and columns")
    return height, width


class _Joined:
    """A session that begins with what was logged before; without a living part it ends there."""

    def __init__(self, history: AsyncIterator[tuple[int, bytes]] | None, live: Session | None) -> None:
        self._history, self._live = history, live

    async def read(self) -> tuple[int, bytes] | None:
        if self._history is not None:
            async for item in self._history:
                return item
            self._history = None
        return await self._live.read() if self._live else None

    async def write(self, data: bytes) -> None:
        if self._live:
            await self._live.write(data)

    async def close_stdin(self) -> None:
        if self._live:
            await self._live.close_stdin()

    def close(self) -> None:
        if self._live:
            self._live.close()


def _history(call: Call, container: Container) -> AsyncIterator[tuple[int, bytes]]:
    return call.services.containers.logs(container.id, follow=False)


async def _copy(records: AsyncIterator[tuple[int, bytes]], write: Callable[[bytes], Awaitable[None]], tty: bool) -> None:
    """Lines are gathered while they come without a pause: one write per line took 8 s for 23 MB, this takes a twentieth."""
    pending, some = bytearray(), asyncio.Event()

    async def flush() -> None:
        while True:
            await some.wait()
            some.clear()
            await send()

    async def send() -> None:
        async with turn:
            data = bytes(pending)
            pending.clear()
            if data:
                await write(data)

    turn = asyncio.Lock()
    flusher = asyncio.ensure_future(flush())
    try:
        async for stream, data in records:
            pending += data if tty else frame(stream, data)
            some.set()
            if len(pending) >= BATCH:
                await send()
        await send()
    finally:
        flusher.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await flusher


def _outputs(call: Call) -> frozenset[int]:
    return frozenset(stream for stream, name in ((STDOUT, "stdout"), (STDERR, "stderr")) if call.flag(name))


def _tail(call: Call) -> int | None:
    """None: everything. Docker reads what is no number as `all`."""
    text = call.query.get("tail", "all")
    return int(text) if text.isdecimal() else None


ROUTES = [
    get("/containers/{name}/logs", logs, streams=True),
    post("/containers/{name}/attach", attach),
    post("/containers/{name}/resize", resize),
]
