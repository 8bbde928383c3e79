"""Network namespaces by path.

A namespace is kept alive by a bind mount on its path, as `ip netns` does it; `""` is the one that the calling thread is in. A thread
enters, does its work without awaiting, and leaves: a socket that was opened inside stays inside.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import AbstractContextManager, nullcontext, suppress

from netplug import faults
from netplug.errors import KernelError
from netplug.kernel import links
from netplug.kernel.netlink import Socket
from netplug.kernel.syscalls import (
    OWN_NETWORK,
    Descriptor,
    asked,
    bind_mount,
    own_network,
    refusal,
    unmount,
    unshare_network,
    visit_network,
)

_SO_NETNS_COOKIE = 71
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL})
"""Errors of entering that mean: there is no such namespace (no file, or a file that is none)."""


def entered(path: str) -> AbstractContextManager[None]:
    """The calling thread is in the namespace at `path` until the end of the block, which must not await; KernelError if it cannot enter."""
    return _Visit(path) if path else _NO_VISIT


class _Visit(AbstractContextManager[None]):
    """A dozen of them belong to a connect, so it is no generator."""

    __slots__ = ("_home", "_path")

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        try:
            self._home = own_network()
            visit_network(Descriptor(self._path))
        except OSError as error:
            raise refusal(f"enter network namespace {self._path}", error) from error

    def __exit__(self, *_: object) -> None:
        try:
            visit_network(self._home)
        except OSError as error:
            raise refusal("return from a network namespace", error) from error


_NO_VISIT: AbstractContextManager[None] = nullcontext()


def opened(path: str) -> Descriptor:
    """The namespace, for messages that name one; OSError where the path cannot be opened."""
    return Descriptor(path) if path else own_network()


def open_descriptor(path: str) -> int:
    """A file descriptor of the namespace, for messages that name one; the caller closes it."""
    return os.open(path or OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)


def create(path: str) -> int:
    """Make a namespace on `path` with `lo` up; its cookie. KernelError EEXIST where there is one already.

    No process is forked and no other thread is touched: this thread steps into a new namespace, mounts it, and steps back. What
    fails leaves nothing behind.
    """
    with asked(f"create network namespace {path}"):
        if cookie(path) is not None:
            raise OSError(errno.EEXIST, "there is one already")
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
        home = own_network()
        try:
            unshare_network()
            return _furnish(path)
        except BaseException:
            remove(path)
            raise
        finally:
            visit_network(home)


def remove(path: str) -> None:
    """Let go of the namespace at `path`; the kernel ends it when nothing else holds it. Nothing there is fine."""
    with asked(f"remove network namespace {path}"):
        faults.point("mount.before")
        try:
            while True:  # more than one mount only if somebody mounted over ours
                unmount(path)
        except OSError as error:
            if error.errno not in MISSING:
                raise
        faults.point("mount.after")
        # Also lets go of copies of the mount in other mount namespaces: the kernel detaches them with the name.
        with suppress(FileNotFoundError):
            os.unlink(path)


def cookie(path: str) -> int | None:
    """The namespace's number, unique until the next boot (SO_NETNS_COOKIE); None if there is no namespace at `path`."""
    try:
        with entered(path):
            return own_cookie()
    except KernelError as error:
        if error.errno in MISSING:
            return None
        raise


def open_socket(path: str, family: int, type: int, proto: int = 0) -> socket.socket:
    """A socket born in the namespace at `path`."""
    with entered(path), asked(f"open a socket in network namespace {path or 'of the host'}"):
        return socket.socket(family, type, proto)


def _furnish(path: str) -> int:
    """In the new namespace: `lo` up, mounted on `path`."""
    with Socket() as netlink:
        netlink.request(links.set_up("lo"))
    faults.point("mount.before")
    bind_mount(OWN_NETWORK, path)
    faults.point("mount.after")
    return own_cookie()


def own_cookie() -> int:
    """Of the namespace that the calling thread is in."""
    with asked("read the network namespace's cookie"), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return int(struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
