"""The IPAM interface: where subnets and addresses come from.

An IPAM driver is pure as a network driver is: it decides, it does not store. The controller tells it at start what is taken, asks it
for pools and addresses, and writes the answer into the store in the same transaction as the record that needs it. Found by entry point
in group `netplug.ipam`; called with the daemon's `AddressPools`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Protocol

import msgspec

from netplug.errors import NotFound
from netplug.model import Family, PoolConfig

GROUP = "netplug.ipam"


class AddressPools(msgspec.Struct, frozen=True, kw_only=True):
    """Where subnets are cut from when the user gives none: `(base CIDR, prefix length)` pairs, in order. Empty: Docker's.

    An IP version without a base has its own default: for IPv6 a prefix of unique local addresses that comes of `seed`, which should
    be this daemon's alone and always the same.
    """

    local: tuple[tuple[str, int], ...] = ()
    global_: tuple[tuple[str, int], ...] = ()
    seed: str = ""


class Allocator(Protocol):
    """The addresses of one pool. Addresses are text without prefix."""

    def allocate(self, wanted: str = "", *, serial: bool = False) -> str:
        """An address nobody has: `wanted` itself, or the first free (`serial`: the next free after the last one given).

        AddressInUse, AddressOutOfRange or AddressesExhausted say why not.
        """

    def take(self, address: str) -> None:
        """Note that somebody has `address` (from the store, or reserved). Taking twice is fine."""

    def release(self, address: str) -> None:
        """Free it; freeing a free one is fine."""

    def taken(self) -> Iterable[str]:
        """In ascending order."""

    @property
    def capacity(self) -> int:
        """How many addresses containers can get from this pool in all."""


class Ipam(Protocol):
    """One IPAM driver."""

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
        """A pool that overlaps none of `taken` (CIDRs of other networks and of the host's routes), its gateway chosen.

        `wanted` None: cut from the predefined pools of `family`, passing over what overlaps. Without `gateway` none is chosen, so that
        its address is free. InvalidArgument, PoolOverlap, PoolsExhausted.
        """

    def allocator(self, pool: PoolConfig) -> Allocator:
        """A fresh allocator: network, broadcast, gateway and auxiliary addresses are taken in it."""


class Ipams:
    """The registry of IPAM drivers."""

    def __init__(self, pools: AddressPools) -> None:
        self._pools = pools
        self._loaded: dict[str, Ipam] = {}

    def get(self, name: str) -> Ipam:
        if name not in self._loaded:
            found = {point.name: point for point in entry_points(group=GROUP)}
            if name not in found:
                raise NotFound(f'plugin "{name}" not found: the IPAM drivers here are {", ".join(sorted(found))}')
            self._loaded[name] = found[name].load()(self._pools)
        return self._loaded[name]
