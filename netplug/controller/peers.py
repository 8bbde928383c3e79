"""Endpoints on other nodes, as far as this node is on their network: in memory, in the kernel, in the resolver and, for the next start, in
the host's own store.

What is known of a network changes with its lock held, in the order of the cluster's revisions, so that what has an address by now is never
taken for what had it before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
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
_NAMES_AT_ONCE = 200


class Peers:
    """By network and endpoint id."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._silent: set[str] = set()
        """Nodes that are away: their endpoints keep their addresses, and their names are not answered."""

    async def load(self) -> None:
        """What was known when the daemon ended."""
        for item in (await self._core.store.range(_KEYS))[1]:
            endpoint = msgspec.json.decode(item.value, type=Endpoint)
            if endpoint.network in self._core.records.networks:
                self._core.peers[endpoint.network][endpoint.id] = endpoint
            else:
                await self._core.store.txn((), [Delete(item.key)])

    def names(self) -> list[EndpointNames]:
        """All that are answered now."""
        return [names for network in self._core.peers for names in self._answered(self._core.peers[network].values())]

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
        await self._tell(network, gone, come)

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
        gone = [endpoint for identity in changed if (endpoint := first[identity])]
        come = [endpoint for identity in changed if (endpoint := now[identity])]
        await self._note(network, gone, come)
        _, errors = await self._core.executor.ensure(tuple(steps))
        for error in errors:
            log.error("peers of network %s: %s", network.name, error)
        await self._tell(network, gone, come)

    async def forget(self, network: Network) -> None:
        """This node is on the network no more; its part of the kernel has gone."""
        gone = list(self._core.peers[network.id].values())
        await self._note(network, gone, [])
        self._core.peers.pop(network.id, None)
        await self._tell(network, gone, [])

    async def silence(self, node: str) -> None:
        """The node does not say that it lives: nobody is sent there by name."""
        if node not in self._silent:
            told = self._of_node(node)
            self._silent.add(node)
            await self._gather(self._core.resolver.drop(endpoint.network, endpoint.id) for endpoint in told)

    async def restore(self, node: str) -> None:
        """It lives again."""
        if node in self._silent:
            self._silent.discard(node)
            await self._gather(map(self._core.resolver.put, self._answered(self._of_node(node))))

    @property
    def silent(self) -> frozenset[str]:
        return frozenset(self._silent)

    def _of_node(self, node: str) -> list[Endpoint]:
        return [endpoint for peers in self._core.peers.values() for endpoint in peers.values() if endpoint.node == node]

    async def _note(self, network: Network, gone: Sequence[Endpoint], come: Sequence[Endpoint]) -> None:
        """In memory, in the pools and in the host's store. Who has an address now comes after who had it."""
        core = self._core
        known = core.peers[network.id]
        for endpoint in gone:
            known.pop(endpoint.id, None)
            core.free(endpoint)
        for endpoint in come:
            known[endpoint.id] = endpoint
        for endpoint in come:
            core.take(endpoint)
        writes: dict[str, Write] = {_key(endpoint): Delete(_key(endpoint)) for endpoint in gone}
        writes |= {_key(endpoint): Put(_key(endpoint), encode(endpoint)) for endpoint in come}
        for batch in _batches(list(writes.values()), MAX_OPERATIONS):
            await core.store.txn((), batch)

    async def _tell(self, network: Network, gone: Sequence[Endpoint], come: Sequence[Endpoint]) -> None:
        new = {endpoint.id for endpoint in come}
        resolver = self._core.resolver
        await self._gather(resolver.drop(network.id, endpoint.id) for endpoint in gone if endpoint.id not in new)
        await self._gather(map(resolver.put, self._answered(come)))

    def _answered(self, endpoints: Iterable[Endpoint]) -> Iterator[EndpointNames]:
        for endpoint in endpoints:
            if endpoint.node not in self._silent and (names := endpoint_names(self._core, endpoint)) is not None:
                yield names

    async def _gather(self, messages: Iterable[Awaitable[None]]) -> None:
        """A resolver that is away learns everything when it is back."""
        for batch in _batches(list(messages), _NAMES_AT_ONCE):
            for result in await asyncio.gather(*batch, return_exceptions=True):
                if isinstance(result, Unavailable | OSError):
                    log.warning("the resolver does not answer, names follow when it is back: %s", result)
                elif isinstance(result, BaseException):
                    raise result


def _key(endpoint: Endpoint) -> str:
    return f"{_KEYS}{endpoint.network}/{endpoint.id}"


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
