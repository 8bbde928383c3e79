"""The picture of a lab for a terminal.

host1
├─ br0          bridge  UP    10.0.0.254/24
│  └─ veth-red  veth    UP    ── red:eth0
└─ red
   └─ eth0      veth    UP    10.0.0.1/24  ── host1:veth-red
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from netplug.labs.topology import Drawn, Interface

_Row = tuple[str, Interface | None]
"""What stands left, and the interface that it names (None: a place)."""


def picture(hosts: Sequence[Drawn]) -> str:
    """All hosts, one below the other."""
    rows = [row for host in hosts for row in _place(host)]
    return "\n".join(_lines(rows)) + "\n"


def _place(place: Drawn) -> Iterator[_Row]:
    yield place.title, None
    ports = {link.master: [port for port in place.interfaces if port.master == link.master] for link in place.interfaces if link.master}
    tops = [link for link in place.interfaces if link.master not in {other.name for other in place.interfaces}]
    branches = [[(link.name, link), *_branches([[(port.name, port)] for port in ports.get(link.name, [])])] for link in tops]
    inner = [list(_place(drawn)) for drawn in place.inner]
    yield from _branches([*branches, *inner])


def _branches(branches: Sequence[Sequence[_Row]]) -> Iterator[_Row]:
    for position, branch in enumerate(branches):
        last = position == len(branches) - 1
        for index, (name, link) in enumerate(branch):
            mark = ("   " if last else "│  ") if index else ("└─ " if last else "├─ ")
            yield mark + name, link


def _lines(rows: Sequence[_Row]) -> Iterator[str]:
    cells = [(left, *_cells(link)) for left, link in rows]
    widths = [max(len(row[column]) for row in cells if len(row) > 1) for column in range(4)] if any(len(row) > 1 for row in cells) else []
    for row in cells:
        yield "  ".join(_padded(row, widths)).rstrip() if len(row) > 1 else row[0]


def _padded(row: Sequence[str], widths: Iterable[int]) -> list[str]:
    return [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), *row[4:]]


def _cells(link: Interface | None) -> tuple[str, ...]:
    """Kind, state, addresses and details, peer."""
    if link is None:
        return ()
    said = ", ".join(filter(None, (*link.addresses, link.detail, f"MTU {link.mtu}" if link.mtu not in (1500, 65536) else "")))
    peer = f"── {link.peer[0].rpartition('/')[2]}:{link.peer[1]}" if link.peer else ""
    return link.kind, link.state, said, peer
