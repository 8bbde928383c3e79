"""The table's lines about clusters."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tests.bench.cluster import Clustered
from tests.bench.rows import FLAT, OURS, PEER, Row, as_growth, as_text, as_times, median_of, noise_of
from tests.bench.tunnel import BY_HAND

MOST_NOISE = 0.2
"""Where samples are further apart, the machine was busy, and nothing is reached by that."""


def rows(found: Clustered) -> list[Row]:
    """What was not measured is left out."""
    return [
        *_call_rows(found),
        *_question_rows(found),
        *_reach_rows(found),
        *_remote_rows(found),
        *_tunnel_rows(found),
        *_allocation_rows(found),
        *_crowd_rows(found),
    ]


CALLS: list[tuple[str, str, float | None]] = [
    ("connect", "connect on an overlay network over etcd", 20),
    ("disconnect", "disconnect from it", 15),
    ("first", "connect as the first of its node", None),
    ("last", "disconnect as the last", None),
]


def _call_rows(found: Clustered) -> list[Row]:
    rows = []
    for key, what, least in CALLS:
        ours, peer = (median_of(found.calls.get(engine, {}).get(key)) for engine in (OURS, PEER))
        ratio = peer / ours if ours and peer else None
        reached = ratio >= least if ratio is not None and least is not None else None
        target = f"{least:g} times faster" if least is not None else ""
        rows.append(Row(what, as_text(ours, "ms"), as_text(peer, "ms"), as_times(ratio), target, reached))
    return [row for row in rows if row.ours or row.peer]


def _question_rows(found: Clustered) -> list[Row]:
    return [
        Row(f"questions to etcd for one {name}", f"{count:.2f}", "", "", "2 at most", count <= 2) for name, count in found.questions.items()
    ]


def _reach_rows(found: Clustered) -> list[Row]:
    ours, peer = found.reach.get(OURS), found.reach.get(PEER)
    ratio = statistics.median(peer) / statistics.median(ours) if ours and peer else None
    row = Row("connect, until reached by name from another node", _spread(ours), _spread(peer), as_times(ratio), "", None)
    return [row] if ours else []


def _spread(samples: Sequence[float] | None) -> str:
    if not samples:
        return ""
    last = sorted(samples)[min(len(samples) - 1, round(0.99 * len(samples)))]
    return f"{as_text(statistics.median(samples), 'ms')} (p99 {as_text(last, 'ms')} of {len(samples)})"


def _remote_rows(found: Clustered) -> list[Row]:
    if not found.remote:
        return []
    few, many = min(found.remote), max(found.remote)
    rows = []
    for key, what, least in (
        ("appear", "{} endpoints of another node are written and known to the kernel", None),
        ("programmed", "of that, after the last was written", 1.0),
        ("joined", "first connect on a network with {} endpoints elsewhere", None),
    ):
        last = statistics.median(found.remote[many][key])
        reached = last < least if least is not None else None
        target = f"under {least:g} s" if least is not None else ""
        rows.append(Row(what.format(f"{many:,}"), as_text(last, "s"), "", "", target, reached))
    first, last = (statistics.median(found.remote[count]["joined"]) / count for count in (few, many))
    cost = f"{as_text(first * 1e6, 'µs')} → {as_text(last * 1e6, 'µs')}"
    what = f"one endpoint of {few:,} and of {many:,}, at a first connect"
    return [*rows, Row(what, cost, "", as_growth(last / first), f"linear (within {FLAT} times)", last / first <= FLAT)]


def _tunnel_rows(found: Clustered) -> list[Row]:
    rows = []
    for key, what, unit in (
        ("offload", "container to container on two hosts, with offload", "Gbit/s"),
        ("software", "the same without offload", "Gbit/s"),
        ("ping", "ping between them", "ms"),
    ):
        ours, peer, hand = (found.tunnel.get(way, {}).get(key, []) for way in (OURS, PEER, BY_HAND))
        if not ours:
            continue
        told = [f"{name}{as_text(median_of(samples), unit)}" for name, samples in (("", peer), ("by hand: ", hand)) if samples]
        ratio = statistics.median(ours) / statistics.median(hand) if hand else None
        if ratio is not None and unit == "ms":
            ratio = 1 / ratio
        reached = ratio >= 1 - min(noise_of(ours, hand), MOST_NOISE) if ratio is not None else None
        target = "as by hand, within noise"
        rows.append(Row(what, as_text(median_of(ours), unit), "; ".join(told), as_times(ratio), target, reached))
    return rows


def _allocation_rows(found: Clustered) -> list[Row]:
    rows = []
    for nodes, part in (("one", 0.8), ("three", 0.5)):
        bare = median_of(found.allocation.get(f"txn {nodes}"))
        who = f"{nodes} node{'s' if nodes != 'one' else ''} on one pool"
        for key, what, least in (
            (nodes, "addresses claimed by", part),
            (f"connect {nodes}", "whole connects, without the kernel's part, of", None),
        ):
            ours = median_of(found.allocation.get(key))
            if not ours or not bare:
                continue
            beside = f"bare transactions: {as_text(bare, '/s')}"
            target = f"over {least:.0%} of etcd's" if least is not None else ""
            reached = ours / bare >= least if least is not None else None
            rows.append(Row(f"{what} {who}", as_text(ours, "/s"), beside, as_times(ours / bare), target, reached))
    return rows


def _crowd_rows(found: Clustered) -> list[Row]:
    """Per node: flat means that a change costs each node the same however many there are."""
    if not found.crowd:
        return []
    few, many = min(found.crowd), max(found.crowd)
    rows = []
    for key, what, unit in (("node_ms", "CPU of a node", "ms"), ("bytes", "bytes from etcd to a node", "B")):
        first, last = (found.crowd[nodes][key] / (nodes if key == "bytes" else 1) for nodes in (few, many))
        cost = f"{as_text(first, unit)} → {as_text(last, unit)}"
        line = f"{what} for a change elsewhere, {few} and {many} nodes (simulated)"
        rows.append(Row(line, cost, "", as_growth(last / first), f"flat (within {FLAT} times)", last / first <= FLAT))
    return rows
