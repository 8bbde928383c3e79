"""A cluster of two nodes for all tests of a process that break something: what they break is whole again for the next."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.inprocess import Node, nodes
from tests.cluster.lab import LENIENT, TTL, Lab, cluster, populate, recover, settled
from tests.cluster.stores import store, stores
from tests.etcd_members import Cluster

__all__ = ["store", "stores"]


@pytest.fixture
async def two(etcd: Cluster) -> AsyncIterator[list[Node]]:
    """Nodes of one etcd, in this process and without kernels."""
    async with nodes(etcd) as made:
        yield made


@pytest.fixture(scope="session")
def session_pair() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    with cluster(environment={"NETPLUG_NODE_TTL": str(LENIENT)}) as lab:
        populate(lab)
        yield lab


@pytest.fixture
def pair(session_pair: Lab) -> Iterator[Lab]:
    """`aa` on n1 and `bb` on n2, on the network `demo`."""
    recover(session_pair)
    yield session_pair
    for host in session_pair.hosts:  # pytest shows it with a test that failed
        print(f"daemon of {host.namespace.name}:\n{host.said()}")


@pytest.fixture
def brief(pair: Lab) -> Iterator[Lab]:
    """The same, where a node is silent for a short time only before its names are not answered."""
    silent_for(pair, TTL)
    yield pair
    recover(pair)
    silent_for(pair, LENIENT)


def silent_for(lab: Lab, seconds: int) -> None:
    for host in lab.hosts:
        host.environment["NETPLUG_NODE_TTL"] = str(seconds)
        host.restart()
    settled(lab)
