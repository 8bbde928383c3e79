"""Pools and addresses that are asked of IPAM drivers which are other processes, before there is the network or the endpoint of them.

As with drivers (`effects`): what is asked for is noted first, with no lock held, and the transaction that makes the record strikes it out;
or it is given back. What is lent is looked at as what a user has asked for: it may overlap, or be had already.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from netplug.addressing import Lender
from netplug.capability import Gatewayless
from netplug.controller.core import Core
from netplug.controller.effects import Effects
from netplug.controller.farewell import Farewell
from netplug.controller.joining import checked_mac
from netplug.controller.loans import lender_of, owner, pools_of
from netplug.controller.requests import EndpointRequest, NetworkRequest
from netplug.errors import InvalidArgument, NetplugError, PoolOverlap, Unavailable
from netplug.model import Endpoint, Family, Network, PoolConfig, new_id, now

T = TypeVar("T")
_ATTEMPTS = 16
"""How many pools that overlap are held until one does not."""


class Lending:
    """What is being asked for at present."""

    def __init__(self, core: Core, effects: Effects) -> None:
        self._core, self._effects, self._farewells = core, effects, effects.farewells

    @asynccontextmanager
    async def pools(self, request: NetworkRequest) -> AsyncIterator[NetworkRequest]:
        """The request with pools that have been lent; in the block the network gets its record."""
        core = self._core
        network = Network(
            id=request.id or new_id(),
            name=request.name,
            driver=request.driver,
            created=now(),
            ipv4=request.ipv4,
            ipv6=request.ipv6,
            ipam_driver=request.ipam_driver,
            ipam_finder=core.ipams.finder(request.ipam_driver),
            ipam_options=request.ipam_options,
            options=request.options,
        )
        driver = core.drivers.named(request.driver)
        if (lender := lender_of(core, network)) is None or not driver.capabilities.addresses:
            yield request
            return
        if driver.capabilities.scope != "local":
            raise InvalidArgument(f"IPAM driver {request.ipam_driver} is a plugin of this host: networks of all nodes cannot have it")
        async with self._noted() as noted:
            given: list[PoolConfig] = []
            for family, wanted in _wanted(request):
                given.append(await self._pool(lender, network, family, len(given), wanted, noted, given))
            yield msgspec.structs.replace(request, id=network.id, pools=tuple(given))

    @asynccontextmanager
    async def addresses(self, network: Network, sandbox: str, request: EndpointRequest) -> AsyncIterator[EndpointRequest]:
        """The request with addresses that have been lent; in the block the endpoint gets its record."""
        core = self._core
        if (lender := lender_of(core, network)) is None:
            yield request
            return
        endpoint = Endpoint(id=request.id or new_id(), network=network.id, sandbox=sandbox, created=now())
        await self._farewells.caught_up(Farewell(network=network, slot="4"))
        mac = checked_mac(request.mac)
        if not mac and await self._asked(lender.needs_mac(), network):
            mac = "02:42:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(4))
        given: dict[Family, str] = {}
        async with self._noted() as noted:
            for family, wanted in ((4, request.address), (6, request.address6)):
                if pools_of(network, family):  # type: ignore[arg-type]
                    given[family] = await self._address(lender, network, endpoint, family, wanted, mac, noted)  # type: ignore[index, arg-type]
            yield msgspec.structs.replace(
                request,
                id=endpoint.id,
                mac=mac,
                address=given.get(4, request.address),
                address6=given.get(6, request.address6),
                lent=tuple(family for family in given if not (request.address if family == 4 else request.address6)),
            )

    async def _pool(
        self,
        lender: Lender,
        network: Network,
        family: Family,
        number: int,
        wanted: PoolConfig,
        noted: list[Farewell],
        beside: list[PoolConfig],
    ) -> PoolConfig:
        """With its gateway and reserved addresses. Pools that overlap are held until another is there: else they would come again."""
        for attempt in range(_ATTEMPTS):
            word = f"{network.id}/{number}.{attempt}"
            farewell = Farewell(network=network, slot=str(number), pool=wanted, wanted=str(family), word=word)
            pool = await self._lent(farewell, lender.lend_pool(wanted, network.ipam_options, family, word), noted)
            farewell = await self._renoted(noted, farewell, pool=pool)
            if wanted.subnet or (other := self._overlapped(pool, beside)) is None:
                return await self._reserved(lender, farewell, wanted, noted)
            await self._moved(noted, farewell, f"{number}.{attempt}")
        raise PoolOverlap(
            f"IPAM driver {network.ipam_driver} has only subnets in the way of others ({pool.subnet}, {other}): give --subnet"
        )

    async def _reserved(self, lender: Lender, farewell: Farewell, wanted: PoolConfig, noted: list[Farewell]) -> PoolConfig:
        """A gateway is asked for where the user wants that one, or none came with the pool."""
        network, driver, pool = farewell.network, self._core.drivers.named(farewell.network.driver), farewell.pool
        assert pool is not None
        gatewayless = isinstance(driver, Gatewayless) and driver.gatewayless(network, 6 if ":" in pool.subnet else 4)
        if wanted.gateway or not (pool.gateway or gatewayless):
            gateway = await self._asked(lender.lend_gateway(pool, wanted.gateway, f"{farewell.word}/gateway"), network)
            pool = msgspec.structs.replace(pool, gateway=gateway)
            await self._renoted(noted, farewell, pool=pool)
        for name, address in pool.auxiliary.items():
            await self._asked(lender.lend(pool, address, "", f"{farewell.word}/{name}"), network)
        return pool

    async def _address(
        self, lender: Lender, network: Network, endpoint: Endpoint, family: Family, wanted: str, mac: str, noted: list[Farewell]
    ) -> str:
        """From the first of the network's pools that has one."""
        refused: NetplugError | None = None
        for number, pool in enumerate(pools_of(network, family)):
            word = f"{endpoint.id}/{family}.{number}"
            farewell = Farewell(network=network, endpoint=endpoint, slot=str(family), pool=pool, wanted=wanted, word=word)
            try:
                address = await self._lent(farewell, lender.lend(pool, wanted, mac, word), noted)
            except Unavailable:
                raise
            except NetplugError as error:
                refused = error
                continue
            if (other := owner(self._core, network, address)) is not None:
                await self._forgotten(noted, farewell)
                raise NetplugError(
                    f'IPAM driver "{network.ipam_driver}" has given {address} twice: {other.container_name or other.id} has it already'
                )
            await self._renoted(noted, farewell, address=address)
            return address
        assert refused is not None
        raise refused

    def _overlapped(self, pool: PoolConfig, beside: list[PoolConfig]) -> str | None:
        """What it is in the way of, on this host."""
        core = self._core
        taken = [one.subnet for network in core.records.networks.values() for one in network.pools]
        taken += [*(one.subnet for one in beside), *core.leases.unused(), *core.host_subnets()]
        block = ipaddress.ip_network(pool.subnet)
        return next((text for text in taken if (one := ipaddress.ip_network(text)).version == block.version and one.overlaps(block)), None)

    # Notes

    @asynccontextmanager
    async def _noted(self) -> AsyncIterator[list[Farewell]]:
        """What has been asked for within the block: with its end struck out by the record, or to be given back."""
        noted: list[Farewell] = []
        try:
            yield noted
        except BaseException:
            left = [one for one in noted if await self._core.store.get(one.key) is not None and not self._farewells.is_due(one)]
            self._farewells.due(*left)
            if not self._effects.ends:
                await self._farewells.told(*left)
            raise
        self._farewells.due(*(one for one in noted if "." in one.slot))

    async def _lent(self, farewell: Farewell, question: Coroutine[Any, Any, T], noted: list[Farewell]) -> T:
        try:
            await self._farewells.note(farewell)
        except BaseException:
            question.close()
            raise
        noted.append(farewell)
        try:
            return await self._asked(question, farewell.network)
        except Unavailable:
            raise
        except NetplugError:
            await self._forgotten(noted, farewell)
            raise

    async def _asked(self, question: Coroutine[Any, Any, T], network: Network) -> T:
        return await self._effects.asked(question, network.ipam_driver)

    async def _renoted(self, noted: list[Farewell], farewell: Farewell, **known: Any) -> Farewell:
        """With what is known of it now."""
        better = msgspec.structs.replace(farewell, **known)
        noted[:] = [better if one.key == farewell.key else one for one in noted]
        await self._farewells.note(better)
        return better

    async def _moved(self, noted: list[Farewell], farewell: Farewell, slot: str) -> None:
        """It is not what the network will have."""
        moved = msgspec.structs.replace(farewell, slot=slot)
        noted[:] = [moved if one.key == farewell.key else one for one in noted]
        await self._core.store.txn((), [*self._farewells.unsaid([farewell]), *self._farewells.written([moved])])

    async def _forgotten(self, noted: list[Farewell], farewell: Farewell) -> None:
        """There is nothing of it to be given back."""
        noted[:] = [one for one in noted if one.key != farewell.key]
        await self._farewells.unsay(farewell)


def _wanted(request: NetworkRequest) -> list[tuple[Family, PoolConfig]]:
    """A pool of each IP version at least, IPv4 first."""
    asked: dict[Family, list[PoolConfig]] = {4: [], 6: []}
    for pool in request.pools:
        text = pool.subnet or pool.ip_range or pool.gateway
        asked[6 if ":" in text or (not text and not request.ipv4) else 4].append(pool)
    enabled: dict[Family, bool] = {4: request.ipv4, 6: request.ipv6}
    return [(family, pool) for family, pools in asked.items() for pool in pools or ([PoolConfig(subnet="")] if enabled[family] else [])]
