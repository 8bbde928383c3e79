"""Nodes for tests of overlay networks: hosts on one LAN, each with an executor of its own in a thread that is in its namespace.

    n11 203.0.113.11 --- switch --- n12 203.0.113.12, ...       underlay, IPv4 and IPv6
      '- 1-<id>: br0, vx-<id> --- sandboxes                     overlay 10.7.0.0/24 and fd07::/64

A node does with plans what a daemon would: the first container brings the underlay's side and all peers, the last one takes it away.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from netplug.capability import Underlay
from netplug.kernel import namespaces, syscalls
from netplug.kernel.executor import Executor
from netplug.kernel.outcome import Restored
from netplug.model import Endpoint, Network, PoolConfig, Sandbox, mac_of, new_id
from netplug.plan import Plan, Sysctl
from netplug_drivers.overlay import Overlay
from tests.hosts import Lan, Namespace, command
from tests.kernel.inside import FakeFirewall

Result = TypeVar("Result")


def overlay_network(**changes: object) -> Network:
    network = Network(
        id="4e" * 32,
        name="span",
        driver="overlay",
        created="",
        scope="global",
        ipv6=True,
        pools=(PoolConfig(subnet="10.7.0.0/24", gateway="10.7.0.1"), PoolConfig(subnet="fd07::/64", gateway="fd07::1")),
        vni=4097,
    )
    return msgspec.structs.replace(network, **changes)


class Node:
    """`run` does work in its thread; `containers` are the endpoints that are there, with their sandboxes."""

    def __init__(self, lan: Lan, folder: Path, *, family: int = 4, mtu: int = 1500) -> None:
        address = lan.free_address()
        self.name = f"n{address.rpartition('.')[2]}"
        self.folder = folder / self.name
        self.folder.mkdir()
        self.namespace = Namespace(f"{lan.label}-{self.name}-{new_id()[:4]}")
        lan.plug(self.namespace, self.name, address)
        lan.switch.ip("link", "set", self.name, "mtu", str(mtu))
        self.namespace.ip("link", "set", "uplink", "mtu", str(mtu))
        self.vtep = address if family == 4 else lan.twin(address)
        self.driver = Overlay().on(Underlay(address=self.vtep, mtu=mtu, folder=str(self.folder)))
        self.containers: dict[str, tuple[Endpoint, Sandbox]] = {}
        self.peers: dict[str, Endpoint] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self.executor = self.run(started)

    def run(self, work: Callable[[], Coroutine[Any, Any, Result]], timeout: float = 60) -> Result:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout)

    def apply(self, plan: Plan) -> Plan:
        return self.run(lambda: self.executor.apply(plan)).changed

    def remove(self, plan: Plan) -> None:
        assert self.run(lambda: self.executor.remove(plan)) == []

    def restart(self) -> None:
        """A new executor that knows nothing; closing the old one changes nothing in the kernel."""
        self.run(self.executor.close)
        self.executor = self.run(started)

    def restore(self, *networks: Network) -> Restored:
        plans = [plan for network in networks for plan in self.plans(network)]
        return self.run(lambda: self.executor.restore(plans))

    def plans(self, network: Network) -> list[Plan]:
        joined = [self.joining(network, endpoint, sandbox) for endpoint, sandbox in self.containers.values()]
        return [self.network_plan(network), *joined] if joined else []

    def network_plan(self, network: Network) -> Plan:
        """What it is on a node that has a container on it."""
        added = (step for peer in self.peers.values() for step in self.driver.peer_added(network, peer))
        return (*self.driver.underlay(network), *added)

    def joining(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        inside = sandbox.namespace
        plan = self.driver.join(network, endpoint, sandbox)
        if not endpoint.address6:
            return plan
        ipv6 = (Sysctl(namespace=inside, key=f"net.ipv6.conf.{endpoint.interface}.disable_ipv6", value="0"),)
        return (plan[0], *ipv6, *plan[1:])

    def connect(self, network: Network, number: int, **changes: object) -> Endpoint:
        """A container with addresses that end in `number`."""
        path = str(self.folder / f"c{number}")
        cookie = namespaces.create(path)
        sandbox = Sandbox(id=new_id(), created="", name=f"c{number}", namespace=path, cookie=cookie, incarnation="")
        identity = new_id()
        address = f"10.7.0.{number}/24"
        endpoint = Endpoint(
            id=identity,
            network=network.id,
            sandbox=sandbox.id,
            created="",
            interface="eth0",
            host_interface=f"veth{identity[:7]}",
            address=address,
            address6=f"fd07::{number:x}/64" if network.ipv6 else "",
            mac=mac_of(address, identity),
            node=self.name,
            vtep=self.vtep,
        )
        endpoint = msgspec.structs.replace(endpoint, **changes)
        first = not self.containers
        self.containers[sandbox.name] = endpoint, sandbox
        self.apply((*(self.network_plan(network) if first else ()), *self.joining(network, endpoint, sandbox)))
        return endpoint

    def disconnect(self, network: Network, name: str) -> Endpoint:
        endpoint, sandbox = self.containers.pop(name)
        self.remove(self.driver.leave(network, endpoint, sandbox))
        namespaces.remove(sandbox.namespace)
        if not self.containers:
            self.remove(self.driver.delete_network(network))
        return endpoint

    def learn(self, network: Network, *endpoints: Endpoint) -> None:
        self.peers |= {endpoint.id: endpoint for endpoint in endpoints}
        if self.containers:
            self.apply(tuple(step for endpoint in endpoints for step in self.driver.peer_added(network, endpoint)))

    def forget(self, network: Network, *endpoints: Endpoint) -> None:
        for endpoint in endpoints:
            self.peers.pop(endpoint.id, None)
        if self.containers:
            self.remove(tuple(step for endpoint in endpoints for step in self.driver.peer_removed(network, endpoint)))

    def sandbox(self, name: str) -> str:
        return self.containers[name][1].namespace

    def pings(self, name: str, target: str, *options: str) -> bool:
        return inside(self.sandbox(name), "ping", "-n", "-c1", "-W1", *options, target)

    def close(self) -> None:
        try:
            self.run(self.executor.close)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            for path in self.folder.iterdir():
                namespaces.remove(str(path))
            self.namespace.remove()

    def _live(self) -> None:
        syscalls.visit_network(syscalls.Descriptor(self.namespace.path))
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def started() -> Executor:
    executor = Executor(FakeFirewall())
    await executor.start()
    return executor


def inside(namespace: str, *argv: str) -> bool:
    return command("nsenter", f"--net={namespace}", *argv, check=False).returncode == 0


def meet(network: Network, *nodes: Node) -> None:
    """Everybody learns of everybody else's containers."""
    for node in nodes:
        node.learn(network, *(endpoint for other in nodes if other is not node for endpoint, _ in other.containers.values()))


@contextlib.contextmanager
def nodes_on(lan: Lan, folder: Path, count: int, **options: Any) -> Iterator[list[Node]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Node(lan, folder, **options)) for _ in range(count)]
