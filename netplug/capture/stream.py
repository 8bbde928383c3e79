"""What another capture writes, read as it comes: a file, a pipe, the output of ssh."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator

from netplug.capture import filters
from netplug.capture.pcapng import Item, Packet, Reader
from netplug.errors import InvalidArgument

_CHUNK = 1 << 18


class Stream:
    """Items of a file, `-` being standard input, filtered; open until `close`.

    InvalidArgument: it cannot be read, or is no capture. A file that ends in the middle of a packet gives what came before.
    """

    def __init__(self, path: str, expression: str = "") -> None:
        self.name = "standard input" if path == "-" else path
        self._expression = expression
        self._matchers: dict[int, filters.Matcher] = {}
        self._reader = Reader(self.name)
        try:
            self._descriptor = os.dup(sys.stdin.fileno()) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidArgument(f"cannot read {self.name}: {error.strerror}") from None
        filters.program(expression)  # what is wrong with it is said at once

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> tuple[list[Item], bool]:
        """What has come, waiting for it if need be; and whether there may be more."""
        try:
            data = os.read(self._descriptor, _CHUNK)
        except OSError as error:
            raise InvalidArgument(f"cannot read {self.name}: {error.strerror}") from None
        return [item for item in self._reader.feed(data) if not isinstance(item, Packet) or self._wanted(item)], bool(data)

    @property
    def growing(self) -> bool:
        """Whether it is a pipe or a socket, which can be waited for."""
        return not stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def items(self) -> Iterator[Item]:
        """All, to the end."""
        more = True
        while more:
            found, more = self.read()
            yield from found

    @property
    def interrupted(self) -> bool:
        """Whether it has ended in the middle of something."""
        return self._reader.interrupted

    def close(self) -> None:
        os.close(self._descriptor)

    def _wanted(self, packet: Packet) -> bool:
        linktype = packet.interface.linktype
        if linktype not in self._matchers:
            self._matchers[linktype] = filters.matcher(self._expression, linktype)
        data, length = packet.data, packet.length
        if filters.is_of_tunnel(packet.interface.filter):
            # As it was captured: the question is one for the frame inside.
            data = filters.content(data)
            length -= len(packet.data) - len(data)
        return self._matchers[linktype](data, length)
