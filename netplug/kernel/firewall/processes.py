"""Programs that change the firewall for us, run to their end. Their pids are known for a while: what they did was our doing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

KNOWN_SECONDS = 5.0
"""After the end: the kernel tells at once what was done, and gives the number to somebody else one day."""

_running: set[int] = set()
_ended: dict[int, float] = {}


def run(argv: Sequence[str], document: str = "", timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with captured text does it."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        _running.add(process.pid)
        try:
            output, error = process.communicate(document, timeout)
        except BaseException:
            process.kill()
            raise
        finally:
            _end(process.pid)
        return subprocess.CompletedProcess(argv, process.returncode, output, error)


def is_ours(pid: int) -> bool:
    """Whether it is such a program, or was one until a moment ago."""
    return pid in _running or time.monotonic() < _ended.get(pid, 0) + KNOWN_SECONDS


def _end(pid: int) -> None:
    now = time.monotonic()
    _running.discard(pid)
    for old in [other for other, moment in _ended.items() if moment + KNOWN_SECONDS <= now]:
        del _ended[old]
    _ended[pid] = now
