"""The sparse bitmap, against a plain set."""

from __future__ import annotations

import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from netplug_ipam.bitmap import CHUNK, Bitmap

EDGES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, CHUNK * CHUNK, 2**64 - 1, 2**127]
POSITIONS = st.sampled_from(EDGES) | st.integers(0, 3 * CHUNK)


@given(st.lists(st.tuples(st.booleans(), POSITIONS)), POSITIONS)
def test_it_behaves_like_a_set(changes, start):
    bitmap, model = Bitmap(), set()
    for setting, position in changes:
        changed = bitmap.set(position) if setting else bitmap.clear(position)
        assert changed == ((position not in model) if setting else (position in model))
        model.add(position) if setting else model.discard(position)

    expected = start
    while expected in model:
        expected += 1
    assert bitmap.first_clear(start) == expected
    assert list(bitmap) == sorted(model)
    assert len(bitmap) == len(model)


@given(st.sets(st.integers(0, 5 * CHUNK), max_size=20), st.integers(0, 5 * CHUNK))
def test_it_finds_the_holes_of_what_is_nearly_full(holes, start):
    bitmap = Bitmap()
    for position in range(5 * CHUNK):
        bitmap.set(position)
    for position in holes:
        bitmap.clear(position)

    expected = min((hole for hole in holes if hole >= start), default=max(start, 5 * CHUNK))
    assert bitmap.first_clear(start) == expected


def test_a_hole_is_found_across_several_levels():
    """A million taken positions fill the second level; only the third knows where to go on."""
    bitmap = Bitmap()
    for position in range(CHUNK * CHUNK + 3):
        bitmap.set(position)

    assert bitmap.first_clear(0) == CHUNK * CHUNK + 3
    bitmap.clear(CHUNK * CHUNK - 1)
    assert bitmap.first_clear(0) == CHUNK * CHUNK - 1
    bitmap.set(CHUNK * CHUNK - 1)
    assert bitmap.first_clear(0) == CHUNK * CHUNK + 3


def test_a_million_positions_cost_kilobytes():
    full, scattered = Bitmap(), Bitmap()
    for position in range(1_000_000):
        full.set(position)
        if position % 7 == 0:
            scattered.set(position)

    assert footprint(full) < 100_000
    assert footprint(scattered) < 300_000


def test_a_full_bitmap_is_searched_about_as_fast_as_an_empty_one():
    empty, full = Bitmap(), Bitmap()
    for position in range(65_000):
        full.set(position)

    assert best_time(full) < 20 * best_time(empty)  # a walk over what is taken would cost thousands of times more


def footprint(bitmap: Bitmap) -> int:
    """Bytes, each object counted once."""
    chunks = {id(chunk): sys.getsizeof(chunk) for chunk in bitmap._chunks.values()}
    return sys.getsizeof(bitmap._chunks) + sum(chunks.values()) + (footprint(bitmap._full) if bitmap._full else 0)


def best_time(bitmap: Bitmap) -> float:
    def once() -> float:
        start = time.perf_counter()
        for _ in range(100):
            bitmap.first_clear(0)
        return time.perf_counter() - start

    return min(once() for _ in range(20))
