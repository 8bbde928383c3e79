"""Follows what other nodes' endpoints on one network do, in the cluster's store, in the order of revisions.

What may have been missed (the cluster was away, or forgot what was too long ago) is read anew, all of it. A batch of changes is dealt with
whole or not at all: the follower is asked to read anew, never cut off for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from netplug.controller.cluster import Cluster, decoded
from netplug.controller.core import Core, log
from netplug.controller.debts import Debts
from netplug.controller.peers import Peers
from netplug.errors import Unavailable
from netplug.model import Endpoint, Network
from netplug.store import PREFIX, Compacted, Event

AGAIN_SECONDS = 1.0
"""After an attempt that failed."""
MOST_EVENTS = 1000
"""So many are dealt with at once, with one message to the kernel for many."""

Own = Callable[[Network, list[Endpoint]], Awaitable[None]]


class _Anew(Exception):
    """Somebody has asked for it."""


class Follower:
    """Of one network that this node is on. `own` hears which of this node's endpoints the cluster has, whenever all has been read."""

    def __init__(self, core: Core, cluster: Cluster, peers: Peers, debts: Debts, network: Network, own: Own) -> None:
        self._core, self._cluster, self._peers, self._debts = core, cluster, peers, debts
        self._network, self._own = network, own
        self._news: asyncio.Queue[list[Event] | Exception | None] = asyncio.Queue()
        self._anew = False
        self._turned = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, revision: int) -> None:
        """From that revision on; 0: from now, having read all there is."""
        self._task = asyncio.create_task(self._follow(revision))

    def read_anew(self) -> None:
        self._anew = True
        self._news.put_nowait(_Anew())

    async def turn(self) -> None:
        """Until more has been heard."""
        await self._turned.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, revision: int) -> None:
        told = False
        while True:
            try:
                if not revision or self._anew:
                    self._anew = False
                    revision = await self._read() + 1
                told = False
                async with aclosing(self._events(revision)) as batches:
                    async for events in batches:
                        async with self._core.lock(self._network.id):
                            await self._take(events)
                        revision = events[-1].revision + 1
                return
            except _Anew:
                revision = 0
            except Compacted:
                log.info("network %s: the cluster has forgotten what was missed: reading all of it", self._network.name)
                revision = 0
            except Unavailable as error:
                if not told:
                    log.warning("network %s: other nodes' endpoints stay as they are known, for %s", self._network.name, error)
                told = True
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:  # whatever one key of somebody's was: it must not end the rest
                log.exception("following network %s", self._network.name)
                revision = 0
                await asyncio.sleep(AGAIN_SECONDS)

    async def _read(self) -> int:
        network = self._network
        revision, endpoints = await self._cluster.endpoints(network.id)
        ours = [endpoint for endpoint in endpoints if self._is_own(endpoint)]
        async with self._core.lock(network.id):
            await self._peers.replace(network, [endpoint for endpoint in endpoints if not self._is_own(endpoint)])
        await self._debts.take_over(endpoint for endpoint in ours if not self._is_known(endpoint))
        await self._own(network, ours)
        return revision

    def _is_own(self, endpoint: Endpoint) -> bool:
        """By the record too: this node may have had another name when it made it."""
        return endpoint.node == self._cluster.node or endpoint.id in self._core.records.endpoints

    def _is_known(self, endpoint: Endpoint) -> bool:
        """One of our own that is not is a claim that nobody waits for any more."""
        return endpoint.id in self._core.records.endpoints or endpoint.id in self._cluster.claiming

    async def _events(self, revision: int) -> AsyncGenerator[list[Event], None]:
        """Those that are there already come together."""
        news = self._news = asyncio.Queue()

        async def listen() -> None:
            try:
                async for events in self._cluster.store.watch(f"{PREFIX}endpoints/{self._network.id}/", revision):
                    news.put_nowait(events)
                news.put_nowait(None)
            except Exception as error:
                news.put_nowait(error)

        if self._anew:
            raise _Anew
        listener = asyncio.create_task(listen())
        try:
            while True:
                item = await news.get()
                events: list[Event] = []
                while isinstance(item, list):
                    events += item
                    item = news.get_nowait() if len(events) < MOST_EVENTS and not news.empty() else []
                    if not item:
                        break
                if events:
                    yield events
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    return
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _take(self, events: list[Event]) -> None:
        changes: list[tuple[str, Endpoint | None]] = []
        unknown: dict[str, Endpoint] = {}
        for event in events:
            identity = event.key.rpartition("/")[2]
            if event.value is not None and (identity in self._core.records.endpoints or identity in self._cluster.claiming):
                continue  # our own, which we know
            endpoint = decoded(event, Endpoint) if event.value is not None else None
            if event.value is None:
                unknown.pop(identity, None)
                changes.append((identity, None))
                if identity in self._core.records.endpoints and identity not in self._cluster.leaving:
                    # Somebody has taken one of ours for dead. What we do about that needs locks that come before the network's.
                    self.read_anew()
            elif endpoint is not None and not self._is_own(endpoint):
                changes.append((identity, endpoint))
            elif endpoint is not None and not self._is_known(endpoint):
                unknown[identity] = endpoint
        await self._peers.change(self._network, changes)
        self._turned.set()
        self._turned = asyncio.Event()
        await self._debts.take_over(unknown.values())
