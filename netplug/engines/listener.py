"""Where the engine finds the plugin: a socket that is root's alone, our own or one that the service manager holds for us."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from netplug.errors import Conflict, NetplugError

NAME = "docker-plugin"
"""What the service manager calls the socket (FileDescriptorName=)."""
_FIRST = 3  # SD_LISTEN_FDS_START


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
    listener.setblocking(False)
    return listener


def bound(path: Path) -> socket.socket:
    """A socket that only root may connect to; one that a dead daemon left is replaced, a living one's is not."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if path.exists():
            _replace(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mask = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise NetplugError(f"cannot listen on {path}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def _replace(path: Path) -> None:
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise Conflict(f"cannot listen on {path}: it exists, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except TimeoutError:
            pass
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Conflict(f"cannot listen on {path}: another daemon answers there; give this one another --docker-plugin")
