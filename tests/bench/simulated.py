"""A node's cluster part without a kernel: the real controller and the real client of a real etcd, with doubles for the rest.

What it costs to agree is real; what it costs to wire a container is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from netplug.addressing import AddressPools, Ipams
from netplug.capability import Underlay
from netplug.cluster import Nodes
from netplug.controller import Controller, Core, SandboxRequest
from netplug.controller.cluster import Cluster
from netplug.errors import NetplugError
from netplug.kernel.journal import Journal
from netplug.model import Sandbox
from netplug.plan import Plan
from netplug.registry import Drivers
from netplug.store import Store
from netplug.store.etcd import EtcdStore
from tests.unit.doubles import MemoryExecutor, MemoryFirewall, MemoryResolver

INCARNATION = "7" * 32
PATIENCE = 120.0


class NoKernel(MemoryExecutor):
    """Whatever is asked of it is so. It keeps nothing: a plan that names ten thousand peers is large."""

    async def apply(self, plan: Plan) -> Any:
        applied = await super().apply(())
        self.applied.clear()
        return applied

    async def remove(self, plan: Plan) -> list[NetplugError]:
        return []

    async def ensure(self, plan: Plan) -> tuple[Plan, list[NetplugError]]:
        return (), []

    async def resync(self, plan: Plan) -> tuple[Plan, list[NetplugError], int]:
        return (), [], 0


def _cookie(*_: object) -> int:
    return 4711


def _nothing(**_: object) -> list[object]:
    return []


class _NoSocket:
    def close(self) -> None: ...


def _sockets(_: Sandbox) -> tuple[_NoSocket, _NoSocket]:
    return _NO_SOCKETS


_NO_SOCKETS = _NoSocket(), _NoSocket()


@contextlib.contextmanager
def without_kernel() -> Iterator[None]:
    """While nodes are simulated. As many signs of life as ever; but all nodes share a core, so none is dead that is late by seconds."""
    with (
        mock.patch("netplug.cluster.nodes.TTL", 60.0),
        mock.patch("netplug.cluster.nodes._SIGNS", 24),
        mock.patch("netplug.kernel.namespaces.cookie", _cookie),  # plain functions: a Mock takes a tenth of a millisecond
        mock.patch("netplug.kernel.routes.host_subnets", _nothing),
        mock.patch("netplug.controller.endpoints.open_resolver_sockets", _sockets),
    ):
        yield


class SimulatedNode:
    """`store`: its own; `shared`: the cluster's."""

    def __init__(self, name: str, number: int, folder: Path, store: Store, shared: EtcdStore) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.shared = name, shared
        self._journal = Journal(folder / "journal.jsonl")
        self.core = Core(
            store=store,
            executor=NoKernel(),  # type: ignore[arg-type]
            firewall=MemoryFirewall(),  # type: ignore[arg-type]
            resolver=MemoryResolver(),  # type: ignore[arg-type]
            drivers=Drivers(),
            ipams=Ipams(AddressPools()),
            journal=self._journal,
            run_dir=folder,
            incarnation=INCARNATION,
        )
        self.core.underlay = Underlay(address=f"203.0.113.{number}", folder=str(folder))
        self.core.cluster = Cluster(shared, name, self.core.underlay, INCARNATION)
        self.controller = Controller(self.core)
        self.nodes = Nodes(self.core.cluster, self.controller, name)

    async def sandbox(self, name: str) -> Sandbox:
        return await self.controller.create_sandbox(SandboxRequest(id=name.encode().hex().ljust(64, "f"), name=name))

    async def close(self) -> None:
        await self.nodes.stop()
        await self.controller._membership.close()
        self.core.ports.release_all()
        self._journal.close()
        await self.shared.close()


async def until(condition: Callable[[], bool]) -> None:
    """Nothing tells when another node has heard of it."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE:g} s for a change in vain")
        await asyncio.sleep(0.005)
