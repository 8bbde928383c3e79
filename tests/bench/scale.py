"""What grows with a host: the cost of one more endpoint, memory, and the time until a restarted daemon is consistent."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.engines import Engine, Netplug, container, create_container, create_network, remove_container, timed
from tests.hosts import Api, namespace_state

PER_NETWORK = 250  # a Linux bridge has 1,023 ports, and floods every new neighbour's multicast to all of them
WORKERS = 4
FEW = 10


@dataclass
class Memory:
    """MiB of the processes that are there whatever runs, and of one container's supervisor (median)."""

    rss: float
    pss: float
    supervisor_pss: float


@dataclass
class Growth:
    """Measured at each number of endpoints."""

    connect: dict[int, list[float]] = field(default_factory=dict)
    disconnect: dict[int, list[float]] = field(default_factory=dict)
    few_connect: dict[int, list[float]] = field(default_factory=dict)
    few_disconnect: dict[int, list[float]] = field(default_factory=dict)
    """Beside each of these, on a host with `FEW` endpoints, netplug only: the machine's moods last for minutes, as growing does."""
    memory: dict[int, Memory] = field(default_factory=dict)
    restart: list[float] = field(default_factory=list)
    """Seconds; netplug only."""


def growth(engine: Engine, steps: list[int], rounds: int, restarts: int, tick: Callable[[str], None]) -> Growth:
    """Fill a host with containers, one endpoint each, and measure at each step; remove them all at the end.

    `tick(text)` is called after each container and each measurement.
    """
    grown = Growth()
    grown.memory[0] = memory(engine)
    with contextlib.ExitStack() as stack:
        few = stack.enter_context(_host_of_few(engine)) if isinstance(engine, Netplug) else None
        more = stack.enter_context(_population(engine, tick))
        for step in steps:
            more(step)
            if few is None:
                [(grown.connect[step], grown.disconnect[step])] = _one_more([engine], rounds)
            else:
                beside, here = _one_more([few, engine], rounds)
                grown.connect[step], grown.disconnect[step] = here
                grown.few_connect[step], grown.few_disconnect[step] = beside
            grown.memory[step] = memory(engine)
            tick(f"{engine.name}: {step} endpoints measured")
        if isinstance(engine, Netplug):
            for _ in range(restarts):
                grown.restart.append(restart(engine))
                tick(f"restart with {steps[-1]} endpoints")
    return grown


@contextlib.contextmanager
def _host_of_few(engine: Netplug) -> Iterator[Netplug]:
    with contextlib.closing(Netplug(engine.lan)) as few, _population(few, lambda _: None) as more:
        more(FEW)
        yield few


@contextlib.contextmanager
def _population(engine: Engine, tick: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """Yields a function that makes the host have so many running containers, `PER_NETWORK` to a network."""
    api, there, networks = engine.api, list[str](), list[str]()

    def more(target: int) -> None:
        numbers = range(len(there), target)
        for number in numbers:
            name = f"grow{number // PER_NETWORK}"
            if name not in networks:
                create_network(api, name)
                networks.append(name)
        for name in _parallel(engine, _start_one, [(f"c{number}", f"grow{number // PER_NETWORK}") for number in numbers]):
            there.append(name)
            tick(f"{engine.name}: {len(there)} containers")

    try:
        yield more
    finally:
        for _ in _parallel(engine, _remove_one, [(name, "") for name in there]):
            tick(f"{engine.name}: removing")
        for name in networks:
            api.call("DELETE", f"/networks/{name}")


def _parallel(engine: Engine, action: Callable[[Api, str, str], str], work: list[tuple[str, str]]) -> Iterator[str]:
    """Several connections at once, each with its share of the work."""

    def share(number: int) -> list[str]:
        with contextlib.closing(Api(engine.api.path)) as api:
            return [action(api, *item) for item in batch[number::WORKERS]]

    with ThreadPoolExecutor(WORKERS) as pool:
        for first in range(0, len(work), 10 * WORKERS):
            batch = work[first : first + 10 * WORKERS]
            yield from itertools.chain.from_iterable(pool.map(share, range(WORKERS)))


def _start_one(api: Api, name: str, network: str) -> str:
    create_container(api, name, network)
    api.call("POST", f"/containers/{name}/start")
    return name


def _remove_one(api: Api, name: str, _: str) -> str:
    remove_container(api, name)
    return name


def _one_more(engines: Sequence[Engine], rounds: int) -> list[tuple[list[float], list[float]]]:
    """Connect and disconnect one more endpoint, on the network that has most. The engines take turns."""
    found = [(list[float](), list[float]()) for _ in engines]
    with contextlib.ExitStack() as stack:
        for engine in engines:
            stack.enter_context(container(engine.api, "probe", "bridge"))
        for _ in range(rounds):
            for engine, (connect, disconnect) in zip(engines, found, strict=True):
                connect.append(timed(engine.api.call, "POST", "/networks/grow0/connect", {"Container": "probe"}))
                disconnect.append(timed(engine.api.call, "POST", "/networks/grow0/disconnect", {"Container": "probe"}))
    return found


def memory(engine: Engine) -> Memory:
    standing = [_rollup(pid) for pid in engine.pids().values()]
    supervisors = [_rollup(pid)["Pss"] for pid in engine.supervisors()[:50]]
    return Memory(
        rss=sum(one["Rss"] for one in standing),
        pss=sum(one["Pss"] for one in standing),
        supervisor_pss=statistics.median(supervisors) if supervisors else 0.0,
    )


def _rollup(pid: int) -> dict[str, float]:
    """Rss and Pss of a process in MiB (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    values = dict(line.split(":", 1) for line in lines)
    return {key: int(values[key].split()[0]) / 1024 for key in ("Rss", "Pss")}


def restart(engine: Netplug) -> float:
    """Seconds from the start of a daemon until the kernel is as before its predecessor was killed, all rules lost in between."""
    host = engine.host
    before = namespace_state(host.namespace.path, sysctls=False)
    host.kill9()
    engine.api.close()  # it is opened again with the next call
    host.namespace.run("nft", "flush", "ruleset")
    started = time.perf_counter()
    host.start(timeout=60)
    while True:
        elapsed = time.perf_counter() - started
        after = namespace_state(host.namespace.path, sysctls=False)
        if after == before:
            return elapsed
        if elapsed > 60:
            raise RuntimeError(f"not consistent after a minute: {_difference(before, after)}")


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {str(before[key])[:500]} != {str(after[key])[:500]}" for key in before if before[key] != after[key])
