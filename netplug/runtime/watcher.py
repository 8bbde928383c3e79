"""Watch one file of the host: by looking once a second, since it may be a link, be replaced, or vanish for a while."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

INTERVAL = 1.0


class FileWatcher:
    """Calls `changed` after the file's content may have changed."""

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self._path, self._changed = path, changed

    async def run(self) -> None:
        known = self._state()
        while True:
            await asyncio.sleep(INTERVAL)
            state = self._state()
            # While it is gone nothing is said: what was known of it goes on being true.
            if state is not None and state != known:
                known = state
                self._changed()

    def _state(self) -> tuple[int, int, int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
