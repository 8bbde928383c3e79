"""Waits until the machine has nothing else to do: what one engine leaves for later (namespaces that are cleaned up, processes that end)
is not the next one's time.
"""

from __future__ import annotations

import time
from pathlib import Path

SHARE = 0.9
"""Of the processors' time, idle: then the machine is quiet."""
LOOK = 0.2
PATIENCE = 5.0
"""Seconds. Somebody else's work is not waited for longer: it hits both."""


def wait() -> None:
    deadline = time.monotonic() + PATIENCE
    while _idle_share(LOOK) < SHARE and time.monotonic() < deadline:
        pass


def _idle_share(seconds: float) -> float:
    idle, every = _spent()
    time.sleep(seconds)
    idle_then, every_then = _spent()
    return (idle_then - idle) / max(1, every_then - every)


def _spent() -> tuple[int, int]:
    """Ticks of all processors: idle or waiting for a disk, and altogether (proc_stat(5))."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
