"""Deletes links, the kernel's slow side, away from the event loop.

The ack of a deletion comes after 20 ms (a bridge's after 36), however many links go at once: so a link to delete is moved into
DOOMED_GROUP, and one thread deletes that group, again and again while new ones have come. Done is told by the monitor, at 0.4 ms.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading

from netplug.kernel import links
from netplug.kernel.netlink import Refused, Socket
from netplug.plan import DOOMED_GROUP

_log = logging.getLogger(__name__)


class Reaper:
    """One thread, in the namespace where `start` is called."""

    def __init__(self) -> None:
        self._doomed: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="netplug-reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for what is doomed: call it off the loop."""
        self._doomed.put(None)
        self._thread.join()

    def take(self, index: int) -> None:
        """Delete this link, which is in DOOMED_GROUP already."""
        self._doomed.put(index)

    def _run(self) -> None:
        with Socket() as netlink:
            while True:
                indexes, last = self._collect()
                if indexes:
                    _delete(netlink, indexes)
                if last:
                    return

    def _collect(self) -> tuple[list[int], bool]:
        """Waits for one, then takes all that are there."""
        taken = [self._doomed.get()]
        while not self._doomed.empty():
            taken.append(self._doomed.get())
        return [index for index in taken if index is not None], None in taken


def _delete(netlink: Socket, indexes: list[int]) -> None:
    try:
        netlink.request(links.delete_group(DOOMED_GROUP))
    except Refused as refused:
        if refused.errno == errno.ENODEV:  # went with the deletion before
            return
        # A link that cannot be deleted, put into the group by somebody else, makes the kernel refuse the whole group.
        _log.warning("deleting links one by one: %s", refused.strerror)
        for index, error in zip(indexes, netlink.send([links.delete(index) for index in indexes]), strict=True):
            if error is not None and error.errno != errno.ENODEV:
                _log.error("link %d cannot be deleted: %s", index, error.strerror)
    except OSError:
        _log.exception("deleting links")
