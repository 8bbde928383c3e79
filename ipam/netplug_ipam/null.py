"""The null IPAM driver, for networks whose containers get no addresses from us (somebody else's DHCP, or none at all).

Its one pool has the subnet `""`: there is none, and a network keeps no pool of that kind. Its allocators have nothing to give, which
is the address `""`.
"""

from __future__ import annotations

from collections.abc import Iterable

from netplug.addressing import AddressPools
from netplug.errors import InvalidArgument
from netplug.model import Family, PoolConfig


class NullIpam:
    """Implements `netplug.addressing.Ipam`; every caller has the same nothing, so nothing can overlap."""

    def __init__(self, pools: AddressPools) -> None:
        """The predefined pools are not for it."""

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
        if wanted is not None and wanted.subnet:
            raise InvalidArgument("null ipam driver does not handle specific address pool requests")
        if wanted is not None and wanted.ip_range:
            raise InvalidArgument("null ipam driver does not handle specific address subpool requests")
        if wanted is not None and (wanted.gateway or wanted.auxiliary):
            raise InvalidArgument("null ipam driver does not handle specific address requests")
        return PoolConfig(subnet="")

    def allocator(self, pool: PoolConfig) -> NullAllocator:
        return NullAllocator()


class NullAllocator:
    """Implements `netplug.addressing.Allocator`."""

    capacity = 0

    def allocate(self, wanted: str = "", *, serial: bool = False) -> str:
        if wanted:
            raise InvalidArgument("null ipam driver does not handle specific address requests")
        return ""

    def take(self, address: str) -> None:
        """Whoever has an address here has it from somebody else."""

    def release(self, address: str) -> None:
        """Nothing was given."""

    def taken(self) -> Iterable[str]:
        return ()
