"""The predefined pools, and cutting a free subnet out of them.

First free in the pools' order, so that a subnet comes back to use once its network is gone (Docker 20.10 goes round the pools first,
current Docker does as we do).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from netplug.errors import InvalidArgument

from .block import BITS, Block, parse_block

LOCAL = (*((f"172.{number}.0.0/16", 16) for number in range(17, 32)), ("192.168.0.0/16", 20))
GLOBAL = (("10.0.0.0/8", 24),)

Interval: TypeAlias = tuple[int, int]
"""First and last address."""


class Pools:
    """Base blocks with the prefix length of the subnets that they are cut into."""

    def __init__(self, bases: Iterable[tuple[str, int]]) -> None:
        self._bases = [(parse_block(base), length) for base, length in bases]
        for base, length in self._bases:
            if not base.prefix <= length <= BITS[base.family]:
                raise InvalidArgument(f"invalid address pool {base}: subnets of size {length} do not fit into it")

    def cut(self, taken: Sequence[Block]) -> Block | None:
        """The first subnet that overlaps none of `taken`."""
        covered = {family: merge(block for block in taken if block.family == family) for family in BITS}
        found = (first_free(base, length, covered[base.family]) for base, length in self._bases)
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
