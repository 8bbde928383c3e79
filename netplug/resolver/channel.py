"""Messages between the daemon and the resolver process: JSON over a Unix SOCK_SEQPACKET socket, descriptors beside it (SCM_RIGHTS).

The socket keeps message borders, so one message is one packet. The daemon asks, the process answers each message with one, in order:

    {"op": "hello", "protocol": 3, "resolv_conf": "/etc/resolv.conf"}      -> {"protocol": 3, "pid": …, "cookie": …}
    {"op": "sync", "first": …, "last": …, "endpoints": […], "sandboxes": […]} -> {"missing": [ids]}   (of this message)
    {"op": "add", "sandbox": {…}} + UDP and TCP socket                     -> {}
    {"op": "update", "sandbox": {…}} | {"op": "remove", "id": …}           -> {}
    {"op": "put", "endpoint": {…}} | {"op": "drop", "network": …, "endpoint": …} -> {}   ("sandbox": {…} beside it updates that too)
    {"op": "change", "put": [{…}], "drop": [[network, endpoint]]}          -> {}
    {"op": "quit"}                                                         -> {}, and the process ends

A request that fails is answered {"error": "…"}. Unasked comes only {"replaced": true}, before the process closes a daemon's connection
because another daemon has said hello.
"""

from __future__ import annotations

import os
import socket

PROTOCOL = 4
"""Goes up when an old process cannot serve a new daemon; the daemon then starts a new process."""

MAX_MESSAGE = 64 * 1024
_MOST_DESCRIPTORS = 8
_TRUNCATED = int(socket.MSG_TRUNC)  # a plain number: the flag's own operators are of Python, and slow
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h; Linux 5.14


class Garbled(Exception):
    """A message that is no message of ours."""


def socket_path(run_dir: str | os.PathLike[str]) -> str:
    return os.path.join(run_dir, "resolver.sock")


def unconnected() -> socket.socket:
    """A socket for either side."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The next message (`b""`: the other side has closed) and the descriptors that came with it, which are the caller's now."""
    data, descriptors, flags, _ = socket.recv_fds(sock, MAX_MESSAGE, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if flags & _TRUNCATED:
        for descriptor in descriptors:
            os.close(descriptor)
        raise Garbled(f"a message of more than {MAX_MESSAGE} bytes")
    return data, descriptors


def send(sock: socket.socket, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """One message, whole; BlockingIOError if there is no room now."""
    if descriptors:
        socket.send_fds(sock, [data], descriptors)
    else:
        sock.send(data)


def namespace_cookie(sock: socket.socket) -> int:
    """The cookie of the network namespace in which the socket was made; 0 if the kernel does not tell."""
    try:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    except OSError:
        return 0
