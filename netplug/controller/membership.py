"""Which global networks this node is on: it joins one with the first endpoint here, and leaves it with the last.

While it is on a network it follows the endpoints of the others in the cluster's store, in the order of revisions. What it may have missed
(the cluster was away, or forgot what was too long ago) it reads anew, all of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from netplug.controller.cluster import Cluster, decoded
from netplug.controller.core import Core, log
from netplug.controller.peers import Peers
from netplug.errors import Unavailable
from netplug.model import Endpoint, Network
from netplug.store import PREFIX, Compacted, Event

AGAIN_SECONDS = 1.0
"""After an attempt to follow that failed."""
MOST_EVENTS = 1000
"""So many are dealt with at once, with one message to the kernel for many."""


class Membership:
    """Of this node."""

    def __init__(self, core: Core, peers: Peers) -> None:
        self._core, self._peers = core, peers
        self._users: Counter[str] = Counter()
        """By network: endpoints here, and those that are being made."""
        self._followers: dict[str, asyncio.Task[None]] = {}
        self.own: Callable[[Network, list[Endpoint]], Coroutine[Any, Any, None]] = _nothing
        """Called with what the cluster has of this node's endpoints on a network, whenever that has been read anew."""

    def cluster(self) -> Cluster:
        """Unavailable where there is none."""
        if self._core.cluster is None:
            raise Unavailable("this host is in no cluster: start the daemon with --store etcd://HOST:PORT and --advertise ADDRESS")
        return self._core.cluster

    async def close(self) -> None:
        tasks = list(self._followers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def restore(self) -> None:
        """At start: the networks that endpoints here are on, as they were known at the end."""
        for endpoint in self._core.records.endpoints.values():
            network = self._core.records.networks[endpoint.network]
            if network.scope == "global":
                self._users[network.id] += 1
                self._core.joined.add(network.id)

    def follow(self) -> None:
        """Once all is restored: see what has changed meanwhile, and go on from there."""
        if self._core.cluster is not None:
            for identity in self._core.joined:
                self._start(self._core.records.networks[identity])

    def read_anew(self) -> None:
        """The cluster has been away, or has thought that we were."""
        self.follow()

    @asynccontextmanager
    async def entered(self, network: Network) -> AsyncIterator[None]:
        """This node is on the network during the block, and stays if an endpoint does."""
        self._users[network.id] += 1
        try:
            async with self._core.lock(network.id):
                if network.id not in self._core.joined:
                    await self._join(network)
            yield
        except BaseException:
            await self.left(network)
            raise

    async def left(self, network: Network) -> None:
        """An endpoint has gone, or did not come to be."""
        self._users[network.id] -= 1
        async with self._core.lock(network.id):
            if self._users[network.id] <= 0 and network.id in self._core.joined:
                await self._part(network)

    async def _join(self, network: Network) -> None:
        core, cluster = self._core, self.cluster()
        revision, endpoints = await cluster.endpoints(network.id)
        others = [endpoint for endpoint in endpoints if endpoint.node != cluster.node]
        core.joined.add(network.id)
        try:
            await core.apply("network join", network.name, core.network_plan(network))
            await self._peers.replace(network, others)
        except BaseException:
            await self._part(network)
            raise
        self._start(network, revision + 1)

    async def _part(self, network: Network) -> None:
        core = self._core
        core.joined.discard(network.id)
        if (follower := self._followers.pop(network.id, None)) is not None:
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower
        await core.remove("network leave", network.name, core.driver(network).delete_network(network))
        await self._peers.forget(network)

    # What others do

    def _start(self, network: Network, revision: int = 0) -> None:
        if (before := self._followers.pop(network.id, None)) is not None:
            before.cancel()
        self._followers[network.id] = asyncio.create_task(self._follow(network, revision))

    async def _follow(self, network: Network, revision: int) -> None:
        """From `revision` on; 0: from now, having read all there is."""
        told = False
        while True:
            try:
                if not revision:
                    revision = await self._read(network) + 1
                told = False
                async for events in self._events(network, revision):
                    async with self._core.lock(network.id):
                        await self._take(network, events)
                    revision = events[-1].revision + 1
                return
            except Compacted:
                log.info("network %s: the cluster has forgotten what was missed: reading all of it", network.name)
                revision = 0
            except Unavailable as error:
                if not told:
                    log.warning("network %s: other nodes' endpoints stay as they are known, for %s", network.name, error)
                told = True
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:  # whatever one key of somebody's was: it must not end the rest
                log.exception("following network %s", network.name)
                revision = 0
                await asyncio.sleep(AGAIN_SECONDS)

    async def _read(self, network: Network) -> int:
        cluster = self.cluster()
        revision, endpoints = await cluster.endpoints(network.id)
        async with self._core.lock(network.id):
            await self._peers.replace(network, [endpoint for endpoint in endpoints if endpoint.node != cluster.node])
        await self.own(network, [endpoint for endpoint in endpoints if endpoint.node == cluster.node])
        return revision

    async def _events(self, network: Network, revision: int) -> AsyncIterator[list[Event]]:
        """Those that are there already come together."""
        waiting: asyncio.Queue[list[Event] | Exception | None] = asyncio.Queue()

        async def listen() -> None:
            try:
                async for events in self.cluster().store.watch(f"{PREFIX}endpoints/{network.id}/", revision):
                    waiting.put_nowait(events)
                waiting.put_nowait(None)
            except Exception as error:
                waiting.put_nowait(error)

        listener = asyncio.create_task(listen())
        try:
            while not listener.done() or not waiting.empty():
                item = await waiting.get()
                events: list[Event] = []
                while isinstance(item, list):
                    events += item
                    item = waiting.get_nowait() if len(events) < MOST_EVENTS and not waiting.empty() else None
                if events:
                    yield events
                if isinstance(item, Exception):
                    raise item
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _take(self, network: Network, events: list[Event]) -> None:
        changes: list[tuple[str, Endpoint | None]] = []
        lost = False
        for event in events:
            identity = event.key.rpartition("/")[2]
            endpoint = decoded(event, Endpoint) if event.value is not None else None
            if endpoint is not None and endpoint.node != self.cluster().node:
                changes.append((identity, endpoint))
            elif event.value is None and identity in self._core.records.endpoints:
                lost = True
            elif event.value is None:
                changes.append((identity, None))
        await self._peers.change(network, changes)
        if lost:
            # Somebody has taken one of ours for dead. What we do about that needs locks that come before the network's.
            self._start(network)


async def _nothing(network: Network, endpoints: list[Endpoint]) -> None:
    """Nobody minds."""
