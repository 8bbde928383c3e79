"""TCP: a listening socket of a published port, and its connections to the container."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from netplug.resolver.loop import READ, WRITE, Loop, log

CHUNK = 64 * 1024
"""Bytes of each direction that are on their way in this process, at most."""
ROUNDS = 8
"""Chunks of one connection passed on before the others get their turn."""
ACCEPTS = 64

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST
_SPARE = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]


class Door:
    """A listening socket. With `loopback` it serves those who came to ::1, and nobody else."""

    def __init__(self, loop: Loop, sock: socket.socket, target: tuple[str, int], loopback: bool) -> None:
        self.loop, self.sock, self._target, self._loopback = loop, sock, target, loopback
        self.connections: set[Connection] = set()
        sock.setblocking(False)
        # Those accepted inherit it, and do not keep the port from its next owner once they are finished.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.listen(1024)
        loop.add(sock.fileno(), self._accept)

    def close(self) -> None:
        """The listening socket, and all connections that came through it."""
        self.loop.remove(self.sock.fileno())
        self.sock.close()
        for connection in list(self.connections):
            connection.abort()

    def _accept(self, events: int) -> None:
        for _ in range(ACCEPTS):
            try:
                client = self.sock.accept()[0]
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away()
                return
            if self._loopback and client.getsockname()[0] != "::1":
                abort(client)
                continue
            try:
                Connection(self, client, self._target)
            except OSError as error:
                log(f"{self._target[0]} port {self._target[1]}: {error.strerror}")
                abort(client)

    def _turn_away(self) -> None:
        """Left waiting, the connection would keep the loop spinning."""
        log("out of descriptors: a connection is turned away")
        while _SPARE:
            os.close(_SPARE.pop())
        with suppress(OSError):
            abort(self.sock.accept()[0])
        with suppress(OSError):
            _SPARE.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


class Connection:
    """Two sockets, and what is on its way from each to the other."""

    def __init__(self, door: Door, client: socket.socket, target: tuple[str, int]) -> None:
        self._door = door
        server = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for sock in (client, server):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            refused = server.connect_ex(target)
            if refused not in (0, errno.EINPROGRESS):
                raise OSError(refused, os.strerror(refused))
        except BaseException:
            server.close()
            raise
        self._client, self._server = Side(client), Side(server)
        self._client.other, self._server.other = self._server, self._client
        door.connections.add(self)
        # Nothing is read before the container's side has answered; the client's end is noticed all the same.
        self._listen(self._client, self._from_client, 0)
        self._listen(self._server, self._connected, WRITE)

    def abort(self) -> None:
        """Both ends see a reset. Fine if it is closed already."""
        self._close(reset=True)

    def _listen(self, side: Side, handler: Callable[[int], None], events: int) -> None:
        side.events = events
        self._door.loop.add(side.sock.fileno(), handler, events)

    def _connected(self, events: int) -> None:
        if self._server.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()
            return
        self._door.loop.remove(self._server.sock.fileno())
        self._listen(self._server, self._from_server, READ)
        self._wait()

    def _from_client(self, events: int) -> None:
        self._pass(events, self._client)

    def _from_server(self, events: int) -> None:
        self._pass(events, self._server)

    def _pass(self, events: int, side: Side) -> None:
        if side.sock.fileno() < 0:
            return
        side.hung_up |= bool(events & select.EPOLLHUP)
        try:
            if events & WRITE:
                side.other.pump()
            if events & (READ | select.EPOLLHUP):
                side.pump()
        except OSError:
            self.abort()
            return
        if events & select.EPOLLERR:
            self.abort()
        else:
            self._wait()

    def _wait(self) -> None:
        """For whatever may happen next. A side that has nothing more to tell, or hear, is not listened to: epoll would never be quiet."""
        sides = (self._client, self._server)
        if all(side.told for side in sides):
            self._close(reset=False)
            return
        for side in sides:
            wanted = (READ if side.reads else 0) | (WRITE if side.other.pending else 0)
            if side.hung_up or (side.told and side.other.told):
                self._door.loop.remove(side.sock.fileno())
            elif wanted != side.events:
                side.events = wanted
                self._door.loop.change(side.sock.fileno(), wanted)

    def _close(self, *, reset: bool) -> None:
        self._door.connections.discard(self)
        for side in (self._client, self._server):
            if side.sock.fileno() >= 0:
                self._door.loop.remove(side.sock.fileno())
                abort(side.sock) if reset else side.sock.close()


class Side:
    """One of the two sockets, and what has been read from it."""

    other: Side

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pending = b""
        """Read here, not yet taken by the other."""
        self.told = False
        """It has said that nothing more will come, and the other has been told so."""
        self.hung_up = False
        """Nothing will come that is not here already, and nothing can be sent."""
        self.events = 0

    @property
    def reads(self) -> bool:
        return not (self.pending or self.told)

    def pump(self) -> None:
        """From here to the other, until one of them is not ready, or it is the turn of other connections."""
        rounds = 0
        while not self.told and (self.hung_up or rounds < ROUNDS):
            rounds += 1
            try:
                self.pending = self.pending or self.sock.recv(CHUNK)
                if not self.pending:
                    self.told = True
                    self.other.sock.shutdown(socket.SHUT_WR)
                    return
                self.pending = self.pending[self.other.sock.send(self.pending) :]
            except BlockingIOError:
                return


def abort(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
