"""HTTP/1.1 as plugins are spoken to: one request after the other on a connection, a POST of JSON each.

Read by h11, which takes bytes and is imported in a moment: the engine's first questions are answered before the rest of the daemon is
there. Each of its calls holds a container up, eight of them: a web framework's request costs half a millisecond, h11's half of that, and
one as the engine always writes it hardly anything.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import h11

from netplug.errors import InvalidArgument

LARGEST_BODY = 1 << 20
LARGEST_HEAD = 1 << 14
_CONTENT_TYPE = b"application/vnd.docker.plugins.v1.2+json"
_OTHER = rb"(?:(?:User-Agent|Accept|Accept-Encoding): [ -~]{0,200}\r\n)*"
_USUAL = re.compile(rb"POST /([\w.]{1,99}) HTTP/1\.1\r\nHost: [ -~]{0,99}\r\n%bContent-Length: (\d{1,7})\r\n%b\r\n" % (_OTHER, _OTHER))
"""A request's head as Go's HTTP client writes it."""
_REASONS = {200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found", 500: b"Internal Server Error"}


class Request(NamedTuple):
    """`size`: of how many bytes it came; `lasts`: the connection is for further ones."""

    verb: str
    method: str
    """`NetworkDriver.Join`."""
    body: bytes
    size: int
    lasts: bool


def parsed(data: bytes | bytearray) -> Request | None:
    """The first request in `data`; None where it is not there as a whole. InvalidArgument: it never will be."""
    head = _USUAL.match(data)
    if head is None or (length := int(head[2])) > LARGEST_BODY:
        return read(data)
    end = head.end() + length
    return Request("POST", head[1].decode(), bytes(data[head.end() : end]), end, True) if len(data) >= end else None


def read(data: bytes | bytearray) -> Request | None:
    """The same of anything that HTTP allows."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
    verb = path = ""
    body: list[bytes] = []
    length = 0
    try:
        if data:  # none would be the end of the connection
            reader.receive_data(bytes(data))
        while (event := reader.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.Request(method=method, target=target, headers=headers):
                    verb, path = method.decode(), target.decode("latin-1")
                    if not path.startswith("/"):
                        raise InvalidArgument(f"the request cannot be read: {path!r:.80} is no path")
                    _check_length(next((int(value) for name, value in headers if name == b"content-length"), 0))
                case h11.Data(data=piece):
                    body.append(bytes(piece))
                    length += len(piece)
                    _check_length(length)
                case _:  # EndOfMessage
                    size = len(data) - len(reader.trailing_data[0])
                    return Request(verb, path.removeprefix("/"), b"".join(body), size, reader.their_state is h11.DONE)
    except h11.RemoteProtocolError as error:
        raise InvalidArgument(f"the request cannot be read: {error}") from error
    _check_length(len(data) - LARGEST_HEAD)  # pieces of a byte each would never be enough
    return None


def answer(content: bytes, status: int = 200, *, lasts: bool = True) -> bytes:
    """A response with that JSON."""
    end = b"" if lasts else b"Connection: close\r\n"
    head = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n"
    return head % (status, _REASONS[status], _CONTENT_TYPE, len(content), end) + content


def told(values: dict[str, Any], *, lasts: bool = True) -> bytes:
    return answer(json.dumps(values).encode(), lasts=lasts)


def failed(sentence: str, status: int, *, lasts: bool = True) -> bytes:
    return answer(json.dumps({"Err": sentence}).encode(), status, lasts=lasts)


def _check_length(length: int) -> None:
    if length > LARGEST_BODY:
        raise InvalidArgument(f"the request's body is larger than {LARGEST_BODY} bytes")
