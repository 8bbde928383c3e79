"""From samples to what people read: the table in BENCHMARKS.md, the curves beside it, the same table on the terminal."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path

from netplug.cli.demo_hosts import command
from tests.bench import cluster_rows, plugin_rows, publishing_rows
from tests.bench.cluster import Clustered
from tests.bench.plugin import Plugged
from tests.bench.publishing import Publishing
from tests.bench.rows import OURS, PEER, Row, as_growth, as_text, as_times, median_of, noise_of
from tests.bench.scale import FEW, Growth, Memory


@dataclass
class Results:
    """Everything one run measured: samples by engine, then by name."""

    latency: dict[str, dict[str, list[float]]]
    ports: dict[str, dict[int, list[float]]]
    dns: dict[str, list[float]]
    rates: dict[str, dict[str, list[float]]]
    growth: dict[str, Growth]
    publishing: Publishing
    clustered: Clustered
    plugged: Plugged


def rows(results: Results) -> list[Row]:
    """The table; what was not measured is left out."""
    return [
        *_latency_rows(results),
        *_port_rows(results),
        *publishing_rows.rows(results.publishing),
        *_growth_rows(results),
        *_dns_rows(results),
        *_rate_rows(results),
        *cluster_rows.rows(results.clustered),
        *plugin_rows.rows(results.plugged),
    ]


LATENCIES: list[tuple[str, str, float]] = [
    ("connect", "connect a running container", 10),
    ("disconnect", "disconnect it", 15),
    ("create", "create a network", 15),
    ("rm", "remove it", 30),
    ("start", "start with one published port", 2),
    ("remove", "remove it by force (rm -f)", 2),
]


def _latency_rows(results: Results) -> list[Row]:
    found = []
    for key, what, times in LATENCIES:
        ours, peer = (median_of(results.latency.get(engine, {}).get(key)) for engine in (OURS, PEER))
        ratio = peer / ours if ours and peer else None
        reached = None if ratio is None else ratio >= times
        found.append(Row(what, as_text(ours, "ms"), as_text(peer, "ms"), as_times(ratio), f"{times:g} times faster", reached))
    return [row for row in found if row.ours or row.peer]


def _port_rows(results: Results) -> list[Row]:
    found = []
    ours, peer = (results.ports.get(engine, {}) for engine in (OURS, PEER))
    base = median_of(ours.get(1))
    for count in sorted({*ours, *peer}):
        mine = median_of(ours.get(count))
        ratio = mine / base if mine and base else None
        limit = count == 100
        reached = ratio < 3 if ratio is not None and limit else None
        target = "100 cost under 3 times 1" if limit else ""
        found.append(
            Row(
                f"publish {count} port{'s' if count > 1 else ''} in one connect",
                as_text(mine, "ms"),
                as_text(median_of(peer.get(count)), "ms"),
                as_growth(ratio),
                target,
                reached,
            )
        )
    return found


def _growth_rows(results: Results) -> list[Row]:
    ours, peer = results.growth.get(OURS, Growth()), results.growth.get(PEER, Growth())
    found = []
    if ours.connect:
        many = max(ours.connect)
        for what, beside, here in (
            ("connect", ours.few_connect, ours.connect),
            ("disconnect", ours.few_disconnect, ours.disconnect),
        ):
            first, last = median_of(beside[many]), median_of(here[many])
            ratio = last / first if first and last else None
            cost = f"{as_text(first, 'ms')} → {as_text(last, 'ms')}"
            found.append(
                Row(
                    f"{what}: endpoint {FEW} and endpoint {many:,} of a host",
                    cost,
                    "",
                    as_growth(ratio),
                    "within 1.5 times",
                    ratio is not None and ratio <= 1.5,
                )
            )
    for count, peers, limit in ((0, 0, 70), (max(ours.memory, default=0), max(peer.memory, default=0), 110)):
        if count in ours.memory:
            found.append(_memory_row(count, ours.memory[count], peers, peer.memory.get(peers), limit))
    if ours.restart:
        seconds = statistics.median(ours.restart)
        found.append(
            Row(f"restart with {max(ours.connect):,} endpoints until consistent", f"{seconds:.2f} s", "", "", "under 2 s", seconds < 2)
        )
    return found


def _memory_row(count: int, mine: Memory, peer_count: int, theirs: Memory | None, limit: int) -> Row:
    text = f"RSS {mine.rss:.0f} MiB (PSS {mine.pss:.0f})"
    at = f" at {peer_count:,}" if peer_count != count else ""
    beside = f"RSS {theirs.rss:.0f} MiB (PSS {theirs.pss:.0f}){at}" if theirs else ""
    ratio = theirs.rss / mine.rss if theirs else None
    return Row(f"memory of the daemons, {count:,} endpoints", text, beside, as_times(ratio), f"under {limit} MiB", mine.rss < limit)


def _dns_rows(results: Results) -> list[Row]:
    ours = median_of(results.dns.get(OURS))
    found = []
    for name, least, target in ((PEER, 1.5, "1.5 times dockerd's"), ("dnsmasq", 0.5, "over half of dnsmasq's")):
        peer = median_of(results.dns.get(name))
        ratio = ours / peer if ours and peer else None
        reached = ratio >= least if ratio is not None else None
        beside = f"{name}: {as_text(peer, '/s')}" if peer else ""
        found.append(Row("DNS A queries at 127.0.0.11", as_text(ours, "/s"), beside, as_times(ratio), target, reached))
    return [row for row in found if row.ours or row.peer]


def _rate_rows(results: Results) -> list[Row]:
    found = []
    for key, what in (("between", "container to container"), ("published", "published port from outside"), ("out", "from a container out")):
        ours, peer = (results.rates.get(engine, {}).get(key, []) for engine in (OURS, PEER))
        ratio = statistics.median(ours) / statistics.median(peer) if ours and peer else None
        reached = ratio >= 1 - noise_of(ours, peer) if ratio is not None else None
        found.append(
            Row(
                what, as_text(median_of(ours), "Gbit/s"), as_text(median_of(peer), "Gbit/s"), as_times(ratio), "equal within noise", reached
            )
        )
    return [row for row in found if row.ours or row.peer]


HEADER = """# Benchmarks

netplug beside dockerd, measured in one run by `make bench`: medians, both daemons on hosts of their own (network namespaces) on one
machine, taking turns, the same client code over the same Docker API, the same busybox image. A ratio above 1 means netplug is
better, except where it is the growth of netplug's own cost.

"""

FOOTER = """
## How it is measured

- The engines take turns. Each begins when the machine is quiet (nine tenths idle), so that what one leaves for later is not the next
  one's time.
- Calls are timed by the client over a kept-alive unix socket connection, from the first byte sent to the last byte read.
- Ports: a running container that publishes so many ports leaves its only network and joins it again; the join is timed.
- Ports beside many: a running container that publishes 1,000 ports (100 for dockerd, which takes 20 ms for each) leaves its only network
  and joins it again, with so many ports of other containers there; none of them is part of a range. A host where
  none are there is measured in turns with each. A list: `iptables-restore --noflush` of 1,000 DNAT rules into a table with so many.
- Connections: a client outside connects and resets, one connection after the other, through the rules to a server in a container; the
  list has one DNAT rule per port and nothing else.
- Bytes through the rules: iperf3 out of a container, with all tables of ours loaded (NAT too), with none, and with what NAT takes at
  least (one rule that masquerades, one that accepts what is known), in turns.
- A range of ports: every port is held by a socket that is bound; beside it a bare loop that opens and binds as many.
- Endpoints of a host: so many running containers with one endpoint each, at most {per_network} to a network; one more container is
  connected and disconnected beside them. A host with {few} endpoints is measured in turns with each.
- DNS: dnsperf in a container's network namespace, 100 queries outstanding; dnsmasq alone in a namespace with the same name.
- Traffic: iperf3, one TCP stream of a second, eight in turns, with Reno as congestion control: BBR, which may be a machine's default, sends
  at the pace of its own clock, and its guess would be measured instead of the path. Noise is half of the span of either side's samples but
  for the lowest and the highest.
- Overlay: two nodes of each engine over one etcd 3.4 (dockerd with `--cluster-store`, over its API v2), with containers of the network on
  both; questions are what etcd counts of its API v3 besides streams.
- Reached by name: a process in a container on the other node asks 127.0.0.11 for the name every millisecond and pings what it is told.
- Endpoints of another node are written 30 to a transaction, as no daemon does; the kernel's own notifications tell when it knows the last.
- On two hosts: the same shape by hand is a container on a bridge with a VXLAN port, made with `ip`. Without offload the hosts' links
  take single packets with checksums.
- Addresses claimed: 32 at a time per node; what a connect does until the address is its endpoint's in etcd, and what comes back of the
  others'. Whole connects are without kernel and resolver; sqlite and etcd are real. Bare transactions are the same compares and puts, one
  in a request, 32 at a time by as many plain clients of the same gRPC library. etcd and clients share the machine.
- Simulated: the cluster parts of so many daemons in one process, 100 endpoints each on one network, with a connection of its own to a real
  etcd for each, and no kernels. Counts and bytes are real, CPU is without the kernel's.
- As dockerd's plugin: both kinds of networks in one dockerd, in turns; its own calls are timed over the plugin's socket. For its start
  dockerd has a network of the plugin's and a container on it. A plugin that is dead was killed: its socket is gone with it, and dockerd
  finds what `netplug install docker` has written, without which it would look for 15 s. Held by systemd, the socket takes the call and
  netplug is started.
- Memory: the sum of RSS (and PSS) of daemon and resolver, or of dockerd and containerd. What is there once per container is not in
  it: {supervisors}.
- Restart: the daemon is killed with SIGKILL and the whole nftables ruleset flushed; the clock runs from the new daemon's start until links,
  addresses, routes and rules of the host are what they were.
"""


def markdown(results: Results, per_network: int) -> str:
    lines = [HEADER, f"- date: {datetime.date.today().isoformat()}\n", *(f"- {key}: {value}\n" for key, value in machine().items()), "\n"]
    lines += ["| what | netplug | dockerd | ratio | to reach | reached |\n", "|---|---|---|---|---|---|\n"]
    for row in rows(results):
        lines.append(f"| {row.what} | {row.ours} | {row.peer} | {row.ratio} | {row.target} | {mark(row.reached)} |\n")
    lines.append("\n")
    lines += [f"![{title}](docs/bench/{name}.png)\n\n" for name, title in CURVES.items()]
    return "".join(lines) + FOOTER.format(few=FEW, per_network=per_network, supervisors=_supervisors(results))


def _supervisors(results: Results) -> str:
    told = []
    for engine, what in ((OURS, "conmon"), (PEER, "containerd-shim")):
        grown = results.growth.get(engine)
        if grown and (some := [one.supervisor_pss for count, one in grown.memory.items() if count]):
            told.append(f"{what} {statistics.median(some):.1f} MiB (PSS)")
    return ", ".join(told) or "conmon, containerd-shim"


def mark(reached: bool | None) -> str:
    return "" if reached is None else "yes" if reached else "**no**"


def machine() -> dict[str, str]:
    """What it was measured on."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?"
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    dockerd = command("dockerd", "--version", check=False).stdout.strip()
    runc = command("runc", "--version", check=False).stdout.splitlines()
    return {
        "machine": f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {platform.release()}",
        "software": f"{dockerd}; {runc[0] if runc else 'no runc'}; Python {platform.python_version()}",
    }


CURVES = {
    "calls": "Milliseconds per call",
    "ports": "Ports in one connect",
    "publishing": "One more published port, by the ports that are there",
    "endpoints": "One more endpoint, by the endpoints a host has",
    "memory": "Memory by endpoints",
    "traffic": "Traffic and names",
    "remote": "Endpoints of another node, until the kernel knows them",
    "crowd": "One change, by the nodes of a cluster (simulated)",
}


def save(results: Results, directory: Path) -> None:
    """The samples, for whoever wants to look closer."""
    directory.mkdir(parents=True, exist_ok=True)
    growth = {
        engine: vars(grown) | {"memory": {n: vars(one) for n, one in grown.memory.items()}} for engine, grown in results.growth.items()
    }
    parts = {
        "growth": growth,
        "publishing": vars(results.publishing),
        "clustered": vars(results.clustered),
        "plugged": vars(results.plugged),
    }
    plain = {key: _rounded(value) for key, value in (vars(results) | parts).items()}
    (directory / "samples.json").write_text(json.dumps(plain, indent=1) + "\n")


def _rounded(value: object) -> object:
    match value:
        case dict():
            return {str(key): _rounded(one) for key, one in value.items()}
        case list():
            return [_rounded(one) for one in value]
        case float():
            return round(value, 3)
    return value
