"""Fault points: places where a test lets the daemon die, to prove that nothing is lost or leaked.

They lie before and after each netlink send, firewall transaction, store transaction, mount, and call of a driver that acts outside the
kernel. `arm(n)` makes the n-th point from then on end the process with SIGKILL. While faults are enabled (`NETPLUG_FAULTS=1` in the
daemon's environment) batches hold one op.
"""

from __future__ import annotations

import os
import signal

enabled = os.environ.get("NETPLUG_FAULTS") == "1"
_left = 0
passed: list[str] = []
"""The points passed since `arm`, for the test's report."""


def arm(count: int) -> None:
    """Die at the `count`-th point from now; 0 disarms."""
    global _left
    _left = count
    passed.clear()


def left() -> int:
    """How many points are still to come before the end; 0: disarmed."""
    return _left


def point(name: str) -> None:
    """Called at each fault point; costs a truth test unless enabled."""
    global _left
    if not enabled:
        return
    passed.append(name)
    if _left > 0:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
