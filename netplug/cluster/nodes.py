"""The nodes of a cluster, as their registrations tell.

`nodes/<name>` is what a node says of itself, and stays when it is away; `alive/<name>` is leased, and goes when the node has not been heard
for a while. A name belongs to one state directory: two daemons that call themselves the same are told so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from netplug import __version__
from netplug.cluster import routes
from netplug.controller import Controller
from netplug.controller.cluster import Cluster, decoded
from netplug.errors import Conflict, NotFound, Unavailable
from netplug.model import Endpoint, Network, Node, encode, now
from netplug.store import PREFIX, Compacted, Delete, Event, KeyValue, Lost, Missing, Put, Unchanged

log = logging.getLogger(__name__)

TTL = 10.0
"""Seconds without a sign of life after which a node's names are answered no more."""
_SIGNS = 4
"""So many in that time."""
AGAIN_SECONDS = 1.0

_NODES, _ALIVE, _NETWORKS = f"{PREFIX}nodes/", f"{PREFIX}alive/", f"{PREFIX}networks/"


class Nodes:
    """Keeps this node registered, and the controller informed."""

    def __init__(self, cluster: Cluster, controller: Controller, identity: str) -> None:
        self._cluster, self._controller = cluster, controller
        self._me = Node(
            name=cluster.node,
            address=cluster.underlay.address,
            identity=identity,
            incarnation=cluster.incarnation,
            started=now(),
            version=__version__,
        )
        self._known: dict[str, Node] = {}
        self._alive: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._registered = asyncio.Event()
        self.trouble = ""
        """Why this node is not registered at present; `""`: it is."""

    async def start(self, patience: float) -> None:
        """Register. A cluster that does not answer within `patience` seconds is waited for in the background."""
        for work in (self._live, self._follow_networks, self._follow_nodes):
            self._tasks.append(asyncio.create_task(work()))
        try:
            await asyncio.wait_for(self._registered.wait(), patience)
        except TimeoutError:
            log.warning("not yet in the cluster: %s", self.trouble or "it does not answer")

    async def stop(self) -> None:
        """This node's containers go on, so it stays registered for as long as its lease lasts."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What is known

    @property
    def name(self) -> str:
        """This node's."""
        return self._me.name

    def all(self) -> list[tuple[Node, bool]]:
        """Every node by name, and whether it lives."""
        return [(node, self.lives(node.name)) for _, node in sorted(self._known.items())]

    def get(self, name: str) -> Node:
        if name not in self._known:
            raise NotFound(f"No such node: {name}")
        return self._known[name]

    def lives(self, name: str) -> bool:
        return name in self._alive

    async def remove(self, name: str, *, force: bool = False) -> int:
        """Free all that a node has which will not come back; how many endpoints those were. Begun again, it goes on where it was."""
        node = self.get(name)
        if name == self._me.name:
            raise Conflict(f"node {name} is this one: remove it from another node")
        if self.lives(name) and not force:
            raise Conflict(f"node {name} is alive: stop its daemon first, or use --force")
        count = 0
        store = self._cluster.store
        for endpoint in [endpoint for endpoint in await self._endpoints() if endpoint.node == name]:
            count += await self._cluster.release_known(endpoint)
        await routes.withdraw(store, name)
        await store.txn((), [Delete(f"{_NODES}{node.name}"), Delete(f"{_ALIVE}{node.name}")])
        return count

    async def endpoints_of(self, name: str) -> list[Endpoint]:
        self.get(name)
        return [endpoint for endpoint in await self._endpoints() if endpoint.node == name]

    async def _endpoints(self) -> list[Endpoint]:
        _, items = await self._cluster.store.range(f"{PREFIX}endpoints/")
        return [endpoint for item in items if (endpoint := decoded(item, Endpoint))]

    # That this node lives

    async def _live(self) -> None:
        while True:
            try:
                lease = await self._register()
                self.trouble = ""
                self._registered.set()
                await self._controller.cluster_back()
                while True:
                    await asyncio.sleep(TTL / _SIGNS)
                    await self._cluster.store.keep_alive(lease)
            except NotFound:
                log.warning("the cluster has taken this node for dead: registering again")
            except (Conflict, Unavailable) as error:
                if str(error) != self.trouble:
                    log.warning("this node is not in the cluster at present: %s", error)
                self.trouble = str(error)
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:
                log.exception("registering this node")
                await asyncio.sleep(AGAIN_SECONDS)

    async def _register(self) -> int:
        store, me = self._cluster.store, self._me
        alive, node = f"{_ALIVE}{me.name}", f"{_NODES}{me.name}"
        found, known = await store.get(alive), await store.get(node)
        other = decoded(known, Node) if known is not None else None
        if found is not None and found.value.decode(errors="replace") != me.identity:
            where = f" at {other.address}" if other is not None else ""
            raise Conflict(f"another node{where} calls itself {me.name}: give this one another --node NAME")
        lease = await store.lease(TTL)
        condition = Unchanged(alive, found.revision) if found is not None else Missing(alive)
        try:
            await store.txn([condition], [Put(alive, me.identity.encode(), lease), Put(node, encode(me))])
        except Lost as lost:
            raise Conflict(f"another node has just called itself {me.name}: give this one another --node NAME") from lost
        if other is not None and other.identity != me.identity:
            # Its state directory is a new one: what the old one had is nobody's.
            for endpoint in [endpoint for endpoint in await self._endpoints() if endpoint.node == me.name]:
                if endpoint.id not in {one.id for one in self._controller.endpoints()}:
                    await self._cluster.release_known(endpoint)
        return lease

    # What the others do

    async def _follow_networks(self) -> None:
        async def read(items: list[KeyValue]) -> None:
            await self._controller.know_networks([network for item in items if (network := decoded(item, Network))])

        async def take(event: Event) -> None:
            identity = event.key.removeprefix(_NETWORKS)
            if event.value is None:
                await self._controller.network_removed(identity)
            elif (network := decoded(event, Network)) is not None:
                await self._controller.network_added(network)

        await self._follow(_NETWORKS, read, take)

    async def _follow_nodes(self) -> None:
        await asyncio.gather(
            self._follow(_NODES, self._read_nodes, self._take_node),
            self._follow(_ALIVE, self._read_alive, self._take_alive),
        )

    async def _read_nodes(self, items: list[KeyValue]) -> None:
        self._known = {node.name: node for item in items if (node := decoded(item, Node))}

    async def _take_node(self, event: Event) -> None:
        name = event.key.removeprefix(_NODES)
        if event.value is None:
            self._known.pop(name, None)
        elif (node := decoded(event, Node)) is not None:
            self._known[name] = node

    async def _read_alive(self, items: list[KeyValue]) -> None:
        alive = {item.key.removeprefix(_ALIVE) for item in items}
        for name in {*self._known, *self._alive, *self._controller.peer_nodes()} - alive:
            await self._died(name)
        for name in alive:
            await self._lived(name)

    async def _take_alive(self, event: Event) -> None:
        name = event.key.removeprefix(_ALIVE)
        await (self._died(name) if event.value is None else self._lived(name))

    async def _died(self, name: str) -> None:
        if name in self._alive:
            log.warning("node %s has not been heard for %d seconds: its names are not answered", name, TTL)
        self._alive.discard(name)
        if name != self._me.name:
            await self._controller.node_died(name)

    async def _lived(self, name: str) -> None:
        if name not in self._alive:
            log.info("node %s lives", name)
        self._alive.add(name)
        await self._controller.node_lived(name)

    async def _follow(
        self, prefix: str, read: Callable[[list[KeyValue]], Awaitable[None]], take: Callable[[Event], Awaitable[None]]
    ) -> None:
        """All that there is, then each change; from the beginning when changes were missed."""
        store, revision = self._cluster.store, 0
        while True:
            try:
                if not revision:
                    seen, items = await store.range(prefix)
                    await read(items)
                    revision = seen + 1
                async for events in store.watch(prefix, revision):
                    for event in events:
                        await take(event)
                    revision = events[-1].revision + 1
                return
            except Compacted:
                revision = 0
            except Unavailable:
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:  # one key that somebody else wrote must not end the rest
                log.exception("following %s", prefix)
                revision = 0
                await asyncio.sleep(AGAIN_SECONDS)
