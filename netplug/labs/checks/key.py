"""What do the nodes of a cluster have in common? Their etcd is asked over the network."""

from __future__ import annotations

import base64
import fnmatch
import json
import time
from typing import Any

from netplug.labs.checks.base import Check, Find
from netplug.labs.places import Place

_ROOT = "/netplug/v1/"
_PATIENCE = 2.0
"""What another node does, it writes a moment later."""


class KeyCheck(Check, frozen=True, tag="key"):
    """A key that matches `key`, a shell's pattern below /netplug/v1/, is in etcd."""

    store: str
    """ADDRESS:PORT."""
    key: str
    what: str
    """It, in words."""
    of: dict[str, str] = {}
    """What stands in its value (JSON), by which it is told from others that match."""
    says: dict[str, str] = {}
    """What must stand there."""
    absent: bool = False

    def look(self, find: Find) -> None:
        place = self.place(find)
        deadline = time.monotonic() + _PATIENCE
        while (found := self._found(place)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if found:
            said = "".join(f", with {name} {value}" for name, value in self.says.items())
            raise self.unmet(f"{self.what} {'gone from' if self.absent else 'in'} etcd ({_ROOT}{self.key}){said}", found)

    def _found(self, place: Place) -> str:
        """What is not as it should be; empty: nothing."""
        try:
            keys = stored(place, self.store)
        except ConnectionError as error:
            return f"etcd at {self.store} does not answer {self.at} ({error})"
        values = [value for key, value in keys.items() if fnmatch.fnmatch(key, _ROOT + self.key) and _has(value, self.of)]
        if self.absent:
            return "it is there" if values else ""
        if not values:
            return "no such key"
        return "" if any(_has(value, self.says) for value in values) else ", ".join(_told(values[0], name) for name in self.says)


def stored(place: Place, store: str) -> dict[str, Any]:
    """All of netplug's keys with their values, decoded where they are JSON; ConnectionError where etcd does not answer."""
    patience = ["--dial-timeout", "2s", "--command-timeout", "2s"]
    done = place.run("etcdctl", "--endpoints", store, *patience, "--write-out", "json", "get", "--prefix", _ROOT)
    if done.returncode:
        raise ConnectionError(done.stderr.strip().rpartition("Error: ")[2])
    entries = json.loads(done.stdout).get("kvs", [])
    return {base64.b64decode(entry["key"]).decode(): _decoded(base64.b64decode(entry.get("value", ""))) for entry in entries}


def _decoded(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value.decode(errors="replace")


def _has(value: Any, members: dict[str, str]) -> bool:
    return not members or (isinstance(value, dict) and all(str(value.get(name)) == wanted for name, wanted in members.items()))


def _told(value: Any, name: str) -> str:
    return f"{name} {value.get(name, 'unknown')}" if isinstance(value, dict) else str(value)
