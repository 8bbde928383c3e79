"""Attach to a container's terminal or pipes through conmon's socket.

A packet from conmon is one byte (2 stdout, 3 stderr) and up to 8192 bytes of output; packets to it are plain input. Packets above 32768
bytes would be cut short without a word, so we send 8192 at most. A session may be opened before its container starts: it connects
between `create` and `start`, so that it misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

_PACKET = 8192


class AttachSession:
    """One attacher. `read` and `write` may run at the same time, in different tasks."""

    def __init__(self, *, terminal: bool, stdin: bool) -> None:
        self._terminal, self._stdin = terminal, stdin
        self._socket: asyncio.Future[socket.socket | None] = asyncio.get_running_loop().create_future()
        self._reading = False
        self._closed = False

    def connect(self, folder: Path) -> None:
        """Called when conmon listens in its folder. OSError if it does not."""
        if self._socket.done():
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # A socket's path has room for 107 bytes, and the folder's own may be longer.
            connection.connect(f"/proc/self/fd/{descriptor}/attach")
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(descriptor)
        self._socket.set_result(connection)

    def fail(self) -> None:
        """The container will not start: readers get the end."""
        if not self._socket.done():
            self._socket.set_result(None)

    async def read(self) -> tuple[int, bytes] | None:
        """(1 stdout | 2 stderr, bytes), or None at the end."""
        connection = await asyncio.shield(self._socket)
        if connection is None or self._closed:
            return None
        self._reading = True
        try:
            packet = await asyncio.get_running_loop().sock_recv(connection, _PACKET + 1)
        except ConnectionError:
            return None
        finally:
            self._reading = False
            if self._closed:
                connection.close()
        return (packet[0] - 1, packet[1:]) if packet else None

    async def write(self, data: bytes) -> None:
        """Input for the container; thrown away if it takes none, or is gone."""
        connection = await asyncio.shield(self._socket)
        if connection is None or not self._stdin:
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            for start in range(0, len(data), _PACKET):
                await loop.sock_sendall(connection, data[start : start + _PACKET])

    async def close_stdin(self) -> None:
        """The end of input. Never passed on to a terminal: it would deafen the container for every later attacher."""
        connection = await asyncio.shield(self._socket)
        if connection is not None and self._stdin and not self._terminal:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Detach. A read under way returns None."""
        self._closed = True
        self.fail()
        connection = self._socket.result()
        if connection is None:
            return
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        if not self._reading:
            connection.close()
