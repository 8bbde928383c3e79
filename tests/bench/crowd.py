"""What one change costs a cluster of many nodes. A simulation: all nodes are one process, without kernels (`tests.bench.simulated`).

Real are the etcd, every node's own connection to it, and what each node's controller does with each event. So counts and bytes are those
of a real cluster of that size; CPU times are too, but for the kernel's part; how long it takes until all nodes know is not, since
they share two cores.

`python -m tests.bench.crowd NODES` measures one crowd: gRPC does not outlive the event loop that it began with.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from netplug.controller import EndpointRequest
from netplug.controller.records import put_network
from netplug.model import Endpoint, Network, PoolConfig
from netplug.store import PREFIX, Store
from netplug.store.etcd import EtcdStore
from tests.bench.remote import remote_endpoint, write_all
from tests.bench.simulated import PATIENCE, SimulatedNode, until, without_kernel
from tests.etcd_members import Member, etcd_cluster
from tests.hosts import command
from tests.unit.doubles import MemoryStore

ROOT = Path(__file__).parents[2]
SPAN = "span"
POOL = PoolConfig(subnet="10.77.0.0/16")
EACH = 100
"""Endpoints of a node, all on one network that all nodes are on."""
CHANGES = 20
"""Connects, and as many disconnects, by nodes in turn."""
IDLE_SECONDS = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")
_COUNTERS = {
    "writes": r"^etcd_mvcc_(?:put|delete)_total (\S+)$",
    "events": r"^etcd_debugging_mvcc_events_total (\S+)$",
    "bytes": r"^etcd_network_client_grpc_sent_bytes_total (\S+)$",
}


def measure(nodes: int) -> dict[str, float]:
    """Per change, with `nodes` nodes of EACH endpoints: etcd's `writes`, `events` and `bytes` that it sends to all,
    milliseconds of CPU of etcd (`etcd_ms`) and of a node that hears of it (`node_ms`); and per second without any change the bytes and
    milliseconds of all (`idle_bytes`, `idle_etcd_ms`, `idle_node_ms`). `network_mib`: what a node holds of it, as etcd sends it.
    """
    said = command(sys.executable, "-m", "tests.bench.crowd", str(nodes), timeout=900, cwd=ROOT).stdout
    found: dict[str, float] = json.loads(said)
    return found


def main(nodes: int) -> None:
    with etcd_cluster(1, quick=False) as members, without_kernel():
        print(json.dumps(asyncio.run(_measure(members.members[0], nodes))))


async def _measure(member: Member, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        nodes = [
            SimulatedNode(f"n{number}", 10 + number, Path(folder) / str(number), _store(), EtcdStore([member.address], timeout=30))
            for number in range(count)
        ]
        try:
            size = await _populate(nodes)
            idle = await _cost(member, IDLE_SECONDS, lambda: asyncio.sleep(IDLE_SECONDS))
            busy = await _cost(member, IDLE_SECONDS, lambda: _change(nodes))
        finally:
            await asyncio.gather(*(node.close() for node in nodes))
    seconds, changes = busy["seconds"], 2 * CHANGES
    found = {key: (busy[key] - idle[key] * seconds / idle["seconds"]) / changes for key in busy if key != "seconds"}
    found["node_ms"] /= count
    found |= {f"idle_{key}": idle[key] / idle["seconds"] for key in ("bytes", "etcd_ms", "node_ms")}
    return found | {"network_mib": size / 2**20}


def _store() -> Store:
    return MemoryStore()  # type: ignore[return-value]  # what nobody asks of it here is not there


async def _populate(nodes: list[SimulatedNode]) -> int:
    """Every node has EACH endpoints and knows all the others', as if it had been told of each; bytes of all these records."""
    network = Network(id="ab" * 32, name=SPAN, driver="overlay", created="", scope="global", internal=True, vni=4096, pools=(POOL,))
    every = [remote_endpoint(network.id, number * EACH + one, node=node.name) for number, node in enumerate(nodes) for one in range(EACH)]
    store = nodes[0].shared
    for node in nodes:  # before there is anything: what comes next need not be read again by each for each that comes
        await node.nodes.start(PATIENCE)
    await store.txn(*put_network(network, ()))
    await write_all(store, every)
    await until(lambda: all(node.controller.networks() for node in nodes))
    revision, items = await store.range(f"{PREFIX}endpoints/")
    template = nodes[0].core
    for endpoint in every:
        template.take(endpoint)
    pools = template.allocators[network.id]
    for node in nodes:
        _know(node, network, every)
        node.core.allocators[network.id] = copy.deepcopy(pools)
        await node.controller._membership.restore()
        node.controller._membership._start(network, revision + 1)
    # One change that all must see: whoever is still reading hears of it when it has read.
    await _connect(nodes, 0, "warm")
    await _disconnect(nodes, 0, "warm")
    return sum(len(item.key) + len(item.value) for item in items)


def _know(node: SimulatedNode, network: Network, every: list[Endpoint]) -> None:
    core = node.core
    for endpoint in every:
        if endpoint.node == node.name:
            core.records.add_endpoint(endpoint)
    core.peers[network.id] = {endpoint.id: endpoint for endpoint in every if endpoint.node != node.name}


async def _change(nodes: list[SimulatedNode]) -> None:
    for number in range(CHANGES):
        await _connect(nodes, number % len(nodes), f"c{number}")
        await _disconnect(nodes, number % len(nodes), f"c{number}")


async def _connect(nodes: list[SimulatedNode], who: int, name: str) -> None:
    sandbox = await nodes[who].sandbox(name)
    endpoint = await nodes[who].controller.connect(SPAN, sandbox.id, EndpointRequest(names=(name,)))
    others = [node for node in nodes if node is not nodes[who]]
    await until(lambda: all(endpoint.id in node.core.peers[endpoint.network] for node in others))


async def _disconnect(nodes: list[SimulatedNode], who: int, name: str) -> None:
    sandbox = name.encode().hex().ljust(64, "f")
    endpoint = await nodes[who].controller.disconnect(SPAN, sandbox)
    others = [node for node in nodes if node is not nodes[who]]
    await until(lambda: not any(endpoint.id in node.core.peers[endpoint.network] for node in others))


async def _cost(member: Member, least: float, work: Callable[[], object]) -> dict[str, float]:
    """What counters and clocks went on by."""
    before, started = await _counts(member), time.monotonic()
    await work()  # type: ignore[misc]
    after = await _counts(member)
    return {key: after[key] - before[key] for key in after} | {"seconds": time.monotonic() - started}


async def _counts(member: Member) -> dict[str, float]:
    text = await asyncio.to_thread(_metrics, member.address)
    found = {name: sum(float(value) for value in re.findall(pattern, text, re.MULTILINE)) for name, pattern in _COUNTERS.items()}
    assert member.process is not None
    fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
    found["etcd_ms"] = (int(fields[11]) + int(fields[12])) * 1000 / _TICKS
    found["node_ms"] = time.process_time() * 1000
    return found


def _metrics(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


if __name__ == "__main__":
    main(int(sys.argv[1]))
