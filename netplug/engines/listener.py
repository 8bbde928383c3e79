"""Where the engine finds the plugin: a socket that is root's alone, our own or one that the service manager holds for us.

Our own has a name that ends with this process, however that ends: a symbolic link to its descriptor below /proc. A dead daemon's socket
would hold up an engine that starts for 15 s, for it is there and nobody listens. Where there is none, the engine looks for one as long,
unless it finds `/etc/docker/plugins/netplug.json`, which `netplug install docker` writes: that says at once that nobody is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
from pathlib import Path

from netplug.errors import Conflict, NetplugError

NAME = "docker-plugin"
"""What the service manager calls the socket (FileDescriptorName=)."""
_FIRST = 3  # SD_LISTEN_FDS_START
_CREDENTIALS = struct.Struct("3i")
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO
BACKLOG = 128
_HIGH = 900
"""Descriptors from here on are seldom anybody's: should another process get our number, none of its own is mistaken for our socket."""


class Door:
    """A listening socket and its name. `close` takes the name away, if it is ours and nobody else's by now."""

    def __init__(self, listener: socket.socket, path: Path | None = None, descriptor: int = -1) -> None:
        listener.setblocking(False)
        self.listener, self._path, self._descriptor = listener, path, descriptor
        self._name = _name(path) if path is not None else None

    def close(self) -> None:
        self.listener.close()
        if self._path is not None and _name(self._path) == self._name:
            self._path.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def opened(path: str) -> Door:
    """The service manager's, or our own."""
    listener = inherited()
    return Door(listener) if listener is not None else bound(Path(path))


def is_root(connection: socket.socket) -> bool:
    """Whether its other end is."""
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return bool(uid == 0)


def inherited() -> socket.socket | None:
    """The socket that the service manager listens on (sd_listen_fds(3)); None where it has none for us.

    Calls wait in it while there is no daemon. Where nobody listens, an engine asks again after 1, 2, 4 and 8 s, and does not start before.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    if NAME not in names:
        return None
    listener = socket.socket(fileno=_FIRST + names.index(NAME))
    listener.set_inheritable(False)
    return listener


def bound(path: Path) -> Door:
    """A socket that only root may connect to; one that a dead daemon left is replaced, a living one's is not."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _check_free(path)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            # Under a passing name that engines take for no plugin's, which end in `.sock`.
            passing = path.with_name(f".{path.name}.{os.getpid()}")
            passing.unlink(missing_ok=True)
            mask = os.umask(0o177)
            try:
                listener.bind(str(passing))
            finally:
                os.umask(mask)
            stack.callback(passing.unlink, missing_ok=True)
            listener.listen(BACKLOG)
            descriptor = _named(path, passing)
            stack.pop_all()
    except OSError as error:
        raise NetplugError(f"cannot listen on {path}: {error.strerror or error}") from error
    return Door(listener, path, descriptor)


def _named(path: Path, passing: Path) -> int:
    """Give the socket at `passing` its name; the descriptor that it leads to, or -1.

    Where processes have other numbers for those outside (a container's), the name is the socket's own.
    """
    if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:
        passing.rename(path)
        return -1
    descriptor = os.open(passing, os.O_PATH | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # a limit on descriptors may be lower
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        os.close(descriptor)
        descriptor = high
    passing.unlink()
    passing.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
    passing.rename(path)
    return descriptor


def _name(path: Path) -> tuple[int, int, str] | None:
    try:
        found = path.lstat()
        return found.st_ino, found.st_mtime_ns, os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
    except OSError:
        return None


def _check_free(path: Path) -> None:
    """Nothing is there, or what a dead daemon has left."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise Conflict(f"cannot listen on {path}: it exists, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except TimeoutError:
            pass
        except OSError:
            return
    raise Conflict(f"cannot listen on {path}: another daemon answers there; give this one another --docker-plugin")
