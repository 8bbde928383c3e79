"""The predefined pools, and cutting a free subnet out of them.

First free in the pools' order, so that a subnet comes back to use once its network is gone (Docker 20.10 goes round the pools first,
current Docker does as we do).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from netplug.errors import InvalidArgument
from netplug.model import Family

from .block import BITS, Block, parse_block

LOCAL = (*((f"172.{number}.0.0/16", 16) for number in range(17, 32)), ("192.168.0.0/16", 20))
GLOBAL = (("10.0.0.0/8", 24),)

_GLOBAL_ID_BITS = 40
_ULA = parse_block("fd00::/8")

Interval: TypeAlias = tuple[int, int]
"""First and last address."""


def unique_local(seed: str) -> tuple[str, int]:
    """A /48 of unique local addresses (RFC 4193), cut into /64s: its global id is hashed from `seed`, as Docker makes it."""
    digest = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    global_id = digest & (1 << _GLOBAL_ID_BITS) - 1
    return str(Block(6, _ULA.first + (global_id << 80), 48)), 64


class Pools:
    """Base blocks with the prefix length of the subnets that they are cut into."""

    def __init__(self, bases: Iterable[tuple[str, int]]) -> None:
        self._bases = [(parse_block(base), length) for base, length in bases]
        for base, length in self._bases:
            if not base.prefix <= length <= BITS[base.family]:
                raise InvalidArgument(f"invalid address pool {base}: subnets of size {length} do not fit into it")

    def has(self, family: Family) -> bool:
        return any(base.family == family for base, _ in self._bases)

    def cut(self, family: Family, taken: Sequence[Block]) -> Block | None:
        """The first subnet of that IP version that overlaps none of `taken`."""
        covered = merge(block for block in taken if block.family == family)
        found = (first_free(base, length, covered) for base, length in self._bases if base.family == family)
        return next((block for block in found if block is not None), None)


def merge(blocks: Iterable[Block]) -> list[Interval]:
    """What the blocks (of one family) cover: ascending, disjoint."""
    merged: list[Interval] = []
    for block in sorted(blocks):
        if merged and block.first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], block.last))
        else:
            merged.append((block.first, block.last))
    return merged


def first_free(base: Block, prefix: int, covered: Sequence[Interval]) -> Block | None:
    """The first block of that prefix length in `base` that touches none of `covered`."""
    size = 1 << (BITS[base.family] - prefix)
    start = base.first
    for first, last in covered[bisect_left(covered, start, key=lambda interval: interval[1]) :]:
        if first >= start + size or start > base.last:
            break
        start = (last // size + 1) * size  # the next aligned start behind what is in the way
    return Block(base.family, start, prefix) if start <= base.last else None
