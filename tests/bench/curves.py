"""The results as pictures: PNG files, one per question."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # after the backend: this machine may have no screen
from matplotlib.axes import Axes

from tests.bench.report import CURVES, LATENCIES, Results
from tests.bench.scale import FEW

COLOURS = {
    "netplug": "#1b7f5c",
    "netplug (iptables)": "#7fc8a9",
    "dockerd": "#2b6cb0",
    "dnsmasq": "#8a8a8a",
    "iptables list": "#c05621",
}


def draw(results: Results, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[Axes, Results], None]] = {
        "calls": _calls,
        "ports": _ports,
        "publishing": _publishing,
        "endpoints": _endpoints,
        "memory": _memory,
        "traffic": _traffic,
        "remote": _remote,
        "crowd": _crowd,
    }
    for name, drawing in drawings.items():
        figure, axes = pyplot.subplots(figsize=(7, 3.6), dpi=110, layout="constrained")
        drawing(axes, results)
        axes.set_title(CURVES[name])
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
        figure.savefig(directory / f"{name}.png")
        pyplot.close(figure)


def _bars(axes: Axes, labels: list[str], series: dict[str, list[float]]) -> None:
    """Groups of bars, one bar per engine, its value above it."""
    width = 0.8 / max(1, len(series))
    for number, (engine, values) in enumerate(series.items()):
        places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(labels))]
        bars = axes.bar(places, values, width, label=engine, color=COLOURS[engine])
        axes.bar_label(bars, fmt=lambda value: f"{value:.3g}" if value else "", fontsize=7)
    axes.set_xticks(range(len(labels)), labels, fontsize=8)


def _calls(axes: Axes, results: Results) -> None:
    keys = [key for key, _, _ in LATENCIES]
    series = {engine: [statistics.median(found.get(key) or [0]) for key in keys] for engine, found in results.latency.items()}
    _bars(axes, ["connect", "disconnect", "network\ncreate", "network\nrm", "start", "rm -f"], series)
    axes.set_yscale("log")
    axes.set_ylabel("ms (median)")


def _ports(axes: Axes, results: Results) -> None:
    for engine, found in results.ports.items():
        counts = sorted(found)
        axes.plot(counts, [statistics.median(found[count]) for count in counts], marker="o", label=engine, color=COLOURS[engine])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("published ports")
    axes.set_ylabel("ms (median)")


def _publishing(axes: Axes, results: Results) -> None:
    for name, found in results.publishing.per_port.items():
        steps = sorted(found)
        axes.plot(steps, [statistics.median(found[step]) for step in steps], marker="o", label=name, color=COLOURS[name])
    axes.set_yscale("log")
    axes.set_xlabel("published ports of the host")
    axes.set_ylabel("ms per port (median)")


def _endpoints(axes: Axes, results: Results) -> None:
    for engine, grown in results.growth.items():
        kinds = [(grown.connect, "-", "connect"), (grown.disconnect, "--", "disconnect")]
        if grown.few_connect:
            kinds.append((grown.few_connect, ":", f"connect, in turns at {FEW}"))
            kinds.append((grown.few_disconnect, "-.", f"disconnect, in turns at {FEW}"))
        for samples, style, what in kinds:
            medians = [statistics.median(samples[count]) for count in samples]
            axes.plot(list(samples), medians, style, marker="o", markersize=3, label=f"{engine} {what}", color=COLOURS[engine])
    axes.set_xlabel("endpoints of the host")
    axes.set_ylabel("ms (median)")
    axes.set_ylim(bottom=0)


def _memory(axes: Axes, results: Results) -> None:
    for engine, grown in results.growth.items():
        for kind, style in (("rss", "-"), ("pss", ":")):
            values = [getattr(one, kind) for one in grown.memory.values()]
            axes.plot(list(grown.memory), values, style, marker="o", markersize=3, label=f"{engine} {kind.upper()}", color=COLOURS[engine])
    axes.set_xlabel("endpoints of the host")
    axes.set_ylabel("MiB, daemons only")
    axes.set_ylim(bottom=0)


def _traffic(axes: Axes, results: Results) -> None:
    kinds = ["between", "published", "out"]
    engines = [engine for engine in COLOURS if engine in results.rates or engine in results.dns]
    series = {
        engine: [
            *(statistics.median(results.rates.get(engine, {}).get(kind) or [0]) for kind in kinds),
            statistics.median(results.dns.get(engine) or [0]) / 10_000,
        ]
        for engine in engines
    }
    _bars(axes, ["container to\ncontainer", "published\nport", "out", "DNS A\nqueries"], series)
    axes.set_ylabel("Gbit/s; 10,000 queries/s")


def _remote(axes: Axes, results: Results) -> None:
    found = results.clustered.remote
    for key, label in (("appear", "while they are written"), ("joined", "at a first connect")):
        axes.plot(list(found), [statistics.median(found[count][key]) for count in found], marker="o", label=label)
    axes.set_xlabel("endpoints")
    axes.set_ylabel("s (median)")
    axes.set_ylim(bottom=0)


def _crowd(axes: Axes, results: Results) -> None:
    found = results.clustered.crowd
    for key, label, scale in (("events", "watch events", 1), ("bytes", "KiB from etcd", 1024), ("etcd_ms", "ms of etcd's CPU", 1)):
        axes.plot(list(found), [cost[key] / scale for cost in found.values()], marker="o", label=label)
    axes.plot(list(found), [cost["node_ms"] for cost in found.values()], marker="o", label="ms of each node's CPU")
    axes.set_xlabel("nodes with 100 endpoints each")
    axes.set_ylim(bottom=0)
