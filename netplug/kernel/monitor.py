"""Hears of deleted links: a netlink socket that the event loop reads.

The kernel tells of a deletion (RTM_DELLINK) some 20 ms before it acknowledges it. A filter on the socket lets nothing else through, so
that the loop wakes for deletions only; nor what the bridge family tells, of a port that leaves its bridge and not of a link that goes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Collection

from netplug.errors import KernelError
from netplug.kernel import bpf, links, netlink
from netplug.kernel.syscalls import asked

_RTMGRP_LINK = 1
_SO_RCVBUFFORCE = 33
_BUFFER = 4 << 20
_CHECK_AFTER = 1.0
"""Seconds without a notification after which we look for ourselves whether the link is there."""
_CHECKS = 10

_TYPE, _FAMILY = 4, 16  # offsets of nlmsg_type and ifi_family
_ONLY_DELETIONS = (
    bpf.load_half(_TYPE),
    bpf.equal(bpf.half(links.RTM_DELLINK), "", "drop"),
    bpf.load_byte(_FAMILY),
    bpf.equal(socket.AF_UNSPEC, "keep", "drop"),
)

_log = logging.getLogger(__name__)


class Monitor:
    """Of the namespace in which `start` is called."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.unexpected: Callable[[str], None] = lambda name: None
        """Called with the name of a link that went without anybody waiting for it: somebody else deleted it, or its namespace ended."""

    def start(self) -> None:
        with asked("listen for deleted links"):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            bpf.attach(self._socket, _ONLY_DELETIONS)
            self._socket.bind((0, _RTMGRP_LINK))
            self._lookup = netlink.Socket()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._lookup.close()
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()

    def departure(self, index: int) -> asyncio.Future[None]:
        """Done when the link of that index is gone. Ask before the deletion is sent."""
        if index not in self._waiting:
            self._waiting[index] = self._loop.create_future()
        return self._waiting[index]

    async def gone(self, departures: Collection[asyncio.Future[None]]) -> None:
        """Waits for departures, looking for the links itself should a notification have been lost; KernelError when one stays."""
        pending = {departure for departure in departures if not departure.done()}
        for _ in range(_CHECKS):
            if not pending:
                return
            _, pending = await asyncio.wait(pending, timeout=_CHECK_AFTER)
            if pending:
                self._look(*self._waiting)
        if pending:
            raise KernelError(errno.ETIMEDOUT, f"delete {len(pending)} links", "the kernel keeps them")

    def _read(self) -> None:
        reading = True
        while reading:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                _log.warning("notifications of the kernel were lost: looking at %d links", len(self._waiting))
                self._look(*self._waiting)
                continue
            for message in netlink.parse(data):
                index = links.parse_index(message.body)
                if index not in self._waiting:
                    self.unexpected(links.parse_name(message.body))
                self.departed(index)
            reading = bool(self._waiting)  # what comes unexpected wakes the loop by itself

    def _look(self, *indexes: int) -> None:
        for index in indexes:
            if links.find(self._lookup, index) is None:
                self.departed(index)

    def departed(self, index: int) -> None:
        """The link of that index is gone, or stays: nobody waits for it any more."""
        future = self._waiting.pop(index, None)
        if future is not None and not future.done():
            future.set_result(None)
