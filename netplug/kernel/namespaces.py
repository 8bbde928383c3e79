"""Network namespaces by path.

A namespace is kept alive by a bind mount on its path, as `ip netns` does it; `""` is the one that the calling thread is in. A thread
enters, does its work without awaiting, and leaves: a socket that was opened inside stays inside.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from netplug import faults
from netplug.errors import KernelError
from netplug.kernel import links
from netplug.kernel.netlink import Socket
from netplug.kernel.syscalls import asked, bind_mount, enter_network, unmount, unshare_network

_SELF = "/proc/thread-self/ns/net"
_SO_NETNS_COOKIE = 71
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EINVAL})
"""Errors of entering that mean: there is no such namespace (no file, or a file that is none)."""


@contextmanager
def entered(path: str) -> Iterator[None]:
    """The calling thread is in the namespace at `path` until the end of the block, which must not await."""
    if not path:
        yield
        return
    home = _enter(path)
    try:
        yield
    finally:
        try:
            with asked("return from a network namespace"):
                enter_network(home)
        finally:
            os.close(home)


def open_descriptor(path: str) -> int:
    """A file descriptor of the namespace, for messages that name one; the caller closes it."""
    return os.open(path or _SELF, os.O_RDONLY | os.O_CLOEXEC)


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
        home = open_descriptor("")
        try:
            unshare_network()
            return _furnish(path)
        except BaseException:
            remove(path)
            raise
        finally:
            enter_network(home)
            os.close(home)


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


def _enter(path: str) -> int:
    with asked(f"enter network namespace {path}"):
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            home = open_descriptor("")
            try:
                enter_network(target)
            except BaseException:
                os.close(home)
                raise
            return home
        finally:
            os.close(target)


def _furnish(path: str) -> int:
    """In the new namespace: `lo` up, mounted on `path`."""
    with Socket() as netlink:
        netlink.request(links.set_up("lo"))
    faults.point("mount.before")
    bind_mount(_SELF, path)
    faults.point("mount.after")
    return own_cookie()


def own_cookie() -> int:
    """Of the namespace that the calling thread is in."""
    with asked("read the network namespace's cookie"), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return int(struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
