"""Who else is there: the process that listens on a unix socket, and the daemon of a network namespace.

A daemon listens on `@netplug-daemon`, an abstract address, and answers nothing there. Abstract addresses belong to a network namespace
(unix(7)), so one daemon of a namespace finds another by it.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import NamedTuple

PLACE = "\0netplug-daemon"
_CREDENTIALS = struct.Struct("3i")
_PATIENCE = struct.pack("ll", 1, 0)
"""A second, as a timeval: one who accepts nobody has connects wait for ever once his queue is full."""


class Peer(NamedTuple):
    """`pid` is 0 where it cannot be seen from here."""

    pid: int
    uid: int


def listener(path: str) -> Peer | None:
    """Who listens on that unix socket; None: nobody who would be reached."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
        probe.connect(path)
        pid, uid, _ = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        return Peer(pid, uid)
    return None


def daemon() -> int | None:
    """The pid of the daemon in the calling thread's network namespace. Anybody can take the address, so only a process of root's counts."""
    found = listener(PLACE)
    return found.pid if found is not None and found.uid == 0 else None


def greet(place: socket.socket) -> None:
    """Let go of whoever has looked: he knows by now, and his place in the queue is the next one's."""
    with suppress(OSError):
        place.accept()[0].close()
