"""The other ends of a demo's traffic, each a program that needs nothing but Python itself and is started by `program`.

`serve ADDRESS PORT` (TCP and UDP: says who called, then echoes), `lookups NAME` (asks 127.0.0.11 until SIGTERM, then prints the counts).
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
import time


def program(*arguments: str) -> list[str]:
    """The command line. Without site-packages and all that `netplug.cli` imports, it is there in a third of the time."""
    return [sys.executable, "-I", "-S", __file__, *arguments]


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
    print(f'{{"asked": {asked}, "answered": {answered}}}', flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        lookups(sys.argv[2])
