"""Global networks on this node: made and removed for all nodes, and what endpoints here claim and give back.

Order, as far as it is not the cluster's own transaction that decides: the cluster's store first, then the record, then the kernel. So
whatever this daemon dies in the middle of, the next one finds in the cluster what is this node's there and has no record here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import msgspec

from netplug.capability import PeerAware
from netplug.controller.cluster import POOLS, Cluster
from netplug.controller.company import Company, Stretch
from netplug.controller.core import Core, log
from netplug.controller.debts import Debts
from netplug.controller.membership import Membership
from netplug.controller.records import network_key
from netplug.controller.requests import ControllerEvent
from netplug.errors import AddressInUse, Conflict, NetplugError, NotFound, PoolsExhausted, Unavailable
from netplug.model import Endpoint, Network, encode
from netplug.store import Delete, Exists, KeyValue, Lost, Put

_ATTEMPTS = 50
"""How often something is chosen anew because another node was quicker."""


class Shared:
    """What happens to them on this node."""

    def __init__(self, core: Core, membership: Membership, debts: Debts) -> None:
        self._core, self._membership, self.debts = core, membership, debts
        self.renamed: Callable[[Network], Awaitable[None]] = _nothing
        """Called with a network that may have another name now."""
        self._company = Company()
        self._making: dict[str, bool] = {}
        """By network that is being made here: whether the cluster has told of it already."""
        self._changed: dict[str, int] = {}
        """By network: the revision at which it came or went, as far as no list of all networks was newer."""

    # Networks

    async def create(self, prepare: Callable[[], Network]) -> Network:
        """What `prepare` makes of what is known, with a VNI of its own; prepared again where another node was quicker."""
        cluster = self._membership.cluster()
        strange: set[int] = set()
        for _ in range(_ATTEMPTS):
            guard = await cluster.guard()
            revision, networks = await cluster.networks()
            await self.know(networks, revision)
            network = prepare()
            network = msgspec.structs.replace(network, vni=self._free_vni(network, strange))
            try:
                made = await self._make(cluster, network, guard)
            except Lost as lost:
                if lost.failed.key != POOLS and "/vnis/" not in lost.failed.key:
                    raise Conflict(f"network with name {network.name} already exists") from lost
                strange |= {network.vni} if lost.failed.key != POOLS else set()
            else:
                self._changed[network.id] = max(made, self._changed.get(network.id, 0))
                await self._keep(network)
                return network
        raise Unavailable(f"network {network.name} could not be made: other nodes make networks all the time; try again")

    async def could(self, prepare: Callable[[], Network]) -> Network:
        """What `create` would make, by what the cluster has now; nothing is written there."""
        await self.know((await self._membership.cluster().networks())[1])
        network = prepare()
        return msgspec.structs.replace(network, vni=self._free_vni(network))

    async def _make(self, cluster: Cluster, network: Network, guard: KeyValue | None) -> int:
        """The revision. Meanwhile it is in the records, so that this host's own networks keep off its name and subnets."""
        records = self._core.records
        records.add_network(network)
        self._making[network.id] = False
        try:
            return await cluster.add_network(network, guard)
        except BaseException as error:
            if self._making[network.id] and isinstance(error, Unavailable):
                return 0  # nobody could say whether it was made, but we have seen it
            records.drop_network(network)
            raise
        finally:
            del self._making[network.id]

    async def remove(self, network: Network) -> None:
        try:
            revision = await self._membership.cluster().remove_network(network)
        except NotFound:
            await self.removed(network.id)
            raise
        await self.removed(network.id, revision)

    async def know(self, networks: Iterable[Network], revision: int = 0) -> None:
        """These are all the global networks that there were at `revision`; what has changed since then (0: nothing) is known better."""
        wanted = {network.id: network for network in networks}
        newer = {identity for identity, changed in self._changed.items() if revision and changed > revision} | set(self._making)
        records = self._core.records
        for network in [known for known in records.networks.values() if known.scope == "global" and known.id not in wanted]:
            if network.id not in newer:
                await self.removed(network.id)
        for network in wanted.values():
            if network.id not in newer:
                await self.added(network)
        if revision:
            self._changed = {identity: changed for identity, changed in self._changed.items() if identity in newer}

    async def added(self, network: Network, revision: int = 0) -> None:
        """Another node has made it."""
        core = self._core
        self._changed[network.id] = revision
        if network.id in self._making:
            self._making[network.id] = True
        if network.id in core.records.networks:
            await self.renamed(network)
            return
        try:
            core.driver(network).validate(network)
            core.open_pools(network)
        except (NetplugError, ValueError) as error:
            log.warning("network %s of the cluster is none for this node: %s", network.name, error)
            return
        if core.records.network_named(network.name) is not None:
            log.warning("this host has a network %s: the cluster's of that name is %.12s here", network.name, network.id)
        core.records.add_network(network)
        await self._keep(network)
        core.events.send(ControllerEvent(kind="network", action="create", network=network))

    async def removed(self, identity: str, revision: int = 0) -> None:
        """Another node has removed it. Endpoints that are on it here (somebody forced that) keep it for as long as they are."""
        core = self._core
        self._changed[identity] = revision
        async with core.lock(identity):
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

    def _free_vni(self, network: Network, strange: Iterable[int] = ()) -> int:
        """`strange`: those that nobody's network has, and which are taken all the same."""
        driver = self._core.driver(network)
        if not isinstance(driver, PeerAware):
            return 0
        taken = {other.vni for other in self._core.records.networks.values()}.union(strange)
        for choice in driver.vni_range(network):
            for number in choice:
                if number not in taken:
                    return number
        raise PoolsExhausted(f"network {network.name}: every VNI that it may have is taken")

    # Endpoints

    @asynccontextmanager
    async def claimed(self, network: Network, draft: Callable[[Stretch | None], Endpoint]) -> AsyncIterator[Endpoint]:
        """An endpoint whose name and addresses are its own in the whole cluster; the block clears the debt. Given back if it fails.

        `draft` takes addresses out of the pools as they are known here: the first free ones, or those of a stretch.
        """
        cluster = self._membership.cluster()
        async with self._membership.entered(network):
            endpoint = await self._claim(cluster, network, draft)
            try:
                yield endpoint
            except BaseException:
                cluster.claiming.discard(endpoint.id)
                await self.debts.settle(endpoint)
                self._core.free(endpoint)
                raise
            cluster.claiming.discard(endpoint.id)
            self.debts.forget(endpoint.id)

    async def _claim(self, cluster: Cluster, network: Network, draft: Callable[[Stretch | None], Endpoint]) -> Endpoint:
        """What was lost to others stays taken until there is one to be had, so that none is tried twice."""
        core = self._core
        drafts: list[Endpoint] = []
        try:
            while len(drafts) < _ATTEMPTS:
                endpoint = cluster.here(draft(self._company.stretch(network.id)))
                core.take(endpoint)
                drafts.append(endpoint)
                taken = await self._try(cluster, network, endpoint)
                if not taken:
                    return drafts.pop()
                if not self._company.lost(network.id):
                    await self._membership.hear(network, partial(core.held, endpoint, taken))
        finally:
            for endpoint in drafts:
                core.free(endpoint)
        raise Unavailable(f"no address of network {network.name} could be had: other nodes take them all the time; try again")

    async def _try(self, cluster: Cluster, network: Network, endpoint: Endpoint) -> str:
        """`""`, or which of its addresses is another's already, where other addresses may do."""
        cluster.claiming.add(endpoint.id)
        try:
            self.debts.expect(endpoint)
            await cluster.claim(endpoint)
        except Lost as lost:
            cluster.claiming.discard(endpoint.id)
            self.debts.forget(endpoint.id)
            return _taken(network, endpoint, lost)
        except BaseException:
            cluster.claiming.discard(endpoint.id)
            self.debts.remind()
            raise
        return ""

    @asynccontextmanager
    async def parting(self, endpoint: Endpoint, *, at_once: bool) -> AsyncIterator[None]:
        """Within the block the endpoint goes from records and kernel, its name and addresses being free in the cluster already.

        What the user wants to go goes `at_once` or not at all: Unavailable while the cluster is away; the block clears the debt. Else it
        is given back later.
        """
        if not endpoint.node:
            yield
            return
        cluster = self._membership.cluster()
        cluster.leaving.add(endpoint.id)
        try:
            self.debts.expect(endpoint)
            if at_once:
                await cluster.release_known(endpoint)
            yield
        except BaseException:
            if endpoint.id in self._core.records.endpoints:
                await self.debts.paid(endpoint.id)
                self._membership.read_anew(endpoint.network)  # it stays, and may have lost its place: nobody could say
            self.debts.remind()
            raise
        finally:
            cluster.leaving.discard(endpoint.id)
        if at_once:
            self.debts.forget(endpoint.id)
        else:
            await self.debts.settle(endpoint)
        await self.left(endpoint)

    async def left(self, endpoint: Endpoint) -> None:
        """The endpoint has gone from records and kernel."""
        if endpoint.node:
            await self._membership.left(endpoint.network)

    async def own(self, network: Network, endpoints: list[Endpoint]) -> list[Endpoint]:
        """Those of this node's endpoints that have lost their place. What is missing among those that the cluster has claims again."""
        there = {endpoint.id: endpoint for endpoint in endpoints}
        for endpoint in self._core.records.of_network(network.id):
            known = there.get(endpoint.id)
            if known is not None and (known.node, known.vtep) != (endpoint.node, endpoint.vtep):
                await self._membership.cluster().correct(endpoint)
        missing = [endpoint for endpoint in self._core.records.of_network(network.id) if endpoint.id not in there]
        return [endpoint for endpoint in missing if not await self._claim_again(network, endpoint)]

    async def _claim_again(self, network: Network, endpoint: Endpoint) -> bool:
        """False where others have its name or addresses by now. It may have come, or may be going, since the cluster was asked."""
        core, cluster = self._core, self._membership.cluster()
        async with core.lock(endpoint.sandbox):
            if endpoint.id not in core.records.endpoints:
                return True
            try:
                await cluster.claim(endpoint)
            except Lost as lost:
                if await cluster.has(endpoint):
                    return True
                if isinstance(lost.failed, Exists):
                    log.error("network %s is gone from the cluster: %s stays on it here", network.name, endpoint.container_name)
                    return True
                log.error("%s has lost its place on network %s (%s): disconnecting it", endpoint.container_name, network.name, lost)
                return False
        log.warning("endpoint of %s on network %s was gone from the cluster: it is back", endpoint.container_name, network.name)
        return True


async def _nothing(network: Network) -> None:
    """Nobody minds."""


def _taken(network: Network, endpoint: Endpoint, lost: Lost) -> str:
    """The address. Raises where no other one would help."""
    if isinstance(lost.failed, Exists):
        raise NotFound(f"network {network.name} not found") from lost
    if "/addresses/" not in lost.failed.key:
        raise Conflict(f"endpoint with name {endpoint.container_name} already exists in network {network.name}") from lost
    taken = lost.failed.key.rpartition("/")[2]
    for address, static in ((endpoint.address, endpoint.static_address), (endpoint.address6, endpoint.static_address6)):
        if static and address.split("/")[0] == taken:
            raise AddressInUse(taken, "a container on another node") from lost
    return taken
