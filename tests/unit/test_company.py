"""Where a node takes addresses: in order as long as it is alone, in a stretch of its own while others take them too."""

from __future__ import annotations

import itertools

import pytest

from netplug.controller import company
from netplug.controller.company import FEW, Company, Stretch
from netplug.model import PoolConfig
from netplug_ipam.allocator import PoolAllocator

POOL = PoolConfig(subnet="10.0.0.0/16", gateway="10.0.0.1")
SMALL = PoolConfig(subnet="10.0.0.0/29", gateway="10.0.0.1")
NETWORK = "demo"


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    time = [1000.0]
    monkeypatch.setattr(company, "_now", lambda: time[0])
    return time


@pytest.fixture
def crowded(clock) -> Company:
    made = Company()
    assert [made.lost(NETWORK) for _ in range(FEW + 1)] == [False] * FEW + [True]
    return made


def number(address: str) -> int:
    third, fourth = address.split(".")[2:]
    return int(third) * 256 + int(fourth)


def test_who_is_late_a_few_times_goes_on_in_order(clock):
    company = Company()
    for _ in range(FEW):
        assert not company.lost(NETWORK)
        assert company.stretch(NETWORK) is None


def test_company_is_one_network_s(crowded):
    assert crowded.stretch(NETWORK) is not None
    assert crowded.stretch("other") is None


def test_it_lasts_as_long_as_the_rush(crowded, clock):
    for _ in range(5):
        clock[0] += company.CALM_SECONDS * 0.9
        assert crowded.stretch(NETWORK) is not None
    clock[0] += company.CALM_SECONDS * 1.1
    assert crowded.stretch(NETWORK) is None
    assert not crowded.lost(NETWORK)


def test_late_now_and_then_is_no_company(clock):
    quiet = Company()
    for _ in range(2 * FEW):
        assert not quiet.lost(NETWORK)
        clock[0] += company.CALM_SECONDS * 1.1


def test_a_stretch_is_in_a_row():
    stretch, allocator = Stretch(), PoolAllocator(POOL)
    numbers = [number(stretch.allocate(POOL, allocator)) for _ in range(20)]
    jumps = [one for one, other in itertools.pairwise(numbers) if other != one + 1]
    assert len(jumps) <= 1  # at the pool's end


def test_two_nodes_take_other_addresses():
    here, there = PoolAllocator(POOL), PoolAllocator(POOL)
    one, other = Stretch(), Stretch()
    taken = {one.allocate(POOL, here) for _ in range(10)}, {other.allocate(POOL, there) for _ in range(10)}
    assert len(taken[0] & taken[1]) < 10


def test_who_meets_somebody_goes_elsewhere(crowded):
    allocator = PoolAllocator(POOL)
    places = set()
    for _ in range(5):
        places.add(number(crowded.stretch(NETWORK).allocate(POOL, allocator)) // 16)
        crowded.lost(NETWORK)
    assert len(places) > 1


def test_what_is_taken_is_not_given():
    stretch, allocator = Stretch(), PoolAllocator(SMALL)
    given = [address for _ in range(40) if (address := stretch.allocate(SMALL, allocator))]
    assert len(set(given)) == len(given)
    assert set(given) <= {f"10.0.0.{number}" for number in range(2, 7)}
    assert len(given) >= 4  # the last one may be missed: it is found in order


def test_an_ip_range_is_kept_to():
    pool = PoolConfig(subnet="10.0.0.0/16", ip_range="10.0.8.0/28")
    stretch, allocator = Stretch(), PoolAllocator(pool)
    assert {number(stretch.allocate(pool, allocator)) // 16 for _ in range(8)} == {8 * 256 // 16}
