"""What endpoints here claim in the cluster, and give back: names and addresses that are theirs alone on all nodes.

The cluster is asked while kernel and records do their part: neither waits for the other, and only what the cluster grants stays. What a
daemon that dies has in one of them only, the next one finds: in the cluster as this node's without a record here, in the kernel as ours
without a record, in the records without a place in the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

from netplug.controller.cluster import Cluster
from netplug.controller.company import Company, Stretch
from netplug.controller.core import Core, log
from netplug.controller.debts import Debts
from netplug.controller.membership import Membership
from netplug.errors import AddressInUse, Conflict, NotFound, Unavailable
from netplug.model import Endpoint, Network
from netplug.store import Exists, Lost

T = TypeVar("T")

Answer: TypeAlias = asyncio.Task[T]
"""Of the cluster, which has been asked."""
Draft: TypeAlias = Callable[[Stretch | None], Endpoint]
Attach: TypeAlias = Callable[[Endpoint, Answer[None]], Awaitable[Endpoint]]

_ATTEMPTS = 50
"""How often an address is chosen anew because another node was quicker."""
_TURNS = 3
"""Of the event loop, until a question is on its way: what then keeps the loop busy does so while the cluster thinks."""


class Claims:
    """Of this node's endpoints on global networks."""

    def __init__(self, core: Core, membership: Membership, debts: Debts) -> None:
        self._core, self._membership, self.debts = core, membership, debts
        self._company = Company()

    async def attached(self, network: Network, draft: Draft, attach: Attach) -> Endpoint:
        """What `attach` makes of an endpoint whose name and addresses are its own in the whole cluster.

        `draft` takes addresses out of the pools as they are known here: the first free ones, or those of a stretch. `attach` has the
        cluster's answer among what it waits for, undoes everything when that is an error, and clears the debt; it is called again with
        other addresses where the first were another node's.
        """
        async with self._membership.entered(network):
            return await self._attached(self._membership.cluster(), network, draft, attach)

    async def _attached(self, cluster: Cluster, network: Network, draft: Draft, attach: Attach) -> Endpoint:
        """What was lost to others stays taken until there is one to be had, so that none is tried twice."""
        core = self._core
        drafts: list[Endpoint] = []
        try:
            while len(drafts) < _ATTEMPTS:
                endpoint = cluster.here(draft(self._company.stretch(network.id)))
                core.take(endpoint)
                drafts.append(endpoint)
                try:
                    attached = await self._try(cluster, endpoint, attach)
                except Lost as lost:
                    taken = _taken(network, endpoint, lost)
                else:
                    drafts.pop()
                    return attached
                if not self._company.lost(network.id):
                    await self._membership.hear(network, partial(core.held, endpoint, taken))
        finally:
            for endpoint in drafts:
                core.free(endpoint)
        raise Unavailable(f"no address of network {network.name} could be had: other nodes take them all the time; try again")

    async def _try(self, cluster: Cluster, endpoint: Endpoint, attach: Attach) -> Endpoint:
        """Given back if it fails. Lost: name or address is another's."""
        cluster.claiming.add(endpoint.id)
        self.debts.expect(endpoint)
        claim = asyncio.create_task(cluster.claim(endpoint))
        try:
            await _under_way(cluster, claim)
            attached = await attach(endpoint, claim)
        except BaseException:
            await self._take_back(cluster, endpoint, claim)
            raise
        cluster.claiming.discard(endpoint.id)
        self.debts.forget(endpoint.id)
        return attached

    async def _take_back(self, cluster: Cluster, endpoint: Endpoint, claim: Answer[None]) -> None:
        """At once where it has been granted, later where nobody could say."""
        try:
            error = await _error(claim)
        finally:
            cluster.claiming.discard(endpoint.id)
        if error is None:
            await self.debts.settle(endpoint)
        elif isinstance(error, Lost):
            self.debts.forget(endpoint.id)
        else:
            self.debts.remind()

    @asynccontextmanager
    async def parting(self, endpoint: Endpoint, *, at_once: bool) -> AsyncIterator[Answer[bool] | None]:
        """Within the block the endpoint goes from records and kernel, while its name and addresses come free in the cluster.

        What the user wants to go goes `at_once` or not at all: the block waits for the cluster's answer, puts all back when that is an
        error, and clears the debt. Else there is no answer to wait for, and the endpoint is given back later.
        """
        if not endpoint.node:
            yield None
            return
        cluster = self._membership.cluster()
        cluster.leaving.add(endpoint.id)
        release: Answer[bool] | None = None
        try:
            self.debts.expect(endpoint)
            if at_once:
                release = asyncio.create_task(cluster.release_known(endpoint))
                await _under_way(cluster, release)
            yield release
        except BaseException:
            if release is not None:
                await _error(release)
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
        if not self._membership.cluster().admission.granted:
            return []
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


async def _under_way(cluster: Cluster, answer: Answer[Any]) -> None:
    """The question has gone out. Where the cluster is known to be away, the answer has come: what is done meanwhile would be undone."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    if not getattr(cluster.store, "healthy", True):
        await answer


async def _error(answer: Answer[Any]) -> BaseException | None:
    """What has become of it, once it is there."""
    await asyncio.wait([answer])
    return asyncio.CancelledError() if answer.cancelled() else answer.exception()


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
