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
from functools import cache, partial
from typing import NamedTuple

from netplug import faults
from netplug.errors import KernelError
from netplug.kernel import descriptors
from netplug.kernel.firewall import ruleset
from netplug.kernel.firewall.elements import PROTOCOLS, Elements, Place
from netplug.kernel.firewall.generation import NEWGEN, parse_generation
from netplug.kernel.netlink import NESTED, NETLINK_NETFILTER, NLM_F_CREATE, PADDING, Message, Refused, Socket, attribute, nested, text

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWSETELEM, _DELSETELEM = _SUBSYSTEM | 12, _SUBSYSTEM | 14
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM = 1
_ELEM_KEY, _ELEM_DATA, _ELEM_FLAGS, _ELEM_KEY_END = 1, 2, 3, 10
_INTERVAL_END = attribute(_ELEM_FLAGS, (1).to_bytes(4, "big"))
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_ACTIONS = {"accept": 1, "goto": -4}
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
_LONGEST_NAME = 15


def _interface(word: str) -> bytes:
    name = word[1:-1].encode()
    if len(name) > _LONGEST_NAME:
        raise KernelError(errno.EINVAL, "nft", f"{word} is no name of an interface")
    return name


class _Type(NamedTuple):
    layout: str
    """As struct has it, big-endian."""
    read: Callable[[str], bytes | int]


_TYPES = {
    "ifname": _Type("16s", _interface),
    "ether_addr": _Type("6s", lambda word: bytes.fromhex(word.replace(":", ""))),
    "ipv4_addr": _Type("4s", partial(socket.inet_pton, socket.AF_INET)),
    "ipv6_addr": _Type("16s", partial(socket.inet_pton, socket.AF_INET6)),
    "inet_proto": _Type("B", _NUMBERS.__getitem__),
    "inet_service": _Type("H", int),
    "nf_proto": _Type("B", _NF_PROTO.__getitem__),
    "number": _Type("16s", lambda word: int(word, 0).to_bytes(16, "big")),
}


class _Words:
    """How a key or a value is written: one word of a type, or a concatenation, whose parts begin at multiples of four bytes."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._kinds = kinds
        self._reads = [_TYPES[kind].read for kind in kinds]
        layouts = [_TYPES[kind].layout for kind in kinds]
        self._struct = struct.Struct("!" + ("".join(map(_padded, layouts)) if len(layouts) > 1 else layouts[0]))

    def pack(self, text: str) -> bytes:
        """An interface's name has no blank in it (dev_valid_name())."""
        return self._struct.pack(*[read(word) for read, word in zip(self._reads, text.split(" . "), strict=True)])

    def pack_span(self, text: str) -> tuple[bytes, bytes]:
        """The first and the last value."""
        spans = [_span(kind, word) for kind, word in zip(self._kinds, text.split(" . "), strict=True)]
        return self._struct.pack(*[first for first, _ in spans]), self._struct.pack(*[last for _, last in spans])

    @property
    def single(self) -> bool:
        return len(self._kinds) == 1


def _padded(layout: str) -> str:
    return layout + "x" * (-struct.calcsize("!" + layout) % 4)


class _Set(NamedTuple):
    head: bytes
    """How a message about it begins."""
    key: _Words
    value: _Words | None
    """None: a set, or verdicts."""
    interval: bool


def _sets() -> Iterator[tuple[str, _Set]]:
    """By name, as `Place.set` has it."""
    for declared in ruleset.declared_types():
        family, table = declared.table.split()
        head = _INFO.pack(_FAMILIES[family], 0, 0) + text(_LIST_TABLE, table) + text(_LIST_SET, declared.name)
        value = _Words(declared.value) if declared.value not in ((), ("verdict",)) else None
        yield f"{declared.table} {declared.name}", _Set(head, _Words(declared.key), value, declared.interval)


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
        answer = self._netlink.send_batch(_BEGIN, messages, _END, NEWGEN)
        if isinstance(answer, Refused):
            code = errno.EEXIST if answer.errno == errno.EBUSY else answer.errno or errno.EIO
            raise KernelError(code, "nft", answer.strerror or "")
        faults.point("nft.after")
        return parse_generation(answer) if answer else None


def _messages(kind: int, flags: int, found: Mapping[Place, str]) -> Iterator[Message]:
    by_set: dict[str, list[bytes]] = {}
    for (name, key), value in found.items():
        declared = _SETS[name]
        data = _data(declared, value) if value and kind == _NEWSETELEM else b""
        packed = by_set.setdefault(name, [])
        if declared.interval:
            packed += _interval(declared, key, data, adding=kind == _NEWSETELEM)
        else:
            packed.append(_element(declared.key.pack(key), data))
    for name, packed in by_set.items():
        head = _SETS[name].head
        for start in range(0, len(packed), _PER_MESSAGE):
            yield Message(kind, head + nested(_LIST_ELEMENTS, *packed[start : start + _PER_MESSAGE]), flags)


def _interval(declared: _Set, key: str, data: bytes, *, adding: bool) -> Iterator[bytes]:
    """One element, or the ends of an interval."""
    first, last = declared.key.pack_span(key)
    if not declared.key.single:
        yield _element(first, nested(_ELEM_KEY_END, attribute(_DATA_VALUE, last)) + data)
        return
    if adding and any(first):
        yield _element(bytes(len(first)), _INTERVAL_END)  # what is before the first interval; there already beside others
    yield _element(first, data)
    if any(byte != 0xFF for byte in last):
        yield _element((int.from_bytes(last) + 1).to_bytes(len(last)), _INTERVAL_END)


def _element(key: bytes, more: bytes) -> bytes:
    """Written at once: the element, in it its key, in that the value; and `more` in the element."""
    padded = key + PADDING[len(key) & 3]
    size = 8 + len(padded)
    return _HEADS.pack(4 + size + len(more), _LIST_ELEM | NESTED, size, _ELEM_KEY | NESTED, 4 + len(key), _DATA_VALUE) + padded + more


def _data(declared: _Set, value: str) -> bytes:
    if declared.value is None:
        return _verdict(value)
    return nested(_ELEM_DATA, attribute(_DATA_VALUE, declared.value.pack(value)))


@cache
def _verdict(value: str) -> bytes:
    """Of `accept`, or `goto` and a chain."""
    action, _, chain = value.partition(" ")
    code = attribute(_VERDICT_CODE, _ACTIONS[action].to_bytes(4, "big", signed=True))
    return nested(_ELEM_DATA, nested(_DATA_VERDICT, code, text(_VERDICT_CHAIN, chain) if chain else b""))


def _span(kind: str, word: str) -> tuple[bytes | int, bytes | int]:
    """The first and the last value: of `10.0.0.0/8`, `8000-8010`, or a single one."""
    if kind == "inet_service":
        first, _, last = word.partition("-")
        return int(first), int(last or first)
    if kind not in ("ipv4_addr", "ipv6_addr") or "/" not in word:
        value = _TYPES[kind].read(word)
        return value, value
    address, _, length = word.partition("/")
    packed = socket.inet_pton(socket.AF_INET if kind == "ipv4_addr" else socket.AF_INET6, address)
    free = (1 << 8 * len(packed) - int(length)) - 1
    return packed, (int.from_bytes(packed) | free).to_bytes(len(packed))
