"""Deletes links, the kernel's slow side, away from the event loop.

The ack of a deletion comes after 20 ms (a bridge's after 36), however many links go at once: so a link to delete is moved into
DOOMED_GROUP, and a thread deletes it, or the group with all that have come meanwhile. Done is told by the monitor, when the link is
closed. What the kernel does in between holds nobody up, so while one thread waits for its ack another takes the next links.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from netplug.kernel import links
from netplug.kernel.netlink import Refused, Socket
from netplug.plan import DOOMED_GROUP

THREADS = 12
"""At one deletion every 2 ms, each of 20 ms. With more than that coming, the groups grow."""

QUIET = 0.1
"""Seconds without a further bridge before those that are retired are deleted."""
MANY_BRIDGES = 100
"""With so many waiting nobody waits for quiet."""

_log = logging.getLogger(__name__)


class Doomed(NamedTuple):
    """Links in DOOMED_GROUP, with a socket in their namespace where that is not the threads' own."""

    indexes: Sequence[int]
    netlink: Socket | None = None


class Reaper:
    """A few threads, started as they are needed, in the namespace of who calls `take`."""

    def __init__(self) -> None:
        self._doomed: queue.SimpleQueue[Doomed | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    def stop(self) -> None:
        """Waits for what is doomed: call it off the loop."""
        for _ in self._threads:
            self._doomed.put(None)
        for thread in self._threads:
            thread.join()

    def take(self, indexes: Sequence[int], netlink: Socket | None = None) -> None:
        """Delete these links, which are in DOOMED_GROUP already; `netlink` is closed afterwards."""
        self._doomed.put(Doomed(indexes, netlink))
        if not self._idle.acquire(blocking=False) and len(self._threads) < THREADS:
            thread = threading.Thread(target=self._run, name="netplug-reaper", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        with Socket() as netlink:
            while True:
                taken, last = self._collect()
                _delete(netlink, [index for doomed in taken if doomed.netlink is None for index in doomed.indexes])
                for doomed in taken:
                    if doomed.netlink is not None:
                        with doomed.netlink:
                            _delete(doomed.netlink, doomed.indexes)
                if last:
                    return
                self._idle.release()

    def _collect(self) -> tuple[list[Doomed], bool]:
        """Waits for some, then takes all that are there, but of one other namespace only; one end is for one thread."""
        taken: list[Doomed] = []
        while True:
            try:
                doomed = self._doomed.get(block=not taken)
            except queue.Empty:
                return taken, False
            if doomed is None:
                return taken, True
            taken.append(doomed)
            if doomed.netlink is not None:
                return taken, False


class BridgeReaper:
    """Deletes retired bridges in a thread of its own, one at a time, when there is quiet.

    Deleting a bridge waits 15 ms for RCU callbacks (`br_multicast_dev_del` in net/bridge/br_multicast.c) with the lock held that every
    change of a link on the machine needs. So it comes after what the user does next.
    """

    def __init__(self) -> None:
        self._retired: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="netplug-bridges", daemon=True)
        self._hurry = threading.Event()
        self._last = 0.0
        """When the newest was retired."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Deletes what is left: call it off the loop."""
        self._hurry.set()
        self._retired.put(None)
        self._thread.join()

    def take(self, index: int) -> None:
        """Delete this bridge, which is in RETIRED_GROUP already."""
        self._last = time.monotonic()
        self._retired.put(index)

    def _run(self) -> None:
        with Socket() as netlink:
            while (index := self._retired.get()) is not None:
                self._await_quiet()
                _delete_one(netlink, index)

    def _await_quiet(self) -> None:
        while self._retired.qsize() < MANY_BRIDGES and (left := self._last + QUIET - time.monotonic()) > 0:
            if self._hurry.wait(left):
                return


def _delete(netlink: Socket, indexes: Sequence[int]) -> None:
    if len(indexes) < 2:
        # For a group the kernel looks at every link that there is.
        for index in indexes:
            _delete_one(netlink, index)
        return
    try:
        netlink.request(links.delete_group(DOOMED_GROUP))
    except Refused as refused:
        if refused.errno == errno.ENODEV:  # went with the deletion before
            return
        # A link that cannot be deleted, put into the group by somebody else, makes the kernel refuse the whole group.
        _log.warning("deleting links one by one: %s", refused.strerror)
        for index in indexes:
            _delete_one(netlink, index)
    except OSError:
        _log.exception("deleting links")


def _delete_one(netlink: Socket, index: int) -> None:
    try:
        netlink.request(links.delete(index))
    except OSError as error:
        if error.errno != errno.ENODEV:
            _log.error("link %d cannot be deleted: %s", index, error.strerror)
