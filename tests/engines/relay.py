"""Sits between an engine and netplug's socket: notes what is asked, and holds the engine up at a chosen call.

netplug listens elsewhere, at `BEHIND`; the engine finds this process at the plugin's path.
"""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

from netplug.cli.demo_dockerd import PLUGIN
from tests.engines.dockerd import Pair
from tests.hosts import Api

BEHIND = "/run/docker/plugins/behind.sock"


class Relay(socketserver.ThreadingUnixStreamServer):
    """`calls`: the methods that were asked, in order. One `Hold` at a time."""

    daemon_threads = True

    def __init__(self, pair: Pair) -> None:
        self.behind = pair.seen(BEHIND)
        self.calls: list[str] = []
        self.hold: Hold | None = None
        path = Path(pair.seen(PLUGIN))
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(path), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @contextlib.contextmanager
    def holding(self, method: str, *, answered: bool) -> Iterator[Hold]:
        """The next such call is held up. `answered`: when netplug has answered it, else it is sent on and nobody waits for the answer."""
        self.hold = hold = Hold(method, answered)
        try:
            yield hold
        finally:
            self.hold = None
            hold.over.set()


class Hold:
    """`reached`: the engine waits for an answer, which it will not get."""

    def __init__(self, method: str, answered: bool) -> None:
        self.method, self.answered = method, answered
        self.reached, self.over = threading.Event(), threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def do_POST(self) -> None:
        method, body = self.path.lstrip("/"), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls.append(method)
        hold = self.server.hold
        if hold is None or hold.method != method or hold.reached.is_set():
            self._pass_on(body)
            return
        with contextlib.closing(Api(self.server.behind)) as api:
            api.request("POST", self.path, body)
            if hold.answered:
                api.getresponse().read()
        hold.reached.set()
        hold.over.wait(60)
        self.close_connection = True

    def _pass_on(self, body: bytes) -> None:
        with contextlib.closing(Api(self.server.behind)) as api:
            api.request("POST", self.path, body)
            answer = api.getresponse()
            data = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type", ""))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """pytest shows what matters."""
