"""Elements added and deleted in one transaction, by raw netlink (linux/netfilter/nf_tables.h): a fraction of libnftables' time.

It knows the sets and maps that `ruleset` declares. Intervals are written as libnftables does, which reads them back: in a set of one part
the first value and, marked as an end, the one behind the last; in a concatenation one element with the first and the last value of each.
"""

from __future__ import annotations

import errno
import socket
import struct
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

from netplug import faults
from netplug.errors import KernelError
from netplug.kernel import descriptors
from netplug.kernel.firewall import ruleset
from netplug.kernel.firewall.elements import PROTOCOLS, Elements, Place
from netplug.kernel.firewall.generation import NEWGEN, parse_generation
from netplug.kernel.netlink import NESTED, NETLINK_NETFILTER, NLM_F_CREATE, Message, Refused, Socket, attribute, nested, text

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWSETELEM, _DELSETELEM = _SUBSYSTEM | 12, _SUBSYSTEM | 14
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM = 1
_ELEM_KEY, _ELEM_DATA, _ELEM_FLAGS, _ELEM_KEY_END = 1, 2, 3, 10
_INTERVAL_END = attribute(_ELEM_FLAGS, (1).to_bytes(4, "big"))
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_NFT_GOTO = -4
_FAMILIES = {"inet": 1, "bridge": 7}  # NFPROTO_INET, NFPROTO_BRIDGE
_INFO = struct.Struct("!BBH")  # family, version, resource
_BEGIN, _END = (Message(kind, _INFO.pack(0, 0, 10)) for kind in (_BATCH_BEGIN, _BATCH_END))
_HEADS = struct.Struct("=6H")
"""Length and type of three attributes."""

_PER_MESSAGE = 400
"""A list is one attribute, of 64 KiB at most."""
MOST = 1200
"""So many elements fit into a send buffer; more are libnftables'."""

_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
_NF_PROTO = {"ipv4": 2, "ipv6": 10}

_Packer: TypeAlias = Callable[[str], bytes]

_TYPES: dict[str, _Packer] = {
    "ifname": lambda word: word[1:-1].encode().ljust(16, b"\0"),
    "ether_addr": lambda word: bytes.fromhex(word.replace(":", "")),
    "ipv4_addr": lambda word: socket.inet_pton(socket.AF_INET, word),
    "ipv6_addr": lambda word: socket.inet_pton(socket.AF_INET6, word),
    "inet_proto": lambda word: bytes([_NUMBERS[word]]),
    "inet_service": lambda word: int(word).to_bytes(2, "big"),
    "nf_proto": lambda word: bytes([_NF_PROTO[word]]),
    "number": lambda word: int(word, 0).to_bytes(16, "big"),
}
_PADDING = {"ether_addr": bytes(2), "inet_proto": bytes(3), "inet_service": bytes(2), "nf_proto": bytes(3)}
"""The parts of a concatenation begin at multiples of four bytes."""


class _Layout:
    """How a key or a value is written: of one part, or of several in a row."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self._padding = [_PADDING.get(kind, b"") if len(kinds) > 1 else b"" for kind in kinds]
        self._parts = [(_TYPES[kind], padding) for kind, padding in zip(kinds, self._padding, strict=True)]

    def pack(self, text: str) -> bytes:
        """An interface's name has no blank in it (dev_valid_name())."""
        return b"".join([pack(word) + padding for (pack, padding), word in zip(self._parts, text.split(" . "), strict=True)])

    def spans(self, text: str) -> list[tuple[bytes, bytes]]:
        """The first and the last value of each part, padded."""
        found = []
        for kind, padding, word in zip(self._kinds, self._padding, text.split(" . "), strict=True):
            first, last = _span(kind, word)
            found.append((first + padding, last + padding))
        return found


class _Set(NamedTuple):
    head: bytes
    """How a message about it begins."""
    key: _Layout
    value: _Layout | None
    """None: a set, or chains to go to."""
    interval: bool


def _sets() -> Iterator[tuple[str, _Set]]:
    """By name, as `Place.set` has it."""
    for declared in ruleset.declared_types():
        family, table = declared.table.split()
        head = _INFO.pack(_FAMILIES[family], 0, 0) + text(_LIST_TABLE, table) + text(_LIST_SET, declared.name)
        value = _Layout(declared.value) if declared.value not in ((), ("verdict",)) else None
        yield f"{declared.table} {declared.name}", _Set(head, _Layout(declared.key), value, declared.interval)


_SETS = dict(_sets())


def fits(delete: Sequence[Place], add: Elements) -> bool:
    """Whether a transaction can be done here."""
    return len(delete) + len(add) <= MOST // 3 or sum(3 if _SETS[place.set].interval else 1 for place in (*delete, *add)) <= MOST


def with_intervals(places: Iterable[Place]) -> bool:
    return any(_SETS[place.set].interval for place in places)


class Batch:
    """In the namespace in which it is made. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._netlink = Socket(NETLINK_NETFILTER)
        # Not one socket for each transaction: closing it waits for all that is being deleted.
        weakref.finalize(self, descriptors.close_later, self._netlink.close).atexit = False

    def transact(self, delete: Sequence[Place], add: Elements) -> int | None:
        """All of it or nothing; KernelError: ENOENT for an element that is not there to delete, EEXIST for one with another value.

        The generation that it has made; None where the kernel does not say, or nothing has changed.
        """
        messages = [
            *_messages(_DELSETELEM, 0, dict.fromkeys(delete, "")),
            *_messages(_NEWSETELEM, NLM_F_CREATE, add),
        ]
        faults.point("nft.before")
        try:
            generation = self._netlink.send_batch(_BEGIN, messages, _END, NEWGEN)
        except Refused as refused:
            code = errno.EEXIST if refused.errno == errno.EBUSY else refused.errno or errno.EIO
            raise KernelError(code, "nft", refused.strerror or "") from refused
        faults.point("nft.after")
        return parse_generation(generation) if generation else None


def _messages(kind: int, flags: int, found: Mapping[Place, str]) -> Iterator[Message]:
    by_set: dict[str, list[bytes]] = {}
    for (name, key), value in found.items():
        by_set.setdefault(name, []).extend(_elements(_SETS[name], key, value, adding=kind == _NEWSETELEM))
    for name, packed in by_set.items():
        head = _SETS[name].head
        for start in range(0, len(packed), _PER_MESSAGE):
            yield Message(kind, head + nested(_LIST_ELEMENTS, *packed[start : start + _PER_MESSAGE]), flags)


def _elements(declared: _Set, key: str, value: str, *, adding: bool) -> Iterable[bytes]:
    """One, or the ends of an interval."""
    data = _data(declared, value) if adding and value else b""
    if declared.interval:
        return _interval(declared, key, data, adding=adding)
    return (_element(declared.key.pack(key), data),)


def _interval(declared: _Set, key: str, data: bytes, *, adding: bool) -> Iterator[bytes]:
    spans = declared.key.spans(key)
    if len(spans) > 1:
        last = nested(_ELEM_KEY_END, attribute(_DATA_VALUE, b"".join([last for _, last in spans])))
        yield _element(b"".join([first for first, _ in spans]), last + data)
        return
    ((first, last),) = spans
    if adding and any(first):
        yield _element(bytes(len(first)), _INTERVAL_END)  # what is before the first interval; there already beside others
    yield _element(first, data)
    if any(byte != 0xFF for byte in last):
        yield _element((int.from_bytes(last) + 1).to_bytes(len(last)), _INTERVAL_END)


def _element(key: bytes, more: bytes) -> bytes:
    """Written at once: the element, in it its key, in that the value; and `more` in the element."""
    padded = key + b"\0" * (-len(key) % 4)
    size = 8 + len(padded)
    return _HEADS.pack(4 + size + len(more), _LIST_ELEM | NESTED, size, _ELEM_KEY | NESTED, 4 + len(key), _DATA_VALUE) + padded + more


def _data(declared: _Set, value: str) -> bytes:
    if declared.value is None:
        return _verdict(value.removeprefix("goto "))
    return nested(_ELEM_DATA, attribute(_DATA_VALUE, declared.value.pack(value)))


@cache
def _verdict(chain: str) -> bytes:
    code = attribute(_VERDICT_CODE, _NFT_GOTO.to_bytes(4, "big", signed=True))
    return nested(_ELEM_DATA, nested(_DATA_VERDICT, code, text(_VERDICT_CHAIN, chain)))


def _span(kind: str, word: str) -> tuple[bytes, bytes]:
    """The first and the last value: of `10.0.0.0/8`, `8000-8010`, or a single one."""
    if kind == "inet_service":
        first, _, last = word.partition("-")
        return _TYPES[kind](first), _TYPES[kind](last or first)
    address, slash, length = word.partition("/") if kind in ("ipv4_addr", "ipv6_addr") else (word, "", "")
    value = _TYPES[kind](address)
    if not slash:
        return value, value
    free = (1 << 8 * len(value) - int(length)) - 1
    return value, (int.from_bytes(value) | free).to_bytes(len(value))
