"""A new IPv6 address is in use when the plan that gives it is done, however late the kernel's worker comes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from netplug.kernel import routes
from netplug.kernel.namespaces import entered
from netplug.kernel.netlink import Socket
from netplug.plan import Address, LinkUp, Plan, Veth
from tests.kernel.attachments import executing
from tests.kernel.inside import Sandboxes, in_host, link


@contextmanager
def ahead_of_workers(processor: int) -> Iterator[None]:
    """On that processor, where no kernel worker has a turn until this thread sleeps."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, processors)


def pair(sandbox: str) -> Plan:
    return (
        Veth(name="veth1", peer="eth0", peer_namespace=sandbox, mac="02:42:0a:09:00:02", mtu=1500, alias="netplug:test/1"),
        LinkUp(link="eth0", namespace=sandbox),
    )


def taken_in(sandbox: str, address: str) -> bool:
    with entered(sandbox), Socket() as netlink:
        return routes.local(netlink, address)


@in_host
async def test_a_worker_that_comes_late_is_waited_for(tmp_path: Path):
    """On each processor: another one may have a worker to spare."""
    with Sandboxes(tmp_path, 1) as (sandbox,):
        async with executing() as executor:
            await executor.apply(pair(sandbox))
            for processor, number in product(os.sched_getaffinity(0), range(2, 34)):
                address = f"fd09::{processor:x}:{number:x}"
                with ahead_of_workers(processor):
                    await executor.apply((Address(link="eth0", address=f"{address}/64", namespace=sandbox),))
                    assert taken_in(sandbox, address)
                    assert not taken_in(sandbox, "fd09:1::1")


@in_host
async def test_a_link_that_is_down_is_not_waited_for(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as (sandbox,):
        async with executing() as executor:
            await executor.apply((pair(sandbox)[0], Address(link="eth0", address="fd09::2/64", namespace=sandbox)))
        assert link("eth0", sandbox)["operstate"] == "DOWN"
        assert taken_in(sandbox, "fd09::2")
