"""The Docker Engine's own API, as far as names are learned from it (Docker Engine API v1.41; older ones have the same fields)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from netplug.errors import InvalidArgument, NotFound, Unavailable

ANSWER_SECONDS = 30.0
"""An engine that is busy with a container answers about it when it has done."""


class EngineApi:
    """One engine, behind a unix socket."""

    def __init__(self, host: str) -> None:
        if not host.startswith("unix:///"):
            raise InvalidArgument(f"invalid --docker-host {host}: unix:///PATH is needed")
        self.path = host.removeprefix("unix://")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, *path: str) -> Any:
        """The decoded answer. NotFound, or Unavailable where the engine is away."""
        try:
            url = "http://engine/" + "/".join(quote(part, safe="?=&") for part in path)
            async with self._client().get(url, timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as answer:
                body = await answer.read()
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the Docker Engine at {self.path} does not answer: {error}") from error
        if answer.status == 404:
            raise NotFound(f"the Docker Engine knows no {'/'.join(path)}")
        if answer.status != 200:
            raise Unavailable(f"the Docker Engine at {self.path} answered {answer.status} to {'/'.join(path)}")
        return _decoded(body)

    @asynccontextmanager
    async def events(self, *actions: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What happens from now on, of these actions: the stream is open when the block begins. Unavailable when it ends."""
        wanted = {"filters": msgspec.json.encode({"event": actions}).decode()}
        try:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
            async with self._client().get("http://engine/events", params=wanted, timeout=timeout) as answer:
                if answer.status != 200:
                    raise Unavailable(f"the Docker Engine at {self.path} tells no events: {answer.status}")
                yield _lines(answer.content)
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unavailable(f"the Docker Engine at {self.path} has gone: {error}") from error

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=self.path))
        return self._session


async def _lines(content: asyncio.StreamReader | aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    while line := await content.readline():
        event = _decoded(line)
        if isinstance(event, dict):
            yield event


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"the Docker Engine said what is no JSON: {error}") from None
