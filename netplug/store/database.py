"""The database file of the sqlite store: schema, opening with care, and the store's operations as SQL.

Everything here is synchronous, and called by one thread at a time. Whoever calls groups operations between `begin` and `commit`.
Revisions are etcd's: one per transaction that changed something, kept in the file, never used twice.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from netplug.errors import Conflict, NotFound, Unavailable

from . import Compare, Delete, Empty, Event, Exists, KeyValue, Lost, Missing, Put, Unchanged, Write

VERSION = 1
CHECKPOINT = 500
"""Writes after which the write-ahead log is to be moved into the file."""
_PER_WRITE = 8192
"""Bytes of the log for each, or so."""
SCHEMA = """
    CREATE TABLE kv (
        key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL
    );
    CREATE INDEX kv_lease ON kv (lease) WHERE lease != 0;
    CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl REAL NOT NULL, deadline REAL NOT NULL);
    CREATE TABLE revision (number INTEGER NOT NULL);
    INSERT INTO revision VALUES (0);
"""
"""Values lie in the order in which they came, for keys are random for the most part: in a tree of keys and values (WITHOUT ROWID, which
earlier stores have and keep) each change would write a page of its own.
"""

_OR_UPDATE = "ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision, lease = excluded.lease"
"""In its place: REPLACE would delete it and put it behind the others, which are three pages instead of one."""


class Database:
    """One open file, ours alone while it is open. `revision` is the store's."""

    def __init__(self, path: Path) -> None:
        """Conflict if another process has it; Unavailable, and nothing touched, if it is damaged or not ours."""
        self.path = path
        with self.errors("opened"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(path)
            try:
                self._connection = _connect(path)
            except BaseException:
                os.close(self._lock)
                raise
            self.revision: int = self._execute("SELECT number FROM revision").fetchone()[0]
            self._begun = self.revision
            self._synchronous = ""
            self._unmoved = _log_size(path) // _PER_WRITE  # of a daemon that was killed
            self._leases = self._restored_leases()

    def close(self) -> None:
        """sqlite moves its write-ahead log into the file."""
        self._connection.close()
        os.close(self._lock)

    @contextmanager
    def errors(self, done: str) -> Iterator[None]:
        """sqlite's errors become Unavailable, naming the file and what could not be done with it."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self.failed(done, error) from error

    def failed(self, done: str, error: Exception) -> Unavailable:
        return Unavailable(f"the store {self.path} cannot be {done}: {error}")

    def begin(self, *, durable: bool) -> None:
        """`durable`: the commit is on the disk when it returns; else it survives the process only, and a power cut takes the last ones."""
        wanted = "FULL" if durable else "NORMAL"
        if wanted != self._synchronous:
            self._execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted
        self._execute("BEGIN IMMEDIATE")
        self._begun = self.revision

    def commit(self) -> None:
        if self.revision != self._begun:
            self._execute("UPDATE revision SET number = ?", self.revision)
        self._execute("COMMIT")

    def rollback(self) -> None:
        self.revision = self._begun
        if self._connection.in_transaction:  # sqlite has rolled back by itself where the disk was full
            self._execute("ROLLBACK")
        self._leases = self._restored_leases()

    @property
    def checkpoint_due(self) -> bool:
        return self._unmoved >= CHECKPOINT

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file: two waits for the disk. What fails (it is full) is tried again after as many writes."""
        self._unmoved = 0
        with suppress(sqlite3.Error):
            self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def get(self, key: str) -> KeyValue | None:
        row = self._execute("SELECT key, value, revision FROM kv WHERE key = ?", key).fetchone()
        return KeyValue(*row) if row else None

    def range(self, prefix: str) -> tuple[int, list[KeyValue]]:
        """All of them when the prefix is empty. Text sorts by code point in sqlite as it does here."""
        condition, values = _under(prefix)
        rows = self._execute(f"SELECT key, value, revision FROM kv WHERE {condition} ORDER BY key", *values)
        return self.revision, [KeyValue(*row) for row in rows]

    def txn(self, compares: Sequence[Compare], writes: Sequence[Write]) -> list[Event]:
        """What it changed; Lost, and nothing changed, if a compare fails. Other transactions of the group never notice."""
        if compares:
            self._require(compares)
        puts = [write for write in writes if isinstance(write, Put)]
        for put in puts:
            if put.lease and put.lease not in self._leases:
                raise NotFound(f"lease {put.lease} not found: it has expired or was revoked")
        # From here on nothing is refused. (After an error of sqlite's own the whole group is undone.)
        self._put(puts)
        gone = self._deleted([write.key for write in writes if isinstance(write, Delete)])
        revision = self.revision + 1
        self._unmoved += len(writes)
        events = [
            Event(write.key, write.value if isinstance(write, Put) else None, revision)
            for write in writes
            if isinstance(write, Put) or write.key in gone
        ]
        if events:
            self.revision = revision
        return events

    def grant(self, ttl: float) -> int:
        lease = secrets.randbits(62) + 1
        self._execute("INSERT INTO lease VALUES (?, ?, ?)", lease, ttl, time.time() + ttl)
        self._leases[lease] = time.monotonic() + ttl
        return lease

    def keep_alive(self, lease: int) -> None:
        row = self._execute("UPDATE lease SET deadline = ? + ttl WHERE id = ? RETURNING ttl", time.time(), lease).fetchall()
        if not row:
            raise NotFound(f"lease {lease} not found: it has expired or was revoked")
        self._leases[lease] = time.monotonic() + row[0][0]

    def revoke(self, lease: int) -> list[Event]:
        """One transaction that deletes the lease's keys; none are left of one that is gone."""
        self._leases.pop(lease, None)
        self._execute("DELETE FROM lease WHERE id = ?", lease)
        keys = [key for (key,) in self._execute("SELECT key FROM kv WHERE lease = ? AND lease != 0 ORDER BY key", lease)]
        return self.txn((), [Delete(key) for key in keys])

    def next_deadline(self) -> float | None:
        """When the next lease expires, on the monotonic clock."""
        return min(self._leases.values(), default=None)

    def expired(self) -> list[int]:
        if not self._leases:
            return []
        now = time.monotonic()
        return [lease for lease, deadline in self._leases.items() if deadline <= now]

    def _execute(self, sql: str, *values: str | bytes | int | float) -> sqlite3.Cursor:
        return self._connection.execute(sql, values)

    def _require(self, compares: Sequence[Compare]) -> None:
        """Lost if one does not hold. A missing key has revision 0, as in etcd."""
        keys = [compare.key for compare in compares if not isinstance(compare, Empty)]
        there = dict(self._execute(f"SELECT key, revision FROM kv WHERE key IN ({_marks(keys)})", *keys)) if keys else {}
        for compare in compares:
            revision = there.get(compare.key, 0)
            match compare:
                case Missing():
                    holds = revision == 0
                case Exists():
                    holds = revision != 0
                case Unchanged(revision=expected):
                    holds = revision == expected
                case Empty():
                    condition, values = _under(compare.key)
                    holds = self._execute(f"SELECT 1 FROM kv WHERE {condition} LIMIT 1", *values).fetchone() is None
            if not holds:
                raise Lost(compare)

    def _put(self, puts: Sequence[Put]) -> None:
        """In one statement, as all that is done to many keys: between two, another thread may take the interpreter, and keep it."""
        if puts:
            rows = [value for put in puts for value in (put.key, put.value, self.revision + 1, put.lease)]
            self._execute(f"INSERT INTO kv VALUES {','.join(['(?, ?, ?, ?)'] * len(puts))} {_OR_UPDATE}", *rows)

    def _deleted(self, keys: Sequence[str]) -> set[str]:
        """Those that were there."""
        if not keys:
            return set()
        return {key for (key,) in self._execute(f"DELETE FROM kv WHERE key IN ({_marks(keys)}) RETURNING key", *keys)}

    def _restored_leases(self) -> dict[int, float]:
        """Deadlines on the monotonic clock. Never more than the ttl away: the wall clock may have been set back meanwhile."""
        wall, monotonic = time.time(), time.monotonic()
        rows = self._execute("SELECT id, ttl, deadline FROM lease")
        return {lease: monotonic + min(deadline - wall, ttl) for lease, ttl, deadline in rows}


def _lock(path: Path) -> int:
    """Two daemons on one file would each believe its own memory; the second one learns here."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"another netplug daemon uses {path.parent}") from None
    return descriptor


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # sqlite's own companions take over its mode
    fresh = path.stat().st_size == 0 or _check(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        if fresh:
            connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection


def _log_size(path: Path) -> int:
    try:
        return os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        return 0


def _check(path: Path) -> bool:
    """True if there is nothing in the file. Reads only: a damaged file must stay as it is for whoever wants to rescue it."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise _damaged(path, str(error)) from error
    if problem != "ok":
        raise _damaged(path, problem)
    if version != VERSION and (version or tables):
        raise Unavailable(f"the store {path} has format {version}, this netplug knows format {VERSION}; it was left as it is")
    return version != VERSION


def _damaged(path: Path, problem: str) -> Unavailable:
    reason = " ".join(problem.split())
    return Unavailable(
        f"the store {path} is damaged ({reason}) and was left as it is: put a copy of it in its place, or move it away to start empty"
    )


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _under(prefix: str) -> tuple[str, tuple[str, ...]]:
    """The condition of all keys that start with `prefix`, and its values."""
    end = _behind(prefix)
    return ("key >= ?", (prefix,)) if end is None else ("key >= ? AND key < ?", (prefix, end))


def _behind(prefix: str) -> str | None:
    """The least text behind everything that starts with `prefix`; None if there is none."""
    stem = prefix.rstrip(chr(0x10FFFF))
    if not stem:
        return None
    last = ord(stem[-1]) + 1
    return stem[:-1] + chr(0xE000 if last == 0xD800 else last)  # no surrogates in UTF-8
