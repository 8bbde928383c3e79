"""One line of the table, and how its figures are written."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

PEER = "dockerd"
OURS = "netplug"
FLAT = 1.5
"""How much dearer the last may be than the first for the cost to count as flat."""


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is how many times better netplug is; for `itself`, the growth that must stay below."""

    what: str
    ours: str
    peer: str
    ratio: str
    target: str
    reached: bool | None


def noise_of(*series: list[float]) -> float:
    """The widest of the series' half spans, without its lowest and its highest, as a part of its median; never less than 3 %."""
    inner = (sorted(one)[1:-1] if len(one) > 4 else one for one in series)
    return max(0.03, *((max(one) - min(one)) / 2 / statistics.median(one) for one in inner))


def median_of(samples: list[float] | None) -> float | None:
    return statistics.median(samples) if samples else None


def as_text(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.1f} {unit}" if value >= 10 else f"{value:.2f} {unit}"


def as_times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f} ×" if ratio >= 1.95 else f"{ratio:.2f} ×"


def as_growth(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} × the first"
