"""Nodes of a cluster for its tests: hosts on one LAN with daemons of their own, and an etcd member on the neighbour outside."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.etcd_members import Cluster, Place, require_etcd
from tests.hosts import OUTSIDE_ADDRESS, Host, Lan
from tests.kernel.conftest import NO_SERVER

PATIENCE = 20


class Node(Host):
    """A host whose daemon is in the cluster."""

    def __init__(self, lan: Lan, name: str, *flags: str) -> None:
        super().__init__(lan, "--store", f"etcd://{OUTSIDE_ADDRESS}:2379", "--node", name, *flags, resolv_conf=NO_SERVER)
        self.name = name
        self.flags = (*self.flags, "--advertise", self.address)


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan() as lan:
        yield lan


@pytest.fixture
def members(lan: Lan) -> Iterator[Cluster]:
    """One member, on the address that stands for everybody outside."""
    require_etcd()
    place = Place(OUTSIDE_ADDRESS, tuple(lan.outside.argv()), 2379, 2380)
    with tempfile.TemporaryDirectory(prefix="etcd-") as folder, Cluster(Path(folder), [place]) as cluster:
        yield cluster


@pytest.fixture
def nodes(lan: Lan, members: Cluster) -> Iterator[Callable[..., Node]]:
    """Makes nodes: `nodes(name, *daemon_flags)`; their daemons run already."""
    made: list[Node] = []
    with contextlib.ExitStack() as stack:

        def make(name: str, *flags: str) -> Node:
            node = stack.enter_context(Node(lan, name, *flags))
            made.append(node)
            node.start()
            return node

        yield make
        for node in made:  # pytest shows it with a test that failed
            print(f"daemon of {node.name}:\n{node.said()}")


def eventually(told: Callable[[], Any], expected: Any) -> None:
    """Within a while; the last that was told is compared."""
    deadline = time.monotonic() + PATIENCE
    while (found := told()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == expected
