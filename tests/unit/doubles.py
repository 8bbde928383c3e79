"""Stand-ins for the rooms that the controller calls, which remember what they were asked."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from netplug.errors import NetplugError, StepFailed, Unavailable
from netplug.plan import FirewallOp, Plan, Remove, Step, removal
from netplug.resolver.client import Compared
from netplug.resolver.model import EndpointNames, SandboxNames
from netplug.store import Compare, Delete, Exists, KeyValue, Lost, Missing, Put, Write


class MemoryStore:
    """The store's interface over a dictionary."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.revision = 0
        self.full = False
        """Whether the disk is."""

    async def get(self, key: str) -> KeyValue | None:
        return KeyValue(key, self.data[key], self.revision) if key in self.data else None

    async def range(self, prefix: str) -> tuple[int, list[KeyValue]]:
        return self.revision, [KeyValue(key, self.data[key], self.revision) for key in sorted(self.data) if key.startswith(prefix)]

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write], *, durable: bool = False) -> int:
        if self.full:
            raise Unavailable("the store cannot be written: the disk is full")
        for compare in compares:
            held = (compare.key in self.data) if isinstance(compare, Exists) else (compare.key not in self.data)
            assert isinstance(compare, Exists | Missing)
            if not held:
                raise Lost(compare)
        for write in writes:
            if isinstance(write, Put):
                self.data[write.key] = write.value
            elif isinstance(write, Delete):
                self.data.pop(write.key, None)
        self.revision += 1
        return self.revision


@dataclass
class Applied:
    changed: Plan

    @property
    def undo(self) -> Plan:
        return removal(self.changed)


@dataclass
class Restored:
    missing: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    failed: dict[int, NetplugError] = field(default_factory=dict)


class MemoryExecutor:
    """Says that every plan worked, unless `fail_on` is among its ops."""

    def __init__(self) -> None:
        self.applied: list[Plan] = []
        self.removed: list[Plan] = []
        self.restored: list[Plan] = []
        self.fail_on: type[Step] | None = None
        self.gone: set[int] = set()

    def watch(self, link_gone: Callable[[str], None]) -> None:
        self.link_gone = link_gone

    async def apply(self, plan: Plan) -> Applied:
        if self.fail_on is not None and any(isinstance(step, self.fail_on) for step in plan):
            raise StepFailed("a step", "the kernel said no")
        self.applied.append(plan)
        return Applied(plan)

    async def remove(self, plan: Plan) -> list[NetplugError]:
        self.removed.append(plan)
        return []

    async def ensure(self, plan: Plan) -> tuple[Plan, list[NetplugError]]:
        self.applied.append(plan)
        return plan, []

    async def resync(self, plan: Plan) -> tuple[Plan, list[NetplugError], int]:
        return *await self.ensure(plan), 0

    async def restore(self, plans: Iterable[Plan]) -> Restored:
        self.restored = list(plans)
        return Restored(failed={index: NetplugError("its namespace is gone") for index in self.gone})


class MemoryFirewall:
    name = "memory"

    def explain(self, namespace: str, steps: Sequence[FirewallOp | Remove]) -> list[str]:
        return [f"rule {type(step).__name__}" for step in steps]


class MemoryResolver:
    """Remembers names by (network, endpoint) and sandboxes by id; closes sockets that it is handed."""

    def __init__(self) -> None:
        self.endpoints: dict[tuple[str, str], EndpointNames] = {}
        self.sandboxes: dict[str, SandboxNames] = {}
        self.on_lost = None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def sync(self, endpoints: Iterable[EndpointNames], sandboxes: Iterable[SandboxNames]) -> set[str]:
        self.endpoints = {(names.network, names.endpoint): names for names in endpoints}
        self.sandboxes = {names.id: names for names in sandboxes}
        return set()

    async def compare(self, endpoints: Iterable[EndpointNames], sandboxes: Iterable[SandboxNames]) -> Compared:
        wanted = {(names.network, names.endpoint): names for names in endpoints}
        held = {names.id: names for names in sandboxes}
        return Compared(
            missing={identity for identity, names in held.items() if self.sandboxes.get(identity) != names},
            unknown={key[1] for key, names in wanted.items() if self.endpoints.get(key) != names},
            surplus=len(self.endpoints.keys() - wanted) + len(self.sandboxes.keys() - held),
        )

    async def add_sandbox(self, names: SandboxNames, udp: socket.socket, tcp: socket.socket) -> None:
        udp.close()
        tcp.close()
        self.sandboxes[names.id] = names

    def update_sandbox(self, names: SandboxNames) -> Awaitable[None]:
        self.sandboxes[names.id] = names
        return _answer()

    async def remove_sandbox(self, identity: str) -> None:
        self.sandboxes.pop(identity, None)

    def put(self, endpoint: EndpointNames, sandbox: SandboxNames | None = None) -> Awaitable[None]:
        self.endpoints[(endpoint.network, endpoint.endpoint)] = endpoint
        return self._updated(sandbox)

    def drop(self, network: str, endpoint: str, sandbox: SandboxNames | None = None) -> Awaitable[None]:
        self.endpoints.pop((network, endpoint), None)
        return self._updated(sandbox)

    async def change(self, put: Iterable[EndpointNames], drop: Iterable[tuple[str, str]]) -> None:
        for network, endpoint in drop:
            await self.drop(network, endpoint)
        for names in put:
            await self.put(names)

    def _updated(self, sandbox: SandboxNames | None) -> Awaitable[None]:
        return self.update_sandbox(sandbox) if sandbox is not None else _answer()


async def _answer() -> None:
    """It has been told already."""
