"""Addresses of global networks that an engine asks for: free for it alone from that moment, on all nodes.

An engine asks for an address first, and for the endpoint that has it afterwards. In between another node could have been quicker.
"""

from __future__ import annotations

from netplug.controller.core import Core
from netplug.controller.membership import Membership
from netplug.errors import AddressInUse, NotFound, Unavailable
from netplug.model import Network
from netplug.store import Exists, Lost

_ATTEMPTS = 50


class Holding:
    """For the pools of this node's engines."""

    def __init__(self, core: Core, membership: Membership) -> None:
        self._core, self._membership = core, membership

    def here(self, pool: str, wanted: str, word: str) -> str | None:
        """An address of that pool with its prefix: `wanted`, or any. None: the other nodes have a say in it."""
        core = self._core
        identity = core.leases.pool(pool).network
        network = core.records.networks.get(identity)
        if network is not None and network.scope == "global":
            return None
        return core.leases.request_address(pool, wanted, core.allocators.get(identity, ()), word=word)

    async def request(self, pool: str, wanted: str, word: str) -> str:
        """The same, of any pool."""
        if (found := self.here(pool, wanted, word)) is not None:
            return found
        core = self._core
        identity = core.leases.pool(pool).network
        network, allocators = core.records.networks[identity], core.allocators.get(identity, ())
        cluster = self._membership.cluster()
        # What this node does not know it would lose. On the network it hears of all, and asks nobody to tell it everything.
        _, endpoints = await cluster.endpoints(identity) if identity not in core.joined else (0, ())
        elsewhere = {text.split("/")[0] for one in endpoints for text in (one.address, one.address6)}
        for _ in range(_ATTEMPTS):
            address = core.leases.request_address(pool, wanted, allocators, elsewhere, word)
            if await self._held(network, pool, address.split("/")[0], wanted):
                return address
            elsewhere.add(address.split("/")[0])
        raise Unavailable(f"no address of network {network.name} could be had: other nodes take them all the time; try again")

    async def _held(self, network: Network, pool: str, address: str, wanted: str) -> bool:
        """False where another node has it, and any would do."""
        try:
            await self._membership.cluster().hold(network.id, address)
        except BaseException as error:
            await self._core.leases.release_address(pool, address)
            self._core.give_back(network.id, address)
            if not isinstance(error, Lost):
                raise
            if isinstance(error.failed, Exists):
                raise NotFound(f"network {network.name} not found") from error
            if wanted:
                raise AddressInUse(wanted, "a container on another node") from error
            return False
        return True
