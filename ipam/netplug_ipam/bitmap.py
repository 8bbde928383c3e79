"""A sparse set of bits that finds its first clear bit quickly, however large and however full it is.

Bits live in chunks, Python ints of CHUNK bits in a dict; a chunk without a bit set is not there, and all full ones are one object.
Which chunks are full is kept in a second bitmap of the same kind, and so on upwards: a search looks at one chunk per level (an IPv6
/64 has six) instead of walking over what is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

CHUNK = 1024
_SHIFT = CHUNK.bit_length() - 1
_WITHIN = CHUNK - 1
_FULL = (1 << CHUNK) - 1


class Bitmap:
    """A set of positions >= 0, of any size; `len()` is how many are set."""

    __slots__ = ("_chunks", "_count", "_full")

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}
        self._full: Bitmap | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, position: int) -> bool:
        return bool(self._chunks.get(position >> _SHIFT, 0) >> (position & _WITHIN) & 1)

    def __iter__(self) -> Iterator[int]:
        """The positions that are set, in ascending order."""
        for index in sorted(self._chunks):
            chunk, base = self._chunks[index], index << _SHIFT
            while chunk:
                lowest = chunk & -chunk
                yield base + lowest.bit_length() - 1
                chunk ^= lowest

    def set(self, position: int) -> bool:
        """False if it was set already."""
        index, bit = position >> _SHIFT, 1 << (position & _WITHIN)
        chunk = self._chunks.get(index, 0)
        if chunk & bit:
            return False
        chunk |= bit
        self._count += 1
        if chunk == _FULL:
            chunk = _FULL
            if self._full is None:
                self._full = Bitmap()
            self._full.set(index)
        self._chunks[index] = chunk
        return True

    def clear(self, position: int) -> bool:
        """False if it was clear already."""
        index, bit = position >> _SHIFT, 1 << (position & _WITHIN)
        chunk = self._chunks.get(index, 0)
        if not chunk & bit:
            return False
        self._count -= 1
        if self._full is not None and chunk == _FULL:
            self._full.clear(index)
        if chunk == bit:
            del self._chunks[index]
        else:
            self._chunks[index] = chunk ^ bit
        return True

    def first_clear(self, start: int) -> int:
        """The lowest clear position from `start` on; there always is one, for a bitmap has no end."""
        index, within = start >> _SHIFT, start & _WITHIN
        chunk = self._chunks.get(index, 0)
        clear = (chunk ^ _FULL) >> within << within
        if not clear:
            index = index + 1 if self._full is None else self._full.first_clear(index + 1)
            clear = self._chunks.get(index, 0) ^ _FULL
        return (index << _SHIFT) + (clear & -clear).bit_length() - 1
