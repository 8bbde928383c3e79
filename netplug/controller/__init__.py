"""The one place where steps are ordered: create and remove networks, connect and disconnect, restore.

Locks: a sandbox's, then the network's. Every change runs to its end, whatever becomes of the caller.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from netplug.controller import points
from netplug.controller.claims import Claims
from netplug.controller.cluster import in_use
from netplug.controller.core import Core, log, recording
from netplug.controller.debts import Debts
from netplug.controller.doctor import Difference, Doctor, Treated
from netplug.controller.effects import Effects
from netplug.controller.endpoints import Endpoints
from netplug.controller.engined import Engined
from netplug.controller.farewells import Farewells
from netplug.controller.healing import Healing
from netplug.controller.holding import Holding
from netplug.controller.leases import LeasedPool, Leases
from netplug.controller.membership import Membership
from netplug.controller.networks import PUBLISHED, Networks
from netplug.controller.peers import Peers
from netplug.controller.planning import Planning
from netplug.controller.points import Point
from netplug.controller.renaming import Renaming
from netplug.controller.requests import (
    ControllerEvent,
    EndpointRequest,
    Events,
    NetworkRequest,
    PoolUsage,
    SandboxRequest,
    Taken,
)
from netplug.controller.restore import Restore
from netplug.controller.routing import Routing
from netplug.controller.sandboxes import Sandboxes
from netplug.controller.shared import Shared
from netplug.controller.ways import Way
from netplug.errors import NotFound
from netplug.kernel.watch import Watch
from netplug.model import Endpoint, Family, Network, PoolConfig, PortBinding, Reachable, Sandbox
from netplug.plan import Plan
from netplug.shelter import Shelter
from netplug.store import KeyValue

__all__ = [
    "Controller",
    "ControllerEvent",
    "Core",
    "Difference",
    "EndpointRequest",
    "Events",
    "NetworkRequest",
    "PoolUsage",
    "SandboxRequest",
    "Taken",
    "Treated",
    "recording",
]

SWEEP_SECONDS = 10
"""How often paths of sandboxes are looked at; 0.04 ms each."""


class Controller:
    """Networks, sandboxes and endpoints of this host."""

    def __init__(self, core: Core, watch: Watch | None = None, *, heal: bool = True) -> None:
        """With a `watch`, what others take away is put back or, with `heal` false, at least said."""
        self._core = core
        self._peers = Peers(core)
        self._debts = Debts(core)
        self._membership = Membership(core, self._peers, self._debts)
        self._membership.own = self._own
        self._shared = Shared(core, self._membership)
        self._claims = Claims(core, self._membership, self._debts)
        self._routing = Routing(core)
        self._farewells = Farewells(core)
        self._effects = Effects(core, self._farewells)
        self._networks = Networks(core, self._shared, self._routing, self._effects)
        self._endpoints = Endpoints(core, self._claims, self._networks, self._effects)
        self._sandboxes = Sandboxes(core, self._endpoints, self._claims)
        self._planning = Planning(core, self._membership, self._networks, self._endpoints, self._sandboxes)
        self._changes = Shelter(unbroken=True)
        self._engined = Engined(core, self._endpoints, self._sandboxes, self._changes)
        self._holding = Holding(core, self._membership)
        self._renaming = Renaming(core, self._peers)
        self._shared.renamed = self._renaming.heard
        self._restore = Restore(core, self._endpoints, self._sandboxes, self._membership, self._peers, self._routing)
        self._healing = (
            Healing(core, self._restore, self._routing, watch, enabled=heal, vanished=self.sandbox_vanished) if watch is not None else None
        )
        if self._healing is not None:
            self._membership.moved = self._healing.moved
        self._doctor = Doctor(
            core, self._restore, self._routing, self._endpoints, self._debts, self._farewells, vanished=self.sandbox_vanished
        )
        self._sweeper: asyncio.Task[None] | None = None
        self.events: Events = core.events
        core.resolver.on_lost = self._resolver_lost
        core.executor.watch(self._link_gone)

    async def start(self, base: Plan, predefined: Sequence[NetworkRequest]) -> None:
        """Agree with kernel and resolver; then make the predefined networks that are missing or asked for differently."""
        if self._healing is not None:
            self._healing.listen()
        await self._restore.run(base)
        for request in predefined:
            await self._predefine(request)
        await self._core.resolver.start()
        await self._restore.names()
        self._engined.look()
        self._sweeper = asyncio.create_task(self._sweep())
        await self._debts.start()
        await self._farewells.start()
        self._membership.follow()
        if self._healing is not None:
            self._healing.start(base)
        self._doctor.start(base, self._healing.neighbours if self._healing is not None else None)

    def ending(self) -> None:
        """The daemon will stop once what is under way has come to its end."""
        self._core.resolver.recovers = False
        self._effects.end()

    async def stop(self) -> None:
        """Let running changes end. Containers, their networks and names stay."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._engined.stop()
        await self._membership.close()
        await self._debts.close()
        if self._healing is not None:
            await self._healing.stop()
        self._effects.end()
        await self._changes.settle()
        await self._core.leases.settle()
        await self._farewells.close()
        await self._core.resolver.stop()
        await self._core.forwarder.stop()
        self._core.ports.release_all()

    # What there is

    def network(self, reference: str) -> Network:
        """By name, id or unambiguous id prefix."""
        return self._core.records.network(reference)

    def networks(self) -> list[Network]:
        return list(self._core.records.networks.values())

    def endpoints(self, *, network: str = "", sandbox: str = "") -> list[Endpoint]:
        """All, or those of one network or one sandbox (by id)."""
        records = self._core.records
        if network:
            return records.of_network(network)
        return records.of_sandbox(sandbox) if sandbox else list(records.endpoints.values())

    def sandbox(self, identity: str) -> Sandbox | None:
        return self._core.records.sandboxes.get(identity)

    def sandboxes(self) -> list[Sandbox]:
        return list(self._core.records.sandboxes.values())

    def pool_usage(self, network: Network) -> list[PoolUsage]:
        """Every pool of the network, with who has which address since when."""
        endpoints = [*self.endpoints(network=network.id), *self.remote_endpoints(network.id)]
        pools = self._core.allocators.get(network.id, [])
        return [
            PoolUsage(pool=pool, capacity=allocator.capacity, taken=tuple(_taken(pool, endpoints, network))) for pool, allocator in pools
        ]

    def healing(self) -> tuple[dict[str, int], list[str]]:
        """How much has been put back since the start, by kind; and what is left alone at present, taken away again and again."""
        return (dict(self._healing.healed), self._healing.suspended()) if self._healing is not None else ({}, [])

    async def examine(self) -> list[Difference]:
        """How kernel, resolver and store differ from the records. Nothing is changed."""
        return await self._doctor.examine()

    def plan_existing(self, identity: str, network: str = "") -> Plan:
        """What a sandbox and its endpoints are made of, as they are now; with a network, its endpoint there alone."""
        sandbox = self._endpoints.sandbox(identity)
        endpoint = self._endpoints.find(self.network(network), sandbox) if network else None
        return self._restore.whole_plan(sandbox, endpoint)

    def points_of_network(self, reference: str) -> list[Point]:
        """Where its packets can be seen on this host; Conflict where the network has nothing here."""
        return points.of_network(self._core, self._restore, self.network(reference))

    def points_of_sandbox(self, identity: str) -> list[Point]:
        return points.of_sandbox(self._endpoints.sandbox(identity))

    # Changes

    async def treat(self) -> list[Treated]:
        """Put right how they differ; what there was, and what of it is there still."""
        treated = await self._changes.finish(self._doctor.treat())
        if self._healing is not None:
            self._healing.forget_told()
        return treated

    async def create_network(self, request: NetworkRequest) -> Network:
        return await self._changes.finish(self._networks.create(request))

    async def remove_network(self, reference: str) -> Network:
        return await self._changes.finish(self._networks.remove(reference))

    async def create_sandbox(self, request: SandboxRequest) -> Sandbox:
        return await self._changes.finish(self._sandboxes.create(request))

    async def remove_sandbox(self, identity: str) -> None:
        """Take it and all its endpoints away; fine if it is gone."""
        await self._changes.finish(self._sandboxes.remove(identity))

    async def connect(self, reference: str, sandbox: str, request: EndpointRequest) -> Endpoint:
        return await self._changes.finish(self._endpoints.connect(reference, sandbox, request))

    async def disconnect(self, reference: str, sandbox: str) -> Endpoint:
        return await self._changes.finish(self._endpoints.disconnect(reference, sandbox))

    # For other engines

    def endpoint(self, identity: str) -> Endpoint | None:
        return self._core.records.endpoints.get(identity)

    def leads_out(self, network: Network) -> bool:
        """Whether its driver has a way out of its own, or leaves it away on purpose: else it is others' to give."""
        return self._core.driver(network).capabilities.exit

    @property
    def leases(self) -> Leases:
        return self._core.leases

    async def request_pool(self, wanted: PoolConfig | None, family: Family, word: str = "") -> LeasedPool:
        """A pool that is held until it is given back, whether or not there will be a network of it; by the same word, the same."""
        return await self._changes.finish(self._lease_pool(wanted, family, word))

    def address_here(self, pool: str, wanted: str = "", word: str = "") -> str | None:
        """What `request_address` gives, at once; None where the cluster has to be asked."""
        return self._holding.here(pool, wanted, word)

    async def request_address(self, pool: str, wanted: str = "", word: str = "") -> str:
        """An address of that pool with its prefix, held until it is given back; by the same word, the same."""
        return await self._changes.finish(self._holding.request(pool, wanted, word))

    async def release_address(self, pool: str, address: str) -> None:
        await self._changes.finish(self._release_address(pool, address))

    def attach(self, reference: str, request: EndpointRequest, engine: str) -> Coroutine[Any, Any, Endpoint]:
        """An endpoint of a container that the engine will name with `join`, begun at once; its link waits in the host."""
        return self._engined.attach(reference, request, engine)

    async def join(self, identity: str, sandbox: str, namespace: str, *, takes: bool = False) -> Endpoint:
        """The endpoint is of the container whose namespace is, or will be, at that path; `takes`: its engine takes the link in itself."""
        return await self._changes.finish(self._engined.join(identity, sandbox, namespace, takes=takes))

    def pending(self, identity: str) -> Awaitable[None] | None:
        """What of `join` goes on behind its answer: await it to know that the link is in the container, or why it is not."""
        task = self._engined.pending(identity)
        return None if task is None else asyncio.shield(task)

    async def leave(self, identity: str) -> None:
        """The opposite of `attach` and `join`; fine if the endpoint is gone."""
        await self._changes.finish(self._engined.leave(identity))

    async def carry(self, identity: str, ports: tuple[PortBinding, ...]) -> None:
        """The engine's container goes out by this endpoint, and is reached by it on these ports."""
        await self._changes.finish(self._engined.carry(identity, ports))

    async def release(self, identity: str) -> None:
        """It does so no more."""
        await self._changes.finish(self._engined.release(identity))

    async def name_network(self, identity: str, name: str) -> None:
        """The engine that has made the network calls it so."""
        await self._changes.finish(self._renaming.network(identity, name))

    async def name_container(self, sandbox: str, container: str, name: str, aliases: Mapping[str, Sequence[str]]) -> None:
        """The engine calls the container so; `aliases` by endpoint."""
        await self._changes.finish(self._renaming.container(sandbox, container, name, aliases))

    async def engine_restarted(self, engine: str) -> None:
        """Its own resolver may be elsewhere in its containers now."""
        await self._changes.finish(self._renaming.resolvers(engine))

    async def _lease_pool(self, wanted: PoolConfig | None, family: Family, word: str) -> LeasedPool:
        async with self._core.lock("networks"):
            return await self._core.leases.request_pool(wanted, family, self.networks(), word)

    async def _release_address(self, pool: str, address: str) -> None:
        leases = self._core.leases
        network = leases.pools[pool].network if pool in leases.pools else ""
        used = {text.split("/")[0] for one in self.endpoints(network=network) for text in (one.address, one.address6)} if network else set()
        if await leases.release_address(pool, address) and network and address not in used:
            self._core.give_back(network, address)
            if self._core.cluster is not None:
                await self._core.cluster.let_go(network, address)

    async def sandbox_vanished(self, identity: str) -> bool:
        """If the sandbox's namespace is gone, take back all it had; whether it was."""
        sandbox = self.sandbox(identity)
        if sandbox is None or self._restore.alive(sandbox):
            return False
        log.info("the namespace of %s is gone: taking back what it had", sandbox.name)
        await self.remove_sandbox(identity)
        return True

    # What the other nodes of the cluster do, and what it has of ours

    def remote_endpoints(self, network: str) -> list[Endpoint]:
        """Those on other nodes, of a network that this node is on."""
        return list(self._core.peers[network].values()) if network in self._core.peers else []

    def peer_nodes(self) -> set[str]:
        """Nodes that endpoints are known of."""
        return {endpoint.node for peers in self._core.peers.values() for endpoint in peers.values()}

    async def know_networks(self, networks: Sequence[Network], revision: int) -> None:
        """These are all the cluster's networks, as of that revision."""
        async with self._core.lock("global networks"):
            await self._shared.know(networks, revision)

    async def network_added(self, network: Network, revision: int) -> None:
        await self._shared.added(network, revision)

    async def network_removed(self, identity: str, revision: int) -> None:
        await self._shared.removed(identity, revision)

    async def nodes_live(self, nodes: Collection[str]) -> None:
        """Those that do: the names of the others' containers are not answered."""
        await self._peers.live(nodes)

    def ways(self) -> list[Way]:
        """To networks of other nodes that are published."""
        return list(self._routing.ways)

    def published(self) -> dict[str, bytes]:
        """What the cluster is to have of this host's networks that are reached from other nodes, by key."""
        return self._routing.publishes()

    def publishing(self) -> asyncio.Lock:
        """Held while a network is made that is not published yet: whether it can be is not known before."""
        return self._core.lock(PUBLISHED)

    async def know_routes(self, items: Sequence[KeyValue]) -> None:
        """This is all that nodes have published."""
        await self._routing.know(items)

    async def routes_changed(self, changes: Mapping[str, Reachable | None]) -> None:
        await self._routing.change(changes)

    async def settle_routes(self) -> None:
        """Make routes as they should be by what is known, and by what this host looks like now."""
        await self._changes.finish(self._routing.settle())

    async def cluster_back(self) -> None:
        """It has been away, or has thought that we were: see what it has of ours, and what was missed. Unavailable: not yet."""
        cluster = self._membership.cluster()
        _, endpoints = await cluster.endpoints()
        known = self._core.records.endpoints
        ours = [endpoint for endpoint in endpoints if endpoint.node == cluster.node]
        await self._debts.take_over(endpoint for endpoint in ours if endpoint.id not in known and endpoint.id not in cluster.claiming)
        self._membership.read_anew()

    async def _own(self, network: Network, endpoints: list[Endpoint]) -> None:
        for endpoint in await self._claims.own(network, endpoints):
            with suppress(NotFound):  # somebody was quicker
                await self.disconnect(network.id, endpoint.sandbox)

    # What a change would do

    def draft_network(self, request: NetworkRequest, *, predefined: bool = False) -> Network:
        """The record that the request would make; its id is not the one it will get."""
        return self._networks.prepare(request, predefined=predefined)

    async def plan_network(self, request: NetworkRequest) -> Plan:
        network = await self._networks.drafted(request)
        plan = self._core.network_plan(network)
        return (*plan, *await self._routing.preview([*self._routing.own(), network])) if self._routing.wanted(network) else plan

    async def plan_network_removal(self, reference: str) -> Plan:
        network = self.network(reference)
        if network.scope == "global" and (endpoints := (await self._membership.cluster().endpoints(network.id))[1]):
            raise in_use(network, endpoints)
        plan = self._networks.plan_removal(network)
        left = [other for other in self._routing.own() if other is not network]
        return (*plan, *await self._routing.preview(left)) if self._routing.wanted(network) else plan

    async def plan_connect(self, reference: str, sandbox: str, request: EndpointRequest) -> Plan:
        return await self._planning.connect(reference, sandbox, request)

    async def plan_disconnect(self, reference: str, sandbox: str) -> Plan:
        return await self._planning.disconnect(reference, sandbox)

    async def plan_sandbox(self, request: SandboxRequest, attachments: Sequence[tuple[str, EndpointRequest]] = ()) -> list[Plan]:
        """A sandbox and its endpoints, as they would be made."""
        return await self._planning.sandbox(request, attachments)

    async def plan_sandbox_removal(self, identity: str) -> Plan:
        sandbox = self.sandbox(identity)
        return () if sandbox is None else self._planning.sandbox_removal(sandbox)

    def recording(self) -> Any:
        """`with controller.recording() as plans:` collects the plans that are applied for the current task."""
        return recording()

    def explain(self, plans: Sequence[Plan]) -> list[str]:
        """The plans as shell commands."""
        return self._core.explain(plans)

    async def _predefine(self, request: NetworkRequest) -> None:
        existing = self._core.records.network_named(request.name)
        if existing is not None:
            if _same(existing, request):
                return
            if self.endpoints(network=existing.id):
                log.warning("network %s keeps its old settings: containers are on it", request.name)
                return
            await self._networks.remove(request.name, predefined=True)
        await self._networks.create(request, predefined=True)

    async def _resolver_lost(self) -> None:
        log.error("the resolver ended; a new one takes over")
        await self._restore.names()

    def _link_gone(self, name: str) -> None:
        """A host end that goes by itself: its other end went, most likely with the namespace around it."""
        self._engined.taken(name)
        for endpoint in self.endpoints():
            if endpoint.host_interface == name:
                self._changes.start(self.sandbox_vanished(endpoint.sandbox))

    async def _sweep(self) -> None:
        """Look for namespaces whose path is gone: the resolver's sockets keep such a one, and its links, alive."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._engined.look()
            for number, sandbox in enumerate(self.sandboxes()):
                await self.sandbox_vanished(sandbox.id)
                if number % 20 == 0:
                    await asyncio.sleep(0)


def _same(network: Network, request: NetworkRequest) -> bool:
    """Whether a predefined network is as asked for: what the request leaves open may be anything."""
    if any(getattr(network, field) != getattr(request, field) for field in ("options", "internal", "ipv4", "ipv6")):
        return False
    return all(any(_fits(pool, wanted) for pool in network.pools) for wanted in request.pools)


def _fits(pool: PoolConfig, wanted: PoolConfig) -> bool:
    return all(not value or getattr(pool, field) == value for field, value in msgspec.structs.asdict(wanted).items())


def _taken(pool: PoolConfig, endpoints: Sequence[Endpoint], network: Network) -> list[Taken]:
    """Who has which address of this pool, in ascending order."""
    subnet = ipaddress.ip_network(pool.subnet)
    given = [(text.split("/")[0], endpoint) for endpoint in endpoints for text in (endpoint.address, endpoint.address6) if text]
    taken = [Taken(address=pool.gateway, kind="gateway", owner=network.name, since=network.created)] if pool.gateway else []
    taken += [Taken(address=address, kind="reserved", owner=name, since=network.created) for name, address in pool.auxiliary.items()]
    taken += [
        Taken(address=address, kind="endpoint", owner=endpoint.container_name or endpoint.id[:12], since=endpoint.created)
        for address, endpoint in given
        if ipaddress.ip_address(address) in subnet
    ]
    return sorted(taken, key=lambda one: int(ipaddress.ip_address(one.address)))
