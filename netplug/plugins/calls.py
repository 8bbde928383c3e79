"""Calls of plugins: POST with JSON both ways, each on a connection of its own, each within a time limit.

A plugin may be restarted between two calls, hang, die, or answer anything at all: what comes of it is one of two errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from typing import Any, TypeVar

import aiohttp
import msgspec

from netplug.errors import InvalidArgument, NetplugError, Unavailable
from netplug.plugins import INSTANCE, places
from netplug.plugins.places import Place, Tls

TIMEOUT = "NETPLUG_PLUGIN_TIMEOUT"
"""Environment variable: seconds that a plugin has for an answer."""
SECONDS = 20.0
MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"
_LARGEST = 1 << 20
_LONGEST = 300
"""Characters of a plugin's words that are shown."""

T = TypeVar("T")


class PluginRefused(NetplugError):
    """The plugin has answered, and said no."""


class Unsupported(PluginRefused):
    """The plugin does not know the method (404), as older ones need not."""


class _Answer(msgspec.Struct):
    Err: str | None = None


class _Manifest(msgspec.Struct):
    Implements: list[str] | None = None
    Instance: str = ""
    """netplug's own word: which process it is."""


class Plugin:
    """One plugin, whether it is there or not, in one of its roles (`NetworkDriver`)."""

    def __init__(self, name: str, role: str) -> None:
        self.name, self.role = name, role
        self._activated = ""
        """The place that has been greeted."""
        self._netplug = False

    async def call(self, method: str, body: dict[str, Any], answer: type[T]) -> T:
        """`body` to `<role>.<method>`; the plugin is greeted before its first call, and whenever it may be another one.

        Unavailable: nobody has answered in time, or nothing that makes sense. PluginRefused: it said no.
        """
        place = places.find(self.name)
        if place.token != self._activated:
            await self._activate(place)
        return await self._ask(place, f"{self.role}.{method}", body, answer)

    async def is_netplug(self) -> bool:
        """Whether it is another netplug daemon, which understands more than the protocol says. Raises as `call` does."""
        place = places.find(self.name)
        if place.token != self._activated:
            await self._activate(place)
        return self._netplug

    async def _activate(self, place: Place) -> None:
        manifest = await self._ask(place, "Plugin.Activate", None, _Manifest)
        if manifest.Instance == INSTANCE:
            raise InvalidArgument(f'plugin "{self.name}" is this daemon itself: its own drivers make what an engine gets of it')
        if self.role not in (manifest.Implements or ()):
            roles = ", ".join(manifest.Implements or ()) or "nothing"
            raise PluginRefused(f'plugin "{self.name}" is no {self.role}: it implements {_shown(roles)}')
        self._netplug = bool(manifest.Instance)
        self._activated = place.token

    async def _ask(self, place: Place, method: str, body: dict[str, Any] | None, answer: type[T]) -> T:
        status, data = await self._post(place, method, b"" if body is None else msgspec.json.encode(body))
        said = _refusal(data)
        if status == 404 and not said:
            raise Unsupported(f'plugin "{self.name}" does not know {method}')
        if status != 200 or said:
            raise PluginRefused(
                f'plugin "{self.name}" refused {method}: {_shown(said or data.decode(errors="replace")) or f"HTTP status {status}"}'
            )
        try:
            return msgspec.json.decode(data.strip() or b"{}", type=answer)
        except msgspec.MsgspecError as error:
            raise Unavailable(f'plugin "{self.name}" answered {method} with something else than it should: {_shown(str(error))}') from error

    async def _post(self, place: Place, method: str, data: bytes) -> tuple[int, bytes]:
        seconds = _seconds()
        url = f"{place.url or 'http://plugin'}/{method}"
        try:
            async with asyncio.timeout(seconds), contextlib.AsyncExitStack() as stack:
                connector = aiohttp.UnixConnector(place.socket) if place.socket else aiohttp.TCPConnector(ssl=_context(place.tls))
                session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()))
                headers = {"Accept": MEDIA_TYPE}
                request = session.post(url, data=data, headers=headers, skip_auto_headers=("Content-Type",), allow_redirects=False)
                response = await stack.enter_async_context(request)
                return response.status, await self._read(response, method)
        except TimeoutError:
            raise Unavailable(f'plugin "{self.name}" did not answer {method} within {seconds:g} s') from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f'plugin "{self.name}" does not answer {method}: {_shown(str(error) or type(error).__name__)}') from error

    async def _read(self, response: aiohttp.ClientResponse, method: str) -> bytes:
        data = b""
        async for piece in response.content.iter_chunked(1 << 14):
            data += piece
            if len(data) > _LARGEST:
                raise Unavailable(f'plugin "{self.name}" answered {method} with more than {_LARGEST} bytes')
        return data


def _refusal(data: bytes) -> str:
    """What it says under `Err`."""
    try:
        return msgspec.json.decode(data, type=_Answer).Err or ""
    except msgspec.MsgspecError:
        return ""


def _shown(text: str) -> str:
    """In one line that is not too long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _seconds() -> float:
    try:
        return max(0.05, float(os.environ.get(TIMEOUT, "")))
    except ValueError:
        return SECONDS


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file or None)
    if tls.insecure or not tls.ca_file:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file or None)
    return context
