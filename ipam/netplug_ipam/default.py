"""The default IPAM driver: subnets from predefined pools or as asked for, addresses first free or serial."""

from __future__ import annotations

from collections.abc import Iterable

from netplug.addressing import AddressPools
from netplug.errors import PoolOverlap, PoolsExhausted
from netplug.model import PoolConfig

from .allocator import PoolAllocator
from .block import parse_block
from .pools import GLOBAL, LOCAL, Pools
from .requests import canonical, require_nothing_else, with_gateway


class DefaultIpam:
    """Implements `netplug.addressing.Ipam`. It takes no options; `serial` is asked for with each address."""

    def __init__(self, pools: AddressPools) -> None:
        self._pools = {"local": Pools(pools.local or LOCAL), "global": Pools(pools.global_ or GLOBAL)}

    def request_pool(self, wanted: PoolConfig | None, taken: Iterable[str], options: dict[str, str], scope: str = "local") -> PoolConfig:
        if wanted is not None and wanted.subnet:
            return with_gateway(self._wanted(wanted, taken))
        if wanted is not None:
            require_nothing_else(wanted)
        return with_gateway(self._predefined(taken, scope))

    def allocator(self, pool: PoolConfig) -> PoolAllocator:
        return PoolAllocator(pool)

    def _wanted(self, wanted: PoolConfig, taken: Iterable[str]) -> PoolConfig:
        pool = canonical(wanted)
        subnet = parse_block(pool.subnet)
        if any(subnet.overlaps(parse_block(cidr)) for cidr in taken):
            raise PoolOverlap("Pool overlaps with other one on this address space")
        return pool

    def _predefined(self, taken: Iterable[str], scope: str) -> PoolConfig:
        block = self._pools[scope].cut([parse_block(cidr) for cidr in taken])
        if block is None:
            raise PoolsExhausted(
                "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
            )
        return PoolConfig(subnet=str(block))
