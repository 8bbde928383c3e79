"""The table's lines about the plugin of dockerd."""

from __future__ import annotations

import statistics

from tests.bench.plugin import ALIVE, BRIDGE, DEAD, HELD, NETPLUG, SLOW, WITHOUT, Plugged
from tests.bench.rows import Row, as_text, as_times, median_of

CALLS: list[tuple[str, str, float | None, str]] = [
    ("connect", "docker network connect, by the plugin", 2, "2 times faster than dockerd's bridge"),
    ("disconnect", "docker network disconnect, by the plugin", 2, "2 times faster than dockerd's bridge"),
    ("run", "docker run with one port, by the plugin", 1, "not slower than dockerd's bridge"),
    ("remove", "docker rm -f, by the plugin", None, ""),
]
MEDIAN, LAST = 5.0, 20.0
"""Milliseconds that a call of the plugin may take."""
LONGER = 1.0
"""Seconds by which a plugin may hold up dockerd's start."""


def rows(found: Plugged) -> list[Row]:
    """What was not measured is left out."""
    return [*_call_rows(found), *_own_rows(found), *_start_rows(found)]


def _call_rows(found: Plugged) -> list[Row]:
    rows = []
    for key, what, least, target in CALLS:
        ours, peer = (median_of(found.calls.get(driver, {}).get(key)) for driver in (NETPLUG, BRIDGE))
        ratio = peer / ours if ours and peer else None
        reached = ratio >= least if ratio is not None and least is not None else None
        rows.append(Row(what, as_text(ours, "ms"), as_text(peer, "ms"), as_times(ratio), target, reached))
        if key == "connect":
            floor, what = median_of(found.floor), "docker network connect, by a plugin that does nothing: dockerd's own part"
            rows.append(Row(what, as_text(floor, "ms"), as_text(peer, "ms"), as_times(peer / floor if floor and peer else None), "", None))
    return [row for row in rows if row.ours]


def _own_rows(found: Plugged) -> list[Row]:
    samples = [one for series in found.own.values() for one in series]
    if not samples:
        return []
    middle, late = statistics.median(samples), statistics.quantiles(samples, n=100)[98]
    slowest = max(found.own, key=lambda method: statistics.median(found.own[method]))
    told = f"median {as_text(middle, 'ms')}, 99 in 100 {as_text(late, 'ms')}"
    dearest = f"dearest: {slowest.rpartition('.')[2]}, {as_text(median_of(found.own[slowest]), 'ms')}"
    target = f"under {MEDIAN:g} ms and {LAST:g} ms"
    return [Row("calls of the plugin", f"{told}; {dearest}", "", "", target, middle < MEDIAN and late < LAST)]


def _start_rows(found: Plugged) -> list[Row]:
    without = median_of(found.starts.get(WITHOUT))
    rows = []
    for state in (ALIVE, SLOW, HELD, DEAD):
        ours = median_of(found.starts.get(state))
        if ours and without:
            what, target = f"dockerd's start, the plugin {state}", f"at most {LONGER:g} s longer"
            rows.append(Row(what, as_text(ours, "s"), as_text(without, "s"), "", target, ours - without <= LONGER))
    return rows
