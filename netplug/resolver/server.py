"""A sandbox's sockets: a UDP socket drained in bursts, a TCP listener and its connections.

UDP is the hot path: bytes in, bytes out of the view's cache, two system calls per question. Everything that is not in the cache goes
through `wire.parse` and `answers.answer`, and what nobody of ours is called goes to the forwarder.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from netplug.resolver import answers, wire
from netplug.resolver.forward import Asker, Forwarder
from netplug.resolver.loop import READ, WRITE, Loop, log
from netplug.resolver.names import View

BURST = 64
"""Packets of one sandbox answered before the others get their turn."""

RECEIVE_BUFFER = 1024 * 1024
"""Bytes of questions (with what the kernel adds to each) that may wait in a sandbox's socket."""

CONNECTIONS = 512
CONNECTIONS_PER_SANDBOX = 64
"""TCP connections; one more closes the one that has been quiet for longest."""

TYPE_CHECKING = False  # typing costs 1.5 MiB; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

IDLE = 10.0
"""Seconds of silence after which a TCP connection is closed (RFC 7766, 6.2.3)."""

BATCH = 32 * 1024
"""Bytes of answers that go out together."""

UNREAD = 256 * 1024
"""Bytes of others' answers that may wait for a client to read; then its connection is closed."""

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


class Server:
    """What all sandboxes share: the loop, the forwarder, and the bound on TCP connections."""

    def __init__(self, loop: Loop, forwarder: Forwarder) -> None:
        self.loop, self.forwarder = loop, forwarder
        self.connections: dict[Connection, None] = {}
        """The one that has been quiet for longest first."""
        self._spare: int | None = os.open(os.devnull, os.O_RDONLY)
        loop.clock(self._look)

    def accept(self, listener: socket.socket) -> socket.socket | None:
        """The next connection, or None. Out of descriptors, it is taken and closed: left waiting it would keep the loop spinning."""
        try:
            return listener.accept()[0]
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away(listener)
            return None

    def _turn_away(self, listener: socket.socket) -> None:
        log("out of descriptors: a TCP connection is turned away")
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)
        with suppress(OSError):
            listener.accept()[0].close()
        with suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _look(self, now: float) -> bool:
        for connection in list(self.connections):
            if connection.last + IDLE < now:
                connection.close()
        return bool(self.connections)


class Sandbox(Asker):
    """One sandbox's door: what comes in there is answered from `view`."""

    def __init__(self, server: Server, udp: socket.socket, tcp: socket.socket, view: View) -> None:
        super().__init__(udp)
        self.server, self.view, self.forward = server, view, True
        self.connections: dict[Connection, None] = {}
        self._udp, self._tcp = udp, tcp
        udp.setblocking(False)
        tcp.setblocking(False)
        with suppress(PermissionError):  # without CAP_NET_ADMIN a burst of more than 250 questions loses some
            udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        server.loop.add(udp.fileno(), self._udp_ready)
        server.loop.add(tcp.fileno(), self._tcp_ready)

    def _udp_ready(self, events: int) -> None:
        receive, send, cache = self._udp.recvfrom, self._udp.sendto, self.view.cache
        try:
            for _ in range(BURST):
                packet, peer = receive(wire.LARGEST_UDP)
                answer = cache.get(packet[2:])
                if answer is not None:
                    send(packet[:2] + answer(), peer)
                else:
                    self.handle(packet, partial(self._send, peer))
        except BlockingIOError:
            return  # drained; or the client does not read: then its packet is lost, as UDP packets are
        except OSError as error:
            log(f"UDP socket: {error}")

    def _send(self, peer: Any, message: bytes) -> None:
        try:
            self._udp.sendto(message, peer)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                log(f"UDP answer of {len(message)} bytes: {error}")

    def handle(self, packet: bytes, reply: Callable[[bytes], None], *, stream: bool = False) -> None:
        """Answer one message, at once or later."""
        try:
            query = wire.parse(packet)
        except wire.Ignored:
            return
        except wire.Refused as refused:
            reply(refused.answer)
            return
        found = answers.answer(self.view, query, wire.LARGEST if stream else 0)
        if found is None:
            self._elsewhere(query, packet, reply, stream)
            return
        if query.cacheable and not stream:
            self.view.remember(packet, found)
        reply(found[os.urandom(1)[0] % len(found)])

    def _elsewhere(self, query: wire.Query, packet: bytes, reply: Callable[[bytes], None], stream: bool) -> None:
        if self.forward:
            self.server.forwarder.ask(self, query, packet, reply, stream=stream)
        else:
            reply(wire.respond(query, rcode=wire.SERVFAIL))  # as Docker does on internal networks

    def _tcp_ready(self, events: int) -> None:
        sock = self.server.accept(self._tcp)
        if sock is not None:
            Connection(self, sock)

    def close(self) -> None:
        """Let go of everything that keeps the namespace alive."""
        self.server.forwarder.forget(self)
        for connection in list(self.connections):
            connection.close()
        for sock in (self._udp, self._tcp):
            self.server.loop.remove(sock.fileno())
            sock.close()


class Connection:
    """A client over TCP: several questions, answered in the order in which answers come (RFC 7766)."""

    def __init__(self, sandbox: Sandbox, sock: socket.socket) -> None:
        self._sandbox, self._sock = sandbox, sock
        self._received, self._unsent = bytearray(), bytearray()
        self._awaited, self._finished, self._working, self._events = 0, False, False, READ
        self.last = time.monotonic()
        sock.setblocking(False)
        for others, limit in ((sandbox.connections, CONNECTIONS_PER_SANDBOX), (sandbox.server.connections, CONNECTIONS)):
            if len(others) >= limit:
                next(iter(others)).close()
            others[self] = None
        sandbox.server.loop.add(sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self._flush()
                self._work()
            elif events & READ:
                self._read()
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                self.close()
        except BlockingIOError:
            return
        except Exception as error:
            self.close()
            if not isinstance(error, OSError):
                raise

    def _read(self) -> None:
        data = self._sock.recv(16 * 1024)
        self._active()
        self._received += data
        self._finished = not data
        self._work()

    def _work(self) -> None:
        """Answer what has been received as far as the client takes the answers, then wait for what comes next."""
        message: bytes | None = b""
        while message is not None and not self._unsent:
            self._working = True
            while len(self._unsent) < BATCH and (message := wire.take_frame(self._received)) is not None:
                self._awaited += 1
                self._sandbox.handle(message, self._answer, stream=True)
            self._working = False
            self._flush()
        if self._finished and not self._awaited and not self._unsent:
            self.close()
        elif self._sock.fileno() >= 0:
            self._wait_for(WRITE if self._unsent else 0 if self._finished else READ)

    def _answer(self, message: bytes) -> None:
        self._awaited -= 1
        self._unsent += wire.frame(message)
        if len(self._unsent) > UNREAD:
            self.close()
        elif not self._working:
            self._ready(WRITE)

    def _flush(self) -> None:
        """Send as much as the client takes."""
        if self._unsent and self._sock.fileno() >= 0:
            try:
                del self._unsent[: self._sock.send(self._unsent)]
                self._active()
            except BlockingIOError:
                pass

    def _wait_for(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._sandbox.server.loop.change(self._sock.fileno(), events)

    def _active(self) -> None:
        self.last = time.monotonic()
        for others in (self._sandbox.connections, self._sandbox.server.connections):
            others[self] = others.pop(self)

    def close(self) -> None:
        """Fine if it is closed already. Answers that come later are thrown away."""
        if self._sock.fileno() < 0:
            return
        self._sandbox.server.loop.remove(self._sock.fileno())
        self._sock.close()
        self._sandbox.connections.pop(self, None)
        self._sandbox.server.connections.pop(self, None)
