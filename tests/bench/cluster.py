"""Two nodes of each engine on one overlay network, over the same etcd: what a call costs, and how soon the other node reaches what is new.

dockerd 20.10 is the last with `--cluster-store`. It speaks etcd's API v2 and netplug v3, which are two stores of one server.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from netplug.cli.demo_etcd import Etcd
from netplug.cli.demo_hosts import end_processes
from tests.bench.engines import Dockerd, Engine, Netplug, container, inside, network, timed
from tests.bench.rows import PEER
from tests.bench.traffic import dnsmasq
from tests.hosts import OUTSIDE_ADDRESS, Api, ApiError, Lan

ROOT = Path(__file__).parents[2]
SPAN = "span"
PATIENCE = 20.0
TRIES = 4

T = TypeVar("T")


@dataclass
class Clustered:
    """What was measured of clusters."""

    calls: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Milliseconds, by engine: `connect` and `disconnect` beside other containers, `first` and `last` of a network on the node."""
    questions: dict[str, float] = field(default_factory=dict)
    """Calls of etcd's API that netplug's `connect` and `disconnect` make."""
    reach: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds, by engine, from a connect's beginning until a container on the other node has its answer to a ping, by name."""
    remote: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    """Seconds, by endpoints of another node: until the forwarding table is complete (`appear`, `programmed`, `joined`)."""
    tunnel: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By way: Gbit/s with and without `offload`, milliseconds of a ping."""
    allocation: dict[str, list[float]] = field(default_factory=dict)
    """Per second: endpoints that nodes claim on one pool, transactions of the same shape."""
    crowd: dict[int, dict[str, float]] = field(default_factory=dict)
    """What one change costs, by the number of (simulated) nodes."""


class Pair:
    """Two nodes of one engine."""

    def __init__(self, one: Engine, two: Engine) -> None:
        self.one, self.two = one, two
        self.name = one.name

    @contextlib.contextmanager
    def span(self, subnet: str = "") -> Iterator[None]:
        """An overlay network, known on both nodes."""
        with network(self.one.api, SPAN, subnet, driver="overlay"):
            _await_network(self.two.api)
            yield

    def patiently(self, measure: Callable[..., T], *arguments: Any) -> T | None:
        """What `measure` finds. dockerd is given more than one try, and at last None.

        Its threads are in containers' namespaces now and then, from where it finds no way to etcd ("network is unreachable").
        """
        for _ in range(TRIES if self.name == PEER else 0):
            try:
                return measure(self, *arguments)
            except ApiError as error:
                print(f"dockerd: {error}", file=sys.stderr)
                self._clear()
        return measure(self, *arguments) if self.name != PEER else None

    def _clear(self) -> None:
        """What a measurement that failed has left."""
        for engine in (self.one, self.two):
            for found in engine.api.call("GET", "/containers/json?all=1"):
                with contextlib.suppress(ApiError):
                    engine.api.call("DELETE", f"/containers/{found['Id']}?force=1")
            for found in engine.api.call("GET", "/networks?filters=%7B%22type%22%3A%5B%22custom%22%5D%7D"):
                with contextlib.suppress(ApiError):
                    engine.api.call("DELETE", f"/networks/{found['Id']}")


@contextlib.contextmanager
def pairs(lan: Lan, names: Sequence[str]) -> Iterator[tuple[Etcd, list[Pair]]]:
    """Both engines on a new etcd, and a name server for them that refuses at once: unknown names must cost neither its patience."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(dnsmasq(lan.outside, OUTSIDE_ADDRESS))
        etcd = stack.enter_context(Etcd(lan, flags=("--enable-v2",)))
        etcd.start()
        found = []
        for name in names:
            nodes = [stack.enter_context(contextlib.closing(_node(name, lan, etcd, number))) for number in (1, 2)]
            found.append(Pair(*nodes))
        yield etcd, found


def _node(name: str, lan: Lan, etcd: Etcd, number: int) -> Engine:
    if name == "netplug":
        flags = ("--store", etcd.store, "--advertise", "uplink", "--node", f"n{number}")
        return Netplug(lan, *flags, resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n")
    return Dockerd(lan, "--cluster-store", etcd.store, "--cluster-advertise", "uplink:2376", "--dns", OUTSIDE_ADDRESS)


def _await_network(api: Api) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            api.call("GET", f"/networks/{SPAN}")
            return
        except ApiError as error:
            if error.status != 404 or time.monotonic() > deadline:
                raise


def connections(pair: Pair, rounds: int) -> dict[str, list[float]]:
    """A running container joins and leaves the network: with others of it on both nodes, then as the first and last of its node."""
    samples: dict[str, list[float]] = {"connect": [], "disconnect": [], "first": [], "last": []}
    api = pair.one.api
    with pair.span(), network(api, "local"), container(api, "probe", "local"), container(pair.two.api, "far", SPAN):
        with container(api, "near", SPAN):
            for _ in range(rounds):
                samples["connect"].append(_connect(api))
                samples["disconnect"].append(_disconnect(api))
        for _ in range(max(1, rounds // 3)):
            samples["first"].append(_connect(api))
            samples["last"].append(_disconnect(api))
    return samples


def _connect(api: Api) -> float:
    return timed(api.call, "POST", f"/networks/{SPAN}/connect", {"Container": "probe"})


def _disconnect(api: Api) -> float:
    return timed(api.call, "POST", f"/networks/{SPAN}/disconnect", {"Container": "probe"})


def questions(etcd: Etcd, pair: Pair, rounds: int) -> dict[str, float]:
    """How many calls of its API (v3) etcd counts for a connect and for a disconnect. The nodes' signs of life are streams: not counted."""
    found = {"connect": 0, "disconnect": 0}
    api = pair.one.api
    with pair.span(), network(api, "local"), container(api, "probe", "local"), container(api, "near", SPAN):
        for _ in range(rounds):
            for name, call in (("connect", _connect), ("disconnect", _disconnect)):
                before = _asked(etcd)
                call(api)
                found[name] += _asked(etcd) - before
    return {name: count / rounds for name, count in found.items()}


def _asked(etcd: Etcd) -> int:
    told = etcd.namespace.run("busybox", "wget", "-qO-", f"http://{etcd.endpoint}/metrics").stdout
    return sum(int(float(count)) for count in re.findall(r'^grpc_server_started_total\{.*grpc_type="unary"\} (\S+)$', told, re.MULTILINE))


def reach(pair: Pair, rounds: int) -> list[float]:
    """Milliseconds from the beginning of a connect until a container on the other node, which knows only the name, has its answer."""
    api, samples = pair.one.api, []
    with contextlib.ExitStack() as stack:
        for block in (pair.span(), network(api, "local"), container(api, "probe", "local"), container(api, "near", SPAN)):
            stack.enter_context(block)
        asker = stack.enter_context(_asking(inside(stack.enter_context(container(pair.two.api, "asker", SPAN)))))
        for _ in range(rounds):
            asker.begin("come")
            started = time.monotonic()
            _connect(api)
            samples.append((asker.end() - started) * 1000)
            _disconnect(api)
            asker.begin("gone")
            asker.end()
    return samples


class Asker:
    """A process in a container's namespace that asks for `probe` again and again (`tests.bench.reach`)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self._read()

    def end(self) -> float:
        """When it was so: seconds of the monotonic clock."""
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.strip():
            raise RuntimeError("the other node did not see it in time")
        return line


@contextlib.contextmanager
def _asking(enter: list[str]) -> Iterator[Asker]:
    argv = [*enter, sys.executable, "-m", "tests.bench.reach", "probe", str(PATIENCE)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Asker(process)
        finally:
            end_processes([process.pid])
