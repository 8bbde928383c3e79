"""What is known of a running lab: a directory below /run/netplug-labs (or `NETPLUG_LABS`) with one small file.

The record says which hosts there are and how far the learner is. It is written anew as a whole, so it is never half a record; and what
must be ended is found by marks (`hosts`), so it may even be missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

_FILE = "lab.json"


class Record(msgspec.Struct):
    """`hosts`: the holders' pids by host. `done`: how many steps were found done. `built`: whether all hosts and cables stand."""

    lab: str
    hosts: dict[str, int] = {}
    done: int = 0
    built: bool = False


def root() -> Path:
    return Path(os.environ.get("NETPLUG_LABS") or "/run/netplug-labs")


def directory(lab: str) -> Path:
    return root() / lab


def running() -> list[str]:
    """Names of the labs that were started and not stopped."""
    return sorted(path.name for path in root().iterdir()) if root().is_dir() else []


def load(lab: str) -> Record | None:
    """None where there is no record, or none that can be read: such a lab can only be stopped."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((directory(lab) / _FILE).read_bytes(), type=Record)
    return None


def save(record: Record) -> None:
    where = directory(record.lab)
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = where / f"{_FILE}.new"
    new.write_bytes(msgspec.json.encode(record))
    new.replace(where / _FILE)


def forget(lab: str) -> None:
    """Remove the lab's directory."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory(lab))


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One change of the labs at a time. Where no lab is left afterwards, their directory goes."""
    while True:
        root().mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _same(handle):
                break
            os.close(handle)  # whoever held it has removed the directory
    try:
        yield
    finally:
        if not running():
            with contextlib.suppress(OSError):
                root().rmdir()
        os.close(handle)


def _same(handle: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(root()))
    return False
