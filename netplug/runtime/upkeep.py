"""What a change of a running container's network leaves to be done when its answer is out.

Its hosts and resolv.conf show the change, and so do those of containers with links to it; and its record is written. Several changes at
once are one writing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging

from netplug.controller.requests import ControllerEvent
from netplug.runtime.model import Container
from netplug.runtime.network_files import NetworkFiles
from netplug.runtime.records import Records
from netplug.runtime.waiting import Tasks

log = logging.getLogger(__name__)

FILES_FOLLOW = 0.02
"""Seconds after a change: less than it takes to start a command in the container."""
RECORDS_FOLLOW = 0.1
"""Seconds, in which a daemon that dies leaves the old record: its endpoints tell the next one the truth (see Networking.agreed)."""
AT_ONCE = 8
"""Containers whose files are written in one go: a thousand take most of a second, in which the loop would do nothing else."""


class Upkeep:
    def __init__(self, records: Records, files: NetworkFiles, tasks: Tasks) -> None:
        self._records, self._files, self._tasks = records, files, tasks
        self._stale: set[str] = set()
        """Containers whose files do not show a change of the network yet."""
        self._unwritten: set[str] = set()
        """Those whose records are not in the store as they are."""
        self._files_due: asyncio.TimerHandle | None = None
        self._records_due: asyncio.TimerHandle | None = None

    def network_changed(self, event: ControllerEvent) -> None:
        """An endpoint came or went."""
        if event.kind == "endpoint" and event.endpoint is not None:
            self._stale.add(event.endpoint.sandbox)
            self._stale.update(container.id for container in self._records.linked())
            self._show_soon()

    def all_files(self) -> None:
        """What all of them show may have changed."""
        self._stale.update(container.id for container in self._records.running())
        self._show_soon()

    def record(self, container: Container) -> None:
        """A newer version of one that runs: known at once, written soon."""
        self._records.remember(container)
        self._unwritten.add(container.id)
        if self._records_due is None:
            self._records_due = asyncio.get_running_loop().call_later(RECORDS_FOLLOW, self._write)

    def show(self, container: Container) -> None:
        """Its files are looked at now."""
        if container.id in self._stale:
            self._stale.discard(container.id)
            self._refresh(container)

    async def close(self) -> None:
        """Do what has not been done yet."""
        for due in filter(None, (self._files_due, self._records_due)):
            due.cancel()
        stale, self._stale = self._stale, set()
        for container in filter(None, map(self._records.find, stale)):
            self._refresh(container)
        await self._records.write(self._taken())

    def _write(self) -> None:
        self._records_due = None
        self._tasks.spawn(self._records.write(self._taken()))

    def _taken(self) -> set[str]:
        """Those that are to be written now."""
        unwritten, self._unwritten = self._unwritten, set()
        return unwritten

    def _show_soon(self) -> None:
        if self._files_due is None and self._stale:
            self._files_due = asyncio.get_running_loop().call_later(FILES_FOLLOW, self._show_some)

    def _show_some(self) -> None:
        self._files_due = None
        some = list(itertools.islice(self._stale, AT_ONCE))
        self._stale.difference_update(some)
        self._show_soon()
        for container in filter(None, map(self._records.find, some)):
            self._refresh(container)

    def _refresh(self, container: Container) -> None:
        if container.status != "running":
            return
        try:
            self._files.refresh_files(container)
        except Exception:
            # A file that cannot be written must not stop the others, nor the network's own work.
            log.exception("updating the network files of container %s", container.name)
