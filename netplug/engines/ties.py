"""Which network of ours a network of the engine's is: one that was made with it, or one that was there.

`docker-networks/<engine's id>` in this host's store.
"""

from __future__ import annotations

import msgspec

from netplug.errors import NotFound
from netplug.model import Record, encode
from netplug.store import PREFIX, Delete, Put, Store

ENGINE, OTHER = "docker", "netplug"
"""Whose networks and containers they are: the Docker Engine's, or another netplug's, which looks after them itself."""
_KEYS = f"{PREFIX}docker-networks/"


class Tie(Record, frozen=True, kw_only=True):
    """`joined`: the network was there before, and stays when the engine removes its own. `engine`: whose it is."""

    id: str
    network: str
    joined: bool = False
    engine: str = ENGINE


class Ties:
    """In memory as in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ties: dict[str, Tie] = {}

    async def load(self) -> None:
        for item in (await self._store.range(_KEYS))[1]:
            tie = msgspec.json.decode(item.value, type=Tie)
            self._ties[tie.id] = tie

    def get(self, identity: str) -> Tie | None:
        return self._ties.get(identity)

    def find(self, identity: str) -> Tie:
        tie = self._ties.get(identity)
        if tie is None:
            raise NotFound(f"network {identity:.12} not found: it was not created here, or has gone")
        return tie

    def all(self) -> list[Tie]:
        return list(self._ties.values())

    async def put(self, tie: Tie) -> None:
        await self._store.txn((), [Put(_KEYS + tie.id, encode(tie))], durable=True)
        self._ties[tie.id] = tie

    async def drop(self, identity: str) -> None:
        await self._store.txn((), [Delete(_KEYS + identity)], durable=True)
        self._ties.pop(identity, None)
