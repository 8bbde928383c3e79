"""Transactions as etcd's messages, and what its answers say.

Everything here is pure. Keys are text outside and bytes inside, below the user's prefix; bytes that are no UTF-8 (a stranger's key) go
through unharmed as surrogates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from . import Compare, Delete, Empty, Event, Exists, KeyValue, Missing, Put, Unchanged, Write
from . import etcd_wire as wire


class Keys:
    """Text to bytes below the prefix, and back."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/").encode(errors="surrogateescape")

    def to_bytes(self, key: str) -> bytes:
        return self._prefix + key.encode(errors="surrogateescape")

    def to_text(self, key: bytes) -> str:
        return key[len(self._prefix) :].decode(errors="surrogateescape")

    def bounds(self, prefix: str) -> tuple[bytes, bytes]:
        """The first key of a range over all that start with `prefix`, and the first behind it (a zero byte: there is no end)."""
        start = self.to_bytes(prefix)
        stem = start.rstrip(b"\xff")
        return start or b"\0", stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"

    def pair(self, pair: Any) -> KeyValue:
        return KeyValue(self.to_text(pair.key), pair.value, pair.mod_revision)

    def event(self, event: Any) -> Event:
        deleted = event.type == event.DELETE
        return Event(self.to_text(event.kv.key), None if deleted else event.kv.value, event.kv.mod_revision)


class Transaction:
    """One transaction, and how to read what became of it.

    Its failure branch reads the compared keys, so that a loss names its compare without another question.
    """

    def __init__(self, keys: Keys, compares: Sequence[Compare], writes: Sequence[Write]) -> None:
        self._keys = keys
        self._compares = [(compare, keys.to_bytes(compare.key)) for compare in compares]
        self._writes = [(write, keys.to_bytes(write.key)) for write in writes]

    @property
    def read(self) -> Set[bytes]:
        """The keys that it depends on."""
        return {key for _, key in self._compares}

    @property
    def written(self) -> Set[bytes]:
        return {key for _, key in self._writes}

    @property
    def size(self) -> int:
        """etcd's count: of compares, writes, or what is read after a loss, whichever is more."""
        return max(len(self._compares), len(self._writes))

    @property
    def joins(self) -> bool:
        """Whether it may go to etcd together with others: what it depends on are single keys."""
        return not any(isinstance(compare, Empty) for compare, _ in self._compares)

    @property
    def once_only(self) -> bool:
        """Whether doing it makes one of its own compares fail: then it may be sent again, and at most one of its copies is ever done.

        (But for a copy that is still on its way when we have given up and others have put everything back to where it was.)
        """
        written = {key: write for write, key in self._writes}
        return any(key in written and _undoes(written[key], compare) for compare, key in self._compares)

    def request(self) -> bytes:
        return self._message(self._reads_of_compares(keys_only=True))

    def request_again(self) -> bytes:
        """For a copy of one that may have been done: on a loss it reads the written keys too."""
        reads = self._reads_of_compares(keys_only=False)
        return self._message([*reads, *(wire.read(key) for key in self.written - self.read)])

    def inspection(self) -> bytes:
        """Writes nothing, reads what was to be written."""
        return wire.transaction((), [wire.read(key) for _, key in self._writes])

    def failed(self, answer: Any) -> Compare:
        """The first compare that did not hold."""
        found = _pairs(answer)
        return next(compare for compare, key in self._compares if not _holds(compare, key, found))

    def made(self, answer: Any, since: int) -> int | None:
        """The revision at which what `answer` found was written by this transaction, after revision `since`.

        0 if nothing of it is there, None if that cannot be said: some of it is, or it only deletes.
        """
        found = _pairs(answer)
        states = {self._state(write, key, found.get(key), since) for write, key in self._writes}
        revisions = {state for state in states if state}
        if revisions:
            return revisions.pop() if len(revisions) == 1 and 0 not in states else None
        return 0 if 0 in states and any(isinstance(write, Put) for write, _ in self._writes) else None

    def _state(self, write: Write, key: bytes, pair: Any, since: int) -> int | None:
        """The revision at which this write was made, 0 if it is not there; None for a deleted key, which tells nothing of itself."""
        if isinstance(write, Delete):
            return 0 if pair else None
        if pair is None or pair.value != write.value or pair.mod_revision <= since:
            return 0
        created = any(key == compared and isinstance(compare, Missing) for compare, compared in self._compares)
        return 0 if created and pair.create_revision != pair.mod_revision else int(pair.mod_revision)

    def _message(self, reads: list[wire.Operation]) -> bytes:
        return wire.transaction(
            [self._compare(compare, key) for compare, key in self._compares], [_write(write, key) for write, key in self._writes], reads
        )

    def _compare(self, compare: Compare, key: bytes) -> bytes:
        match compare:
            case Missing():
                return wire.compare(key, wire.VERSION, wire.EQUAL, 0)
            case Exists():
                return wire.compare(key, wire.VERSION, wire.GREATER, 0)
            case Unchanged(revision=revision):
                return wire.compare(key, wire.MOD, wire.EQUAL, revision)
            case Empty():
                start, end = self._keys.bounds(compare.key)
                return wire.compare(start, wire.VERSION, wire.EQUAL, 0, end)

    def _reads_of_compares(self, *, keys_only: bool) -> list[wire.Operation]:
        ranges = [self._keys.bounds(compare.key) for compare, _ in self._compares if isinstance(compare, Empty)]
        keys = {key for compare, key in self._compares if not isinstance(compare, Empty)}
        return [*(wire.read_one(start, end) for start, end in ranges), *(wire.read(key, keys_only=keys_only) for key in keys)]


def changes(keys: Keys, events: Iterable[Any]) -> list[list[Event]]:
    """A list per revision."""
    grouped: dict[int, list[Event]] = {}
    for event in events:
        grouped.setdefault(event.kv.mod_revision, []).append(keys.event(event))
    return [grouped[revision] for revision in sorted(grouped)]


def _write(write: Write, key: bytes) -> wire.Operation:
    return wire.put(key, write.value, write.lease) if isinstance(write, Put) else wire.delete(key)


def _pairs(answer: Any) -> dict[bytes, Any]:
    return {pair.key: pair for response in answer.responses for pair in response.response_range.kvs}


def _holds(compare: Compare, key: bytes, found: Mapping[bytes, Any]) -> bool:
    pair = found.get(key)
    match compare:
        case Missing():
            return pair is None
        case Exists():
            return pair is not None
        case Unchanged(revision=revision):
            return bool(revision == (pair.mod_revision if pair else 0))
        case Empty():
            return not any(other.startswith(key) for other in found)


def _undoes(write: Write, compare: Compare) -> bool:
    match compare:
        case Missing():
            return isinstance(write, Put)
        case Exists():
            return isinstance(write, Delete)
        case Unchanged(revision=revision):
            return isinstance(write, Put) or revision > 0
        case Empty():
            return isinstance(write, Put)
