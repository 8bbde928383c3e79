"""etcd's transactions in protobuf's encoding, written by hand: as the client library's objects, one of a claim's size costs four times as
much, and a node's claims are mostly such messages.

Numbers of fields are those of etcd's `rpc.proto`; every field is a varint (numbers) or has its length before it (bytes, messages).
"""

from __future__ import annotations

from collections.abc import Iterable

Operation = bytes
"""A `RequestOp`, as a field of a transaction to be: without the tag that says of which branch."""

VERSION, MOD = 0, 2
"""What of a key is compared: the number of its changes since it was created, the revision of the last one."""
EQUAL, GREATER = 0, 1

_COMPARE, _SUCCESS, _FAILURE = b"\x0a", b"\x12", b"\x1a"
_RANGE, _PUT, _DELETE, _TXN = b"\x0a", b"\x12", b"\x1a", b"\x22"
_KEY, _END, _VALUE = b"\x0a", b"\x12", b"\x12"
_LEASE, _LIMIT_ONE, _KEYS_ONLY = b"\x18", b"\x18\x01", b"\x40\x01"
_COMPARED_KEY, _COMPARED_END = b"\x1a", b"\x82\x04"
_COMPARED_NUMBER = {VERSION: b"\x20", MOD: b"\x30"}


def transaction(compares: Iterable[bytes], success: Iterable[Operation], failure: Iterable[Operation] = ()) -> bytes:
    """A `TxnRequest`."""
    parts: list[bytes] = []
    for tag, items in ((_COMPARE, compares), (_SUCCESS, success), (_FAILURE, failure)):
        for item in items:
            parts += (tag, _varint(len(item)), item)
    return b"".join(parts)


def compare(key: bytes, target: int, result: int, number: int, end: bytes = b"") -> bytes:
    """A `Compare` of that key, or of all up to `end`: `target` is `result` to `number`."""
    kind = _HEADS[target, result]
    last = _COMPARED_END + _varint(len(end)) + end if end else b""
    return kind + _COMPARED_KEY + _varint(len(key)) + key + _COMPARED_NUMBER[target] + _varint(number) + last


def put(key: bytes, value: bytes, lease: int = 0) -> Operation:
    request = _KEY + _varint(len(key)) + key + (_VALUE + _varint(len(value)) + value if value else b"")
    return _operation(_PUT, request + _LEASE + _varint(lease) if lease else request)


def delete(key: bytes) -> Operation:
    return _operation(_DELETE, _KEY + _varint(len(key)) + key)


def read(key: bytes, *, keys_only: bool = False) -> Operation:
    request = _KEY + _varint(len(key)) + key
    return _operation(_RANGE, request + _KEYS_ONLY if keys_only else request)


def read_one(start: bytes, end: bytes) -> Operation:
    """Whichever key is there of those from `start` up to `end`, without its value."""
    return _operation(_RANGE, _KEY + _varint(len(start)) + start + _END + _varint(len(end)) + end + _LIMIT_ONE + _KEYS_ONLY)


def nested(request: bytes) -> Operation:
    """A transaction within a transaction."""
    return _operation(_TXN, request)


def _operation(tag: bytes, request: bytes) -> Operation:
    return tag + _varint(len(request)) + request


_HEADS = {
    (target, result): (b"\x08" + bytes((result,)) if result else b"") + (b"\x10" + bytes((target,)) if target else b"")
    for target in (VERSION, MOD)
    for result in (EQUAL, GREATER)
}
_SMALL = tuple(bytes((number,)) for number in range(0x80))


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have the eighth set."""
    if number < 0x80:
        return _SMALL[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
