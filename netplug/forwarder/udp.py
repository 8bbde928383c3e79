"""UDP: a socket of a published port, and the flows to the container. A flow is what one client says to one address of the host."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress

from netplug.resolver.loop import Loop

TYPE_CHECKING = False  # typing costs 1.5 MiB; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

IDLE = 90.0
"""Seconds of silence that end a flow, as in Docker's proxy."""
FLOWS = 4096
"""Of one port; one more ends the one that has been quiet for longest."""
BURST = 64
"""Datagrams of one socket passed on before the others get their turn."""

_LARGEST = 65535
_BUFFER = 212992
"""Bytes that may wait in a socket: Linux's default."""
_PKTINFO4, _PKTINFO6 = struct.Struct("@I4s4s"), struct.Struct("@16sI")  # struct in_pktinfo (ip(7)), in6_pktinfo (ipv6(7))
_IP_PKTINFO = 8  # linux/in.h; not in the socket module before 3.14
_LOOPBACK = socket.inet_pton(socket.AF_INET6, "::1")


class Port:
    """The published side. With `loopback` it serves those who sent to ::1, and nobody else."""

    def __init__(self, loop: Loop, sock: socket.socket, target: tuple[str, int], loopback: bool) -> None:
        self.loop, self.sock, self._target, self._loopback = loop, sock, target, loopback
        self._flows: dict[Any, Flow] = {}
        """By client and host address; the one that has been quiet for longest first."""
        self._six = sock.family == socket.AF_INET6
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        # Which of the host's addresses was meant: the answer must come from there.
        if self._six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        loop.add(sock.fileno(), self._receive)

    def close(self) -> None:
        self.loop.remove(self.sock.fileno())
        self.sock.close()
        for flow in list(self._flows.values()):
            flow.close()
        self._flows.clear()

    def expire(self, now: float) -> bool:
        """End the flows that have been quiet for too long; whether there are others."""
        for key, flow in list(self._flows.items()):
            if flow.last + IDLE > now:
                break
            self._end(key)
        return bool(self._flows)

    def answer(self, flow: Flow, data: bytes) -> None:
        client, local = flow.key
        if self._six:
            source = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(local, 0))
        else:
            source = (socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO4.pack(0, local, local))
        with suppress(OSError):  # a client that does not read loses datagrams, as everywhere
            self.sock.sendmsg([data], [source], 0, client)
        self._active(flow)

    def _receive(self, events: int) -> None:
        for _ in range(BURST):
            try:
                data, extra, _, client = self.sock.recvmsg(_LARGEST, 128)
            except OSError:
                return
            local = self._meant(extra)
            if local is None or (self._loopback and local != _LOOPBACK):
                continue
            flow = self._flows.get((client, local))
            if flow is None:
                flow = self._begin((client, local))
                if flow is None:
                    continue
            self._active(flow)
            flow.send(data)

    def _meant(self, extra: list[tuple[int, int, bytes]]) -> bytes | None:
        for level, kind, data in extra:
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                return bytes(_PKTINFO6.unpack(data)[0])
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                return bytes(_PKTINFO4.unpack(data)[2])
        return None

    def _begin(self, key: Any) -> Flow | None:
        while len(self._flows) >= FLOWS:
            self._end(next(iter(self._flows)))
        with suppress(OSError):
            self._flows[key] = Flow(self, key, self._target)
        return self._flows.get(key)

    def _end(self, key: Any) -> None:
        self._flows.pop(key).close()

    def _active(self, flow: Flow) -> None:
        flow.last = time.monotonic()
        if flow.key in self._flows:
            self._flows[flow.key] = self._flows.pop(flow.key)


class Flow:
    """The container's side of one client."""

    def __init__(self, port: Port, key: Any, target: tuple[str, int]) -> None:
        self._port, self.key, self.last = port, key, time.monotonic()
        self._sock = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.connect(target)
        except BaseException:
            self._sock.close()
            raise
        port.loop.add(self._sock.fileno(), self._receive)

    def send(self, data: bytes) -> None:
        with suppress(OSError):  # nobody listens there: an answer of ICMP, which is for nobody
            self._sock.send(data)

    def _receive(self, events: int) -> None:
        for _ in range(BURST):
            try:
                data = self._sock.recv(_LARGEST)
            except ConnectionRefusedError:
                continue
            except OSError:
                return
            self._port.answer(self, data)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._port.loop.remove(self._sock.fileno())
            self._sock.close()
