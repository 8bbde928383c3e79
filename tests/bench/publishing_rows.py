"""The table's lines about published ports and the firewall."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

from tests.bench.publishing import BARE, LEAST, LIST, RANGE, WITH, WITHOUT, Publishing
from tests.bench.rows import FLAT, OURS, PEER, Row, as_growth, as_text, as_times, median_of


def rows(found: Publishing) -> list[Row]:
    """What was not measured is left out."""
    return [*_per_port_rows(found), *_rate_to_last_rows(found), *_start_rows(found), *_range_rows(found), *_through_rows(found)]


def _per_port_rows(found: Publishing) -> list[Row]:
    rows = []
    peer = _per_port(found, PEER, max)
    listed = _per_port(found, LIST, max)
    for name in (OURS, "netplug (iptables)"):
        first, last = _per_port(found, name, min), _per_port(found, name, max)
        if first and last:
            there = max(found.per_port[name])
            beside = f"{as_text(peer, 'ms')} (at {max(found.per_port[PEER])}); a list: {as_text(listed, 'ms')}" if peer else ""
            flat = last / first <= FLAT if name == OURS else None
            what = f"one of 1,000 ports, 0 and {there:,} there" + ("" if name == OURS else ", iptables backend")
            cost = f"{as_text(first, 'ms')} → {as_text(last, 'ms')}"
            rows.append(Row(what, cost, beside, as_growth(last / first), f"flat (within {FLAT} times)" if name == OURS else "", flat))
    return rows


def _per_port(found: Publishing, name: str, which: Callable[[Iterable[int]], int]) -> float | None:
    steps = found.per_port.get(name)
    return statistics.median(steps[which(steps)]) if steps else None


def _rate_to_last_rows(found: Publishing) -> list[Row]:
    if not found.rates:
        return []
    medians = {name: {which: statistics.median(samples) for which, samples in ends.items()} for name, ends in found.rates.items()}
    ours, listed = medians[OURS], medians[LIST]
    ratio = ours["last"] / ours["first"]
    text = f"{ours['first']:,.0f} → {ours['last']:,.0f} /s"
    beside = f"iptables list: {listed['first']:,.0f} → {listed['last']:,.0f} /s"
    return [Row("connections to the first and the last of 5,000 ports", text, beside, as_growth(ratio), "within 5 %", ratio >= 0.95)]


def _start_rows(found: Publishing) -> list[Row]:
    ours, peer = (median_of(found.starts.get(name)) for name in (OURS, PEER))
    ratio = peer / ours if ours and peer else None
    reached = ratio >= 5 if ratio is not None else None
    row = Row("64 starts at once, 10 ports each", as_text(ours, "s"), as_text(peer, "s"), as_times(ratio), "5 times faster", reached)
    return [row] if ours else []


def _range_rows(found: Publishing) -> list[Row]:
    ours, bare = median_of(found.range.get(OURS)), median_of(found.range.get(BARE))
    beside = f"the sockets alone: {as_text(bare, 'ms')}" if bare else ""
    return [Row(f"publish the range {RANGE[0]}-{RANGE[-1]}", as_text(ours, "ms"), beside, "", "under 50 ms", ours < 50)] if ours else []


def _through_rows(found: Publishing) -> list[Row]:
    ours, none, least = (median_of(found.through.get(which)) for which in (WITH, WITHOUT, LEAST))
    if not ours or not none or not least:
        return []
    what, rate = "bytes through the rules, container to outside", as_text(ours, "Gbit/s")
    return [
        Row(what, rate, f"no rules: {as_text(none, 'Gbit/s')}", as_times(ours / none), "within 3 %", ours / none >= 0.97),
        Row("the same, beside two rules for NAT", rate, f"two rules: {as_text(least, 'Gbit/s')}", as_times(ours / least), "", None),
    ]
