"""Networks of this host that other nodes have routes to, and the routes to theirs (`--opt netplug.routes=cluster`).

Such a network is this host's own; what the cluster has of it is `routes/<node>/<network>`: its subnets, and the node's addresses. What
the others have published is kept in this host's store too (`reached/<node>/<network>`), for a start while the cluster is away.

A node that is not heard of keeps its routes. Its containers most likely run on (a daemon that ends takes no packet with it), and if they
do not, packets to them end here: without the route they would leave by the default route, for somebody else to read.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from netplug.capability import Reaching
from netplug.controller.cluster import POOLS, Cluster, decoded
from netplug.controller.core import Core, log
from netplug.controller.ways import Surroundings, Way, clash, readable, ways
from netplug.errors import NetplugError, PoolOverlap, Unavailable
from netplug.kernel import lan
from netplug.model import Network, Reachable, encode
from netplug.plan import ForgetFlows, Plan, Reach, Route, removal
from netplug.store import MAX_OPERATIONS, PREFIX, Delete, KeyValue, Lost, Missing, Put, Unchanged, Write

ROUTES = f"{PREFIX}routes/"
_KEPT = f"{PREFIX}reached/"
_ATTEMPTS = 50


class Routing:
    """Of this host."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._published: dict[str, Reachable] = {}
        """By `<node>/<network>`: what other nodes have."""
        self.ways: tuple[Way, ...] = ()
        """To each of their subnets."""
        self._told: dict[tuple[str, str], str] = {}
        """By node and subnet: why there is no route, as the log says already."""

    # What this host has

    def wanted(self, network: Network) -> bool:
        driver = self._core.driver(network)
        return isinstance(driver, Reaching) and driver.reached(network)

    def own(self) -> list[Network]:
        return [network for network in self._core.records.networks.values() if self.wanted(network)]

    def check(self, network: Network) -> None:
        """PoolOverlap where another node has what the network wants to have."""
        if found := clash((pool.subnet for pool in network.pools), self._published):
            mine, theirs, other = found
            raise PoolOverlap(
                f"subnet {mine} overlaps {theirs} of network {other.network} on node {other.node}: give another --subnet, or leave"
                " netplug.routes=cluster away"
            )

    def taken(self) -> list[str]:
        """Subnets of other nodes."""
        return [subnet for network in self._published.values() for subnet in network.subnets]

    def publishes(self) -> dict[str, bytes]:
        """What the cluster is to have of this host, by key."""
        cluster = self._cluster()
        return {_key(cluster, network): encode(_reachable(cluster, network)) for network in self.own() if network.pools}

    async def publish(self, network: Network) -> None:
        """Before anybody publishes what overlaps; PoolOverlap if somebody was quicker, Unavailable while the cluster is away."""
        cluster = self._cluster()
        for _ in range(_ATTEMPTS):
            guard = await cluster.guard()
            await self.read()
            self.check(network)
            condition = Unchanged(POOLS, guard.revision) if guard else Missing(POOLS)
            writes = [Put(_key(cluster, network), encode(_reachable(cluster, network))), Put(POOLS, network.id.encode())]
            try:
                await cluster.store.txn([condition], writes)
            except Lost:
                continue
            return
        raise Unavailable(f"network {network.name} could not be made: other nodes make networks all the time; try again")

    # What the others have

    async def load(self) -> None:
        """What was known when the daemon ended. The plan is ready then; nothing is changed."""
        if self._core.cluster is None:
            return
        for item in (await self._core.store.range(_KEPT))[1]:
            self._published[item.key.removeprefix(_KEPT)] = msgspec.json.decode(item.value, type=Reachable)
        self.ways = await self._look(self.own())
        self._core.routes = self._plan(self.ways, self.own())

    async def sweep(self) -> None:
        """Routes of ours that nobody wants: the cluster's keys have gone, or the cluster has, while the daemon was away."""
        stray = await asyncio.to_thread(lan.strays, [step for step in self._core.routes if isinstance(step, Route)])
        if stray:
            await self._core.remove("route rm", "other nodes", removal(tuple(stray)))

    async def read(self) -> None:
        """Know what the cluster has now; Unavailable while it is away."""
        _, items = await self._cluster().store.range(ROUTES)
        await self.know(items)

    async def know(self, items: Iterable[KeyValue]) -> None:
        """This is all that there is."""
        found = {item.key: decoded(item, Reachable) for item in items}
        gone = {f"{ROUTES}{name}": None for name in self._published}
        await self.change({**gone, **found})

    async def change(self, changes: Mapping[str, Reachable | None]) -> None:
        """What has become of keys; None: gone, or nothing that can be read."""
        node = self._cluster().node
        writes: list[Write] = []
        for key, network in changes.items():
            name = key.removeprefix(ROUTES)
            if name.startswith(f"{node}/") or network == self._published.get(name):
                continue
            if network is not None and readable(network):
                self._published[name] = network
                writes.append(Put(f"{_KEPT}{name}", encode(network)))
            elif self._published.pop(name, None) is not None:
                writes.append(Delete(f"{_KEPT}{name}"))
        for batch in _batches(writes):
            await self._core.store.txn((), batch)

    # What the kernel is made to have

    async def settle(self, before: Plan | None = None) -> None:
        """Make routes and rules as they should be by what is known, and by what this host looks like now.

        `before`: what there was when the change began that this is for; what somebody else has made since is noted as part of it too.
        """
        core = self._core
        async with core.lock("routes"):
            found = await self._look(self.own())
            plan = self._plan(found, self.own())
            if gone := tuple(step for step in core.routes if step not in plan):
                await core.remove("route rm", "other nodes", (*removal(gone), *_forgotten(gone)))
            come = tuple(step for step in plan if step not in core.routes)
            core.routes = tuple(step for step in core.routes if step in plan)
            if before is not None:
                quicker = tuple(step for step in core.routes if step not in before)
                core.note((*quicker, *_forgotten(quicker)))
            refused = await self._make(come)
            self.ways = tuple(replace(way, reason=refused.get(way.subnet, way.reason)) for way in found)
            core.routes = self._plan(self.ways, self.own())
            self._tell()

    async def preview(self, networks: Iterable[Network]) -> Plan:
        """What would change if this host had just these networks besides those without routes."""
        networks = list(networks)
        plan = self._plan(await self._look(networks), networks)
        gone = tuple(step for step in self._core.routes if step not in plan)
        come = tuple(step for step in plan if step not in self._core.routes)
        return (*removal(gone), *_forgotten(gone), *come, *_forgotten(come))

    async def _look(self, own: Iterable[Network]) -> tuple[Way, ...]:
        if not self._published:
            return ()
        own = list(own)
        others = [network for network in self._core.records.networks.values() if not self.wanted(network)]
        versions = frozenset(6 if ":" in pool.subnet else 4 for network in own for pool in network.pools)

        def looked() -> tuple[Way, ...]:
            known = lan.others() if versions else ()
            return tuple(ways(published, Surroundings([*others, *own], versions, known, lan.neighbour)))

        published = tuple(self._published.values())
        # Not here: the kernel's answer about links waits for whoever changes one.
        return await asyncio.to_thread(looked)

    def _plan(self, found: Iterable[Way], own: Iterable[Network]) -> Plan:
        """Rules before routes: what leaves before its rule is there would be masqueraded for as long as its flow lasts."""
        found, driven = list(found), [(network, self._core.driver(network)) for network in own]
        rules = [
            step
            for way in found
            for network, driver in driven
            if not way.reason and isinstance(driver, Reaching)
            for step in driver.reach(network, way.subnet, way.link)
        ]
        return (*rules, *(step for way in found for step in way.route))

    async def _make(self, come: Plan) -> dict[str, str]:
        """By subnet, why the kernel will not have a route; its rules have gone again then."""
        core = self._core
        refused: dict[str, str] = {}
        rules = tuple(step for step in come if not isinstance(step, Route))
        try:
            if rules:
                await core.apply("route add", "other nodes", rules)
        except NetplugError as error:
            return {step.remote: str(error) for step in rules if isinstance(step, Reach)}
        for step in come:
            if isinstance(step, Route):
                try:
                    await core.apply("route add", step.destination, (step,))
                except NetplugError as error:
                    refused[step.destination] = str(error)
        if undone := tuple(step for step in rules if isinstance(step, Reach) and step.remote in refused):
            await core.remove("route rm", "other nodes", removal(undone))
        # Who has asked before there was a way has been masqueraded, and would be for as long as he goes on asking.
        if forgotten := _forgotten(rules):
            await core.apply("route add", "other nodes", forgotten)
        return refused

    def _tell(self) -> None:
        """Each reason once."""
        told = {(way.node, way.subnet): way.reason for way in self.ways if way.reason and way.needed}
        for (node, subnet), reason in told.items():
            if self._told.get((node, subnet)) != reason:
                log.warning("no route to %s of node %s: %s", subnet, node, reason)
        self._told = told

    def _cluster(self) -> Cluster:
        if self._core.cluster is None:
            raise Unavailable("this host is in no cluster: start the daemon with --store etcd://HOST:PORT and --advertise ADDRESS")
        return self._core.cluster


def _reachable(cluster: Cluster, network: Network) -> Reachable:
    address = cluster.underlay.address
    return Reachable(
        node=cluster.node,
        network=network.name,
        created=network.created,
        subnets=tuple(pool.subnet for pool in network.pools),
        via=tuple(filter(None, (address, lan.twin(address)))),
    )


def _forgotten(steps: Plan) -> Plan:
    """Tracked flows that such rules change."""
    return tuple(ForgetFlows(subnet=step.subnet, remote=step.remote) for step in steps if isinstance(step, Reach))


def _key(cluster: Cluster, network: Network) -> str:
    return f"{ROUTES}{cluster.node}/{network.id}"


def _batches(writes: Iterable[Write]) -> Iterable[list[Write]]:
    waiting = iter(writes)
    while batch := list(itertools.islice(waiting, MAX_OPERATIONS)):
        yield batch
