"""The nodes of a cluster, as their registrations tell.

`nodes/<name>` is what a node says of itself, and stays when it is away; `alive/<name>` is leased, and goes when the node has not been heard
for a while. A name belongs to one state directory: two daemons that call themselves the same are told so.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

from netplug import __version__
from netplug.cluster import routes
from netplug.controller import Controller
from netplug.controller.cluster import Cluster, decoded
from netplug.errors import Conflict, NotFound, Unavailable
from netplug.model import Endpoint, Network, Node, encode, now
from netplug.store import PREFIX, Compacted, Compare, Delete, Event, KeyValue, Lost, Missing, Put, Unchanged

log = logging.getLogger(__name__)

TTL = float(os.environ.get("NETPLUG_NODE_TTL", "10"))
"""Seconds without a sign of life after which a node's names are answered no more. The environment's are for tests."""
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
            port=cluster.underlay.port,
        )
        self._known: dict[str, Node] = {}
        self._alive: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = asyncio.Event()
        """Whether this node may be in the cluster has been decided."""
        self._since = self._gone = 0
        """Revisions at which this node last came to be among those that live, and was last seen to be gone from there."""
        self._wakeup = asyncio.Event()
        self.trouble = ""
        """Why this node is not registered at present; `""`: it is."""

    async def start(self, patience: float) -> None:
        """Register. A cluster that does not answer within `patience` seconds is waited for in the background."""
        for work in (self._live, self._follow_networks, self._follow_nodes):
            self._tasks.append(asyncio.create_task(work()))
        try:
            async with asyncio.timeout(patience):
                await self._answered.wait()
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
        """Every node by name, and whether it lives: this one too, which does not as long as it is not registered."""
        return [(node, self.lives(node.name)) for _, node in sorted({self.name: self._me, **self._known}.items())]

    def is_me(self, node: Node) -> bool:
        """Another one may have the name."""
        return (node.identity, node.incarnation) == (self._me.identity, self._me.incarnation)

    def get(self, name: str) -> Node:
        if name not in self._known:
            raise NotFound(f"No such node: {name}")
        return self._known[name]

    def lives(self, name: str) -> bool:
        return name in self._alive

    async def remove(self, name: str, *, force: bool = False) -> int:
        """Free all that a node has which will not come back; how many endpoints those were. Begun again, it goes on where it was."""
        cluster, store = self._cluster, self._cluster.store
        await cluster.admission.wait()
        if name == self._me.name:
            raise Conflict(f"node {name} is this one: remove it from another node")
        condition = None if force else Missing(f"{_ALIVE}{name}")
        try:
            endpoints = await self._endpoints_of(name)
            if not endpoints:
                self.get(name)
            count = await cluster.release_all(endpoints, condition)
            await routes.withdraw(store, name)
            gone: list[Compare] = [condition] if condition is not None else []
            await store.txn(gone, [Delete(f"{_NODES}{name}"), Delete(f"{_ALIVE}{name}")])
        except Lost as lost:
            raise Conflict(f"node {name} is alive: stop its daemon first, or use --force") from lost
        return count

    async def endpoints_of(self, name: str) -> list[Endpoint]:
        self.get(name)
        return await self._endpoints_of(name)

    async def _endpoints_of(self, name: str) -> list[Endpoint]:
        _, endpoints = await self._cluster.endpoints()
        return [endpoint for endpoint in endpoints if endpoint.node == name]

    # That this node lives

    async def _live(self) -> None:
        lease, told = 0, False
        while True:
            pause = AGAIN_SECONDS
            self._wakeup.clear()
            try:
                if lease and self._gone <= self._since:
                    await self._cluster.store.keep_alive(lease)
                else:
                    lease, told = 0, False
                    lease, self._since = await self._register()
                self._answered.set()
                self._cluster.admission.grant()
                if not told:
                    await self._controller.cluster_back()
                told, self.trouble, pause = True, "", TTL / _SIGNS
            except NotFound:
                log.warning("the cluster has taken this node for dead: registering again")
                lease, pause = 0, 0 if lease else AGAIN_SECONDS
            except (Conflict, Unavailable) as error:
                if str(error) != self.trouble:
                    log.warning("this node is not in the cluster at present: %s", error)
                self.trouble = self._cluster.admission.trouble = str(error)
                if isinstance(error, Conflict):
                    self._cluster.admission.refuse(self.trouble)
                    self._answered.set()
            except Exception:
                log.exception("registering this node")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wakeup.wait()

    async def _register(self) -> tuple[int, int]:
        """The lease, and the revision since when it counts."""
        store, me = self._cluster.store, self._me
        alive, node = f"{_ALIVE}{me.name}", f"{_NODES}{me.name}"
        found, known = await store.get(alive), await store.get(node)
        other = decoded(known, Node) if known is not None else None
        if found is not None and found.value.decode(errors="replace") != me.identity:
            where = f" at {other.address}" if other is not None else ""
            raise Conflict(f"another node{where} calls itself {me.name}: give this one another --node NAME")
        if found is not None and other is not None and other.incarnation != me.incarnation and other.address != me.address:
            raise Conflict(
                f"another node at {other.address} calls itself {me.name}, with a copy of this one's state directory: give this one another"
                " --node NAME and a --state-dir of its own"
            )
        if found is None and other is not None and other.identity != me.identity and other.address != me.address:
            # It may be cut off, with containers that run: what it has is not ours to take.
            raise Conflict(
                f"a node {me.name} at {other.address}, which is away, is in the cluster already: give this one another --node NAME, or"
                f" remove that one first on another node: netplug node rm {me.name}"
            )
        await self._check_company()
        lease = await store.lease(TTL)
        condition = Unchanged(alive, found.revision) if found is not None else Missing(alive)
        try:
            revision = await store.txn([condition], [Put(alive, me.identity.encode(), lease), Put(node, encode(me))])
        except Lost as lost:
            raise Conflict(f"another node has just called itself {me.name}: give this one another --node NAME") from lost
        return lease, revision

    async def _check_company(self) -> None:
        """Conflict with a node that lives and that no frame of this one's would reach."""
        (_, nodes), (_, living) = await self._cluster.store.range(_NODES), await self._cluster.store.range(_ALIVE)
        names = {item.key.removeprefix(_ALIVE) for item in living} - {self._me.name}
        for node in filter(None, (decoded(item, Node) for item in nodes)):
            if node.name not in names:
                continue
            if (":" in node.address) != (":" in self._me.address):
                raise Conflict(
                    f"node {node.name} is at {node.address}: all nodes of a cluster need addresses of one IP version, give this one such an"
                    f" --advertise, not {self._me.address}"
                )
            if node.port not in (0, self._me.port):
                raise Conflict(f"node {node.name} uses UDP port {node.port}: give this one --vxlan-port {node.port}, not {self._me.port}")

    # What the others do

    async def _follow_networks(self) -> None:
        async def read(items: list[KeyValue], revision: int) -> None:
            await self._controller.know_networks([network for item in items if (network := decoded(item, Network))], revision)

        async def take(event: Event) -> None:
            identity = event.key.removeprefix(_NETWORKS)
            if event.value is None:
                await self._controller.network_removed(identity, event.revision)
            elif (network := decoded(event, Network)) is not None:
                await self._controller.network_added(network, event.revision)

        await self._follow(_NETWORKS, read, take)

    async def _follow_nodes(self) -> None:
        await asyncio.gather(
            self._follow(_NODES, self._read_nodes, self._take_node),
            self._follow(_ALIVE, self._read_alive, self._take_alive),
        )

    async def _read_nodes(self, items: list[KeyValue], revision: int) -> None:
        self._known = {node.name: node for item in items if (node := decoded(item, Node))}

    async def _take_node(self, event: Event) -> None:
        name = event.key.removeprefix(_NODES)
        if event.value is None:
            self._known.pop(name, None)
        elif (node := decoded(event, Node)) is not None:
            self._known[name] = node

    async def _read_alive(self, items: list[KeyValue], revision: int) -> None:
        await self._see({item.key.removeprefix(_ALIVE) for item in items}, revision)

    async def _take_alive(self, event: Event) -> None:
        name = {event.key.removeprefix(_ALIVE)}
        await self._see(self._alive - name if event.value is None else self._alive | name, event.revision)

    async def _see(self, alive: set[str], revision: int) -> None:
        """These nodes live."""
        before, self._alive = self._alive, alive
        for name in sorted(before - alive - {self._me.name}):
            log.warning("node %s has not been heard for %d seconds: its names are not answered", name, TTL)
        for name in sorted(alive - before - {self._me.name}):
            log.info("node %s lives", name)
        if self._me.name in before - alive:
            self._gone = revision
            self._wakeup.set()
        await self._controller.nodes_live(alive)

    async def _follow(
        self, prefix: str, read: Callable[[list[KeyValue], int], Awaitable[None]], take: Callable[[Event], Awaitable[None]]
    ) -> None:
        """All that there is, then each change; from the beginning when changes were missed."""
        store, revision = self._cluster.store, 0
        while True:
            try:
                if not revision:
                    seen, items = await store.range(prefix)
                    await read(items, seen)
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
