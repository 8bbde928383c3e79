"""Global networks: made and removed for all nodes, and known here.

Order, as far as it is not the cluster's own transaction that decides: the cluster's store first, then the record. So whatever this daemon
dies in the middle of, the next one finds in the cluster what is this node's there and has no record here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from netplug.capability import PeerAware
from netplug.controller.cluster import POOLS, Cluster
from netplug.controller.core import Core, log
from netplug.controller.membership import Membership
from netplug.controller.records import network_key
from netplug.controller.requests import ControllerEvent
from netplug.errors import Conflict, NetplugError, NotFound, PoolsExhausted, Unavailable
from netplug.model import Network, encode
from netplug.store import Delete, KeyValue, Lost, Put

_ATTEMPTS = 50
"""How often something is chosen anew because another node was quicker."""

_NAMED = 3
"""So many numbers are named that are taken."""
_VNIS = "--opt com.docker.network.driver.overlay.vxlanid_list=NUMBER[,FIRST-LAST…]"


class Shared:
    """What happens to them on this node."""

    def __init__(self, core: Core, membership: Membership) -> None:
        self._core, self._membership = core, membership
        self.renamed: Callable[[Network], Awaitable[None]] = _nothing
        """Called with a network that may have another name now."""
        self._making: dict[str, bool] = {}
        """By network that is being made here: whether the cluster has told of it already."""
        self._changed: dict[str, int] = {}
        """By network: the revision at which it came or went, as far as no list of all networks was newer."""

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
        await self._membership.decided(identity)  # in the records already, whatever the cluster will say
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
        owners = {other.vni: f"network {other.name}" for other in self._core.records.networks.values() if other.vni}
        taken = dict.fromkeys(strange, "a network that another node makes") | owners
        choices = driver.vni_range(network)
        for choice in choices:
            for number in choice:
                if number not in taken:
                    return number
        raise PoolsExhausted(f"network {network.name}: {_all_taken(choices, taken)}")


def _all_taken(choices: Sequence[range], taken: Mapping[int, str]) -> str:
    numbers = list(dict.fromkeys(number for choice in choices for number in choice))
    owners = ", ".join(f"{number} by {taken[number]}" for number in numbers[:_NAMED]) + (", …" if len(numbers) > _NAMED else "")
    return f"every VNI that it may have is taken ({owners}): give it others with {_VNIS}, or remove a network that has one"


async def _nothing(network: Network) -> None:
    """Nobody minds."""
