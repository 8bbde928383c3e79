"""Programs that change the firewall for us, run to their end. Their pids are kept for a while: what they did was our doing."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Sequence

pids: deque[int] = deque(maxlen=256)


def run(argv: Sequence[str], document: str = "", timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with captured text does it."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        pids.append(process.pid)
        try:
            output, error = process.communicate(document, timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(argv, process.returncode, output, error)
