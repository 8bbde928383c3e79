"""The addresses of one pool.

As in Docker 20.10, the subnet's network and broadcast addresses are never given, while the first and last address of an ip-range
inside the subnet are ordinary ones. In a /31 (RFC 3021) and a /32 every address can be used. Addresses are given from the range; a
particular one may be asked for anywhere in the subnet.
"""

from __future__ import annotations

from collections.abc import Iterator

from netplug.errors import AddressesExhausted, AddressInUse, AddressOutOfRange
from netplug.model import PoolConfig

from .bitmap import Bitmap
from .block import Block, parse_block


class PoolAllocator:
    """Implements `netplug.addressing.Allocator`. Positions are offsets from the subnet's first address."""

    def __init__(self, pool: PoolConfig) -> None:
        self._subnet = parse_block(pool.subnet)
        self._range = parse_block(pool.ip_range) if pool.ip_range else self._subnet
        self._first = self._range.first - self._subnet.first
        self._last = self._range.last - self._subnet.first
        self._reserved = _unusable(self._subnet) | {self._offset(address) for address in _spoken_for(pool)}
        self._taken = Bitmap()
        for offset in self._reserved:
            self._taken.set(offset)
        self._next = self._first

    def allocate(self, wanted: str = "", *, serial: bool = False) -> str:
        offset = self._specific(wanted) if wanted else self._any(self._next if serial else self._first)
        self._taken.set(offset)
        if not wanted:
            self._next = offset + 1
        return self._subnet.address(offset)

    def take(self, address: str) -> None:
        self._taken.set(self._offset(address))

    def release(self, address: str) -> None:
        """Free it. The addresses that the pool keeps for itself stay taken; one outside the pool is nobody's and so free already."""
        offset = self._subnet.offset(address)
        if offset is not None and offset not in self._reserved:
            self._taken.clear(offset)

    def taken(self) -> Iterator[str]:
        """All of them, the reserved ones too."""
        return map(self._subnet.address, self._taken)

    @property
    def capacity(self) -> int:
        """How many addresses of the range containers can get in all."""
        return self._range.size - sum(self._first <= offset <= self._last for offset in self._reserved)

    def _offset(self, address: str) -> int:
        offset = self._subnet.offset(address)
        if offset is None:
            raise AddressOutOfRange(f"Requested address out of range: {address} is not in {self._subnet}")
        return offset

    def _specific(self, address: str) -> int:
        offset = self._offset(address)
        if offset in self._taken:
            raise AddressInUse(address)
        return offset

    def _any(self, start: int) -> int:
        """The first free address of the range from `start` on, then from the range's beginning."""
        for candidate in (self._taken.first_clear(start), self._taken.first_clear(self._first)):
            if candidate <= self._last:
                return candidate
        within = f" (range {self._range})" if self._range != self._subnet else ""
        raise AddressesExhausted(f"no available addresses in pool {self._subnet}{within}")


def _unusable(subnet: Block) -> set[int]:
    """Network and broadcast address; IPv6 has no broadcast, but its first address is the routers' (RFC 4291, 2.6.1)."""
    if subnet.size <= 2:
        return set()
    return {0, subnet.size - 1} if subnet.family == 4 else {0}


def _spoken_for(pool: PoolConfig) -> list[str]:
    return [address for address in (pool.gateway, *pool.auxiliary.values()) if address]
