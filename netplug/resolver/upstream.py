"""Upstream servers: which ones, and how a socket to them is opened in the namespace where they are to be asked."""

from __future__ import annotations

import fcntl
import functools
import os
import socket
import time
from collections.abc import Callable

from netplug.resolver.loop import log

TYPE_CHECKING = False  # typing costs 1.5 MiB; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

MOST = 3
"""Servers of a file that are asked at most, as resolv.conf(5) has it."""

PUBLIC = ("8.8.8.8", "8.8.4.4")
PUBLIC6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")
"""Google's, which Docker asks where the host names no server."""

PORT = 53
OURSELVES = "127.0.0.11"
_SIOCGSKNS = 0x894C
_CLONE_NEWNET = 0x40000000


def is_server(text: str) -> bool:
    """An address, with a scope if need be (`fe80::1%eth0`). A name would make connect() look it up, and wait.

    `#UDP/TCP` behind it says other ports than 53: an engine's own resolver listens so in its containers.
    """
    text, mark, ports = text.partition("#")
    if mark and not all(port.isascii() and port.isdigit() and 0 < int(port) < 65536 for port in ports.split("/", 1)):
        return False
    address, _, scope = text.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        return False
    return not scope or ":" in address


def usable(servers: tuple[str, ...]) -> tuple[str, ...]:
    """The first three that are addresses, ourselves left out: asking 127.0.0.11 in a sandbox would go round in circles."""
    return tuple(server for server in servers if is_server(server) and server != OURSELVES)[:MOST]


def nameservers(text: str) -> tuple[str, ...]:
    """The servers in a resolv.conf; with none, those that containers on the default bridge are told of then, as Docker has it."""
    lines = (line.split() for line in text.splitlines())
    found = tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver" and is_server(words[1]))
    return found[:MOST] or PUBLIC + PUBLIC6


class HostServers:
    """The nameservers of the host's resolv.conf, read again when it has changed (looked at once a second at most)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._servers: tuple[str, ...] = ()
        self._seen: tuple[int, ...] = ()
        self._next_look = 0.0

    def use(self, path: str) -> None:
        """Read another file from now on."""
        if path != self._path:
            self._path, self._seen, self._next_look = path, (), 0.0

    def __call__(self) -> tuple[str, ...]:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + 1
            self._look()
        return self._servers

    def _look(self) -> None:
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                with open(self._path, errors="replace") as file:
                    self._servers = nameservers(file.read())
                self._seen = seen
        except OSError as error:
            log(f"cannot read the host's nameservers: {error}")
            self._servers, self._seen = nameservers(""), ()


class Namespaces:
    """Makes sockets in other network namespaces, found through a socket that lives there (no path is needed)."""

    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def connect(self, server: str, kind: socket.SocketKind, neighbour: socket.socket | None) -> socket.socket:
        """A socket on its way to `server`, in `neighbour`'s namespace (None: ours). OSError if that is hopeless."""
        if neighbour is None:
            return _connected(server, kind)
        return self._inside(neighbour, lambda: _connected(server, kind))

    def _inside(self, neighbour: socket.socket, make: Callable[[], socket.socket]) -> socket.socket:
        there = fcntl.ioctl(neighbour.fileno(), _SIOCGSKNS)
        try:
            _setns(there)
            try:
                return make()
            finally:
                _setns(self._home)
        finally:
            os.close(there)


@functools.cache
def _libc() -> Any:
    import ctypes  # 0.5 MiB that most hosts never need; os.setns came with Python 3.12

    return ctypes.CDLL(None, use_errno=True)


def _setns(descriptor: int) -> None:
    if _libc().setns(descriptor, _CLONE_NEWNET):
        import ctypes

        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


def _connected(server: str, kind: socket.SocketKind) -> socket.socket:
    server, _, ports = server.partition("#")
    udp, _, tcp = ports.partition("/")
    port = int((tcp if kind is socket.SOCK_STREAM else udp) or udp or PORT)
    address, _, scope = server.partition("%")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        sock.connect((address, port, 0, socket.if_nametoindex(scope)) if scope else (address, port))
    except BlockingIOError:
        return sock  # TCP: EINPROGRESS
    except OSError:
        sock.close()
        raise
    return sock
