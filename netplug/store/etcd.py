"""The cluster's store: etcd 3.4 or newer, one or several members, all of which keep the same.

The client library is known to `netplug.store.etcd*` only, and importing it takes the daemon 12 MiB: whoever needs no cluster does not
import this module.

Every call is answered within `timeout` seconds, going on at other members if need be, or is Unavailable. A transaction that may have
been made although no answer came is never simply repeated: if one of its compares makes sure that it happens once, a second copy is sent
that reads what it would have written; else what was to be written is read. What is still open then is Undecided.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from netplug import faults
from netplug.errors import NotFound, Unavailable, Undecided

from . import Compare, Event, KeyValue, Lost, Put, Write, etcd_advice, require_one_txn
from .etcd_batches import Batches
from .etcd_client import pb
from .etcd_members import Member, Members, Method, Refused, Tls, Unsure
from .etcd_messages import Keys, Transaction
from .etcd_watch import Watches

__all__ = ["EtcdStore", "Tls"]

TIMEOUT = 2.0
PAGE = 1000
"""Keys that a range asks for at a time."""


class EtcdStore:
    """Implements `netplug.store.Store`.

    Made without `open` it asks nobody anything: for a daemon that starts while the cluster is away.
    """

    def __init__(
        self,
        members: Sequence[str],
        *,
        prefix: str = "",
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        timeout: float = TIMEOUT,
    ) -> None:
        """`members`: host:port each, or URLs. `prefix` comes before every key, and callers never see it."""
        self._prefix, self._keys = prefix, Keys(prefix)
        self._members = Members(members, tls, user, password, timeout)
        self._watches = Watches(self._members, self._keys)
        self._batches = Batches(self._send)
        self._seen = 0
        self._asking = 0
        self._idle = asyncio.Event()
        self._closed = False

    @classmethod
    async def open(
        cls,
        members: Sequence[str],
        *,
        prefix: str = "",
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        timeout: float = TIMEOUT,
    ) -> Self:
        """A store that has answered once. Unavailable, saying why, if none of the members does or they do not let us in."""
        store = cls(members, prefix=prefix, tls=tls, user=user, password=password, timeout=timeout)
        try:
            await store.get("/netplug/v1/")
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def healthy(self) -> bool:
        """Whether the cluster answered when it was last asked, or its stream of watches gave a sign of life."""
        return self._members.healthy

    def on_state(self, hear: Callable[[bool], None]) -> None:
        """`hear` is called with the new `healthy` whenever it changes."""
        self._members.on_state = hear

    async def get(self, key: str) -> KeyValue | None:
        with self._open():
            answer = await self._ask(lambda member: member.kv.Range, pb.RangeRequest(key=self._keys.to_bytes(key)))
            return self._keys.pair(answer.kvs[0]) if answer.kvs else None

    async def range(self, prefix: str) -> tuple[int, list[KeyValue]]:
        """In pages, all as of the first one's revision; the time-out is each page's."""
        with self._open():
            while True:
                try:
                    return await self._range(prefix)
                except Refused as refusal:
                    if "compacted" not in refusal.details:  # the first page's revision, while we read the others
                        raise

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Write], *, durable: bool = False) -> int:
        """etcd has it on the disks of most members before it answers, `durable` or not.

        ValueError for more than MAX_OPERATIONS, or one key written twice. Undecided if the connection broke in the middle and it cannot
        be found out whether it was made; any other Unavailable: it was not.
        """
        require_one_txn(compares, writes)
        with self._open():
            faults.point("etcd.before")
            try:
                revision = await self._txn(Transaction(self._keys, compares, writes))
            except Refused as refusal:
                if "lease not found" in refusal.details:
                    raise _no_lease(*{write.lease for write in writes if isinstance(write, Put) and write.lease}) from refusal
                raise
            faults.point("etcd.after")
            return revision

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[list[Event]]:
        """Goes on by itself when the connection breaks. Compacted also if that took too long. Ends when the store is closed."""
        return self._watches.follow(prefix, from_revision)

    async def lease(self, ttl: float) -> int:
        """etcd counts whole seconds, and keeps a lease for at least one and a half of its election time-outs."""
        lease = secrets.randbits(62) + 1  # a number of our own, so that a repeated question makes no second lease
        with self._open():
            try:
                await self._ask(lambda member: member.leases.LeaseGrant, pb.LeaseGrantRequest(ID=lease, TTL=max(math.ceil(ttl), 1)))
            except Refused as refusal:
                if "lease already exists" not in refusal.details:
                    raise
        return lease

    async def keep_alive(self, lease: int) -> None:
        """NotFound once it has expired."""
        with self._open():
            answer = await self._ask(lambda member: member.keep_alive, pb.LeaseKeepAliveRequest(ID=lease))
        if answer.TTL <= 0:
            raise _no_lease(lease)

    async def revoke(self, lease: int) -> None:
        """Its keys go at once; fine if it is gone."""
        with self._open():
            try:
                await self._ask(lambda member: member.leases.LeaseRevoke, pb.LeaseRevokeRequest(ID=lease))
            except Refused as refusal:
                if "lease not found" not in refusal.details:
                    raise

    async def close(self) -> None:
        """What was asked before is answered first."""
        if self._closed:
            return
        self._closed = True
        if self._asking:
            await self._idle.wait()
        await self._watches.close()
        await self._members.close()

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Around every call: the store is open, and etcd's refusals become errors for the user."""
        if self._closed:
            raise Unavailable("the store is closed")
        self._asking += 1
        try:
            yield
        except Refused as refusal:
            raise Unavailable(etcd_advice.refused(refusal.details, self._members.user, self._prefix)) from refusal
        finally:
            self._asking -= 1
            if self._closed and not self._asking:
                self._idle.set()

    async def _range(self, prefix: str) -> tuple[int, list[KeyValue]]:
        start, end = self._keys.bounds(prefix)
        pairs: list[KeyValue] = []
        revision = 0
        while True:
            answer = await self._ask(
                lambda member: member.kv.Range, pb.RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
            )
            revision = revision or answer.header.revision
            pairs += map(self._keys.pair, answer.kvs)
            if not answer.more:
                return revision, pairs
            start = answer.kvs[-1].key + b"\0"

    async def _txn(self, transaction: Transaction) -> int:
        until, since = self._members.until(), self._seen
        try:
            outcome = await self._batches.make(transaction, until)
        except Unsure as doubt:
            return await self._settle(transaction, until, since, str(doubt))
        if not outcome.answer.succeeded:
            raise Lost(transaction.failed(outcome.answer))
        return outcome.revision

    async def _send(self, request: bytes, until: float) -> Any:
        """Transactions, which may not be made twice."""
        return await self._ask(_txn, request, until=until, repeatable=False)

    async def _settle(self, transaction: Transaction, until: float, since: int, doubt: str) -> int:
        """What became of a transaction that was sent after revision `since` and not answered."""
        undecided = Undecided(f"the etcd cluster did not say whether it made a change ({doubt}): look whether it is there, then try again")
        again = transaction.once_only
        request = transaction.request_again() if again else transaction.inspection()
        try:
            answer = await self._ask(_txn, request, until=until)
        except (Unavailable, Refused) as error:
            raise undecided from error
        if again and answer.succeeded:
            return int(answer.header.revision)
        made = transaction.made(answer, since)
        if again and made == 0:
            raise Lost(transaction.failed(answer))
        if not made:
            raise undecided
        return made

    async def _ask(self, method: Method, request: Any, *, until: float | None = None, repeatable: bool = True) -> Any:
        answer = await self._members.ask(method, request, until=until, repeatable=repeatable)
        self._seen = max(self._seen, answer.header.revision)
        return answer


def _txn(member: Member) -> Any:
    return member.txn


def _no_lease(*leases: int) -> NotFound:
    return NotFound(f"lease {' or '.join(map(str, leases))} not found: it has expired or was revoked")
