"""Nodes in one process: controllers over a real etcd, with doubles for the kernel and the resolver, that can die between any two questions
to a store.

A node that is dead asks nothing any more: what it was doing hangs, and is ended with nothing cleared away. Its own store stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from netplug.addressing import AddressPools, Ipams
from netplug.capability import Underlay
from netplug.cluster.nodes import Nodes
from netplug.controller import Controller, Core, EndpointRequest, NetworkRequest, SandboxRequest
from netplug.controller.admission import Admission
from netplug.controller.cluster import Cluster
from netplug.errors import NetplugError
from netplug.kernel.journal import Journal
from netplug.model import Endpoint, Network, PoolConfig, new_id
from netplug.plan import Fdb, Neighbour, Netns, Plan, Remove, Veth
from netplug.registry import Drivers
from netplug.store import PREFIX
from netplug.store.etcd import EtcdStore
from tests.unit.doubles import MemoryExecutor, MemoryFirewall, MemoryResolver, MemoryStore, Restored

PATIENCE = 10.0


class Mortal:
    """A store that can be cut off: `dead`, nothing comes back from it any more. `dies_at`: that happens at the n-th transaction from now.

    Odd ones die before the question is sent, even ones before the answer comes.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.dead = asyncio.Event()
        self.dies_at = 0
        self.healthy = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, key: str) -> Any:
        return await self._living(self._store.get(key))

    async def range(self, prefix: str) -> Any:
        return await self._living(self._store.range(prefix))

    async def lease(self, ttl: float) -> Any:
        return await self._living(self._store.lease(ttl))

    async def keep_alive(self, lease: int) -> None:
        await self._living(self._store.keep_alive(lease))

    async def txn(self, *arguments: Any, **options: Any) -> Any:
        count, self.dies_at = self.dies_at, max(self.dies_at - 2, 0)
        if count == 1:
            self.dead.set()
        answer = await self._living(self._store.txn(*arguments, **options))
        if count == 2:
            self.dead.set()
        return await self._living(_given(answer))

    async def _living(self, question: Coroutine[Any, Any, Any]) -> Any:
        if self.dead.is_set():
            question.close()
            await asyncio.Event().wait()
        answer = await question
        if self.dead.is_set():
            await asyncio.Event().wait()
        return answer


async def _given(answer: Any) -> Any:
    return answer


class Frames(MemoryExecutor):
    """Also knows which links there are, and where frames go: by network's namespace and MAC the node, and by address the MAC."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, dict[str, str]] = {}
        self.links: set[str] = set()
        """Host ends of pairs."""

    async def apply(self, plan: Plan) -> Any:
        applied = await super().apply(plan)
        self._do(plan)
        return applied

    async def remove(self, plan: Plan) -> Any:
        self._do(plan)
        return await super().remove(plan)

    async def ensure(self, plan: Plan) -> Any:
        self._do(plan)
        return await super().ensure(plan)

    async def resync(self, plan: Plan) -> Any:
        answer = await self.ensure(plan)
        for place in {step.namespace for step in plan if step.namespace}:
            wanted = {_key(step) for step in plan if isinstance(step, Fdb | Neighbour)}
            self.entries[place] = {key: value for key, value in self.entries.get(place, {}).items() if key in wanted}
        return *answer, 0

    async def restore(self, plans: Iterable[Plan]) -> Restored:
        restored = await super().restore(plans)
        self.entries.clear()
        self.links.clear()
        for plan in self.restored:
            self._do(plan)
        return restored

    def _do(self, plan: Plan) -> None:
        for step in plan:
            match step:
                case Fdb() | Neighbour():
                    self.entries.setdefault(step.namespace, {})[_key(step)] = _value(step)
                case Remove(op=Fdb() | Neighbour() as op):
                    entries = self.entries.get(op.namespace, {})
                    if entries.get(_key(op)) == _value(op):
                        del entries[_key(op)]
                case Veth(name=name):
                    self.links.add(name)
                case Remove(op=Veth(name=name)):
                    self.links.discard(name)
                case Remove(op=Netns(path=path)):
                    self.entries.pop(path, None)


def _key(op: Fdb | Neighbour) -> str:
    return op.mac if isinstance(op, Fdb) else op.address


def _value(op: Fdb | Neighbour) -> str:
    return op.vtep if isinstance(op, Fdb) else op.mac


class Node:
    """`controller`, `core` and `nodes` are those of its life at present; `store` survives."""

    def __init__(self, folder: Path, number: int, etcd: Any) -> None:
        self.name, self.folder, self._etcd = f"n{number}", folder, etcd
        self.address = f"192.0.2.{number}"
        self.identity = f"identity of n{number}"
        self.port = 4789
        self.store = MemoryStore()
        self.boots = self.lives = 0
        self.alive = False
        self._own_tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        before = asyncio.all_tasks()
        self.shared: EtcdStore = await self._etcd.store()
        self.local, self.mortal = Mortal(self.store), Mortal(self.shared)
        self.frames, self.resolver = Frames(), MemoryResolver()
        underlay = Underlay(address=self.address, port=self.port, folder=str(self.folder / self.name))
        incarnation = f"{self.folder}, boot {self.boots}"
        self.core = Core(
            store=self.local,
            executor=self.frames,
            firewall=MemoryFirewall(),
            resolver=self.resolver,
            drivers=Drivers(),
            ipams=Ipams(AddressPools()),
            journal=Journal(self.folder / f"{self.name}.jsonl"),
            run_dir=self.folder,
            incarnation=incarnation,
            underlay=underlay,
            cluster=Cluster(self.mortal, self.name, underlay, incarnation, Admission(granted=False)),
        )
        self.controller = Controller(self.core)
        self.nodes = Nodes(self.core.cluster, self.controller, self.identity)
        self.alive = True
        self.lives += 1
        await self.controller.start((), ())
        await self.nodes.start(PATIENCE)
        self._own_tasks = asyncio.all_tasks() - before

    async def stop(self) -> None:
        if self.alive:
            await self.nodes.stop()
            await self.controller.stop()
            await self.shared.close()
            self.core.journal.close()
        self.alive = False

    async def kill(self) -> None:
        """Now, in the middle of whatever it does."""
        self.local.dead.set()
        self.mortal.dead.set()
        self.alive = False
        controller = self.controller
        tasks = {*self._own_tasks, *controller._changes.tasks()}
        tasks |= {follower._task for follower in controller._membership._followers.values() if follower._task}
        while tasks := {task for task in tasks if not task.done()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.05)
        await self.shared.close()
        self.core.ports.release_all()
        self.core.journal.close()

    async def dying(self, change: Coroutine[Any, Any, Any], at: int) -> bool:
        """Do it, and die at the n-th question of it (counting each store's); False if it came to its end before."""
        self.mortal.dies_at = self.local.dies_at = at
        deaths = [asyncio.ensure_future(store.dead.wait()) for store in (self.local, self.mortal)]
        doing = asyncio.ensure_future(change)
        await asyncio.wait((doing, *deaths), return_when=asyncio.FIRST_COMPLETED)
        for death in deaths:
            death.cancel()
        died = self.local.dead.is_set() or self.mortal.dead.is_set()
        self.mortal.dies_at = self.local.dies_at = 0
        if died:
            await self.kill()
            doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
        return died

    async def container(self, name: str, network: str = "demo", **request: Any) -> Endpoint:
        """A sandbox, connected."""
        sandbox = await self.controller.create_sandbox(SandboxRequest(id=new_id(), name=name, namespace=f"/{name}", kind="given"))
        try:
            return await self.controller.connect(network, sandbox.id, EndpointRequest(names=(name,), **request))
        except NetplugError:
            await self.controller.remove_sandbox(sandbox.id)
            raise

    async def remove(self, name: str) -> None:
        await self.controller.remove_sandbox(self._sandbox(name))

    async def disconnect(self, name: str, network: str = "demo") -> None:
        await self.controller.disconnect(network, self._sandbox(name))

    def _sandbox(self, name: str) -> str:
        """That of the connected container of that name; of several that are not connected, any."""
        connected = [endpoint.sandbox for endpoint in self.controller.endpoints() if endpoint.container_name == name]
        return (connected or [sandbox.id for sandbox in self.controller.sandboxes() if sandbox.name == name])[0]

    async def network(self, name: str = "demo", subnet: str = "10.0.0.0/24") -> Network:
        pools = (PoolConfig(subnet=subnet),) if subnet else ()
        return await self.controller.create_network(NetworkRequest(name=name, driver="overlay", internal=True, pools=pools))

    def taken(self, network: str) -> list[str]:
        """By the allocators, without what is reserved."""
        ((pool, allocator),) = self.core.allocators[network]
        reserved = set(self.core.ipams.get("default").allocator(pool).taken())
        return [address for address in allocator.taken() if address not in reserved]


@contextlib.contextmanager
def imagined() -> Iterator[None]:
    """What of the machine the controllers would look at."""
    with contextlib.ExitStack() as stack:
        for name, double in (
            ("kernel.namespaces.cookie", lambda path: 4711),
            ("kernel.routes.host_subnets", lambda beside, known: []),
            ("controller.endpoints.open_resolver_sockets", lambda sandbox: socket.socketpair()),
        ):
            stack.enter_context(mock.patch(f"netplug.{name}", double))
        yield


@contextlib.asynccontextmanager
async def nodes(etcd: Any, count: int = 2) -> AsyncIterator[list[Node]]:
    """So many that live."""
    with imagined(), tempfile.TemporaryDirectory() as folder:
        made = [Node(Path(folder), number, etcd) for number in range(1, count + 1)]
        try:
            for node in made:
                await node.start()
            yield made
        finally:
            for node in made:
                await node.stop()


async def network(known: Sequence[Node], **request: str) -> Network:
    """One that all of them know."""
    made = await known[0].network(**request)
    for node in known:
        await within(True, lambda node=node: made.id in node.core.records.networks)
    return made


def keys(etcd: Any, part: str = "") -> list[str]:
    """That the cluster has, without what all begin with."""
    told = etcd.ctl("get", "--prefix", "--keys-only", f"{PREFIX}{part}")
    return [line.removeprefix(PREFIX) for line in told.split()]


async def within(expected: Any, look: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """`look` gives what is expected, soon."""
    until = asyncio.get_running_loop().time() + seconds
    while (found := look()) != expected:
        assert asyncio.get_running_loop().time() < until, f"there is {found!r}, not {expected!r}"
        await asyncio.sleep(0.01)
