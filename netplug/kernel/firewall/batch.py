"""Elements added and deleted in one transaction, by raw netlink (linux/netfilter/nf_tables.h): a fraction of libnftables' time.

It knows the sets and maps that `ruleset` declares, but for those with intervals: how these are written, libnftables knows best.
"""

from __future__ import annotations

import errno
import socket
import struct
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from netplug import faults
from netplug.errors import KernelError
from netplug.kernel import descriptors
from netplug.kernel.firewall import ruleset
from netplug.kernel.firewall.elements import PROTOCOLS, Elements, Place
from netplug.kernel.netlink import NETLINK_NETFILTER, NLM_F_CREATE, Message, Socket, attribute, nested, text

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWSETELEM, _DELSETELEM = _SUBSYSTEM | 12, _SUBSYSTEM | 14
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM = 1
_ELEM_KEY, _ELEM_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_NFT_GOTO = -4
_FAMILIES = {"inet": 1, "bridge": 7}  # NFPROTO_INET, NFPROTO_BRIDGE
_INFO = struct.Struct("!BBH")  # family, version, resource
_BATCH = _INFO.pack(0, 0, 10)

_PER_MESSAGE = 400
"""A list is one attribute, of 64 KiB at most."""
MOST = 1200
"""So many elements fit into a send buffer; more are libnftables'."""

_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
_NF_PROTO = {"ipv4": 2, "ipv6": 10}

_TYPES: dict[str, Callable[[str], bytes]] = {
    "ifname": lambda word: word[1:-1].encode().ljust(16, b"\0"),
    "ether_addr": lambda word: bytes.fromhex(word.replace(":", "")),
    "ipv4_addr": lambda word: socket.inet_pton(socket.AF_INET, word),
    "ipv6_addr": lambda word: socket.inet_pton(socket.AF_INET6, word),
    "inet_proto": lambda word: bytes([_NUMBERS[word]]),
    "inet_service": lambda word: int(word).to_bytes(2, "big"),
    "nf_proto": lambda word: bytes([_NF_PROTO[word]]),
    "number": lambda word: int(word, 0).to_bytes(16, "big"),
}


class _Set(NamedTuple):
    family: int
    table: str
    name: str
    key: tuple[str, ...]
    value: tuple[str, ...]
    """Empty: a set. `verdict`: a chain to go to."""


def _sets() -> Iterator[tuple[str, _Set]]:
    """By name, as `Place.set` has it."""
    for declared in ruleset.declared_types():
        if declared.interval:
            continue
        family, table = declared.table.split()
        yield f"{declared.table} {declared.name}", _Set(_FAMILIES[family], table, declared.name, declared.key, declared.value)


_SETS = dict(_sets())


def fits(delete: Sequence[Place], add: Elements) -> bool:
    """Whether a transaction can be done here."""
    return len(delete) + len(add) <= MOST and all(place.set in _SETS for place in delete) and all(place.set in _SETS for place in add)


class Batch:
    """In the namespace in which it is made. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._netlink = Socket(NETLINK_NETFILTER)
        # Not one socket for each transaction: closing it waits for all that is being deleted.
        weakref.finalize(self, descriptors.close_later, self._netlink.close).atexit = False

    def transact(self, delete: Sequence[Place], add: Elements) -> None:
        """All of it or nothing; KernelError: ENOENT for an element that is not there to delete, EEXIST for one with another value."""
        messages = [
            *_messages(_DELSETELEM, 0, dict.fromkeys(delete, "")),
            *_messages(_NEWSETELEM, NLM_F_CREATE, add),
        ]
        faults.point("nft.before")
        refusals = self._netlink.send_batch(Message(_BATCH_BEGIN, _BATCH), messages, Message(_BATCH_END, _BATCH))
        for refused in refusals:
            if refused is not None:
                code = errno.EEXIST if refused.errno == errno.EBUSY else refused.errno or errno.EIO
                raise KernelError(code, "nft", refused.strerror or "")
        faults.point("nft.after")


def _messages(kind: int, flags: int, found: Mapping[Place, str]) -> Iterator[Message]:
    by_set: dict[str, list[bytes]] = {}
    for place, value in found.items():
        by_set.setdefault(place.set, []).append(_element(_SETS[place.set], place.key, value if kind == _NEWSETELEM else ""))
    for name, packed in by_set.items():
        declared = _SETS[name]
        head = _INFO.pack(declared.family, 0, 0) + text(_LIST_TABLE, declared.table) + text(_LIST_SET, declared.name)
        for start in range(0, len(packed), _PER_MESSAGE):
            yield Message(kind, head + nested(_LIST_ELEMENTS, *packed[start : start + _PER_MESSAGE]), flags)


def _element(declared: _Set, key: str, value: str) -> bytes:
    parts = nested(_ELEM_KEY, attribute(_DATA_VALUE, _pack(declared.key, key)))
    if value.startswith("goto "):
        code = attribute(_VERDICT_CODE, _NFT_GOTO.to_bytes(4, "big", signed=True))
        parts += nested(_ELEM_DATA, nested(_DATA_VERDICT, code, text(_VERDICT_CHAIN, value.removeprefix("goto "))))
    elif value:
        parts += nested(_ELEM_DATA, attribute(_DATA_VALUE, _pack(declared.value, value)))
    return nested(_LIST_ELEM, parts)


def _pack(types: Sequence[str], written: str) -> bytes:
    """The parts of a concatenation begin at multiples of four bytes. An interface's name has no blank in it (dev_valid_name())."""
    if len(types) == 1:
        return _TYPES[types[0]](written)
    packed = [_TYPES[kind](word) for kind, word in zip(types, written.split(" . "), strict=True)]
    return b"".join([part + b"\0" * (-len(part) % 4) for part in packed])
