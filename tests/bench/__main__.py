"""`python -m tests.bench`: measure netplug beside dockerd and write BENCHMARKS.md. Needs root; takes a quarter of an hour."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.bench import allocation, cluster, crowd, curves, latency, plugin, publishing, quiet, remote, report, scale, traffic, tunnel
from tests.bench.engines import Dockerd, Engine, Netplug
from tests.bench.report import Results
from tests.hosts import Lan, Namespace, untouched_machine

PARTS = ("latency", "ports", "dns", "traffic", "growth", "publishing", "cluster", "plugin")
BATCHES = 3
STREAMS = 8
"""Turns of what a single TCP stream of one second gets through: it may be half as much again or a third less, without any reason."""
PORTS = {1: 30, 10: 15, 100: 6}
"""How often a connect with so many ports is timed."""
BATCH, PEER_BATCH = 1000, 100
"""How many ports are published at once where many are there already."""
THERE, PEER_THERE = [0, 2500, 5000], [0, 100, 200]
REMOTE = [1000, 2500, 5000]
"""Endpoints on another node that appear at once."""
CROWDS = [10, 25, 50, 100]
"""Simulated nodes."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--engines", default="netplug,dockerd", help="which sides to measure")
    parser.add_argument("--only", default=",".join(PARTS), help="which parts, of: " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=45, help="samples per call and engine")
    parser.add_argument("--seconds", type=int, default=3, help="length of one dnsperf run")
    parser.add_argument("--endpoints", type=int, default=1000, help="how far netplug's host grows")
    parser.add_argument("--peer-endpoints", type=int, default=100, help="how far dockerd's host grows (12 MB a container)")
    parser.add_argument("--out", type=Path, default=None, help="where to write BENCHMARKS.md and docs/bench (all parts: here)")
    return parser.parse_args()


Side = TypeVar("Side", Engine, cluster.Pair)


class Bench:
    """One run: the engines take turns in every measurement, so that the machine's moods hit both."""

    def __init__(self, options: argparse.Namespace, engines: list[Engine], spare: Namespace, progress: Progress) -> None:
        self.options, self.engines, self.spare, self.progress = options, engines, spare, progress
        self.results = Results({}, {}, {}, {}, {}, publishing.Publishing(), cluster.Clustered(), plugin.Plugged())

    def _turns(self, what: str, turns: int = BATCHES) -> Iterator[Engine]:
        """Each engine in turn, `turns` times, with a line of progress."""
        return self._alternate(what, self.engines, turns)

    def _alternate(self, what: str, sides: Sequence[Side], turns: int = BATCHES) -> Iterator[Side]:
        task = self.progress.add_task(what, total=turns * len(sides))
        for _ in range(turns):
            for side in sides:
                self.progress.update(task, description=f"{what}: {side.name}")
                quiet.wait()
                yield side
                self.progress.advance(task)
        self.progress.update(task, description=what)

    def latency(self) -> None:
        rounds = max(1, self.options.rounds // BATCHES)
        renamed = {"rm": "remove"}
        for what, measure, names in (
            ("connect, disconnect", latency.connections, {}),
            ("network create, rm", latency.networks, {}),
            ("start, rm -f", latency.starts, renamed),
        ):
            for engine in self._turns(what):
                found = self.results.latency.setdefault(engine.name, {})
                for name, samples in measure(engine, rounds).items():
                    found.setdefault(names.get(name, name), []).extend(samples)

    def ports(self) -> None:
        for count, rounds in PORTS.items():
            for engine in self._turns(f"{count} published ports", turns=1):
                self.results.ports.setdefault(engine.name, {})[count] = latency.published(engine, count, rounds)

    def publishing(self) -> None:
        found, lan = self.results.publishing, self.engines[0].lan
        netplugs = [engine for engine in self.engines if isinstance(engine, Netplug)]
        for engine in self._turns(f"{publishing.CONTAINERS} starts at once", turns=2):
            found.starts.setdefault(engine.name, []).append(publishing.starts(engine))
        task = self.progress.add_task("ports beside many", total=2 * len(THERE) + len(PEER_THERE) + 1)
        with contextlib.ExitStack() as stack:
            flags = ("--firewall-backend", "iptables")
            classic = stack.enter_context(contextlib.closing(Netplug(lan, *flags, name="netplug (iptables)")))
            for engine in (*self.engines, classic):
                if not isinstance(engine, Netplug):
                    found.per_port[engine.name] = publishing.per_port(engine, PEER_THERE, PEER_BATCH, 3, self._ticker(task))
                    continue
                with contextlib.closing(Netplug(lan, *(flags if engine is classic else ()))) as bare:
                    found.per_port[engine.name] = publishing.per_port(engine, THERE, BATCH, 8, self._ticker(task), bare)
        found.per_port[publishing.LIST] = publishing.list_per_port(lan, THERE, BATCH, 3)
        self.progress.advance(task)
        for engine in netplugs:
            self.progress.console.print("connections to the last port, a range of ports, traffic through the rules")
            found.rates = publishing.rates(engine, max(THERE), 12)
            for _ in range(3):  # in turns
                found.range.setdefault(engine.name, []).extend(publishing.port_range(engine, 5))
                found.range.setdefault(publishing.BARE, []).extend(publishing.bare_range(self.spare, 5))
            found.through = publishing.through(lan, 24, 1)

    def dns(self) -> None:
        for engine in self._turns("DNS queries"):
            self.results.dns.setdefault(engine.name, []).append(traffic.resolver_rate(engine, self.options.seconds))
            if engine is self.engines[-1]:
                self.results.dns.setdefault("dnsmasq", []).append(traffic.dnsmasq_rate(self.spare, self.options.seconds))

    def traffic(self) -> None:
        for engine in self._turns("traffic", STREAMS):
            found = self.results.rates.setdefault(engine.name, {})
            for name, rate in traffic.rates(engine, 1).items():
                found.setdefault(name, []).append(rate)

    def growth(self) -> None:
        for engine in self.engines:
            last = self.options.endpoints if isinstance(engine, Netplug) else self.options.peer_endpoints
            steps = [step for step in (10, 100, 250, 500, 750) if step < last] + [last]
            restarts = 5 if isinstance(engine, Netplug) else 0
            task = self.progress.add_task(f"{engine.name} grows", total=2 * last + len(steps) + restarts)
            tick = self._ticker(task)
            self.results.growth[engine.name] = scale.growth(engine, steps, max(5, self.options.rounds // 2), restarts, tick)

    def cluster(self) -> None:
        found, lan = self.results.clustered, self.engines[0].lan
        with cluster.pairs(lan, [engine.name for engine in self.engines]) as (etcd, pairs):
            ours = [pair for pair in pairs if pair.name == "netplug"]
            for pair in self._alternate("connect, disconnect on an overlay", pairs):
                calls = pair.patiently(cluster.connections, max(1, self.options.rounds // BATCHES)) or {}
                for name, samples in calls.items():
                    found.calls.setdefault(pair.name, {}).setdefault(name, []).extend(samples)
            for pair in self._alternate("reachable by name from another node", pairs):
                found.reach.setdefault(pair.name, []).extend(pair.patiently(cluster.reach, self.options.rounds) or [])
            for pair in self._alternate("through the tunnel", pairs, STREAMS):
                self._keep_rates(pair.name, pair.patiently(tunnel.rates, 1) or {})
                if pair is pairs[-1]:
                    self._keep_rates(tunnel.BY_HAND, tunnel.rates_by_hand(lan, 1))
            for pair in ours:
                self.progress.console.print("questions to etcd, endpoints of another node")
                found.questions = cluster.questions(etcd, pair, self.options.rounds)
                found.remote = remote.measure(etcd, pair, REMOTE, BATCHES)
        self.progress.console.print("addresses claimed per second")
        found.allocation = allocation.measure(BATCHES)
        self.progress.console.print("a simulated crowd of nodes")
        found.crowd = {nodes: crowd.measure(nodes) for nodes in CROWDS}

    def plugin(self) -> None:
        task = self.progress.add_task("the plugin of a dockerd", total=BATCHES + 2)
        self.results.plugged = plugin.measure(self.engines[0].lan, max(1, self.options.rounds // BATCHES), BATCHES, self._ticker(task))

    def _keep_rates(self, way: str, measured: dict[str, list[float]]) -> None:
        for name, samples in measured.items():
            self.results.clustered.tunnel.setdefault(way, {}).setdefault(name, []).extend(samples)

    def _ticker(self, task: object) -> Callable[[str], None]:
        return lambda text: self.progress.update(task, advance=1, description=text)  # type: ignore[arg-type]


def show(results: Results) -> None:
    table = Table(title="netplug beside dockerd (medians)")
    for column in ("what", "netplug", "dockerd", "ratio", "to reach", "reached"):
        table.add_column(column)
    for row in report.rows(results):
        table.add_row(
            row.what, row.ours, row.peer, row.ratio, row.target, {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[row.reached]
        )
    console = Console()
    console.print(table, width=console.width if console.is_terminal else 130)


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each daemon would compile itself at its start, as an installed one does not
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was made is removed
    options = arguments()
    parts, names = options.only.split(","), options.engines.split(",")
    whole = set(parts) == set(PARTS) and len(names) == 2
    out = options.out or (Path.cwd() if whole else None)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with contextlib.ExitStack() as stack:
        stack.enter_context(untouched_machine())
        lan = stack.enter_context(Lan())
        spare = Namespace(f"{lan.outside.name}-dns")
        stack.callback(spare.remove)
        engines: list[Engine] = []
        for name in names:
            engine: Engine = Netplug(lan) if name == "netplug" else Dockerd(lan)
            stack.callback(engine.close)
            engines.append(engine)
        progress = stack.enter_context(Progress(*columns))
        bench = Bench(options, engines, spare, progress)
        for part in PARTS:
            if part in parts:
                getattr(bench, part)()
    show(bench.results)
    if out is not None:
        report.save(bench.results, out / "docs" / "bench")
        curves.draw(bench.results, out / "docs" / "bench")
        (out / "BENCHMARKS.md").write_text(report.markdown(bench.results, scale.PER_NETWORK))


if __name__ == "__main__":
    main()
