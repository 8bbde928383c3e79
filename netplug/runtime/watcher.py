"""Files of the host that are watched, or read often: by their state, since each may be a link, be replaced, or vanish for a while."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

INTERVAL = 1.0

State = tuple[int, int, int, int]
"""What differs where a file's content may: device, inode, time of change in ns, size."""


class FileWatcher:
    """Calls `changed` after the file's content may have changed. It looks once a second."""

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self._path, self._changed = path, changed

    async def run(self) -> None:
        known = _state(self._path)
        while True:
            await asyncio.sleep(INTERVAL)
            state = _state(self._path)
            # While it is gone nothing is said: what was known of it goes on being true.
            if state is not None and state != known:
                known = state
                self._changed()


class CachedFile:
    """Its text, read again only after it may have changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: State | None = None
        self._text = ""

    def text(self) -> str:
        """`""` where it cannot be read."""
        state = _state(self._path)
        if state is None or state != self._state:
            self._text, self._state = read(self._path), state
        return self._text


def read(path: Path) -> str:
    """`""`, and a warning, where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        log.warning("cannot read %s: %s", path, error)
        return ""


def _state(path: Path) -> State | None:
    """None where it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
