"""How many addresses per second a node has for its endpoints, theirs in the whole cluster as their names are: one node, and three at once.

A claim is all that a connect does until that is durable in etcd: the address chosen, the record drafted, the transaction, and what comes
back meanwhile of others' claims. A whole connect has also its record in the node's own store, the plan, the names and the journal; kernel
and resolver are doubles.

Beside it, what etcd itself does here: as many transactions of the same compares and puts, each a request of its own, by as many workers at
once, by a plain client: the same library's stub on a channel, the message made and sent, and nothing else (no time limits, no other
members, nobody to tell). A node's own go together where many are asked for at once. All of it on one machine: etcd and its clients share
the cores.

`python -m tests.bench.allocation claim|connect|txn MEMBER NUMBER COUNT` is one node: it says "ready", and for a line on stdin when it
began and ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from netplug.cli.demo_hosts import end_processes
from netplug.controller import EndpointRequest, NetworkRequest
from netplug.controller.claims import Answer
from netplug.controller.company import Stretch
from netplug.controller.joining import draft
from netplug.controller.records import network_key, put_endpoint
from netplug.model import Endpoint, PoolConfig
from netplug.store import Compare, Missing, Put, Write
from netplug.store.etcd import EtcdStore
from netplug.store.etcd_client import grpc, pb
from netplug.store.sqlite import SqliteStore
from tests.bench.remote import remote_endpoint
from tests.bench.simulated import SimulatedNode, until, without_kernel
from tests.etcd_members import etcd_cluster

ROOT = Path(__file__).parents[2]
COUNT, AT_ONCE = 600, 32
"""Endpoints of a node, and how many are being made at the same time."""
NETWORK = "span"
POOL = PoolConfig(subnet="10.77.0.0/16")
SHAPE = "ab" * 32
"""The network of the bare transactions."""


def measure(rounds: int) -> dict[str, list[float]]:
    """Per second, of `one` node and of `three`: claims, whole connects (`connect one`), bare transactions of clients (`txn one`)."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for many, nodes in (("one", 1), ("three", 3)):
            for what in ("claim", "txn", "connect"):
                name = many if what == "claim" else f"{what} {many}"
                with etcd_cluster(1) as members:
                    found.setdefault(name, []).append(_rate(what, members.addresses[0], nodes))
    return found


def _rate(what: str, member: str, nodes: int) -> float:
    with contextlib.ExitStack() as stack:
        workers = []
        for number in range(nodes):  # one after the other: the first makes the network
            argv = [sys.executable, "-m", "tests.bench.allocation", what, member, str(number), str(COUNT)]
            process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            workers.append(stack.enter_context(process))
            stack.callback(end_processes, [process.pid])
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{argv} did not start")
        for process in workers:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        spans: list[tuple[float, float]] = [json.loads(process.stdout.readline()) for process in workers if process.stdout is not None]
    return nodes * COUNT / (max(ended for _, ended in spans) - min(began for began, _ in spans))


async def _claim(member: str, number: int, count: int) -> None:
    async with _node(member, number, count) as (node, sandboxes):
        core, network = node.core, node.core.records.network(NETWORK)

        async def claim(one: int) -> None:
            sandbox = core.records.sandboxes[sandboxes[one]]
            request = EndpointRequest(names=(sandbox.id[:12],))

            def drafted(stretch: Stretch | None) -> Endpoint:
                return draft(core, network, sandbox, (), request, stretch=stretch)

            async def attach(endpoint: Endpoint, answer: Answer[None]) -> Endpoint:
                await answer
                core.records.add_endpoint(endpoint)
                return endpoint

            await node.controller._claims.attached(network, drafted, attach)

        await _timed(claim, count)


async def _connect(member: str, number: int, count: int) -> None:
    async with _node(member, number, count) as (node, sandboxes):

        async def connect(one: int) -> None:
            await node.controller.connect(NETWORK, sandboxes[one], EndpointRequest(names=(sandboxes[one][:12],)))

        await _timed(connect, count)


@contextlib.asynccontextmanager
async def _node(member: str, number: int, count: int) -> AsyncIterator[tuple[SimulatedNode, list[str]]]:
    """With its own sqlite, and no kernel and no resolver; on the network, with so many sandboxes that are not."""
    with tempfile.TemporaryDirectory() as folder, without_kernel():
        local = await SqliteStore.open(Path(folder) / "netplug.db")
        node = SimulatedNode(f"n{number}", 1 + number, Path(folder), local, await EtcdStore.open([member], timeout=30))
        await node.nodes.start(10)
        if number == 0:
            # Internal: no second endpoint for the way out.
            await node.controller.create_network(NetworkRequest(name=NETWORK, driver="overlay", internal=True, pools=(POOL,)))
        await until(lambda: any(network.name == NETWORK for network in node.controller.networks()))
        sandboxes = [(await node.sandbox(f"{number}-{one}")).id for one in range(count)]
        first = (await node.sandbox(f"{number}-first")).id
        await node.controller.connect(NETWORK, first, EndpointRequest(names=(first[:12],)))  # it joins the network
        yield node, sandboxes
        await node.close()
        await local.close()


async def _txn(member: str, number: int, count: int) -> None:
    """What etcd is asked for that, and nothing else."""
    store = await EtcdStore.open([member], timeout=30)
    await store.txn((), [Put(network_key(SHAPE), b"")])
    await store.close()
    endpoints = (remote_endpoint(SHAPE, number * count + one, node=f"n{number}") for one in range(count))
    changes = [put_endpoint(endpoint) for endpoint in endpoints]
    async with grpc.aio.insecure_channel(member) as channel:
        stub = pb.KVStub(channel)

        async def alone(one: int) -> None:
            answer = await stub.Txn(_plain(*changes[one]))
            assert answer.succeeded

        await _timed(alone, count)


def _plain(compares: list[Compare], writes: list[Write]) -> Any:
    return pb.TxnRequest(
        compare=[
            pb.Compare(
                key=one.key.encode(), target=pb.Compare.VERSION, result=pb.Compare.EQUAL if isinstance(one, Missing) else pb.Compare.GREATER
            )
            for one in compares
        ],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=one.key.encode(), value=one.value)) for one in writes if isinstance(one, Put)],
    )


async def _timed(action: Callable[[int], Awaitable[object]], count: int) -> None:
    gc.collect()
    gc.freeze()  # as the daemon does when it has started
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await action(number)

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    print(json.dumps([began, time.monotonic()]), flush=True)


if __name__ == "__main__":
    kinds: dict[str, Callable[[str, int, int], Awaitable[None]]] = {"claim": _claim, "connect": _connect, "txn": _txn}
    asyncio.run(kinds[sys.argv[1]](sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))  # type: ignore[arg-type]
