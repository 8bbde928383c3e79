"""What nodes publish of their networks so that others have routes to them: this one's is kept in the cluster, the others' is followed.

`routes/<node>/<network>` is the node's to write, whoever deletes it. It is not leased: see `netplug.controller.routing` for why routes to a
node that is not heard of stay. They end with the network, or with `netplug node rm`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from netplug.controller import Controller, ControllerEvent
from netplug.controller.cluster import Cluster, decoded
from netplug.controller.routing import ROUTES
from netplug.errors import NetplugError, Unavailable
from netplug.model import Reachable
from netplug.store import MAX_OPERATIONS, Compacted, Delete, Event, Put, Store, Write

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
LOOK_SECONDS = 10.0
"""How often is looked whether what stood in a route's way has gone: a link that is up again raises no event here."""


class Routes:
    """Keeps what this node publishes, and the controller informed."""

    def __init__(self, cluster: Cluster, controller: Controller) -> None:
        self._cluster, self._controller = cluster, controller
        self._mine = f"{ROUTES}{cluster.node}/"
        self._there: dict[str, bytes] | None = None
        """What the cluster has of this node, as far as it has told; None: that has not been read yet."""
        self._wakeup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._controller.events.subscribe(self._heard)
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._keep())]

    async def stop(self) -> None:
        """The routes stay, here and on the other nodes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _heard(self, event: ControllerEvent) -> None:
        """A network that comes or goes may be one of those, or stand in the way of a route."""
        if event.kind == "network":
            self._wakeup.set()

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), LOOK_SECONDS)
            self._wakeup.clear()
            try:
                await self._controller.settle_routes()
                await self._publish()
            except Unavailable:  # it is told by who registers this node
                await asyncio.sleep(AGAIN_SECONDS)
                self._wakeup.set()
            except NetplugError as error:
                log.error("routes to other nodes: %s", error)
            except Exception:  # one mistake must not end the rest
                log.exception("routes to other nodes")

    async def _publish(self) -> None:
        async with self._controller.publishing():
            if self._there is None:
                return
            wanted = self._controller.published()
            writes: list[Write] = [Delete(key) for key in self._there if key not in wanted]
            writes += [Put(key, value) for key, value in wanted.items() if self._there.get(key) != value]
            await _write(self._cluster.store, writes)

    async def _follow(self) -> None:
        """All that there is, then each change; from the beginning when changes were missed."""
        revision = 0
        while True:
            try:
                revision = revision or await self._read() + 1
                async for events in self._cluster.store.watch(ROUTES, revision):
                    await self._take(events)
                    revision = events[-1].revision + 1
                return
            except Compacted:
                revision = 0
            except Unavailable:
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:  # one key that somebody else wrote must not end the rest
                log.exception("following %s", ROUTES)
                revision = 0
                await asyncio.sleep(AGAIN_SECONDS)

    async def _read(self) -> int:
        revision, items = await self._cluster.store.range(ROUTES)
        await self._controller.know_routes(items)
        self._there = {item.key: item.value for item in items if item.key.startswith(self._mine)}
        self._wakeup.set()
        return revision

    async def _take(self, events: Sequence[Event]) -> None:
        changes: dict[str, Reachable | None] = {}
        for event in events:
            if event.key.startswith(self._mine):
                self._own(event)
            else:
                changes[event.key] = decoded(event, Reachable) if event.value is not None else None
        await self._controller.routes_changed(changes)
        self._wakeup.set()

    def _own(self, event: Event) -> None:
        if self._there is not None:
            self._there.pop(event.key, None)
            if event.value is not None:
                self._there[event.key] = event.value


async def withdraw(store: Store, node: str) -> None:
    """Nobody has routes to that node's networks any more."""
    _, items = await store.range(f"{ROUTES}{node}/")
    await _write(store, [Delete(item.key) for item in items])


async def _write(store: Store, writes: Sequence[Write]) -> None:
    for start in range(0, len(writes), MAX_OPERATIONS):
        await store.txn((), writes[start : start + MAX_OPERATIONS])
