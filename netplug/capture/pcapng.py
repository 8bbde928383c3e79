"""pcapng files (draft-ietf-opsawg-pcapng): several interfaces with names, times in nanoseconds, directions, and how much was lost.

scapy's writer has neither nanoseconds nor directions nor losses, and importing it takes longer than all of this: what is needed are five
kinds of block. A file is one section, little-endian; what is read may have many, of either byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from netplug.errors import InvalidArgument

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
_MAGIC = 0x1A2B3C4D
_LARGEST = 16 << 20
"""Bytes of a block; a larger one is no block."""
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL, _IF_FILTER, _APPLICATION = 2, 3, 9, 11, 4
_FLAGS, _RECEIVED, _DROPPED, _OS_DROPPED = 2, 4, 5, 7
_INBOUND, _OUTBOUND = 1, 2
_NANOSECONDS, _MICROSECONDS, _AS_TEXT = b"\x09", b"\x06", b"\x00"


@dataclass(frozen=True, eq=False, slots=True)
class Interface:
    """Where packets were seen; known by identity: two may have one name."""

    name: str
    about: str = ""
    linktype: int = 1
    """https://www.tcpdump.org/linktypes.html"""
    snaplen: int = 0
    """Bytes that were kept of each packet; 0: no limit is known."""
    dns: tuple[int, ...] = ()
    """Ports beside 53 that carry DNS; not in the file."""
    filter: str = ""
    """What was let through, in libpcap's language (that of 1.11, which knows tunnels); `""`: all, or it is not known."""


class Packet(NamedTuple):
    """`time` in nanoseconds since 1970; `data` may be less than `length`; `outgoing` None: it is not known."""

    time: int
    interface: Interface
    data: bytes
    length: int
    outgoing: bool | None = None


class Losses(NamedTuple):
    """What happened to the packets of an interface in all: kept by its filter, of these dropped by the kernel."""

    interface: Interface
    received: int
    dropped: int


Item: TypeAlias = Interface | Packet | Losses


class NoCapture(InvalidArgument):
    """What is read is no pcapng file."""


class Writer:
    """Makes blocks; interfaces are numbered in the order in which they are named."""

    def __init__(self, application: str) -> None:
        self._numbers: dict[Interface, int] = {}
        self.header = _block(SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1) + _options((_APPLICATION, application.encode())))

    def interface(self, interface: Interface) -> bytes:
        """Before its first packet; `b""` if it is known."""
        if interface in self._numbers:
            return b""
        self._numbers[interface] = len(self._numbers)
        texts = [(_IF_NAME, interface.name.encode()), (_IF_DESCRIPTION, interface.about.encode())]
        if interface.filter:
            texts.append((_IF_FILTER, _AS_TEXT + interface.filter.encode()))
        options = _options(*texts, (_IF_TSRESOL, _NANOSECONDS))
        return _block(INTERFACE, struct.pack("<HHI", interface.linktype, 0, interface.snaplen) + options)

    def packet(self, packet: Packet) -> bytes:
        high, low = divmod(packet.time, 1 << 32)
        head = struct.pack("<IIIII", self._numbers[packet.interface], high, low, len(packet.data), packet.length)
        direction = b"" if packet.outgoing is None else _DIRECTIONS[packet.outgoing]
        return _block(PACKET, head + packet.data + bytes(-len(packet.data) % 4) + direction)

    def losses(self, losses: Losses, now: int) -> bytes:
        counts = ((_RECEIVED, losses.received), (_OS_DROPPED, losses.dropped))
        options = _options(*((code, struct.pack("<Q", count)) for code, count in counts))
        return _block(STATISTICS, struct.pack("<III", self._numbers[losses.interface], *divmod(now, 1 << 32)) + options)


class Reader:
    """Bytes in as they come, items out. NoCapture where they make no sense."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pending = bytearray()
        self._order = ""
        """struct's sign for the section's byte order; `""` before the first section."""
        self._interfaces: list[tuple[Interface, int]] = []
        """With what its times are to be multiplied by."""

    @property
    def interrupted(self) -> bool:
        """Whether what came so far ends in the middle of a block."""
        return bool(self._pending)

    def feed(self, data: bytes) -> Iterator[Item]:
        pending = self._pending
        pending += data
        at = 0
        try:
            while len(pending) - at >= 12:
                kind, length = self._head(pending, at)
                if len(pending) - at < length:
                    break
                body = bytes(pending[at + 8 : at + length - 4])
                at += length
                try:
                    yield from self._item(kind, body)
                except (struct.error, IndexError):
                    raise NoCapture(f"{self._name}: block of type {kind} makes no sense") from None
        finally:
            del pending[:at]

    def _head(self, pending: bytearray, at: int) -> tuple[int, int]:
        if struct.unpack_from("<I", pending, at)[0] == SECTION:
            self._order = next((order for order in "<>" if struct.unpack_from(f"{order}I", pending, at + 8)[0] == _MAGIC), "")
            self._interfaces = []
        if not self._order:
            raise NoCapture(f"{self._name} is no pcapng file (of an older pcap file, editcap(1) makes one)")
        kind, length = struct.unpack_from(f"{self._order}II", pending, at)
        if length % 4 or not 12 <= length <= _LARGEST:
            raise NoCapture(f"{self._name}: a block of {length} bytes makes no sense")
        return kind, length

    def _item(self, kind: int, body: bytes) -> Iterator[Item]:
        if kind == INTERFACE:
            yield self._interface(body)
        elif kind == PACKET:
            yield self._packet(body)
        elif kind == STATISTICS:
            number, _, _ = self._unpack("III", body)
            options = self._options(body[12:])
            received, *drops = (int.from_bytes(options.get(code, b""), self._endian) for code in (_RECEIVED, _DROPPED, _OS_DROPPED))
            yield Losses(self._interfaces[number][0], received, sum(drops))

    def _interface(self, body: bytes) -> Interface:
        linktype, _, snaplen = self._unpack("HHI", body)
        options = self._options(body[8:])
        resolution = options.get(_IF_TSRESOL, _MICROSECONDS)[0]
        if resolution > 9:
            raise NoCapture(f"{self._name}: times in units of {resolution:#x} are not understood")
        name, about = (options.get(code, b"").decode(errors="replace") for code in (_IF_NAME, _IF_DESCRIPTION))
        text = options.get(_IF_FILTER, b"")
        words = text[1:].decode(errors="replace") if text.startswith(_AS_TEXT) else ""
        interface = Interface(name or f"if{len(self._interfaces)}", about, linktype, snaplen, filter=words)
        self._interfaces.append((interface, 10 ** (9 - resolution)))
        return interface

    def _packet(self, body: bytes) -> Packet:
        number, high, low, kept, length = self._unpack("IIIII", body)
        interface, unit = self._interfaces[number]
        flags = int.from_bytes(self._options(body[20 + kept + -kept % 4 :]).get(_FLAGS, b""), self._endian) & 3
        outgoing = {_INBOUND: False, _OUTBOUND: True}.get(flags)
        return Packet(((high << 32) + low) * unit, interface, body[20 : 20 + kept], length, outgoing)

    @property
    def _endian(self) -> Literal["little", "big"]:
        return "little" if self._order == "<" else "big"

    def _unpack(self, layout: str, body: bytes) -> tuple[int, ...]:
        return struct.unpack_from(self._order + layout, body)

    def _options(self, body: bytes) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        at = 0
        while at + 4 <= len(body):
            code, length = struct.unpack_from(f"{self._order}HH", body, at)
            if code == 0:
                break
            found[code] = body[at + 4 : at + 4 + length]
            at += 4 + length + -length % 4
        return found


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _options(*options: tuple[int, bytes]) -> bytes:
    packed = (struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in options)
    return b"".join(packed) + bytes(4)


_DIRECTIONS = {False: _options((_FLAGS, struct.pack("<I", _INBOUND))), True: _options((_FLAGS, struct.pack("<I", _OUTBOUND)))}
