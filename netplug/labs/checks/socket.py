"""Does somebody listen at a unix socket? A daemon that was killed leaves the file, and nobody behind it."""

from __future__ import annotations

import socket
import time

from netplug.labs.checks.base import Check, Find

_PATIENCE = 1.0
"""So long may a daemon take that was started or killed a moment ago, until it listens or is gone."""


class SocketCheck(Check, frozen=True, tag="socket"):
    path: str
    """On the host's own file system."""
    daemon: str
    """Whose socket it is, in words."""
    listens: bool = True

    def look(self, find: Find) -> None:
        root = self.place(find).run_directory.parent
        deadline = time.monotonic() + _PATIENCE
        while bool(problem := knock(f"{root}{self.path}")) == self.listens and time.monotonic() < deadline:
            time.sleep(0.05)
        if bool(problem) == self.listens:
            expected = f"{self.daemon} on {self.at} to {'listen' if self.listens else 'be gone: nobody listens'} at {self.path}"
            raise self.unmet(expected, problem or "somebody answers there")


def knock(path: str) -> str:
    """Empty if a connection is accepted, else what the kernel says."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except FileNotFoundError:
            return "there is no such socket"
        except ConnectionRefusedError:
            return "the file is there, and nobody behind it"
    return ""
