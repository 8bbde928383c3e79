"""What IPAM drivers that are other processes have lent: whose it is, and how it is given back."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from netplug.addressing import Ipam, Lender
from netplug.controller.core import Core, log
from netplug.controller.farewell import Farewell
from netplug.errors import NetplugError, Unavailable
from netplug.model import Endpoint, Family, Network, PoolConfig


@lru_cache
def _lends(kind: type[Ipam]) -> bool:
    return issubclass(kind, Lender)


def lender_of(core: Core, network: Network) -> Lender | None:
    """None where its IPAM driver decides here."""
    ipam = core.ipams.get(network.ipam_driver, network.ipam_finder)
    return ipam if _lends(type(ipam)) and isinstance(ipam, Lender) else None


def is_lent(core: Core, network: Network) -> bool:
    """Whether its pools and addresses are."""
    return lender_of(core, network) is not None


def pools_of(network: Network, family: Family) -> list[PoolConfig]:
    return [pool for pool in network.pools if (":" in pool.subnet) == (family == 6)]


def lent_addresses(network: Network, endpoint: Endpoint) -> Iterator[tuple[str, PoolConfig, str]]:
    """Of each the slot, the pool and the address without prefix."""
    for slot, text in (("4", endpoint.address), ("6", endpoint.address6)):
        address = text.split("/")[0]
        for pool in network.pools:
            if address and ipaddress.ip_address(address) in ipaddress.ip_network(pool.subnet):
                yield slot, pool, address


def owner(core: Core, network: Network, address: str) -> Endpoint | None:
    """Who has it here."""
    endpoints = core.records.of_network(network.id)
    return next((one for one in endpoints if address in (one.address.split("/")[0], one.address6.split("/")[0])), None)


async def give_back(core: Core, farewell: Farewell) -> None:
    """Unavailable, or another NetplugError where it is refused."""
    lender = lender_of(core, farewell.network)
    if lender is None or farewell.pool is None:
        raise NetplugError(f"IPAM driver {farewell.network.ipam_driver} is another one by now")
    if not (farewell.pool.handle if farewell.endpoint is None else farewell.address):
        if not await lender.recalls():
            log.warning("%s: plugin %s was asked for it and its answer was lost: it may hold it", farewell, farewell.network.ipam_driver)
            return
        farewell = await _asked_again(lender, farewell)
    assert farewell.pool is not None
    if farewell.endpoint is None:
        await _give_back_pool(lender, farewell.pool)
    elif owner(core, farewell.network, farewell.address) is None:  # it may have been lent anew by now, to another endpoint here
        await lender.take_back(farewell.pool, farewell.address)


async def _give_back_pool(lender: Lender, pool: PoolConfig) -> None:
    for address in filter(None, (pool.gateway, *pool.auxiliary.values())):
        try:
            await lender.take_back(pool, address)
        except Unavailable:
            raise
        except NetplugError as error:
            log.debug("%s of %s: %s", address, pool.subnet, error)
    await lender.take_back_pool(pool)


async def _asked_again(lender: Lender, farewell: Farewell) -> Farewell:
    """With the answer that was lost."""
    assert farewell.pool is not None
    if farewell.endpoint is not None:
        address = await lender.lend(farewell.pool, farewell.wanted, "", farewell.word)
        return msgspec.structs.replace(farewell, address=address)
    family: Family = 6 if ":" in farewell.pool.subnet or farewell.wanted == "6" else 4
    pool = await lender.lend_pool(farewell.pool, farewell.network.ipam_options, family, farewell.word)
    return msgspec.structs.replace(farewell, pool=pool)
