"""Hears of links that go: a netlink socket that the event loop reads.

The kernel closes a link that it deletes, with the other end of a pair, and tells that (RTM_NEWLINK) before it tells of the deletion
(RTM_DELLINK), which it acknowledges some 20 ms later. From the first on no packet passes, and whoever asks for links, or makes one, waits
until it has gone: it holds the lock that they all need. A filter on the socket lets nothing else through, so that the loop wakes for links
that go only; nor what the bridge family tells, of a port that leaves its bridge and not of a link that goes.
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
"""While somebody waits: seconds after which we look for ourselves whether the links are there."""
_CHECKS = 10
"""After so many looks a link counts as one that stays."""

_TYPE, _FAMILY, _FLAGS, _CHANGE = 4, 16, 24, 28  # offsets of nlmsg_type, ifi_family, ifi_flags and ifi_change
_CLOSED = links.IFF_UP | links.IFF_RUNNING
"""What the kernel says has changed of a link that it closes; where somebody sets it down, it is IFF_UP alone."""
_ONLY_GOING = (
    bpf.load_byte(_FAMILY),
    bpf.equal(socket.AF_UNSPEC, "", "drop"),
    bpf.load_half(_TYPE),
    bpf.equal(bpf.half(links.RTM_DELLINK), "keep"),
    bpf.equal(bpf.half(links.RTM_NEWLINK), "", "drop"),
    bpf.load_word(_FLAGS),
    bpf.has(bpf.word(links.IFF_UP), "drop"),
    bpf.load_word(_CHANGE),
    bpf.equal(bpf.word(_CLOSED), "keep", "drop"),
)

_log = logging.getLogger(__name__)


class Monitor:
    """Of the namespace in which `start` is called."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._closed: set[int] = set()
        """Links that nobody waits for any more and of whose deletion we have not heard yet."""
        self._checks: dict[int, int] = {}
        """How often a link has been looked at in vain. One timer serves all: most go long before it rings."""
        self._timer: asyncio.TimerHandle | None = None
        self.unexpected: Callable[[str], None] = lambda name: None
        """Called with the name of a link that went without anybody waiting for it: somebody else deleted it, or its namespace ended."""

    def start(self) -> None:
        with asked("listen for links that go"):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            bpf.attach(self._socket, _ONLY_GOING)
            self._socket.bind((0, _RTMGRP_LINK))
            self._lookup = netlink.Socket()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()
        self._lookup.close()
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()

    def departure(self, index: int) -> asyncio.Future[None]:
        """Done when the link of that index is closed, to be deleted, or gone; KernelError when the kernel keeps it.

        Ask before the deletion is sent.
        """
        if index not in self._waiting:
            self._waiting[index] = self._loop.create_future()
            self._check_later()
        return self._waiting[index]

    async def gone(self, departures: Collection[asyncio.Future[None]]) -> None:
        """Waits for departures, though notifications should be lost; KernelError when a link stays."""
        for departure in departures:
            if not departure.done():
                await asyncio.shield(departure)  # others may wait for it too

    def _check_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_CHECK_AFTER, self._check)

    def _check(self) -> None:
        self._timer = None
        self._look(*self._waiting)
        self._checks = {index: self._checks.get(index, 0) + 1 for index in self._waiting}
        for index, count in self._checks.items():
            if count == _CHECKS and not (departure := self._waiting.pop(index)).done():
                departure.set_exception(KernelError(errno.ETIMEDOUT, f"delete link {index}", "the kernel keeps it"))
        if self._waiting:
            self._check_later()

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
                self._look(*self._waiting, *self._closed)
                continue
            for message in netlink.parse(data):
                self._heard(message)
            reading = bool(self._waiting)  # what comes unexpected wakes the loop by itself

    def _heard(self, message: netlink.Reply) -> None:
        index = links.parse_index(message.body)
        if message.kind == links.RTM_NEWLINK:
            if index in self._waiting:
                self._closed.add(index)
        elif index in self._closed:
            self._closed.discard(index)
        elif index not in self._waiting:
            self.unexpected(links.parse_name(message.body))
        self.departed(index)

    def _look(self, *indexes: int) -> None:
        for index in indexes:
            if links.find(self._lookup, index) is None:
                self._closed.discard(index)
                self.departed(index)

    def departed(self, index: int) -> None:
        """The link of that index is gone, or stays: nobody waits for it any more."""
        future = self._waiting.pop(index, None)
        if future is not None and not future.done():
            future.set_result(None)
