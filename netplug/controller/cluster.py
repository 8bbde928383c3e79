"""What this host has in common with other nodes: the cluster's store, and what is kept there of global networks and their endpoints.

Keys are those of `records`, with two more: `vnis/<number>` is a network's, and `members/<network>` changes with each endpoint that comes or
goes, so that a network is removed only while nobody joins it; `pools` changes with each network, so that two nodes never choose subnets
that overlap. Here, in the host's own store, `owed/<network>/<endpoint>` names
endpoints that must not stay in the cluster's unless there is a record of them: one that is being made, or one that went while the cluster
was away.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from netplug.capability import Underlay
from netplug.controller.records import (
    delete_endpoint,
    delete_network,
    endpoint_key,
    network_key,
    put_endpoint,
    put_network,
)
from netplug.errors import NetworkInUse, NotFound
from netplug.model import Endpoint, Network, Record
from netplug.store import PREFIX, Delete, Event, Exists, KeyValue, Lost, Missing, Put, Store, Unchanged, Write

log = logging.getLogger(__name__)

POOLS = f"{PREFIX}pools"

R = TypeVar("R", bound=Record)


@dataclass
class Cluster:
    """The cluster that this node is in."""

    store: Store
    node: str
    """This node's name."""
    underlay: Underlay
    incarnation: str
    claiming: set[str] = field(default_factory=set)
    """Endpoints that are being made: in the cluster's store perhaps, and not in the records yet."""

    # Networks

    async def networks(self) -> tuple[int, list[Network]]:
        """All global networks, and the revision of that."""
        revision, items = await self.store.range(f"{PREFIX}networks/")
        return revision, [network for item in items if (network := decoded(item, Network))]

    async def add_network(self, network: Network, guard: KeyValue | None) -> None:
        """Lost if name, VNI or subnets may not be free any more since `guard` was read."""
        compares, writes = put_network(network, ())
        compares.append(Unchanged(POOLS, guard.revision) if guard else Missing(POOLS))
        await self.store.txn(compares, [*writes, Put(POOLS, network.id.encode())], durable=True)

    async def guard(self) -> KeyValue | None:
        return await self.store.get(POOLS)

    async def remove_network(self, network: Network) -> None:
        """NetworkInUse names who is on it, on whatever node."""
        members = f"{PREFIX}members/{network.id}"
        while True:
            seen = await self.store.get(members)
            if endpoints := (await self.endpoints(network.id))[1]:
                raise in_use(network, endpoints)
            compares = [Exists(network_key(network.id)), Unchanged(members, seen.revision) if seen else Missing(members)]
            try:
                await self.store.txn(compares, [*delete_network(network, ()), Delete(members)], durable=True)
            except Lost as lost:
                if isinstance(lost.failed, Exists):
                    raise NotFound(f"network {network.name} not found") from lost
                continue  # somebody has joined or left meanwhile
            return

    # Endpoints

    async def endpoints(self, network: str) -> tuple[int, list[Endpoint]]:
        """Of all nodes, and the revision of that."""
        revision, items = await self.store.range(f"{PREFIX}endpoints/{network}/")
        return revision, [endpoint for item in items if (endpoint := decoded(item, Endpoint))]

    async def claim(self, endpoint: Endpoint) -> None:
        """Name and addresses are this endpoint's, on all nodes. Lost says which was not free, or that the network has gone."""
        compares, writes = put_endpoint(endpoint)
        await self.store.txn(compares, [*writes, _membership(endpoint)])

    async def release(self, network: str, identity: str) -> None:
        """It and all it had; fine if it is gone, or another node's by now."""
        key = f"{PREFIX}endpoints/{network}/{identity}"
        while (item := await self.store.get(key)) is not None:
            endpoint = decoded(item, Endpoint)
            if endpoint is None or endpoint.node != self.node:
                return
            if await self.release_known(endpoint, item.revision):
                return

    async def release_known(self, endpoint: Endpoint, revision: int = 0) -> bool:
        """The same in one question, where its record is known; False if that is not (or not so) in the cluster."""
        condition = Unchanged(endpoint_key(endpoint), revision) if revision else Exists(endpoint_key(endpoint))
        try:
            await self.store.txn([condition], [*delete_endpoint(endpoint), _membership(endpoint)])
        except Lost:
            return False
        return True


def decoded(item: KeyValue | Event, kind: type[R]) -> R | None:
    """None for what is no record: somebody else has written below our prefix."""
    try:
        return msgspec.json.decode(item.value or b"", type=kind)
    except msgspec.DecodeError as error:
        log.warning("the cluster's key %s is passed over: %s", item.key, error)
        return None


def in_use(network: Network, endpoints: list[Endpoint]) -> NetworkInUse:
    names = ", ".join(f"{endpoint.container_name or endpoint.id[:12]}" for endpoint in endpoints[:5])
    more = ", …" if len(endpoints) > 5 else ""
    return NetworkInUse(f"error while removing network: network {network.name} id {network.id} has active endpoints ({names}{more})")


def _membership(endpoint: Endpoint) -> Write:
    """Somebody has joined, or left."""
    return Put(f"{PREFIX}members/{endpoint.network}", endpoint.id.encode())
