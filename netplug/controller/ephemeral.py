"""Host ports of our own choice: from the host's range for outgoing connections, as Docker takes them, each after the last one given."""

from __future__ import annotations

from collections.abc import Iterator

from netplug.errors import KernelError
from netplug.kernel import sysctl

RANGE, RESERVED = "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"
UNREADABLE = (49153, 65535)
"""The dynamic ports of RFC 6335, less the first: Docker's choice where the kernel does not tell."""

Ranges = tuple[tuple[int, int], ...]


class Ephemeral:
    """Remembers the last port of each protocol. Reads the sysctls of the namespace that it is called in."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def candidates(self, protocol: str) -> Iterator[int]:
        """Every port of the range once, as long as the caller goes on asking; the one that it stops at counts as given."""
        try:
            low, high = map(int, sysctl.read(RANGE).split())
            reserved = parse_ranges(sysctl.read(RESERVED))
        except KernelError:
            (low, high), reserved = UNREADABLE, ()
        for port in in_turn(low, high, reserved, self._last.get(protocol, 0)):
            self._last[protocol] = port
            yield port


def in_turn(low: int, high: int, reserved: Ranges, last: int) -> Iterator[int]:
    """From the one after `last` upwards, then from `low` on; all of them where `last` lies elsewhere."""
    start = last + 1 if low <= last <= high else low
    for port in (*range(start, high + 1), *range(low, start)):
        if not any(first <= port <= end for first, end in reserved):
            yield port


def parse_ranges(text: str) -> Ranges:
    """`8080,9148-9200`, as the kernel prints a list of ports."""
    return tuple((int(first), int(last or first)) for first, _, last in (part.partition("-") for part in text.split(",") if part.strip()))
