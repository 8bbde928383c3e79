"""Global networks on this node: made and removed for all nodes, and what endpoints here claim and give back.

Order, as far as it is not the cluster's own transaction that decides: this host's store first (what is owed), then the cluster's, then the
record, then the kernel. So whatever this daemon dies in the middle of, the next start knows what to look for in the cluster.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from netplug.capability import PeerAware
from netplug.controller.cluster import POOLS, Cluster
from netplug.controller.core import Core, log
from netplug.controller.membership import Membership
from netplug.controller.records import network_key
from netplug.controller.requests import ControllerEvent
from netplug.errors import AddressInUse, Conflict, NotFound, PoolsExhausted, Unavailable
from netplug.model import Endpoint, Network, encode
from netplug.store import PREFIX, Delete, Exists, Lost, Put, Write

_OWED = f"{PREFIX}owed/"
_ATTEMPTS = 50
"""How often something is chosen anew because another node was quicker."""


class Shared:
    """What happens to them on this node."""

    def __init__(self, core: Core, membership: Membership) -> None:
        self._core, self._membership = core, membership
        self._owed: dict[str, str] = {}
        """By endpoint that must not stay in the cluster: its network."""

    # Networks

    async def create(self, prepare: Callable[[], Network]) -> Network:
        """What `prepare` makes of what is known, with a VNI of its own; prepared again where another node was quicker."""
        cluster, core = self._membership.cluster(), self._core
        for _ in range(_ATTEMPTS):
            guard = await cluster.guard()
            await self.know((await cluster.networks())[1])
            network = prepare()
            network = msgspec.structs.replace(network, vni=self._free_vni(network))
            core.records.add_network(network)
            try:
                await cluster.add_network(network, guard)
            except Lost as lost:
                core.records.drop_network(network)
                if lost.failed.key != POOLS and "/vnis/" not in lost.failed.key:
                    raise Conflict(f"network with name {network.name} already exists") from lost
            except BaseException:
                core.records.drop_network(network)
                raise
            else:
                await self._keep(network)
                return network
        raise Unavailable(f"network {network.name} could not be made: other nodes make networks all the time; try again")

    async def could(self, prepare: Callable[[], Network]) -> Network:
        """What `create` would make, by what the cluster has now; nothing is written there."""
        await self.know((await self._membership.cluster().networks())[1])
        network = prepare()
        return msgspec.structs.replace(network, vni=self._free_vni(network))

    async def remove(self, network: Network) -> None:
        await self._membership.cluster().remove_network(network)

    async def know(self, networks: Iterable[Network]) -> None:
        """These are all the global networks that there are."""
        wanted = {network.id: network for network in networks}
        records = self._core.records
        for network in [known for known in records.networks.values() if known.scope == "global" and known.id not in wanted]:
            await self.removed(network.id)
        for network in wanted.values():
            if records.networks.get(network.id) != network:
                await self.added(network)

    async def added(self, network: Network) -> None:
        """Another node has made it."""
        core = self._core
        if network.id in core.records.networks:
            return
        if core.records.network_named(network.name) is not None:
            log.warning("this host has a network %s: the cluster's of that name is %.12s here", network.name, network.id)
        core.records.add_network(network)
        await self._keep(network)
        core.events.send(ControllerEvent(kind="network", action="create", network=network))

    async def removed(self, identity: str) -> None:
        """Another node has removed it. Endpoints that are on it here (somebody forced that) keep it for as long as they are."""
        core = self._core
        network = core.records.networks.get(identity)
        if network is None:
            return
        if core.records.of_network(identity):
            log.error("network %s is gone from the cluster while containers here are on it", network.name)
            return
        core.records.drop_network(network)
        core.allocators.pop(identity, None)
        await core.store.txn((), [Delete(network_key(identity))])
        core.events.send(ControllerEvent(kind="network", action="remove", network=network))

    async def _keep(self, network: Network) -> None:
        """Also in this host's store, for a start while the cluster is away."""
        self._core.open_pools(network)
        await self._core.store.txn((), [Put(network_key(network.id), encode(network))], durable=True)

    def _free_vni(self, network: Network) -> int:
        driver = self._core.driver(network)
        if not isinstance(driver, PeerAware):
            return 0
        taken = {other.vni for other in self._core.records.networks.values()}
        for choice in driver.vni_range(network):
            for number in choice:
                if number not in taken:
                    return number
        raise PoolsExhausted(f"network {network.name}: every VNI that it may have is taken")

    # Endpoints

    @contextlib.asynccontextmanager
    async def claimed(self, network: Network, draft: Callable[[bool], Endpoint]) -> AsyncIterator[Endpoint]:
        """An endpoint whose name and addresses are its own in the whole cluster. Given back if the block fails.

        `draft` takes addresses out of the pools as they are known here: the first free ones, or (True) any.
        """
        cluster = self._membership.cluster()
        async with self._membership.entered(network):
            endpoint = await self._claim(cluster, network, draft)
            try:
                yield endpoint
            except BaseException:
                await self.release(endpoint)
                raise
            finally:
                cluster.claiming.discard(endpoint.id)
            await self._paid(endpoint.id)

    async def _claim(self, cluster: Cluster, network: Network, draft: Callable[[bool], Endpoint]) -> Endpoint:
        core = self._core
        for attempt in range(_ATTEMPTS):
            endpoint = msgspec.structs.replace(
                draft(attempt > 0), node=cluster.node, incarnation=cluster.incarnation, vtep=cluster.underlay.address
            )
            cluster.claiming.add(endpoint.id)
            try:
                await self._owe(endpoint)
                await cluster.claim(endpoint)
            except Lost as lost:
                cluster.claiming.discard(endpoint.id)
                await self._paid(endpoint.id)
                self._lost(network, endpoint, lost)
            except BaseException:
                cluster.claiming.discard(endpoint.id)
                core.free(endpoint)
                raise
            else:
                return endpoint
        raise Unavailable(f"no address of network {network.name} could be had: other nodes take them all the time; try again")

    def _lost(self, network: Network, endpoint: Endpoint, lost: Lost) -> None:
        """Raises, unless another address will do. The one that somebody else has stays taken: we will hear of it."""
        core = self._core
        if isinstance(lost.failed, Exists):
            core.free(endpoint)
            raise NotFound(f"network {network.name} not found") from lost
        if "/addresses/" not in lost.failed.key:
            core.free(endpoint)
            raise Conflict(f"endpoint with name {endpoint.container_name} already exists in network {network.name}") from lost
        taken = lost.failed.key.rpartition("/")[2]
        for address, static in ((endpoint.address, endpoint.static_address), (endpoint.address6, endpoint.static_address6)):
            if address.split("/")[0] != taken:
                core.give_back(network.id, address)
            elif static:
                raise AddressInUse(taken, "a container on another node") from lost

    async def disconnect(self, endpoint: Endpoint) -> None:
        """What the user wants to go, goes now or not at all: Unavailable while the cluster is away."""
        await self._owe(endpoint)
        try:
            await self._membership.cluster().release_known(endpoint)
        except Unavailable:
            await self._paid(endpoint.id)
            raise

    async def disconnected(self, endpoint: Endpoint) -> None:
        await self._paid(endpoint.id)
        await self.left(endpoint)

    async def left(self, endpoint: Endpoint) -> None:
        """The endpoint has gone from records and kernel."""
        network = self._core.records.networks.get(endpoint.network)
        if network is not None:
            await self._membership.left(network)

    async def release(self, endpoint: Endpoint) -> None:
        """It has gone, whether or not the cluster can be told now."""
        await self._owe(endpoint)
        if self._core.cluster is None or not getattr(self._core.cluster.store, "healthy", True):
            return
        with contextlib.suppress(Unavailable):
            await self._core.cluster.release_known(endpoint)
            await self._paid(endpoint.id)

    async def pay(self) -> None:
        """Take out of the cluster what must not be there. Unavailable while it is away."""
        cluster, core = self._membership.cluster(), self._core
        for item in (await core.store.range(_OWED))[1]:
            network, identity = item.key.removeprefix(_OWED).split("/")
            self._owed[identity] = network
        for identity, network in list(self._owed.items()):
            if identity not in cluster.claiming:
                if identity not in core.records.endpoints:
                    await cluster.release(network, identity)
                await self._paid(identity)

    async def own(self, network: Network, endpoints: list[Endpoint]) -> list[Endpoint]:
        """Compare what the cluster has of ours with our records: strangers go, the missing claim again. Those that lost their place."""
        core, cluster = self._core, self._membership.cluster()
        there = {endpoint.id for endpoint in endpoints}
        for endpoint in endpoints:
            if endpoint.id not in core.records.endpoints and endpoint.id not in cluster.claiming:
                await cluster.release_known(endpoint)
        displaced = []
        for endpoint in core.records.of_network(network.id):
            if endpoint.id not in there:
                try:
                    await cluster.claim(endpoint)
                    log.warning("endpoint of %s on network %s was gone from the cluster: it is back", endpoint.container_name, network.name)
                except Lost as lost:
                    log.error("%s has lost its place on network %s (%s): disconnecting it", endpoint.container_name, network.name, lost)
                    displaced.append(endpoint)
        return displaced

    async def _owe(self, endpoint: Endpoint) -> None:
        self._owed[endpoint.id] = endpoint.network
        await self._core.store.txn((), [Put(f"{_OWED}{endpoint.network}/{endpoint.id}", b"")])

    async def _paid(self, identity: str) -> None:
        network = self._owed.pop(identity, None)
        if network is not None:
            await self._core.store.txn((), [Delete(f"{_OWED}{network}/{identity}")])


def owed(endpoints: Iterable[Endpoint]) -> list[Write]:
    """What says that these are owed, for a transaction that forgets them."""
    return [Put(f"{_OWED}{endpoint.network}/{endpoint.id}", b"") for endpoint in endpoints if endpoint.node]
