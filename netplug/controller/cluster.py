"""What this host has in common with other nodes: the cluster's store, and what is kept there of global networks and their endpoints.

Keys are those of `records`, with two more: `vnis/<number>` is a network's, and `pools` changes with each network, so that two nodes never
choose subnets that overlap. What is below our prefix and is no record of ours is passed over, and the log says so.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import msgspec

from netplug.capability import Underlay
from netplug.controller.admission import Admission
from netplug.controller.records import (
    address_key,
    delete_endpoint,
    delete_network,
    endpoint_key,
    network_key,
    put_endpoint,
    put_network,
)
from netplug.errors import NetworkInUse, NotFound, Unavailable
from netplug.model import Endpoint, Network, Node, Record, encode
from netplug.store import (
    MAX_OPERATIONS,
    PREFIX,
    Compare,
    Delete,
    Empty,
    Event,
    Exists,
    KeyValue,
    Lost,
    Missing,
    Put,
    Store,
    Unchanged,
    Write,
)

log = logging.getLogger(__name__)

POOLS = f"{PREFIX}pools"
HOLD_SECONDS = 60.0
"""An engine makes an endpoint a few milliseconds after it has asked for its address, or never; or it asks again for half a minute."""

R = TypeVar("R", bound=Record)


@dataclass
class Cluster:
    """The cluster that this node is in."""

    store: Store
    node: str
    """This node's name."""
    underlay: Underlay
    incarnation: str
    admission: Admission = field(default_factory=Admission)
    claiming: set[str] = field(default_factory=set)
    """Endpoints that are being made: in the cluster's store perhaps, and not in the records yet."""
    leaving: set[str] = field(default_factory=set)
    """Endpoints that are going: in the records yet, and perhaps not in the cluster's store."""
    _holds: dict[str, int] = field(default_factory=dict)
    """Addresses that an engine has been told here, before there is their endpoint: by key, the revision at which they were held."""

    # Networks. A change is Conflict while another node has this one's name.

    async def networks(self) -> tuple[int, list[Network]]:
        """All global networks, and the revision of that."""
        revision, items = await self.store.range(f"{PREFIX}networks/")
        return revision, [network for item in items if (network := decoded(item, Network))]

    async def add_network(self, network: Network, guard: KeyValue | None) -> int:
        """The revision. Lost if name, VNI or subnets may not be free any more since `guard` was read."""
        await self.admission.wait()
        compares, writes = put_network(network, ())
        compares.append(Unchanged(POOLS, guard.revision) if guard else Missing(POOLS))
        return await self.store.txn(compares, [*writes, Put(POOLS, network.id.encode())], durable=True)

    async def guard(self) -> KeyValue | None:
        return await self.store.get(POOLS)

    async def remove_network(self, network: Network) -> int:
        """The revision. NetworkInUse names who is on it, on whatever node."""
        await self.admission.wait()
        nobody = Empty(f"{PREFIX}endpoints/{network.id}/")
        while True:
            try:
                return await self.store.txn([Exists(network_key(network.id)), nobody], delete_network(network, ()), durable=True)
            except Lost as lost:
                if isinstance(lost.failed, Exists):
                    raise NotFound(f"network {network.name} not found") from lost
            if endpoints := (await self.endpoints(network.id))[1]:  # else they have left since
                raise in_use(network, endpoints)

    # Endpoints

    async def endpoints(self, network: str = "") -> tuple[int, list[Endpoint]]:
        """Of all nodes, on that network or on all, and the revision of that."""
        revision, items = await self.store.range(f"{PREFIX}endpoints/{network}/" if network else f"{PREFIX}endpoints/")
        return revision, [endpoint for item in items if (endpoint := decoded(item, Endpoint))]

    async def claim(self, endpoint: Endpoint) -> None:
        """Name and addresses are this endpoint's, on all nodes. Lost says which was not free, or that the network has gone."""
        await self.admission.wait()
        compares, writes = put_endpoint(endpoint)
        held = {compare.key: revision for compare in compares if (revision := self._holds.pop(compare.key, 0))}
        if held:
            with suppress(Lost):  # a hold has run out, or somebody has the name: asked once more, that is known
                kept = [Unchanged(one.key, held[one.key]) if one.key in held else one for one in compares]
                await self.store.txn(kept, writes)
                return
        await self.store.txn(compares, writes)

    async def hold(self, network: str, address: str) -> None:
        """Nobody else gets that address (without prefix), for as long as an engine may need to make its endpoint.

        Lost says that it was not free, or that the network has gone. What is not claimed comes free by itself.
        """
        await self.admission.wait()
        key = address_key(network, address)
        lease = await self.store.lease(HOLD_SECONDS)
        held = [Put(key, f"held by {self.node}".encode(), lease)]
        self._holds[key] = await self.store.txn([Exists(network_key(network)), Missing(key)], held)

    async def let_go(self, network: str, address: str) -> None:
        """Of one that is held and has not been claimed."""
        key = address_key(network, address)
        if revision := self._holds.pop(key, 0):
            with suppress(Lost, Unavailable):
                await self.store.txn([Unchanged(key, revision)], [Delete(key)])

    def here(self, endpoint: Endpoint) -> Endpoint:
        """As one of this node, as this is now: it may have had another name or address."""
        return msgspec.structs.replace(endpoint, node=self.node, incarnation=self.incarnation, vtep=self.underlay.address)

    async def correct(self, endpoint: Endpoint) -> None:
        """It has its place; what is said of it there is old."""
        with suppress(Lost):
            await self.store.txn([Exists(endpoint_key(endpoint))], [Put(endpoint_key(endpoint), encode(endpoint))])

    async def has(self, endpoint: Endpoint) -> bool:
        """Whether it has its place, by the cluster's word of now."""
        return await self.store.get(endpoint_key(endpoint)) is not None

    async def release(self, network: str, identity: str) -> None:
        """It and all it had, by whatever name of this node's; fine if it is gone."""
        key = f"{PREFIX}endpoints/{network}/{identity}"
        while (item := await self.store.get(key)) is not None:
            endpoint = decoded(item, Endpoint)
            if endpoint is None or await self.release_known(endpoint, item.revision):
                return

    async def release_known(self, endpoint: Endpoint, revision: int = 0) -> bool:
        """The same in one question, where its record is known; False if that is not (or not so) in the cluster."""
        condition = Unchanged(endpoint_key(endpoint), revision) if revision else Exists(endpoint_key(endpoint))
        try:
            await self.store.txn([condition], delete_endpoint(endpoint))
        except Lost:
            return False
        return True

    async def release_all(self, endpoints: Sequence[Endpoint], condition: Compare | None = None) -> int:
        """Many, whosever they are, in few transactions; how many were there yet. Lost once `condition` does not hold any more."""
        count = 0
        compares = [condition] if condition is not None else []
        for chunk in _chunks(endpoints, MAX_OPERATIONS - len(compares)):
            there: list[Compare] = [Exists(endpoint_key(endpoint)) for endpoint in chunk]
            try:
                await self.store.txn([*compares, *there], _releases(chunk))
                count += len(chunk)
            except Lost as lost:
                if lost.failed == condition:
                    raise
                # One of them has gone by itself.
                count += sum([await self.release_known(endpoint) for endpoint in chunk])
        return count


def decoded(item: KeyValue | Event, kind: type[R]) -> R | None:
    """None for what is no record, or not at its place: somebody else has written below our prefix."""
    try:
        record = msgspec.json.decode(item.value or b"", type=kind)
        _check(item.key, record)
    except (msgspec.DecodeError, ValueError) as error:
        log.warning("the cluster's key %r is passed over: %s", item.key, error)
        return None
    return record


def _check(key: str, record: Record) -> None:
    """ValueError for what would be of no use to anybody."""
    match record:
        case Network():
            expected = network_key(record.id)
            for pool in record.pools:
                ipaddress.ip_network(pool.subnet)
        case Endpoint():
            expected = endpoint_key(record)
            for address in filter(None, (record.address, record.address6)):
                _check_address(address)
            _check_vtep(record.vtep)
            if not re.fullmatch(r"([0-9a-f]{2}(:[0-9a-f]{2}){5})?", record.mac):
                raise ValueError(f"{record.mac!r} is no MAC address")
            if not record.node:
                raise ValueError("it says no node")
        case Node():
            expected = f"{PREFIX}nodes/{record.name}"
        case _:
            return
    if key != expected:
        raise ValueError(f"its value belongs to {expected}")


def _check_address(text: str) -> None:
    """As ipaddress.ip_interface() does, in a tenth of its time: thousands come at once."""
    address, _, prefix = text.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    try:
        socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"{text!r} is not an address") from None
    if prefix and not (prefix.isdecimal() and int(prefix) <= bits):
        raise ValueError(f"{text!r} has no prefix length of its IP version")


@lru_cache(maxsize=1024)
def _check_vtep(address: str) -> None:
    """There are as many as nodes."""
    ipaddress.ip_address(address)


def in_use(network: Network, endpoints: list[Endpoint]) -> NetworkInUse:
    names = ", ".join(f"{endpoint.container_name or endpoint.id[:12]}" for endpoint in endpoints[:5])
    more = ", …" if len(endpoints) > 5 else ""
    return NetworkInUse(f"error while removing network: network {network.name} id {network.id} has active endpoints ({names}{more})")


def _releases(endpoints: Iterable[Endpoint]) -> list[Write]:
    """A key is written once in a transaction, whatever two records say."""
    writes = [write for endpoint in endpoints for write in delete_endpoint(endpoint)]
    return list({write.key: write for write in writes}.values())


def _chunks(endpoints: Iterable[Endpoint], operations: int) -> Iterator[list[Endpoint]]:
    """As many together as one transaction may release, each with a compare."""
    chunk: list[Endpoint] = []
    for endpoint in endpoints:
        if chunk and len(chunk) + 1 + len(_releases([*chunk, endpoint])) > operations:
            yield chunk
            chunk = []
        chunk.append(endpoint)
    if chunk:
        yield chunk
