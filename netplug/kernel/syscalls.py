"""System calls that Python 3.11 lacks, and the boundary where errno becomes `KernelError`."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from contextlib import AbstractContextManager

from netplug.errors import KernelError

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2
OWN_NETWORK = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


class _Thread(threading.local):
    network: Descriptor | None = None


_thread = _Thread()


class asked(AbstractContextManager[None]):
    """Whatever the kernel refuses inside becomes a KernelError about `operation`: `with asked("delete links"): …`."""

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            raise refusal(self._operation, error) from error


def refusal(operation: str, error: OSError) -> KernelError:
    return KernelError(error.errno or 0, operation, error.strerror or "")


def unshare_network() -> None:
    """Put the calling thread into a new network namespace (unshare(2))."""
    _check(_libc.unshare(CLONE_NEWNET))
    _thread.network = None


class Descriptor:
    """Of a file, for as long as somebody knows it."""

    def __init__(self, path: str) -> None:
        """OSError where it cannot be opened for reading."""
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def own_network() -> Descriptor:
    """The network namespace that the calling thread is in. Kept until it leaves: to open it takes longer than to enter it."""
    if _thread.network is None:
        _thread.network = Descriptor(OWN_NETWORK)
    return _thread.network


def visit_network(place: Descriptor) -> None:
    """Put the calling thread into that network namespace (setns(2)); EINVAL for any other file."""
    _check(_libc.setns(place.number, CLONE_NEWNET))
    _thread.network = place


def bind_mount(source: str, target: str) -> None:
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None))


def unmount(path: str) -> None:
    """Detach what is mounted on `path` (umount2(2)); EINVAL where nothing is."""
    _check(_libc.umount2(os.fsencode(path), MNT_DETACH))


def socket_option(of: socket.socket, level: int, option: int, content: ctypes.Array[ctypes.c_char]) -> None:
    """getsockopt(2) for options that read what they are asked from the buffer that they fill."""
    length = ctypes.c_uint32(len(content))
    _check(_libc.getsockopt(of.fileno(), level, option, content, ctypes.byref(length)))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
