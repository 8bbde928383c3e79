"""The store: a small ordered key-value interface that sqlite (here) and etcd (clusters) both keep.

Keys are paths below `/netplug/v1/`; values are JSON. Uniqueness of a name, an address or a port is a key created in the same
transaction as the record: `Missing(key)` among the compares. Revisions grow; transactions that were made together may share one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Protocol, TypeAlias

import msgspec

PREFIX = "/netplug/v1/"
MAX_OPERATIONS = 100
"""Compares plus writes of one transaction; larger work is chunked by its caller."""


class KeyValue(msgspec.Struct, frozen=True):
    key: str
    value: bytes
    revision: int
    """The revision of its last change."""


class Missing(msgspec.Struct, frozen=True):
    """Holds if no such key exists."""

    key: str


class Exists(msgspec.Struct, frozen=True):
    key: str


class Unchanged(msgspec.Struct, frozen=True):
    """Holds if the key's last change is still `revision`."""

    key: str
    revision: int


class Empty(msgspec.Struct, frozen=True):
    """Holds if no key starts with `key`."""

    key: str


class Put(msgspec.Struct, frozen=True):
    key: str
    value: bytes
    lease: int = 0


class Delete(msgspec.Struct, frozen=True):
    key: str


class Event(msgspec.Struct, frozen=True):
    """One change: `value` is None when the key was deleted."""

    key: str
    value: bytes | None
    revision: int


Compare: TypeAlias = Missing | Exists | Unchanged | Empty
Write: TypeAlias = Put | Delete


class Lost(Exception):
    """A compare did not hold; nothing was written. `failed` names the first one."""

    def __init__(self, failed: Compare) -> None:
        self.failed = failed
        super().__init__(f"{type(failed).__name__.lower()}: {failed.key}")


class Compacted(Exception):
    """The watch asked for revisions that are no longer kept: read the range again, then watch from its revision."""


class Store(Protocol):
    async def get(self, key: str) -> KeyValue | None: ...

    async def range(self, prefix: str) -> tuple[int, list[KeyValue]]:
        """The store's revision, and every key that starts with `prefix`, in key order."""

    def txn(self, compares: Sequence[Compare], writes: Sequence[Write], *, durable: bool = False) -> Awaitable[int]:
        """All or nothing; the new revision. Lost if a compare fails. `durable`: survives a power cut, not only a crash.

        Undecided if nobody can say whether it was made (a connection broke); any other error: it was not.
        """

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[list[Event]]:
        """Changes from that revision on (inclusive), a list per revision, for ever."""

    async def lease(self, ttl: float) -> int:
        """A lease id. Keys put with it vanish `ttl` seconds after the last keep_alive."""

    async def keep_alive(self, lease: int) -> None: ...

    async def revoke(self, lease: int) -> None: ...

    async def close(self) -> None: ...


def require_one_txn(compares: Sequence[Compare], writes: Sequence[Write]) -> None:
    """ValueError for what etcd would refuse: more than MAX_OPERATIONS, or one key written twice."""
    count = len(compares) + len(writes)
    if count > MAX_OPERATIONS:
        raise ValueError(f"a transaction of {count} operations: {MAX_OPERATIONS} at most, chunk it")
    keys = {write.key for write in writes}
    if len(keys) < len(writes):
        raise ValueError(f"a transaction writes a key twice: {', '.join(write.key for write in writes)}")
