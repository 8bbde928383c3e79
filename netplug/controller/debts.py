"""What this host owes the cluster: endpoints that must not stay in its store unless there is a record of them here.

One that is being made, one that went while the cluster was away, one of which nobody could say whether it was claimed. They are paid in
the background until none is left. What is owed beyond a moment is noted in the host's own store below `owed/<network>/<endpoint>`; of a
claim or a release that this daemon dies in the middle of, the next one finds in the cluster's store what is ours there and has no record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from netplug.controller.core import Core, log
from netplug.errors import Unavailable
from netplug.model import Endpoint
from netplug.store import MAX_OPERATIONS, PREFIX, Delete, Put, Write

AGAIN_SECONDS = 1.0

_KEYS = f"{PREFIX}owed/"


class Debts:
    """By endpoint id: its network."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._owed: dict[str, str] = {}
        self._noted: set[str] = set()
        """Those of them that are in the store."""
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Pay what an earlier daemon owed, and from now on whatever is due. (It may have died between a record and its debt's end.)"""
        for item in (await self._core.store.range(_KEYS))[1]:
            network, _, identity = item.key.removeprefix(_KEYS).partition("/")
            self._owed[identity] = network
            self._noted.add(identity)
            if identity in self._core.records.endpoints:
                await self.paid(identity)
        self._due.set()
        if self._core.cluster is not None:
            self._task = asyncio.create_task(self._pay())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def written(self, endpoints: Iterable[Endpoint]) -> list[Write]:
        """What notes that these are owed, for a transaction that forgets them."""
        shared = [endpoint for endpoint in endpoints if endpoint.node]
        self._owed |= {endpoint.id: endpoint.network for endpoint in shared}
        self._noted |= {endpoint.id for endpoint in shared}
        return [Put(_key(endpoint.network, endpoint.id), b"") for endpoint in shared]

    def expect(self, endpoint: Endpoint) -> None:
        """It is owed for as long as this daemon lives, unless it is cleared, or there is a record of it in the end."""
        self._owed.setdefault(endpoint.id, endpoint.network)

    async def owe(self, *endpoints: Endpoint) -> None:
        writes = self.written(endpoints)
        for start in range(0, len(writes), MAX_OPERATIONS):
            await self._core.store.txn((), writes[start : start + MAX_OPERATIONS])

    async def take_over(self, endpoints: Iterable[Endpoint]) -> None:
        """They are in the cluster's store as ours, and not in the records. While another node has our name, they are its own."""
        if self._core.cluster is not None and not self._core.cluster.admission.granted:
            return
        if strangers := [endpoint for endpoint in endpoints if endpoint.id not in self._owed]:
            await self.owe(*strangers)
        self.remind()

    def cleared(self, endpoint: Endpoint) -> list[Write]:
        """What notes that this one is owed no more, for a transaction after which that is so; then `forget` it."""
        return [Delete(_key(endpoint.network, endpoint.id))] if endpoint.id in self._noted else []

    def forget(self, identity: str) -> None:
        """It has been cleared."""
        self._owed.pop(identity, None)
        self._noted.discard(identity)

    async def paid(self, identity: str) -> None:
        network, noted = self._owed.pop(identity, ""), identity in self._noted
        self._noted.discard(identity)
        if noted:
            await self._core.store.txn((), [Delete(_key(network, identity))])

    async def settle(self, endpoint: Endpoint) -> None:
        """Now if the cluster answers, else as soon as it does. One that has just been asked in vain is not waited for again."""
        cluster = self._core.cluster
        try:
            if cluster is not None and getattr(cluster.store, "healthy", True):
                with suppress(Unavailable):
                    await cluster.release_known(endpoint)
                    await self.paid(endpoint.id)
        finally:
            self.remind()

    def owed(self) -> dict[str, str]:
        """By endpoint: its network. Nobody is about these now."""
        claiming = self._core.cluster.claiming if self._core.cluster is not None else ()
        known = self._core.records.endpoints
        return {identity: network for identity, network in self._owed.items() if identity not in known and identity not in claiming}

    def remind(self) -> None:
        """Something may be due."""
        if self._owed:
            self._due.set()

    async def _pay(self) -> None:
        told = False
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._pay_all()
                told = False
                continue
            except Unavailable as error:
                if not told:
                    log.warning("%d endpoints go from the cluster's store when it is back: %s", len(self._owed), error)
                told = True
            except Exception:  # whatever it was, the debts are there still
                log.exception("paying what is owed to the cluster")
            await asyncio.sleep(AGAIN_SECONDS)
            self._due.set()

    async def _pay_all(self) -> None:
        cluster, core = self._core.cluster, self._core
        assert cluster is not None
        for identity, network in list(self._owed.items()):
            if identity not in cluster.claiming and identity not in core.records.endpoints:  # else somebody is about it
                await cluster.release(network, identity)
                await self.paid(identity)


def _key(network: str, identity: str) -> str:
    return f"{_KEYS}{network}/{identity}"
