"""One API request on its way to its handler, and the answers a handler gives."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from netplug.api import decode, filters, shapes
from netplug.api.background import Background
from netplug.api.eventlog import EventLog
from netplug.api.services import Services
from netplug.errors import InvalidArgument

API_VERSION = "1.47"
MIN_API_VERSION = "1.24"
JSON = "application/json"
"""Exactly this: with a charset behind it, the docker command prints errors as raw JSON."""
BASE_HEADERS = {"Api-Version": API_VERSION, "Docker-Experimental": "false", "Ostype": "linux", "Server": "netplug"}
_NO_BODY = CIMultiDict(BASE_HEADERS)
_JSON_BODY = CIMultiDict({**BASE_HEADERS, "Content-Type": JSON})

Shape = TypeVar("Shape", bound=shapes.Body)
Result = TypeVar("Result")

_encode = msgspec.json.Encoder().encode


class Call:
    """A request: what its path and query say, its body on demand, and the rooms that serve it."""

    __slots__ = ("background", "events", "http", "parameters", "query", "services")

    def __init__(
        self, http: web.BaseRequest, parameters: Mapping[str, str], services: Services, events: EventLog, background: Background
    ) -> None:
        self.http, self.parameters, self.services, self.events, self.background = http, parameters, services, events, background
        self.query: Mapping[str, str] = http.query if http.rel_url.raw_query_string else {}

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's reading of booleans: everything but these words is true."""
        value = self.query.get(name)
        return default if value is None else value.strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str) -> int | None:
        """None where it is not given."""
        text = self.query.get(name, "")
        try:
            return int(text) if text else None
        except ValueError:
            raise InvalidArgument(f"invalid value for {name}: {text!r} is not a number") from None

    def moment(self, name: str) -> float:
        """Seconds since 1970; 0 where it is not given."""
        text = self.query.get(name, "")
        return filters.moment(text) if text else 0.0

    def filters(self, known: frozenset[str]) -> filters.Filters:
        return filters.parse(self.query.get("filters", ""), known)

    @property
    def name(self) -> str:
        """The object that the path names."""
        return self.parameters["name"]

    @property
    def dry_run(self) -> bool:
        """Say what would be done, and do nothing."""
        return self.flag("dryrun")

    @property
    def explain(self) -> bool:
        """Do it, and say what was done."""
        return self.flag("explain")

    async def raw(self) -> dict[str, Any]:
        """The body as an object, without its nulls."""
        return decode.parse(await self.http.read())

    async def body(self, shape: type[Shape]) -> Shape:
        return decode.convert(await self.raw(), shape)

    async def perform(self, change: Awaitable[Result]) -> tuple[Result, dict[str, Any]]:
        """The change's result, and what the answer says of it beside its usual members: `Explain`, if that was asked for."""
        if not self.explain:
            return await change, {}
        with self.services.controller.recording() as plans:
            result = await change
        return result, {"Explain": self.services.controller.explain(plans)}


def reply(value: Any, status: int = 200) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=_encode(value), status=status, headers=_JSON_BODY)


def done(extra: Mapping[str, Any], status: int = 204) -> web.Response:
    """A change was made: nothing to say, or what it consisted of."""
    return reply(extra) if extra else web.Response(status=status, headers=_NO_BODY)


def planned(lines: list[str], value: Mapping[str, Any] | None = None, status: int = 200) -> web.Response:
    """The answer to a dry run."""
    return reply({**(value or {}), "Explain": lines}, status)


def failed(message: str, status: int) -> web.Response:
    return reply({"message": message}, status)


def plain(text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=text.encode(), headers=_headers("text/plain; charset=utf-8", headers))


async def open_stream(call: Call, content_type: str) -> web.StreamResponse:
    """An answer that grows; its headers are on their way when this returns, so that a client waiting for them goes on."""
    response = web.StreamResponse(headers=_headers(content_type))
    await response.prepare(call.http)
    return response


def json_line(value: Any) -> bytes:
    return _encode(value) + b"\n"


def _headers(content_type: str, more: Mapping[str, str] | None = None) -> CIMultiDict[str]:
    headers = CIMultiDict(BASE_HEADERS, **{"Content-Type": content_type})
    headers.update(more or {})
    return headers
