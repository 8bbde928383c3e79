"""inotify(7), as much as is needed to see that a file has grown."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100

_libc = ctypes.CDLL(None, use_errno=True)


def watch(path: Path, mask: int) -> int:
    """A descriptor that becomes readable when the file or folder changes. What is not there gives a descriptor that never does."""
    descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), "inotify_init1")
    _libc.inotify_add_watch(descriptor, os.fsencode(path), ctypes.c_uint32(mask))
    return int(descriptor)


def drain(descriptor: int) -> None:
    """Forget the changes seen so far."""
    with contextlib.suppress(BlockingIOError):
        os.read(descriptor, 65536)
