"""A network and IPAM plugin that does nothing and says so at once: what a call of dockerd costs whatever its plugin does."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from typing import Any

NAME = "idle"


class NullPlugin:
    """At that path until `close`, a thread per connection."""

    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._numbers = itertools.count(2)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                length = 0
                while (header := lines.readline().lower()).strip():
                    if header.startswith(b"content-length:"):
                        length = int(header.partition(b":")[2])
                said = json.loads(lines.read(length) or b"{}")
                body = json.dumps(self._answer(line.split()[1].decode().rpartition(".")[2], said)).encode()
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                connection.sendall(head % len(body) + body)

    def _answer(self, method: str, said: dict[str, Any]) -> dict[str, Any]:
        match method:
            case "Activate":
                return {"Implements": ["NetworkDriver", "IpamDriver"]}
            case "GetCapabilities":
                return {"Scope": "local"}
            case "GetDefaultAddressSpaces":
                return {"LocalDefaultAddressSpace": "local", "GlobalDefaultAddressSpace": "global"}
            case "RequestPool":
                number = next(self._numbers)
                return {"PoolID": str(number), "Pool": f"10.{number % 250}.0.0/16"}
            case "RequestAddress":
                number = next(self._numbers)
                return {"Address": f"10.{int(said['PoolID']) % 250}.{number // 200 % 250}.{number % 200 + 1}/16"}
            case "CreateEndpoint":
                return {"Interface": {}}
            case "Join":
                return {"DisableGatewayService": True}
            case _:
                return {}
