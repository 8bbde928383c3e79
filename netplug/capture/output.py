"""Where packets go: a new pcapng file that only root can read, or a pipe."""

from __future__ import annotations

import io
import os
import stat
import sys
import time
from collections.abc import Iterable

from netplug import __version__
from netplug.capture.pcapng import Interface, Losses, Packet, Writer
from netplug.errors import Conflict, InvalidArgument, NetplugError

_BUFFER = 1 << 20


class Output:
    """`-` is standard output. What is there already is not overwritten, but for a named pipe, into which is written."""

    def __init__(self, path: str, interfaces: Iterable[Interface] = ()) -> None:
        """Conflict: there is such a file. InvalidArgument: it cannot be written."""
        self.name = "standard output" if path == "-" else path
        self._file = io.BufferedWriter(io.FileIO(_opened(path), "wb"), _BUFFER)
        self._writer = Writer(f"netplug {__version__}")
        self._put([self._writer.header, *map(self._writer.interface, interfaces)])

    def packets(self, packets: Iterable[Packet]) -> None:
        """All of them are in the file when this returns."""
        writer = self._writer
        self._put(block for packet in packets for block in (writer.interface(packet.interface), writer.packet(packet)))

    def close(self, losses: Iterable[Losses]) -> None:
        now, writer = time.time_ns(), self._writer
        self._put(block for each in losses for block in (writer.interface(each.interface), writer.losses(each, now)))
        self._file.close()

    def _put(self, blocks: Iterable[bytes]) -> None:
        try:
            self._file.writelines(blocks)
            self._file.flush()
        except BrokenPipeError:
            raise  # whoever reads it has had enough
        except OSError as error:
            raise NetplugError(f"cannot write {self.name}: {error.strerror}") from None


def _opened(path: str) -> int:
    if path == "-":
        if sys.stdout.isatty():
            raise InvalidArgument("a pcapng file is not for a terminal: redirect standard output, or leave --write away")
        return os.dup(sys.stdout.fileno())
    try:
        if os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode):
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists already: remove it, or choose another name") from None
    except OSError as error:
        raise InvalidArgument(f"cannot write {path}: {error.strerror}") from None
