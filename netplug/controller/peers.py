"""Endpoints on other nodes, as far as this node is on their network: in memory, in the kernel, in the resolver and, for the next start, in
the host's own store.

What is known of a network changes with its lock held, in the order of the cluster's revisions, so that what has an address by now is never
taken for what had it before.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from netplug.capability import PeerAware
from netplug.controller.core import Core, log
from netplug.controller.names import endpoint_names
from netplug.errors import Unavailable
from netplug.model import Endpoint, Network, encode
from netplug.plan import Step
from netplug.resolver.model import EndpointNames
from netplug.store import MAX_OPERATIONS, PREFIX, Delete, Put, Write

T = TypeVar("T")

_KEYS = f"{PREFIX}peers/"


class Peers:
    """By network and endpoint id."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._living: frozenset[str] | None = None
        """Nodes that live; the others' endpoints keep their addresses, and their names are not answered. None: nobody has told yet."""
        self._told: dict[str, dict[str, EndpointNames]] = defaultdict(dict)
        """By network and endpoint: what the resolver answers."""
        self._telling = asyncio.Lock()

    async def load(self) -> None:
        """What was known, when the daemon ended, of the networks that this node is on yet."""
        stale: list[Write] = []
        for item in (await self._core.store.range(_KEYS))[1]:
            endpoint = msgspec.json.decode(item.value, type=Endpoint)
            if endpoint.network in self._core.joined:
                self._core.peers[endpoint.network][endpoint.id] = endpoint
            else:
                stale.append(Delete(item.key))
        await self._write(stale)

    def names(self) -> list[EndpointNames]:
        """All that are answered now, for a resolver that is told everything."""
        self._told.clear()
        for network, peers in self._core.peers.items():
            self._told[network] = {identity: names for identity in peers if (names := self._answer(network, identity))}
        return [names for told in self._told.values() for names in told.values()]

    async def replace(self, network: Network, endpoints: Iterable[Endpoint]) -> None:
        """These are all there are. The kernel is made to know them and no others; so are the others' shares."""
        wanted = {endpoint.id: endpoint for endpoint in endpoints}
        known = self._core.peers[network.id]
        gone = [endpoint for identity, endpoint in known.items() if wanted.get(identity) != endpoint]
        come = [endpoint for identity, endpoint in wanted.items() if known.get(identity) != endpoint]
        await self._note(network, gone, come)
        _, errors, stale = await self._core.executor.resync(self._core.network_plan(network))
        for error in errors:
            log.error("peers of network %s: %s", network.name, error)
        if gone or come or stale:
            log.info("network %s: %d endpoints on other nodes (%d new, %d gone)", network.name, len(wanted), len(come), len(gone))
        await self._tell_all(network.id)

    async def change(self, network: Network, changes: Sequence[tuple[str, Endpoint | None]]) -> None:
        """What has become of endpoints, by id, in the order in which it happened; None: gone."""
        known, driver = self._core.peers[network.id], self._core.driver(network)
        assert isinstance(driver, PeerAware)
        first: dict[str, Endpoint | None] = {}
        now: dict[str, Endpoint | None] = {}
        steps: list[Step] = []
        for identity, endpoint in changes:
            before = now[identity] if identity in now else known.get(identity)
            first.setdefault(identity, before)
            now[identity] = endpoint
            if before is not None and before != endpoint:
                steps += driver.peer_removed(network, before)
            if endpoint is not None and before != endpoint:
                steps += driver.peer_added(network, endpoint)
        changed = [identity for identity in now if first[identity] != now[identity]]
        if not changed and not steps:
            return  # of endpoints here, for the most part
        gone = [endpoint for identity in changed if (endpoint := first[identity])]
        come = [endpoint for identity in changed if (endpoint := now[identity])]
        await self._note(network, gone, come)
        _, errors = await self._core.executor.ensure(tuple(steps))
        for error in errors:
            log.error("peers of network %s: %s", network.name, error)
        await self._tell(network.id, changed)

    async def tell_again(self, network: str) -> None:
        """The network has another name now."""
        await self._tell_all(network)

    async def forget(self, network: Network) -> None:
        """This node is on the network no more; its part of the kernel has gone."""
        await self._note(network, list(self._core.peers[network.id].values()), [])
        self._core.peers.pop(network.id, None)
        await self._tell_all(network.id)

    async def live(self, nodes: Iterable[str]) -> None:
        """These nodes do, and no others: nobody is sent to one of those by name."""
        before, self._living = self._living, frozenset(nodes)
        if before is None:
            for network in list(self._core.peers):
                await self._tell_all(network)
        elif differ := before ^ self._living:
            for network, peers in list(self._core.peers.items()):
                await self._tell(network, [identity for identity, endpoint in peers.items() if endpoint.node in differ])

    async def _note(self, network: Network, gone: Sequence[Endpoint], come: Sequence[Endpoint]) -> None:
        """In the host's store, in memory and in the pools. Who has an address now comes after who had it."""
        core = self._core
        writes: dict[str, Write] = {_key(endpoint): Delete(_key(endpoint)) for endpoint in gone}
        writes |= {_key(endpoint): Put(_key(endpoint), encode(endpoint)) for endpoint in come}
        await self._write(list(writes.values()))
        known = core.peers[network.id]
        for endpoint in gone:
            known.pop(endpoint.id, None)
            core.free(endpoint)
        for endpoint in come:
            known[endpoint.id] = endpoint
            core.take(endpoint)

    async def _write(self, writes: Sequence[Write]) -> None:
        for batch in _batches(writes, MAX_OPERATIONS):
            await self._core.store.txn((), batch)

    # What the resolver is told

    async def _tell_all(self, network: str) -> None:
        await self._tell(network, dict.fromkeys((*self._told[network], *self._core.peers.get(network, ()))))
        if not self._told[network]:
            del self._told[network]

    async def _tell(self, network: str, identities: Iterable[str]) -> None:
        """What has changed of them since it was told. A resolver that is away learns everything when it is back."""
        async with self._telling:
            put, drop, told = [], [], self._told[network]
            for identity in identities:
                names = self._answer(network, identity)
                if names == told.get(identity):
                    continue
                if names is None:
                    del told[identity]
                    drop.append((network, identity))
                else:
                    told[identity] = names
                    put.append(names)
            try:
                await self._core.resolver.change(put, drop)
            except (Unavailable, OSError) as error:
                log.warning("the resolver does not answer, names follow when it is back: %s", error)

    def _answer(self, network: str, identity: str) -> EndpointNames | None:
        """None: nothing."""
        endpoint = self._core.peers.get(network, {}).get(identity)
        if endpoint is None or network not in self._core.records.networks:
            return None
        return endpoint_names(self._core, endpoint) if self._living is None or endpoint.node in self._living else None


def _key(endpoint: Endpoint) -> str:
    return f"{_KEYS}{endpoint.network}/{endpoint.id}"


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
