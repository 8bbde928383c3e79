"""What a route is: the handlers' modules list theirs in `ROUTES`."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiohttp import web

from netplug.api.call import Call

Handler: TypeAlias = Callable[[Call], Coroutine[Any, Any, web.StreamResponse]]

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """`changes`: runs to its end although the client hangs up. `streams`: ends when the client or the server does."""

    method: str
    word: str
    """The first word of the path."""
    pattern: re.Pattern[str]
    handler: Handler
    changes: bool = False
    streams: bool = False


def get(path: str, handler: Handler, *, streams: bool = False) -> Route:
    return _route("GET", path, handler, streams=streams)


def head(path: str, handler: Handler) -> Route:
    return _route("HEAD", path, handler)


def post(path: str, handler: Handler, *, changes: bool = True, streams: bool = False) -> Route:
    return _route("POST", path, handler, changes=changes, streams=streams)


def delete(path: str, handler: Handler) -> Route:
    return _route("DELETE", path, handler, changes=True)


def _route(method: str, path: str, handler: Handler, *, changes: bool = False, streams: bool = False) -> Route:
    """`{name}` in a path is one or more characters of any kind: image names have slashes, and clients write `/containers//web/json`."""
    pattern = re.compile(_PARAMETER.sub(r"/?(?P<\1>.+)", path.replace(".", r"\.")))
    return Route(method, path.split("/", 2)[1], pattern, handler, changes, streams)
