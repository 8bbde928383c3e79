"""Pools that are lent, with a store that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from netplug.addressing import AddressPools, Ipams
from netplug.controller.leases import Leases
from netplug.model import PoolConfig
from netplug.store import Compare, Write
from tests.unit.doubles import MemoryStore


class SlowStore(MemoryStore):
    """Others get their turn while it writes."""

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write], *, durable: bool = False) -> int:
        await asyncio.sleep(0)
        return await super().txn(compares, writes, durable=durable)


@pytest.mark.parametrize("pool_first", [True, False])
async def test_a_network_and_its_pool_may_end_at_once(pool_first: bool) -> None:
    store = SlowStore()
    leases = Leases(store, Ipams(AddressPools()), list)
    pool = await leases.request_pool(PoolConfig(subnet="10.7.0.0/24"), 4, [])
    await leases.bind([pool.id], "network")

    ends = [leases.release_pool(pool.id), leases.unbind("network")]
    await asyncio.gather(*(ends if pool_first else reversed(ends)))

    assert leases.pools == {}
    assert store.data == {}
