"""The IPAM interface: where subnets and addresses come from.

An IPAM driver is pure as a network driver is: it decides, it does not store. The controller tells it at start what is taken, asks it
for pools and addresses, and writes the answer into the store in the same transaction as the record that needs it. Found by entry point
in group `netplug.ipam`; called with the daemon's `AddressPools`. One that is another process lends (`Lender`): it is asked before there is
a record, and its answers are what is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

import msgspec

from netplug.errors import NotFound
from netplug.model import Family, PoolConfig

GROUP = "netplug.ipam"
FINDERS = "netplug.ipam_finders"


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


@runtime_checkable
class Lender(Protocol):
    """An IPAM driver beside `Ipam` that asks another process for what it gives; its networks are of scope `local`.

    No lock is held while it is asked, and each call ends within a time limit of its own. Unavailable: nobody has answered, and it may have
    been done or not; any other NetplugError: it was refused. `request` is the same whenever the same is asked for: who knows the word
    answers the same again.
    """

    async def lend_pool(self, wanted: PoolConfig, options: dict[str, str], family: Family, request: str) -> PoolConfig:
        """A pool with its `handle`; with its gateway where that comes by itself. `wanted` with subnet `""`: any."""

    async def lend_gateway(self, pool: PoolConfig, wanted: str, request: str) -> str:
        """An address without prefix; `""`: the pool has none to give."""

    async def lend(self, pool: PoolConfig, wanted: str, mac: str, request: str) -> str:
        """An address of the pool without prefix: `wanted`, or any."""

    async def needs_mac(self) -> bool:
        """Whether it gives none to who has no MAC."""

    async def take_back(self, pool: PoolConfig, address: str) -> None: ...

    async def take_back_pool(self, pool: PoolConfig) -> None: ...

    async def recalls(self) -> bool:
        """Whether it knows the word; else what was in an answer that was lost stays taken there."""


class IpamFinder(Protocol):
    """Called with the daemon's `AddressPools`."""

    noun: str
    """What it finds, for people: `plugins`."""

    def names(self) -> Iterable[str]:
        """Of what is there now."""

    def ipam(self, name: str) -> Ipam:
        """The IPAM driver of that name, whether it is there now or not: its networks are there while it is away."""


class Ipams:
    """The registry of IPAM drivers."""

    def __init__(self, pools: AddressPools) -> None:
        self._pools = pools
        self._loaded: dict[tuple[str, str], Ipam] = {}
        self._finders: dict[str, IpamFinder] = {}

    def get(self, name: str, finder: str = "") -> Ipam:
        """The driver of that name, from a finder or from none; NotFound names those there are."""
        if (finder, name) not in self._loaded:
            self._loaded[finder, name] = self._found(finder).ipam(name) if finder else self._load(name)
        return self._loaded[finder, name]

    def finder(self, name: str) -> str:
        """The name of the finder that finds this driver; `""` where it is found without, or not at all."""
        if ("", name) in self._loaded or name in _points(GROUP):
            return ""
        return next((finder for finder in sorted(_points(FINDERS)) if name in self._found(finder).names()), "")

    def _load(self, name: str) -> Ipam:
        points = _points(GROUP)
        if name not in points:
            words = [f"the IPAM drivers here are {', '.join(sorted(points))}"]
            for found in map(self._found, sorted(_points(FINDERS))):
                if there := sorted(found.names()):
                    words.append(f"the {found.noun} here are {', '.join(there)}")
            raise NotFound(f'plugin "{name}" not found: {"; ".join(words)}')
        ipam: Ipam = points[name].load()(self._pools)
        return ipam

    def _found(self, name: str) -> IpamFinder:
        if name not in self._finders:
            points = _points(FINDERS)
            if name not in points:
                raise NotFound(f"IPAM drivers cannot be looked for: no {name} is installed")
            self._finders[name] = points[name].load()(self._pools)
        return self._finders[name]


def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
