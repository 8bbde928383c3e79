"""HTTP/1.1 as plugins are spoken to: one request after the other on a connection, a POST of JSON each (RFC 9112).

Bytes in, bytes out, and nothing that takes long to import: the engine's first questions are answered before the rest of the daemon is
there, and each of its calls holds a container up. A web framework's request costs half a millisecond, eight times per container.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from netplug.errors import InvalidArgument

LARGEST_BODY = 1 << 20
LARGEST_HEAD = 1 << 14
_CONTENT_TYPE = b"application/vnd.docker.plugins.v1.2+json"
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
    end = data.find(b"\r\n\r\n", 0, LARGEST_HEAD)
    if end < 0:
        if len(data) >= LARGEST_HEAD:
            raise InvalidArgument(f"the request's head is larger than {LARGEST_HEAD} bytes")
        return None
    line, *lines = bytes(data[:end]).decode("latin-1").split("\r\n")
    verb, path, version = _request_line(line)
    headers = _headers(lines)
    found = _body(data, end + 4, headers)
    if found is None:
        return None
    body, size = found
    lasts = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Request(verb, path.removeprefix("/"), body, size, lasts)


def answer(content: bytes, status: int = 200, *, lasts: bool = True) -> bytes:
    """A response with that JSON."""
    end = b"" if lasts else b"Connection: close\r\n"
    head = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n"
    return head % (status, _REASONS[status], _CONTENT_TYPE, len(content), end) + content


def told(values: dict[str, Any], *, lasts: bool = True) -> bytes:
    return answer(json.dumps(values).encode(), lasts=lasts)


def failed(sentence: str, status: int, *, lasts: bool = True) -> bytes:
    return answer(json.dumps({"Err": sentence}).encode(), status, lasts=lasts)


def _request_line(line: str) -> tuple[str, str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[1].startswith("/") or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise InvalidArgument(f"the request cannot be read: {line!r:.80} is no request line of HTTP/1.1")
    return words[0], words[1], words[2]


def _headers(lines: list[str]) -> dict[str, str]:
    """Names in lower case; no two that say how long the body is."""
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise InvalidArgument(f"the request cannot be read: {line!r:.80} is no header")
        if name in ("content-length", "transfer-encoding") and name in found:
            raise InvalidArgument(f"the request cannot be read: it has two headers {name}")
        found[name] = value.strip()
    return found


def _body(data: bytes | bytearray, start: int, headers: dict[str, str]) -> tuple[bytes, int] | None:
    """It, and where it ends."""
    coding, length = headers.get("transfer-encoding", ""), headers.get("content-length", "0")
    if coding:
        if coding.lower() != "chunked" or "content-length" in headers:
            raise InvalidArgument("the request cannot be read: its body is neither of a given length nor in chunks alone")
        return _chunks(data, start)
    if not (length.isascii() and length.isdigit()):
        raise InvalidArgument(f"the request cannot be read: {length!r:.40} is no length")
    end = start + _fitting(int(length))
    return (bytes(data[start:end]), end) if len(data) >= end else None


def _chunks(data: bytes | bytearray, start: int) -> tuple[bytes, int] | None:
    """RFC 9112, 7.1; trailers are passed over."""
    body = b""
    while (end := data.find(b"\r\n", start)) >= 0:
        text = bytes(data[start:end]).partition(b";")[0].strip()
        try:
            size = int(text, 16) if text.isalnum() else -1
        except ValueError:
            size = -1
        if size < 0:
            raise InvalidArgument(f"the request cannot be read: {text!r:.40} is no length of a chunk")
        if size == 0:
            last = end if data.startswith(b"\r\n", end + 2) else data.find(b"\r\n\r\n", end)
            return (body, last + 4) if last >= 0 and len(data) >= last + 4 else None
        _fitting(len(body) + size)
        start = end + 2 + size + 2
        if len(data) < start:
            return None
        body += data[end + 2 : start - 2]
    return None


def _fitting(length: int) -> int:
    if length > LARGEST_BODY:
        raise InvalidArgument(f"the request's body is larger than {LARGEST_BODY} bytes")
    return length
