"""Traffic for demos and tests: a server that says who called, and streams of pings and DNS questions whose losses are counted.

Run as a module it is the other end of these: `serve ADDRESS PORT` (TCP and UDP: says who called, then echoes), `lookups NAME` (asks
127.0.0.11 until SIGTERM, then prints the counts).
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Self

from netplug.cli.demo_hosts import Namespace

MODULE = "netplug.cli.demo_traffic"


@contextlib.contextmanager
def serving(namespace: Namespace, port: int, address: str = "0.0.0.0") -> Iterator[None]:
    """A TCP and UDP server in `namespace` that answers with the caller's address, then echoes."""
    argv = namespace.argv(sys.executable, "-m", MODULE, "serve", address, str(port))
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        if server.stdout.readline() != b"ready\n":
            raise RuntimeError(f"no server on port {port} in {namespace.name}")
        yield
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


class Flood:
    """A stream of pings. After the block: `sent`, and `lost`: numbers without an answer (the last may have been on its way)."""

    def __init__(self, target: str, namespace: str, interval: float = 0.01) -> None:
        # Every answer is a line of its own; -O says what had none when the next is sent.
        self._argv = ["nsenter", f"--net={namespace}", "ping", "-n", "-O", "-i", str(interval), target]
        self.sent = 0
        self.lost: list[int] = []

    def __enter__(self) -> Self:
        self._ping = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._ping.stdout is not None
        self._output = ""
        while "bytes from" not in self._output:  # the first answer: there is something to lose
            line = self._ping.stdout.readline()
            self._output += line
            if not line or "no answer" in line or "nreachable" in line:
                self._end()
                raise RuntimeError(f"nothing to flood: {self._output}")
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        summary = re.search(r"(\d+) packets transmitted", self._output)
        self.sent = int(summary[1]) if summary else 0
        answered = {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+)", self._output)}
        self.lost = sorted(set(range(1, self.sent)) - answered)

    def _end(self) -> None:
        self._ping.send_signal(signal.SIGINT)
        assert self._ping.stdout is not None
        with self._ping.stdout:  # not communicate(): it would lose what readline() has read ahead
            self._output += self._ping.stdout.read()
        self._ping.wait(10)


class Lookups:
    """A stream of DNS questions for one name. After the block: `asked` and `answered`."""

    def __init__(self, name: str, namespace: str) -> None:
        self._argv = ["nsenter", f"--net={namespace}", sys.executable, "-m", MODULE, "lookups", name]
        self.asked = self.answered = 0

    def __enter__(self) -> Self:
        self._client = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._client.stdout is not None
        if self._client.stdout.readline() != "ready\n":
            self._client.stdout.close()
            self._client.wait()
            raise RuntimeError("no stream of DNS questions")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.terminate()
        assert self._client.stdout is not None
        with self._client.stdout:
            said = self._client.stdout.read()
        self._client.wait(10)
        counts = json.loads(said)
        self.asked, self.answered = counts["asked"], counts["answered"]


def serve(address: str, port: int) -> None:
    """The server itself, until killed: a line with the caller's address, then everything back. `::` serves both IP versions."""
    poll = select.poll()
    ipv6 = ":" in address
    tcp = socket.create_server((address, port), family=socket.AF_INET6 if ipv6 else socket.AF_INET, dualstack_ipv6=ipv6)
    udp = socket.socket(tcp.family, socket.SOCK_DGRAM)
    if ipv6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind((address, port))
    clients: dict[int, socket.socket] = {}
    for listener in (tcp, udp):
        poll.register(listener, select.POLLIN)
    print("ready", flush=True)
    while True:
        for handle, _ in poll.poll():
            if handle == tcp.fileno():
                client, peer = tcp.accept()
                clients[client.fileno()] = client
                poll.register(client, select.POLLIN)
                client.sendall(_caller(peer))
            elif handle == udp.fileno():
                data, peer = udp.recvfrom(65535)
                udp.sendto(_caller(peer) + data, peer)
            elif not _echo(clients[handle]):
                poll.unregister(handle)
                clients.pop(handle).close()


def _caller(peer: tuple[str, int]) -> bytes:
    """An IPv4 caller of a socket for both IP versions is told by his IPv4 address."""
    return f"{peer[0].removeprefix('::ffff:')}\n".encode()


def _echo(client: socket.socket) -> bool:
    """Send back what came; False when the caller has hung up."""
    try:
        data = client.recv(65536)
        client.sendall(data)
    except OSError:
        return False
    return bool(data)


def question(name: str, number: int) -> bytes:
    """A DNS query for the A record of `name` (RFC 1035, section 4)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return number.to_bytes(2, "big") + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"


def lookups(name: str, pause: float = 0.01) -> None:
    """Ask 127.0.0.11 for `name` again and again until SIGTERM; then print, as JSON, how often and how often there was an answer."""
    asked = answered = 0
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    print("ready", flush=True)
    while not ended:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
            client.settimeout(2)
            asked += 1
            client.connect(("127.0.0.11", 53))
            client.send(question(name, asked & 0xFFFF))
            answer = client.recv(512)
            answered += answer[3] & 0xF == 0 and answer[6:8] != b"\x00\x00"
        time.sleep(pause)
    print(json.dumps({"asked": asked, "answered": answered}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        lookups(sys.argv[2])
