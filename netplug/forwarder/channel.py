"""Messages between the daemon and the forwarder process: JSON over a Unix SOCK_SEQPACKET socket, descriptors beside it (SCM_RIGHTS).

One message is one packet. The daemon asks, the process answers each message with one, in order:

    {"op": "hello", "protocol": 1}                                       -> {"protocol": 1, "pid": …, "cookie": …}
    {"op": "add", "id": "…", "relay": {…}, "first": n} + sockets n, n+1… -> {}
    {"op": "remove", "id": "…"}                                          -> {}
    {"op": "quit"}                                                       -> {}, and the process ends
    {"op": "show", "id": "…", "first": n}    -> {"id": …, "relay": {…}, "first": n} + sockets n, n+1…; {} where there is no more

`show` begins with id "" and first 0, and goes on with what the last answer was followed by. A request that fails is answered
{"error": "…"}. Unasked comes only {"replaced": true}, before the process closes a daemon's connection because another has said hello.
"""

from __future__ import annotations

import os
import socket

from netplug.resolver.channel import Garbled, namespace_cookie, unconnected

__all__ = ["MAX_DESCRIPTORS", "PROTOCOL", "Garbled", "namespace_cookie", "receive", "send", "socket_path", "unconnected"]

PROTOCOL = 1
"""Goes up when an old process cannot serve a new daemon; the daemon then starts a new process."""

MAX_DESCRIPTORS = 253
"""SCM_MAX_FD (net/scm.h)."""
_MAX_MESSAGE = 4096


def socket_path(run_dir: str | os.PathLike[str]) -> str:
    return os.path.join(run_dir, "forwarder.sock")


def send(sock: socket.socket, data: bytes, descriptors: list[int]) -> None:
    """One message, whole; BlockingIOError if there is no room now."""
    if descriptors:
        socket.send_fds(sock, [data], descriptors)
    else:
        sock.send(data)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """The next message (`b""`: the other side has closed) and the descriptors that came with it, which are the caller's now."""
    data, descriptors, flags, _ = socket.recv_fds(sock, _MAX_MESSAGE, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in descriptors:
            os.close(descriptor)
        raise Garbled("a message too long, or more descriptors than this process may have")
    return data, descriptors
