"""What was changed in the kernel, when and for whom: a file of JSON lines below the state directory, and the newest entries in memory."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path

import msgspec

from netplug.model import now
from netplug.plan import Step

actor: ContextVar[str] = ContextVar("actor", default="netplug daemon")
"""For whom the current task works: set by whoever took the request."""

LARGEST_FILE = 8 << 20
KEPT_ENTRIES = 1000


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change: `steps` are what was really done, in order."""

    time: str
    action: str
    subject: str
    by: str
    steps: tuple[Step, ...] = ()
    error: str = ""


class Journal:
    """Append-only; the file is turned over once (`.1`) when it is full."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: deque[Entry] = deque(maxlen=KEPT_ENTRIES)
        self._listeners: list[Callable[[Entry], None]] = []
        self._encoder = msgspec.json.Encoder()
        self._unwritten: list[bytes] = []
        self._load()
        self._file = self._open()

    def record(self, action: str, subject: str, steps: Sequence[Step], error: str = "") -> None:
        entry = Entry(time=now(), action=action, subject=subject, by=actor.get(), steps=tuple(steps), error=error)
        self._entries.append(entry)
        self._unwritten.append(self._encoder.encode(entry) + b"\n")
        if len(self._unwritten) == 1:
            self._write_soon()
        for listener in tuple(self._listeners):
            listener(entry)

    def entries(self, limit: int = KEPT_ENTRIES) -> list[Entry]:
        """The newest `limit` entries, oldest first."""
        return list(self._entries)[-limit:] if limit > 0 else []

    def subscribe(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """Calls `listener` with each new entry; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        self._write()
        os.close(self._file)

    def _write_soon(self) -> None:
        """What is recorded in one turn of the event loop is one write."""
        try:
            asyncio.get_running_loop().call_soon(self._write)
        except RuntimeError:
            self._write()

    def _write(self) -> None:
        if not self._unwritten:
            return
        lines, self._unwritten = b"".join(self._unwritten), []
        self._size += os.write(self._file, lines)
        if self._size > LARGEST_FILE:
            self._turn_over()

    def _open(self) -> int:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(file).st_size
        return file

    def _turn_over(self) -> None:
        os.close(self._file)
        os.replace(self._path, self._path.with_suffix(self._path.suffix + ".1"))
        self._file = self._open()

    def _load(self) -> None:
        if not self._path.exists():
            return
        decoder = msgspec.json.Decoder(Entry)
        with self._path.open("rb") as file:
            lines = deque(file, KEPT_ENTRIES)
        for line in lines:
            try:
                self._entries.append(decoder.decode(line))
            except msgspec.DecodeError:
                # The line being written when the daemon was killed; the next one is whole again.
                continue
