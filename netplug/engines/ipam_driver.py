"""The IpamDriver half of the plugin: pools and addresses, held from the moment they are handed out.

The engine asks for a pool before it has a network. Where it does not like the answer (its host has a route there that we do not count) it
asks again while it holds the first, and gives that back afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable

from netplug.controller import Controller
from netplug.engines import shapes
from netplug.engines.greeting import GLOBAL, LOCAL
from netplug.engines.routes import Fields, Outcome, Table
from netplug.errors import InvalidArgument
from netplug.model import PoolConfig


class IpamDriver:
    """Handlers by method."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def table(self) -> Table:
        return {
            "IpamDriver.RequestPool": (shapes.RequestPool, self.request_pool),
            "IpamDriver.ReleasePool": (shapes.PoolRef, self.release_pool),
            "IpamDriver.RequestAddress": (shapes.RequestAddress, self.request_address),
            "IpamDriver.ReleaseAddress": (shapes.ReleaseAddress, self.release_address),
        }

    async def request_pool(self, body: shapes.RequestPool) -> Fields:
        if body.space not in (LOCAL, GLOBAL):
            raise InvalidArgument(f"no address space {body.space!r}: there are {LOCAL} and {GLOBAL}")
        options = dict(body.options or {})
        word = str(options.pop(shapes.REQUEST, ""))
        if options:
            raise InvalidArgument(f"unknown --ipam-opt {', '.join(sorted(options))}: there are none")
        if body.sub_pool and not body.pool:
            raise InvalidArgument(f"ip-range {body.sub_pool}: a --subnet that it is part of is needed")
        wanted = PoolConfig(subnet=body.pool, ip_range=body.sub_pool) if body.pool else None
        pool = await self._controller.request_pool(wanted, 6 if body.v6 else 4, word)
        return {"PoolID": pool.id, "Pool": pool.subnet, "Data": {}}

    async def release_pool(self, body: shapes.PoolRef) -> Fields:
        await self._controller.leases.release_pool(body.identity)
        return {}

    def request_address(self, body: shapes.RequestAddress) -> Outcome:
        options = body.options or {}
        if options.get(shapes.ADDRESS_TYPE) == shapes.GATEWAY:
            return self._told(self._controller.leases.request_gateway(body.identity, body.address))
        word = str(options.get(shapes.REQUEST, ""))
        address = self._controller.address_here(body.identity, body.address, word)
        if address is None:
            return self._told(self._controller.request_address(body.identity, body.address, word))
        return {"Address": address, "Data": {}}

    async def _told(self, address: Awaitable[str]) -> Fields:
        return {"Address": await address, "Data": {}}

    async def release_address(self, body: shapes.ReleaseAddress) -> Fields:
        await self._controller.release_address(body.identity, body.address)
        return {}
