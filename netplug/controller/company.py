"""Other nodes that take addresses of the same network at the same time, and how this one keeps out of their way.

As long as a node is alone its addresses come in order, the first free one each. Who is late once may not have heard of the last claim yet:
the next one in order will do. Who is late again and again has company, and goes on elsewhere, in a stretch of its own, for as long as the
rush lasts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from netplug.addressing import Allocator
from netplug.errors import AddressInUse
from netplug.model import PoolConfig

CALM_SECONDS = 1.0
"""Without an address lost or taken in company, after which a node takes itself to be alone."""
FEW = 2
"""Addresses lost in a row that do not make company."""
_TRIES = 20


class Stretch:
    """Addresses in a row, from anywhere in a pool on; elsewhere once it meets one that is taken."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        """By subnet: how far into the pool."""

    def allocate(self, pool: PoolConfig, allocator: Allocator) -> str:
        """An address that is free; `""` where a few tries have met none."""
        block = _block(pool.ip_range or pool.subnet)
        size = block.num_addresses
        for _ in range(_TRIES):
            position = self._next.pop(pool.subnet, size)
            if position >= size:
                position = random.randrange(size)
            with suppress(AddressInUse):
                address = allocator.allocate(str(block[position]))
                self._next[pool.subnet] = position + 1
                return address
        return ""

    def leave(self) -> None:
        """Somebody else is here."""
        self._next.clear()


@dataclass(slots=True)
class _Rush:
    until: float
    lost: int = 0
    stretch: Stretch = field(default_factory=Stretch)


class Company:
    """This node's, by network."""

    def __init__(self) -> None:
        self._rushes: dict[str, _Rush] = {}

    def stretch(self, network: str) -> Stretch | None:
        """Where to take an address from now; None: the first free one."""
        rush = self._rushes.get(network)
        if rush is None or rush.lost <= FEW or self._over(network, rush):
            return None
        rush.until = _now() + CALM_SECONDS
        return rush.stretch

    def lost(self, network: str) -> bool:
        """Another node was quicker. Whether that is for company."""
        rush = self._rushes.get(network)
        if rush is None or self._over(network, rush):
            rush = self._rushes[network] = _Rush(0)
        rush.until = _now() + CALM_SECONDS
        rush.lost += 1
        rush.stretch.leave()
        return rush.lost > FEW

    def _over(self, network: str, rush: _Rush) -> bool:
        over = rush.until < _now()
        if over:
            del self._rushes[network]
        return over


_block = lru_cache(maxsize=1024)(ipaddress.ip_network)


def _now() -> float:
    return asyncio.get_running_loop().time()
