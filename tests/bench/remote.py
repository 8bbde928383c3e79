"""How soon a node's kernel knows thousands of endpoints of another node, as they appear and when it joins their network.

`python -m tests.bench.remote HOST:PORT NETWORK COUNT` is that other node: it claims COUNT endpoints in etcd, many in one transaction, and
for a line on stdin takes them out again. It says when it began and when the last was there (seconds of the monotonic clock).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from netplug.cli.demo_etcd import Etcd
from netplug.cli.demo_hosts import end_processes
from netplug.controller.records import delete_endpoint, put_endpoint
from netplug.kernel import namespaces
from netplug.model import Endpoint, Node, encode, mac_of, new_id, now
from netplug.store import PREFIX, Put, Write
from netplug.store.etcd import EtcdStore
from tests.bench.cluster import SPAN, Pair
from tests.bench.engines import Netplug, container, network, timed
from tests.hosts import command

ROOT = Path(__file__).parents[2]
SUBNET = "10.77.0.0/16"
FIRST = ipaddress.IPv4Address("10.77.8.0")
"""Far from what the node itself gives to its containers."""
NODE, VTEPS = "elsewhere", 50
IN_ONE, AT_ONCE = 30, 8
"""Endpoints in one transaction (3 writes each), transactions under way."""
PATIENCE = 60.0
_NEIGHBOUR, _BRIDGE, _SELF, _NEW = 4, 7, 0x2, 28
"""RTMGRP_NEIGH, AF_BRIDGE, NTF_SELF, RTM_NEWNEIGH (rtnetlink(7), linux/neighbour.h)."""


def remote_endpoint(network: str, number: int, *, node: str = NODE, subnet: str = SUBNET, first: ipaddress.IPv4Address = FIRST) -> Endpoint:
    """As a daemon writes it; nodes have addresses of the LAN that nobody answers at."""
    identity, sandbox = new_id(), new_id()
    address = f"{first + number}/{subnet.partition('/')[2]}"
    return Endpoint(
        id=identity,
        network=network,
        sandbox=sandbox,
        created=now(),
        container_name=f"far{number}",
        interface="eth0",
        host_interface=f"veth{identity[:7]}",
        address=address,
        mac=mac_of(address, identity),
        names=(f"far{number}", sandbox[:12]),
        node=node,
        incarnation="7" * 32,
        vtep=f"203.0.113.{150 + number % VTEPS}",
    )


async def write_all(store: EtcdStore, endpoints: list[Endpoint], *, delete: bool = False) -> None:
    """Many at once, as no daemon does: what is measured is the node that hears of them."""
    waiting = asyncio.Semaphore(AT_ONCE)

    async def write(batch: tuple[Endpoint, ...]) -> None:
        writes: list[Write] = [write for one in batch for write in (delete_endpoint(one) if delete else put_endpoint(one)[1])]
        async with waiting:
            await store.txn((), [*writes, Put(f"{PREFIX}members/{batch[0].network}", batch[0].id.encode())])

    await asyncio.gather(*(write(tuple(endpoints[start : start + IN_ONE])) for start in range(0, len(endpoints), IN_ONE)))


async def _other_node(member: str, network: str, count: int) -> None:
    store = await EtcdStore.open([member], timeout=PATIENCE)
    node = Node(name=NODE, address="203.0.113.150", identity="", incarnation="7" * 32, started=now())
    await store.txn((), [Put(f"{PREFIX}nodes/{NODE}", encode(node)), Put(f"{PREFIX}alive/{NODE}", b"")])
    endpoints = [remote_endpoint(network, number) for number in range(count)]
    for delete in (False, True):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.monotonic()
        await write_all(store, endpoints, delete=delete)
        print(json.dumps([began, time.monotonic()]), flush=True)
    await store.close()


class OtherNode:
    """That process, in etcd's namespace."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def write(self) -> tuple[float, float]:
        """First all its endpoints come, then they go; when that began, and ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the other node did not start")
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        began, ended = json.loads(self._process.stdout.readline())
        return began, ended


@contextlib.contextmanager
def _another(etcd: Etcd, network: str, count: int) -> Iterator[OtherNode]:
    argv = etcd.namespace.argv(sys.executable, "-m", "tests.bench.remote", etcd.endpoint, network, str(count))
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield OtherNode(process)
        finally:
            end_processes([process.pid])


class Forwarding(threading.Thread):
    """Hears the kernel say that a tunnel has learnt where a MAC is. `last` is when it said that for the `count`th time."""

    def __init__(self, namespace: str, count: int) -> None:
        super().__init__(daemon=True)
        self._socket = namespaces.open_socket(namespace, socket.AF_NETLINK, socket.SOCK_RAW)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: nothing may be lost
        self._socket.bind((0, _NEIGHBOUR))
        self._socket.settimeout(PATIENCE)
        self._count = count
        self.last = 0.0

    def run(self) -> None:
        heard = 0
        with self._socket, contextlib.suppress(TimeoutError):
            while heard < self._count:
                heard += _tunnel_entries(self._socket.recv(1 << 20))
            self.last = time.monotonic()

    def wait(self) -> float:
        self.join(PATIENCE + 5)
        if not self.last:
            raise RuntimeError(f"not {self._count} forwarding entries after {PATIENCE:g} s")
        return self.last


def _tunnel_entries(data: bytes) -> int:
    found = 0
    while len(data) >= 28:
        length, kind = struct.unpack_from("=IH", data)
        family, flags = data[16], data[26]  # struct ndmsg behind the header
        found += kind == _NEW and family == _BRIDGE and bool(flags & _SELF)
        data = data[(length + 3) & ~3 :]
    return found


def measure(etcd: Etcd, pair: Pair, counts: list[int], rounds: int) -> dict[int, dict[str, list[float]]]:
    """Seconds, by number of endpoints. `appear`: from their first write until the last is in the forwarding table, while they are being
    written; `programmed`: the part of that after the last write; `joined`: a first container is connected with all of them there."""
    engine = pair.one
    assert isinstance(engine, Netplug)
    found: dict[int, dict[str, list[float]]] = {count: {"appear": [], "programmed": [], "joined": []} for count in counts}
    with network(engine.api, "local"), container(engine.api, "probe", "local"):
        for count, _ in itertools.product(counts, range(rounds)):
            with network(engine.api, SPAN, SUBNET, driver="overlay"):
                for name, seconds in _one(etcd, engine, count).items():
                    found[count][name].append(seconds)
    return found


def _one(etcd: Etcd, engine: Netplug, count: int) -> dict[str, float]:
    api = engine.api
    identity = api.call("GET", f"/networks/{SPAN}")["Id"]
    place = str(engine.host.run_directory / "netns" / f"1-{identity[:10]}")
    probe = {"Container": "probe"}
    with _another(etcd, identity, count) as other:
        api.call("POST", f"/networks/{SPAN}/connect", probe)
        forwarding = Forwarding(place, count)
        forwarding.start()
        began, ended = other.write()
        last = forwarding.wait()
        _check(place, count)
        api.call("POST", f"/networks/{SPAN}/disconnect", probe)
        joined = timed(api.call, "POST", f"/networks/{SPAN}/connect", probe) / 1000
        _check(place, count)
        api.call("POST", f"/networks/{SPAN}/disconnect", probe)
        other.write()
    return {"appear": last - began, "programmed": max(last - ended, 0.0), "joined": joined}


def _check(place: str, count: int) -> None:
    """The kernel's own table says the same."""
    entries = command("nsenter", f"--net={place}", "bridge", "fdb", "show").stdout.splitlines()
    there = sum(1 for entry in entries if " dst " in entry)
    if there != count:
        raise RuntimeError(f"{there} of {count} forwarding entries are there")


if __name__ == "__main__":
    asyncio.run(_other_node(sys.argv[1], sys.argv[2], int(sys.argv[3])))
