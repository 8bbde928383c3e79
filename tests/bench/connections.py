"""`python -m tests.bench.connections`: a server that accepts and closes, and a client that counts how often it can connect.

serve PORT...                 says "ready" when it listens, and goes on until it is ended
ask ADDRESS PORT SECONDS      prints connections per second
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import sys
import time

_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER of 0: closing sends a RST, so no end waits in TIME_WAIT and the client's ports never run out."""


def serve(ports: list[int]) -> None:
    waiting = selectors.EpollSelector()
    for port in ports:
        server = socket.create_server(("0.0.0.0", port), backlog=4096)
        server.setblocking(False)
        waiting.register(server, selectors.EVENT_READ, server)
    print("ready", flush=True)
    while True:
        for key, _ in waiting.select():
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while True:
                    key.data.accept()[0].close()


def ask(address: str, port: int, seconds: float) -> float:
    connected, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for _ in range(50):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                client.connect((address, port))
            connected += 1
    return connected / elapsed


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve([int(port) for port in sys.argv[2:]])
    else:
        print(ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
