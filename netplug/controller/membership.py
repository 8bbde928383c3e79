"""Which global networks this node is on: it joins one with the first endpoint here, and leaves it with the last.

While it is on a network it follows the others' endpoints there, and has something of the network in the kernel.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from netplug.controller.cluster import Cluster
from netplug.controller.core import Core
from netplug.controller.debts import Debts
from netplug.controller.follower import Follower, Own
from netplug.controller.peers import Peers
from netplug.controller.records import update_endpoint
from netplug.errors import Unavailable
from netplug.model import Endpoint, Network

HEARD_SECONDS = 0.1
"""In which this node hears of what was decided in the cluster, most of the time."""


class Membership:
    """Of this node."""

    def __init__(self, core: Core, peers: Peers, debts: Debts) -> None:
        self._core, self._peers, self._debts = core, peers, debts
        self._entering: Counter[str] = Counter()
        """By network: endpoints that are being made here."""
        self._made = asyncio.Event()
        """One has come to be, or has not."""
        self._networks: dict[str, Network] = {}
        """Those that are joined; one that is gone from the records is left all the same."""
        self._followers: dict[str, Follower] = {}
        self.own: Own = _nothing
        """Called with the endpoints of this node that the cluster has on a network, whenever that has been read anew."""
        self.moved: Callable[[Network, bool], None] = lambda network, joined: None
        """Called when a network has been joined (True) or is left."""

    def cluster(self) -> Cluster:
        """Unavailable where there is none."""
        if self._core.cluster is None:
            raise Unavailable("this host is in no cluster: start the daemon with --store etcd://HOST:PORT and --advertise ADDRESS")
        return self._core.cluster

    async def close(self) -> None:
        await asyncio.gather(*(follower.stop() for follower in self._followers.values()))

    async def restore(self) -> None:
        """At start: the networks that endpoints here are on, as they were known at the end."""
        core = self._core
        for endpoint in list(core.records.endpoints.values()):
            network = core.records.networks[endpoint.network]
            if network.scope == "global":
                core.joined.add(network.id)
                self._networks[network.id] = network
                if core.cluster is not None and (now := core.cluster.here(endpoint)) != endpoint:
                    core.records.add_endpoint(now)
                    await core.store.txn((), [update_endpoint(now)])

    def follow(self) -> None:
        """Once all is restored: see what has changed meanwhile, and go on from there."""
        if self._core.cluster is not None:
            for network in self._networks.values():
                self._start(network)

    def read_anew(self, network: str = "") -> None:
        """Of that network, or of all: something may have been missed."""
        for identity, follower in self._followers.items():
            if network in ("", identity):
                follower.read_anew()

    async def hear(self, network: Network, known: Callable[[], bool]) -> None:
        """Until that is so by what the others do, or does not come to be so soon."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARD_SECONDS):
                while network.id in self._followers and not known():
                    await self._followers[network.id].turn()

    @asynccontextmanager
    async def entered(self, network: Network) -> AsyncIterator[None]:
        """This node is on the network during the block, and stays if there is an endpoint then."""
        self._entering[network.id] += 1
        try:
            try:
                async with self._core.lock(network.id):
                    if network.id not in self._core.joined:
                        await self._join(network)
                yield
            finally:
                self._entering[network.id] -= 1
                self._made.set()
        except BaseException:
            await self.left(network.id)
            raise

    async def decided(self, identity: str) -> None:
        """Until no endpoint is being made here on that network."""
        while self._entering[identity]:
            self._made.clear()
            await self._made.wait()

    async def left(self, identity: str) -> None:
        """An endpoint on that network has gone, or did not come to be."""
        core = self._core
        async with core.lock(identity):
            if not self._entering[identity] and not core.records.of_network(identity) and identity in core.joined:
                await self._part(self._networks[identity])

    async def _join(self, network: Network) -> None:
        core, cluster = self._core, self.cluster()
        revision, endpoints = await cluster.endpoints(network.id)
        core.joined.add(network.id)
        self._networks[network.id] = network
        try:
            await core.apply("network join", network.name, core.network_plan(network))
            await self._peers.replace(network, [endpoint for endpoint in endpoints if endpoint.node != cluster.node])
            core.note(core.peers_plan(network, core.peers[network.id].values()))
        except BaseException:
            await self._part(network)
            raise
        self.moved(network, True)
        self._start(network, revision + 1)
        await self._debts.take_over(
            endpoint for endpoint in endpoints if endpoint.node == cluster.node and endpoint.id not in cluster.claiming
        )

    async def _part(self, network: Network) -> None:
        core = self._core
        core.joined.discard(network.id)
        self._networks.pop(network.id, None)
        if (follower := self._followers.pop(network.id, None)) is not None:
            await follower.stop()
        self.moved(network, False)
        await core.remove("network leave", network.name, core.driver(network).delete_network(network))
        await self._peers.forget(network)

    def _start(self, network: Network, revision: int = 0) -> None:
        self._followers[network.id] = follower = Follower(self._core, self.cluster(), self._peers, self._debts, network, self.own)
        follower.start(revision)


async def _nothing(network: Network, endpoints: list[Endpoint]) -> None:
    """Nobody minds."""
