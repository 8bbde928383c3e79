"""The default IPAM driver: subnets from predefined pools or as asked for, addresses first free or serial."""

from __future__ import annotations

from collections.abc import Iterable

from netplug.addressing import AddressPools
from netplug.errors import PoolOverlap, PoolsExhausted
from netplug.model import Family, PoolConfig

from .allocator import PoolAllocator
from .block import parse_block
from .pools import GLOBAL, LOCAL, Pools, unique_local
from .requests import canonical, require_nothing_else, with_gateway


class DefaultIpam:
    """Implements `netplug.addressing.Ipam`. It takes no options; `serial` is asked for with each address."""

    def __init__(self, pools: AddressPools) -> None:
        self._pools = {"local": _complete(pools.local, LOCAL, pools.seed), "global": _complete(pools.global_, GLOBAL, pools.seed)}

    def request_pool(
        self,
        wanted: PoolConfig | None,
        taken: Iterable[str],
        options: dict[str, str],
        scope: str = "local",
        *,
        family: Family = 4,
        gateway: bool = True,
    ) -> PoolConfig:
        if wanted is not None and not wanted.subnet:
            require_nothing_else(wanted)
            wanted = None
        pool = self._predefined(taken, scope, family) if wanted is None else self._wanted(wanted, taken)
        return with_gateway(pool, choose=gateway)

    def allocator(self, pool: PoolConfig) -> PoolAllocator:
        return PoolAllocator(pool)

    def _wanted(self, wanted: PoolConfig, taken: Iterable[str]) -> PoolConfig:
        pool = canonical(wanted)
        subnet = parse_block(pool.subnet)
        if any(subnet.overlaps(parse_block(cidr)) for cidr in taken):
            raise PoolOverlap("Pool overlaps with other one on this address space")
        return pool

    def _predefined(self, taken: Iterable[str], scope: str, family: Family) -> PoolConfig:
        block = self._pools[scope].cut(family, [parse_block(cidr) for cidr in taken])
        if block is None:
            raise PoolsExhausted(
                f"could not find an available, non-overlapping IPv{family} address pool among the defaults to assign to the network"
            )
        return PoolConfig(subnet=str(block))


def _complete(bases: tuple[tuple[str, int], ...], ipv4: tuple[tuple[str, int], ...], seed: str) -> Pools:
    """The bases that were configured; for an IP version without one, the default."""
    configured = Pools(bases)
    missing = ipv4 if not configured.has(4) else ()
    return Pools((*bases, *missing, *(() if configured.has(6) else (unique_local(seed),))))
