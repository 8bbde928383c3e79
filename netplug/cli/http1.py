"""HTTP/1.1 as far as the command needs it: one request and its answer over a unix socket (RFC 9112).

The standard library's client would do; with TLS and the parsers of e-mail that it imports, it takes a fifth of a short command's time.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from typing import IO, Any

_LONGEST_LINE = 65536
_WITHOUT_BODY = (101, 204, 304)


class BadAnswer(Exception):
    """What came is no HTTP, or ended before it was whole."""


class Connection:
    """A connection to the unix socket at `path`. OSError if nobody listens there."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(path)
        except BaseException:
            self.sock.close()
            raise

    def exchange(self, method: str, target: str, body: bytes | Iterator[bytes] | None, headers: Mapping[str, str]) -> Response:
        """Send a request, and return when the header of its answer has come. `body`: what it is made of piece by piece goes in chunks.

        BadAnswer, OSError.
        """
        framing = {"Transfer-Encoding": "chunked"} if isinstance(body, Iterator) else {"Content-Length": str(len(body or b""))}
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in {"Host": "netplug", **headers, **framing}.items())]
        with contextlib.suppress(BrokenPipeError):  # who answers before all was read says why
            self.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (body if isinstance(body, bytes) else b""))
            if isinstance(body, Iterator):
                for piece in filter(None, body):
                    self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.sock.sendall(b"0\r\n\r\n")
        return Response(self.sock.makefile("rb"), method)

    def close(self) -> None:
        self.sock.close()


class Response:
    """An answer whose header has been read; the rest comes from `file`."""

    def __init__(self, file: IO[bytes], method: str) -> None:
        self.file: Any = file
        try:
            self.status, self.reason, headers = _header(file)
            while self.status == 100:
                self.status, self.reason, headers = _header(file)
        except BaseException:
            file.close()
            raise
        bare = method == "HEAD" or self.status in _WITHOUT_BODY
        self._chunked = not bare and headers.get("transfer-encoding", "").lower() == "chunked"
        self._left: int | None = 0 if bare or self._chunked else _length(headers)
        """Bytes that are still to come, of the chunk or of the body; None: all until the connection ends."""
        self._begun = False

    def read1(self, size: int) -> bytes:
        """What of the body has arrived; b"" at its end. BadAnswer if that comes too early."""
        if self._chunked and self._left == 0:
            self._next_chunk()
        if self._left == 0:
            return b""
        data: bytes = self.file.read1(size if self._left is None else min(size, self._left))
        if self._left is not None:
            if not data:
                raise BadAnswer("unexpected EOF")
            self._left -= len(data)
        return data

    def read(self) -> bytes:
        """All that is left of the body."""
        return b"".join(iter(lambda: self.read1(1 << 16), b""))

    def close(self) -> None:
        self.file.close()

    def _next_chunk(self) -> None:
        if self._begun and (line := _line(self.file)):
            raise BadAnswer(f"{line[:80]!r} where a chunk should end")
        self._begun = True
        self._left = _number(_line(self.file).partition(";")[0], 16)
        if self._left == 0:
            while _line(self.file):
                pass  # trailers
            self._chunked = False


def _header(file: IO[bytes]) -> tuple[int, str, dict[str, str]]:
    """Status, its words, and the fields by lower-case name."""
    first = file.readline(_LONGEST_LINE)
    if not first:
        raise BadAnswer("Remote end closed connection without response")
    version, _, rest = first.decode("latin-1").rstrip("\r\n").partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(status) != 3:
        raise BadAnswer(f"{first[:80]!r} is no HTTP")
    fields = {}
    while line := _line(file):
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return _number(status, 10), reason, fields


def _line(file: IO[bytes]) -> str:
    line = file.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise BadAnswer("unexpected EOF")
    return line.decode("latin-1").rstrip("\r\n")


def _length(fields: Mapping[str, str]) -> int | None:
    return _number(fields["content-length"], 10) if "content-length" in fields else None


def _number(text: str, base: int) -> int:
    try:
        return int(text.strip(), base)
    except ValueError:
        raise BadAnswer(f"{text[:80]!r} is no number") from None
