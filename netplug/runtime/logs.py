"""Read the log that conmon writes: the k8s-file format, one `TIME stdout|stderr F|P TEXT` per line.

`F` ends a line of the container's output; `P` is a piece of one that goes on in the next record. Records are read in large pieces and
handed on in large pieces: one await per line would be ten times slower.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import select
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from netplug.runtime import inotify
from netplug.runtime.waiting import readable

_BLOCK = 1 << 18
_STREAMS = {b"stdout": 1, b"stderr": 2}


@dataclass(frozen=True)
class Wanted:
    """Which records, and how. `since` and `until` are seconds since 1970, 0 for no limit; `tail` None for all."""

    stdout: bool = True
    stderr: bool = True
    since: float = 0
    until: float = 0
    tail: int | None = None
    timestamps: bool = False
    follow: bool = False


@dataclass(frozen=True)
class Record:
    time: bytes
    stream: int
    whole: bool
    text: bytes


def parse(line: bytes) -> Record | None:
    """None for what is no record (a line that a crash cut short)."""
    time, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    tag, separator, text = rest.partition(b" ")
    if stream not in _STREAMS or tag not in (b"F", b"P") or not separator:
        return None
    return Record(time, _STREAMS[stream], tag == b"F", text)


def utc(time: bytes) -> bytes:
    """conmon's local time with its offset, as Docker prints it: UTC with nanoseconds and Z."""
    if time.endswith(b"+00:00"):
        return time[:-6] + b"Z"
    whole, _, rest = time.decode().partition(".")
    fraction, offset = rest[:9], rest[9:]
    moment = datetime.datetime.fromisoformat(whole + offset).astimezone(datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction}Z".encode()


def seconds(time: bytes) -> float:
    whole, _, rest = time.decode().partition(".")
    return datetime.datetime.fromisoformat(whole + rest[9:]).timestamp() + int(rest[:9] or 0) / 1e9


class Formatter:
    """Turns records into output, joined as long as the stream stays the same."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._begun: dict[int, bool] = {}
        self.over = False
        """A record after `until` was seen."""

    def format(self, lines: list[bytes]) -> Iterator[tuple[int, bytes]]:
        stream, pieces = 0, list[bytes]()
        for record in filter(None, map(parse, lines)):
            if not self._passes(record):
                continue
            if record.stream != stream and pieces:
                yield stream, b"".join(pieces)
                pieces = []
            stream = record.stream
            pieces.append(self._text(record))
        if pieces:
            yield stream, b"".join(pieces)

    def _passes(self, record: Record) -> bool:
        wanted = self._wanted
        if wanted.since or wanted.until:
            moment = seconds(record.time)
            self.over = self.over or bool(wanted.until and moment > wanted.until)
            if moment < wanted.since or self.over:
                return False
        return wanted.stdout if record.stream == 1 else wanted.stderr

    def _text(self, record: Record) -> bytes:
        begun, self._begun[record.stream] = self._begun.get(record.stream, False), not record.whole
        stamp = utc(record.time) + b" " if self._wanted.timestamps and not begun else b""
        return stamp + record.text + (b"\n" if record.whole else b"")


class Reader:
    """Reads whole lines from a log that may be growing."""

    def __init__(self, path: Path, tail: int | None) -> None:
        self._path, self._tail = path, tail
        self._descriptor = -1
        self._rest = b""

    def read(self) -> list[bytes]:
        """The next lines; [] where the log ends for now."""
        if self._descriptor < 0 and not self._open():
            return []
        block = os.read(self._descriptor, _BLOCK)
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        # A record longer than a block yields no line yet: that is not the end.
        return lines if lines or not block else self.read()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if self._tail is not None:
            os.lseek(self._descriptor, tail_offset(self._descriptor, self._tail), os.SEEK_SET)
        return True


def tail_offset(descriptor: int, count: int) -> int:
    """Where the last `count` lines of output begin; only as much as needed is read, from the end."""
    end = os.fstat(descriptor).st_size
    if count <= 0:
        return end
    start, text = end, b""
    while start > 0:
        start = max(0, start - _BLOCK)
        text = os.pread(descriptor, end - start, start)
        starts = _line_starts(text, complete=start == 0)
        if len(starts) >= count:
            return start + starts[-count]
    return 0


def _line_starts(text: bytes, *, complete: bool) -> list[int]:
    """Offsets where lines of output begin: records that follow an `F`. Without the file's beginning the first is unknown."""
    starts: list[int] = []
    fresh, offset = complete, 0
    for line in text.split(b"\n")[:-1]:
        if fresh:
            starts.append(offset)
        record = parse(line)
        fresh = record is not None and record.whole
        offset += len(line) + 1
    return starts


class Growth:
    """Tells when a log has grown, by inotify, and when its writer, the container's conmon, has ended, by pidfd."""

    def __init__(self, path: Path, conmon: int | None) -> None:
        """Takes over the pidfd; None: the container does not run."""
        self._conmon = conmon
        self._inotify = inotify.watch(path, inotify.IN_MODIFY) if conmon is not None else -1

    def growing(self) -> bool:
        if self._conmon is None:
            return False
        # Not select(2): a daemon with many containers has descriptors above 1023.
        poll = select.poll()
        poll.register(self._conmon, select.POLLIN)
        return not poll.poll(0)

    async def changed(self) -> None:
        assert self._conmon is not None
        await readable(self._inotify, self._conmon)
        inotify.drain(self._inotify)

    def close(self) -> None:
        for descriptor in (self._conmon, self._inotify):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._conmon, self._inotify = None, -1


async def stream(path: Path, wanted: Wanted, watch: Callable[[], Growth]) -> AsyncIterator[tuple[int, bytes]]:
    """The log as (1 stdout | 2 stderr, bytes). When following it ends once the container has ended and all is read."""
    reader, formatter, growth = Reader(path, wanted.tail), Formatter(wanted), watch()
    try:
        while True:
            # Asked before reading: what is written until the end of its writer is then read for certain.
            growing = growth.growing()
            while lines := reader.read():
                for piece in formatter.format(lines):
                    yield piece
                await asyncio.sleep(0)
            if formatter.over or not (wanted.follow and growing):
                return
            await growth.changed()
    finally:
        reader.close()
        growth.close()
