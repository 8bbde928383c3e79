"""The picture of a lab as SVG: a box for each host and each namespace on it, a chip for each interface, a line for each veth pair.

Lengths are CSS pixels. A host's namespaces stand in a row above its own interfaces, so a cable goes from a namespace down to the host,
and cables between hosts run below them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from netplug.labs.topology import Drawn, Interface

_LETTER, _LINE = 6.7, 15.0  # of the 11 px monospace font
_PAD, _GAP, _TITLE = 12.0, 26.0, 24.0
_CHIP_LEAST = 88.0
_COLOURS = {"UP": "#1a7f37", "NO-CARRIER": "#9a6700", "DOWN": "#cf222e"}
_FILLS = {"bridge": "#ddf4ff", "veth": "#ffffff", "vxlan": "#fbefff", "": "#f6f8fa"}
_LOOPBACK = {"127.0.0.1/8", "::1/128"}
_STYLE = (
    "text{font:11px DejaVu Sans Mono,Menlo,Consolas,monospace;fill:#1f2328}"
    ".t{font-weight:bold;font-size:13px}.k{fill:#59636e}"
    ".c{fill:none;stroke:#0969da;stroke-width:1.8}.m{fill:none;stroke:#59636e;stroke-dasharray:3 3}"
)


@dataclass(slots=True)
class _Chip:
    """One interface, placed."""

    link: Interface
    lines: list[str]
    x: float = 0
    y: float = 0

    @property
    def width(self) -> float:
        return max(_CHIP_LEAST, max(len(line) for line in self.lines) * _LETTER + 2 * 8)

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 8

    def draw(self) -> Iterator[str]:
        fill = _FILLS.get(self.link.kind, "#ffffff")
        yield (
            f'<rect x="{self.x:.0f}" y="{self.y:.0f}" width="{self.width:.0f}" height="{self.height:.0f}" rx="5" fill="{fill}" '
            f'stroke="{_COLOURS[self.link.state]}" stroke-width="1.5"/>'
        )
        for number, line in enumerate(self.lines):
            kind = ' class="k"' if number else ""
            yield f'<text x="{self.x + 8:.0f}" y="{self.y + 15 + number * _LINE:.0f}"{kind}>{escape(line)}</text>'


@dataclass(slots=True)
class _Box:
    """One place: its namespaces in a row, and rows of chips below."""

    drawn: Drawn
    inner: list[_Box]
    rows: list[list[_Chip]]

    @property
    def width(self) -> float:
        rows = [_across([box.width for box in self.inner]), *(_across([chip.width for chip in row]) for row in self.rows)]
        return max(*rows, len(self.drawn.title) * 8.5) + 2 * _PAD

    @property
    def height(self) -> float:
        rows = [max((box.height for box in self.inner), default=0), *(max(chip.height for chip in row) for row in self.rows)]
        return _TITLE + sum(row + _GAP for row in rows if row) - _GAP + 2 * _PAD

    def put(self, x: float, y: float, chips: dict[tuple[str, str], _Chip]) -> Iterator[str]:
        """Draw it at a corner; what it holds is noted in `chips` by place and interface."""
        fill = "#ffffff" if self.inner or "/" not in self.drawn.name else "#fffbea"
        yield f'<rect x="{x:.0f}" y="{y:.0f}" width="{self.width:.0f}" height="{self.height:.0f}" rx="8" fill="{fill}" stroke="#818b98"/>'
        yield f'<text class="t" x="{x + _PAD:.0f}" y="{y + 20:.0f}">{escape(self.drawn.title)}</text>'
        top = y + _TITLE + _PAD
        left = x + (self.width - _across([box.width for box in self.inner])) / 2
        for box in self.inner:
            yield from box.put(left, top, chips)
            left += box.width + _GAP
        if self.inner:
            top += max(box.height for box in self.inner) + _GAP
        for row in self.rows:
            left = x + (self.width - _across([chip.width for chip in row])) / 2
            for chip in row:
                chip.x, chip.y = left, top
                chips[self.drawn.name, chip.link.name] = chip
                yield from chip.draw()
                left += chip.width + _GAP
            top += max(chip.height for chip in row) + _GAP


def words(picture: str) -> list[str]:
    """What a picture says, sorted, without the numbers that an engine has drawn by lot: interfaces are named after identifiers."""
    found: list[str] = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    return sorted(re.sub(r"\b(veth|br-|vx-)[0-9a-f]{7,12}\b", r"\1…", text) for text in found)


def _across(widths: Sequence[float]) -> float:
    return sum(widths) + _GAP * max(len(widths) - 1, 0)


def picture(hosts: Sequence[Drawn]) -> str:
    """A whole SVG document."""
    boxes = [_box(host) for host in hosts]
    chips: dict[tuple[str, str], _Chip] = {}
    parts: list[str] = []
    left = _PAD
    bottom = max((box.height for box in boxes), default=0) + _PAD
    for box in boxes:
        parts += box.put(left, bottom - box.height, chips)
        left += box.width + 2 * _GAP
    links = [*_masters(chips), *_cables(chips, bottom)]
    width, height = left - 2 * _GAP + _PAD, bottom + _PAD + (44 if any(_crosses(key, chip) for key, chip in chips.items()) else 0)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
    back = f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", back, *parts, *links, "</svg>"]) + "\n"


def _box(drawn: Drawn) -> _Box:
    """Ports of bridges first, then their bridges, then what stands alone: so lines are short. `lo` only where there is something to see."""
    shown = sorted(drawn.interfaces, key=lambda link: link.name)
    links = [link for link in shown if link.name != "lo" or len(drawn.interfaces) == 1 or not _usual(link)]
    order = [inner.name for inner in drawn.inner]
    ports = sorted((link for link in links if link.master), key=lambda port: (*_towards(port, order), port.master, port.name))
    bridges = list(dict.fromkeys(port.master for port in ports))
    masters = sorted((link for link in links if link.name in bridges), key=lambda link: bridges.index(link.name))
    alone = [link for link in links if link not in ports and link not in masters]
    alone.sort(key=lambda link: _towards(link, order)[0])
    rows = [[_chip(link) for link in row] for row in (ports, masters, alone) if row]
    return _Box(drawn, [_box(inner) for inner in drawn.inner], rows)


def _towards(port: Interface, order: list[str]) -> tuple[int, str]:
    """Where its cable leads, from left to right."""
    place, name = port.peer or ("", "")
    return (order.index(place) if place in order else len(order)), name


def _usual(lo: Interface) -> bool:
    """Whether a loopback says nothing: up, with its own addresses only."""
    return lo.up and set(lo.addresses) <= _LOOPBACK


def _chip(link: Interface) -> _Chip:
    mtu = [f"MTU {link.mtu}"] if link.mtu not in (1500, 65536) else []
    addresses = [address for address in link.addresses if address not in _LOOPBACK]
    return _Chip(link, [f"{link.name}  {link.state}", *filter(None, [link.kind, *addresses, link.detail]), *mtu])


def _masters(chips: dict[tuple[str, str], _Chip]) -> Iterator[str]:
    """A dashed line from each port to its bridge."""
    for (place, _), port in chips.items():
        bridge = chips.get((place, port.link.master))
        if bridge:
            x, y = port.x + port.width / 2, port.y + port.height
            end = min(max(x, bridge.x + 10), bridge.x + bridge.width - 10)
            yield f'<path class="m" d="M{x:.0f} {y:.0f}L{end:.0f} {bridge.y:.0f}"/>'


def _crosses(key: tuple[str, str], chip: _Chip) -> bool:
    """Whether a cable leads to another host."""
    return chip.link.peer is not None and chip.link.peer[0].partition("/")[0] != key[0].partition("/")[0]


def _cables(chips: dict[tuple[str, str], _Chip], bottom: float) -> Iterator[str]:
    """A line for each veth pair: straight down where it can be, in a bow below where both ends are at one height or on different hosts."""
    for key, one in chips.items():
        if one.link.peer not in chips or key > one.link.peer:
            continue
        upper, lower = sorted((one, chips[one.link.peer]), key=lambda chip: (chip.y, chip.x))
        x1, y1 = upper.x + upper.width / 2, upper.y + upper.height
        x2, y2 = lower.x + lower.width / 2, lower.y
        if _crosses(key, one):
            y2 += lower.height
            low = bottom + 34
        elif upper.y == lower.y:
            y2 += lower.height
            low = max(y1, y2) + 22
        else:
            low = (y1 + y2) / 2
        yield f'<path class="c" d="M{x1:.0f} {y1:.0f}C{x1:.0f} {low:.0f} {x2:.0f} {low:.0f} {x2:.0f} {y2:.0f}"/>'
