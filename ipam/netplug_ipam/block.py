"""A CIDR as numbers, and addresses as text.

Blocks sort by family, then by first address. Addresses in text are canonical (RFC 5952 for IPv6).
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from typing import NamedTuple

from netplug.errors import InvalidArgument

BITS = {4: 32, 6: 128}
_SOCKET_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class Block(NamedTuple):
    """`prefix` leading bits of the addresses of `family` (4 or 6) that start at `first`."""

    family: int
    first: int
    prefix: int

    @property
    def size(self) -> int:
        return 1 << (BITS[self.family] - self.prefix)

    @property
    def last(self) -> int:
        return self.first + self.size - 1

    def overlaps(self, other: Block) -> bool:
        return self.family == other.family and self.first <= other.last and other.first <= self.last

    def covers(self, other: Block) -> bool:
        return self.family == other.family and self.first <= other.first and other.last <= self.last

    def offset(self, address: str) -> int | None:
        """How far `address` lies behind the first one; None if it lies outside. InvalidArgument if it is no address."""
        family, number = parse_address(address)
        return number - self.first if family == self.family and self.first <= number <= self.last else None

    def address(self, offset: int) -> str:
        number = self.first + offset
        return socket.inet_ntop(socket.AF_INET, number.to_bytes(4, "big")) if self.family == 4 else str(ipaddress.IPv6Address(number))

    def __str__(self) -> str:
        return f"{self.address(0)}/{self.prefix}"


@lru_cache(maxsize=8192)
def parse_block(text: str) -> Block:
    """The block that `10.0.0.7/24` lies in (host bits are dropped); InvalidArgument for anything but `address/length`.

    Remembered, because each new network is compared with all that there are.
    """
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or "%" in address:
        raise InvalidArgument(f"invalid CIDR address: {text}")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"invalid CIDR address: {text}") from None
    return Block(network.version, int(network.network_address), network.prefixlen)


def parse_address(text: str) -> tuple[int, int]:
    """Family and number."""
    family = 6 if ":" in text else 4
    try:
        return family, int.from_bytes(socket.inet_pton(_SOCKET_FAMILY[family], text), "big")
    except (OSError, ValueError):  # a zero byte is a ValueError
        raise InvalidArgument(f"invalid IPv{family} address: {text}") from None
