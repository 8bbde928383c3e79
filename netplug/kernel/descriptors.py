"""File descriptors: where long-lived ones live, and closing those that the kernel is slow to let go of."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import queue
import resource
import socket
import threading
from collections.abc import Callable

from netplug.errors import KernelError

TABLE = 32768
"""Descriptors that there is room for from the beginning."""

FD_SETSIZE = 1024
"""libnftables waits with select(2), and glibc ends the process when it is given a descriptor from here on."""

_log = logging.getLogger(__name__)

_to_close: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()


def close_later(close: Callable[[], object]) -> None:
    """Call `close` in a thread: closing a packet or netfilter socket waits for the kernel, 10 to 40 ms.

    Also from a finalizer, which may run anywhere, even in here: of all queues only this one takes that (an executor waits for itself).
    """
    _to_close.put(close)


def _close_all() -> None:
    while True:
        try:
            _to_close.get()()
        except Exception:
            _log.exception("closing")


# Here, since a thread is born in the namespace of whoever starts it: this one belongs to the host's.
threading.Thread(target=_close_all, name="netplug-close", daemon=True).start()


def raised_limit() -> None:
    """As many descriptors as this process may have: each container takes some, and each published port one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The table grows by doubling, and each time all threads wait for the kernel, 10 ms and more: let it grow now, by 8 bytes for each.
    os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, min(hard, TABLE) - 1))


def lifted(descriptor: int) -> int:
    """The same file under a number from FD_SETSIZE on, so that the low ones stay free for who needs them; `descriptor` is closed."""
    try:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FD_SETSIZE)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the limit is lower: nothing to gain
            raise
        return descriptor
    os.close(descriptor)
    return high


def lifted_socket(held: socket.socket) -> socket.socket:
    return socket.socket(fileno=lifted(held.detach()))


def check_low() -> None:
    """KernelError where the next descriptor would be too high for select(2)."""
    probe = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(probe)
    if probe >= FD_SETSIZE - 8:
        raise KernelError(errno.EMFILE, "open an nftables context", f"{probe} files are open: too many connections to the daemon at once?")
