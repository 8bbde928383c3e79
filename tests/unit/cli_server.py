"""A daemon for the command's tests: answers what a test has laid out, and remembers what it was asked.

`Daemon.answers[method, path]` is a status with a JSON value (or bytes), or a function of the request that speaks for itself. After
`upgrade()` a function owns the connection.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import socketserver
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass
class Request:
    """One request, and the connection that it came on."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]
    handler: BaseHTTPRequestHandler = field(repr=False)

    def upgrade(self) -> socket.socket:
        """Take the connection over, as the API does for attach and exec."""
        connection: socket.socket = self.handler.connection
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        self.handler.close_connection = True
        return connection

    def stream(self, *chunks: bytes) -> None:
        """200 and the chunks, each sent by itself, up to the end of the connection."""
        self.handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for chunk in chunks:
            self.handler.wfile.write(chunk)
            self.handler.wfile.flush()
        self.handler.close_connection = True


Answer = tuple[int, Any] | Callable[[Request], Any]


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(data)) + data


class Daemon:
    """The answers, and the requests so far. An answer that is not laid out is a 404 with Docker's words."""

    def __init__(self, path: str) -> None:
        self.host = f"unix://{path}"
        self.answers: dict[tuple[str, str], Answer] = {("GET", "/version"): (200, {"Platform": {"Name": "netplug"}, "Version": "9"})}
        self.requests: list[Request] = []

    def asked(self, *leaving_out: str) -> list[str]:
        """`METHOD /path` of each request, in order."""
        return [text for text in (f"{request.method} {request.path}" for request in self.requests) if text not in leaving_out]

    def only(self, method: str, path: str) -> Request:
        """The one request of this kind."""
        (request,) = [request for request in self.requests if (request.method, request.path) == (method, path)]
        return request


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    daemon: Daemon

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at the requests, not at a log."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _serve(self) -> None:
        raw = self._body()
        url = urlsplit(self.path)
        body = json.loads(raw) if raw and self.headers.get("Content-Type") == "application/json" else raw
        request = Request(self.command, unquote(url.path), dict(parse_qsl(url.query)), body, dict(self.headers.items()), self)
        self.daemon.requests.append(request)
        answer = self.daemon.answers.get((request.method, request.path), (404, {"message": f"no answer for {request.path}"}))
        if callable(answer):
            answer = answer(request)
        if answer is not None:
            self._reply(*answer)

    def _reply(self, status: int, value: Any) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_HEAD = _serve


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is what some tests are about."""


@contextmanager
def serving() -> Iterator[Daemon]:
    """A daemon on a socket with a short path (108 bytes are all that a socket's name may have)."""
    folder = tempfile.mkdtemp(prefix="npc")
    daemon = Daemon(os.path.join(folder, "s"))
    handler = type("Handler", (_Handler,), {"daemon": daemon})
    server = _Server(daemon.host.removeprefix("unix://"), handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield daemon
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
        shutil.rmtree(folder)
