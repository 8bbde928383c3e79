"""After a start of the daemon: make records and reality agree, whatever moment the earlier daemon died at.

A container whose record says that it runs is watched again, or has ended meanwhile. One whose record does not say so, but which does run,
was started in the earlier daemon's last moment: it is kept. Everything else that is found goes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterable

from netplug.runtime import execs, processes
from netplug.runtime.conmon import Created, exit_status
from netplug.runtime.keeper import LOST, Keeper
from netplug.runtime.model import Container
from netplug.runtime.networking import Networking
from netplug.runtime.paths import Paths
from netplug.runtime.records import Records
from netplug.runtime.trees import remove_tree
from netplug.runtime.waiting import open_pid

_AT_ONCE = 8


class Recovery:
    def __init__(self, records: Records, paths: Paths, keeper: Keeper, networking: Networking) -> None:
        self._records, self._paths, self._keeper, self._networking = records, paths, keeper, networking

    async def run(self) -> None:
        known = self._records.all()
        running = [container for container in known if container.status == "running"]
        idle = [container for container in known if container.status != "running"]
        # Those that run are cheap, and come first: their ends must not be missed.
        await _some_at_once([self._ended(container) for container in running if not await self._resumed(container)])
        leftovers = self._leftovers()
        await _some_at_once(
            [self._idle(container) for container in idle if container.id in leftovers or self._networking.present(container.id)]
        )
        await _some_at_once([self._orphan(identity) for identity in leftovers - {container.id for container in known}])

    def _leftovers(self) -> set[str]:
        """Ids of which there is anything in the run directory, or a record's folder without a record."""
        folders = (self._paths.bundles, self._paths.mounts, self._paths.runtime, self._paths.exits)
        ids = {name for folder in folders for name in os.listdir(folder)}
        return ids | {name for name in os.listdir(self._paths.records) if name not in self._records}

    async def _resumed(self, container: Container) -> bool:
        """Watched again; or it has ended."""
        conmon = open_pid(container.conmon_pid, container.conmon_started)
        if conmon is None:
            return False
        agreed = self._networking.agreed(container)
        execs.kill_strays(self._paths.bundle(container.id), container.pid)
        if agreed != container:
            await self._records.put(agreed)
        self._keeper.watch(agreed, conmon)
        return True

    async def _ended(self, container: Container) -> None:
        async with self._keeper.life(container.id).lock:
            code = exit_status(self._paths, container.id)
            await self._keeper.ended(self._networking.agreed(container), LOST if code is None else code)

    async def _idle(self, container: Container) -> None:
        async with self._keeper.life(container.id).lock:
            created = await processes.settled(self._paths.bundle(container.id), container.id)
            if created is not None and self._has_started(container.id, created):
                await self._keeper.started(container, created)
                return
            await self._keeper.tear_down(container.id)
            self._paths.exit_file(container.id).unlink(missing_ok=True)

    def _has_started(self, container: str, created: Created) -> bool:
        """The runtime takes the FIFO away that the container's process waits at when `start` lets it go on."""
        state = self._paths.runtime / container
        return state.exists() and not (state / "exec.fifo").exists()

    async def _orphan(self, identity: str) -> None:
        """Something without a record: the container was being removed."""
        await processes.settled(self._paths.bundle(identity), identity)
        await self._keeper.tear_down(identity)
        self._paths.exit_file(identity).unlink(missing_ok=True)
        await asyncio.to_thread(remove_tree, self._paths.record(identity))


async def _some_at_once(work: Iterable[Awaitable[None]]) -> None:
    """All of it, a few at a time: each may start programs."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def passed(one: Awaitable[None]) -> None:
        async with gate:
            await one

    await asyncio.gather(*(passed(one) for one in work))
