"""Answers an engine's first questions while the rest of the daemon is still being imported, which takes half a second.

An engine that starts is held up for as long as a plugin of its networks does not answer; and where nobody listens, it looks again after
1, 2, 4 and 8 s. A thread of its own, blocking calls, one connection after the other: it lives for that half second. What it does not
know it leaves unread, for whoever comes after it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

from netplug.engines import wire
from netplug.engines.greeting import GREETINGS
from netplug.engines.listener import Door, is_root
from netplug.errors import InvalidArgument

_PEEKED = wire.LARGEST_HEAD


class Reception:
    """At a door that is open. `take_over` ends it."""

    def __init__(self, door: Door) -> None:
        self.door: Door | None = door
        self._waiting: list[socket.socket] = []
        self._ends, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._receive, args=(door.listener,), name="reception", daemon=True)
        self._thread.start()

    def take_over(self) -> tuple[Door, list[socket.socket]]:
        """The door, and connections on which somebody waits, or may ask something."""
        self._end()
        door, waiting = self.door, self._waiting
        assert door is not None
        self.door, self._waiting = None, []
        return door, waiting

    def close(self) -> None:
        """Where nobody has taken over."""
        self._end()
        for connection in self._waiting:
            connection.close()
        self._waiting.clear()
        if self.door is not None:
            self.door.close()
            self.door = None

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._ends.send(b".")
        self._thread.join()
        self._ends.close()
        self._ended.close()

    def _receive(self, listener: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            while ready := {key.fileobj for key, _ in selector.select()}:
                if self._ended in ready:
                    return
                if listener in ready:
                    with contextlib.suppress(OSError):
                        connection = listener.accept()[0]
                        connection.setblocking(False)
                        self._waiting.append(connection)
                        selector.register(connection, selectors.EVENT_READ)
                for connection in [one for one in self._waiting if one in ready]:
                    if not _answered(connection):
                        selector.unregister(connection)


def _answered(connection: socket.socket) -> bool:
    """Whether what is there was a greeting; anything else stays unread."""
    try:
        request = wire.parsed(connection.recv(_PEEKED, socket.MSG_PEEK))
        if request is None or request.verb != "POST" or request.method not in GREETINGS or not is_root(connection):
            return False
        connection.recv(request.size)
        connection.sendall(wire.told(GREETINGS[request.method], lasts=request.lasts))
    except (InvalidArgument, OSError):
        return False
    return request.lasts
