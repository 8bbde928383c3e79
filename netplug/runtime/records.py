"""The containers' records: in memory by id and by name, and in the store at `containers/<id>` and `container-names/<name>`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from netplug.errors import Ambiguous, Conflict, NotFound
from netplug.model import encode
from netplug.runtime.model import Container
from netplug.store import MAX_OPERATIONS, PREFIX, Delete, Lost, Missing, Put, Store


class Records:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self._linked: set[str] = set()

    async def load(self) -> None:
        _, found = await self._store.range(f"{PREFIX}containers/")
        for item in found:
            self._remember(msgspec.json.decode(item.value, type=Container))

    def all(self) -> list[Container]:
        """Newest first."""
        return sorted(self._by_id.values(), key=lambda container: container.created, reverse=True)

    def names(self) -> set[str]:
        return set(self._names)

    def __contains__(self, identity: str) -> bool:
        return identity in self._by_id

    def find(self, identity: str) -> Container | None:
        """By full id."""
        return self._by_id.get(identity)

    def running(self) -> list[Container]:
        return [container for container in self._by_id.values() if container.status == "running"]

    def get(self, reference: str) -> Container:
        """By full id, then by name, then by a prefix of an id that fits one container only."""
        if (known := self._by_id.get(reference)) is not None:
            return known
        plain = reference.removeprefix("/")
        if (named := self._names.get(plain)) is not None:
            return self._by_id[named]
        fits = [container for identity, container in self._by_id.items() if plain and identity.startswith(plain)]
        if len(fits) > 1:
            raise Ambiguous(f"Multiple IDs found with provided prefix: {reference}")
        if not fits:
            raise NotFound(f"No such container: {reference}")
        return fits[0]

    async def add(self, container: Container) -> None:
        """A new one, whose name must be free."""
        name = f"{PREFIX}container-names/{container.name}"
        self.check_free(container.name)
        try:
            await self._store.txn(
                [Missing(name)], [Put(_key(container.id), encode(container)), Put(name, container.id.encode())], durable=True
            )
        except Lost as lost:
            self.check_free(container.name)
            raise Conflict(f'Conflict. The container name "/{container.name}" is already in use.') from lost
        self._remember(container)

    async def put(self, container: Container) -> None:
        """A newer version of one that is there."""
        await self._store.txn((), [Put(_key(container.id), encode(container))])
        self._remember(container)

    def remember(self, container: Container) -> None:
        """A newer version, known at once; the caller sees to it that it is written."""
        self._remember(container)

    async def write(self, identities: Iterable[str]) -> None:
        """Those of them that run, as they are now. (What one is at its end is written with `put`.)"""
        running = [one for one in map(self.find, identities) if one is not None and one.status == "running"]
        for some in (running[start : start + MAX_OPERATIONS] for start in range(0, len(running), MAX_OPERATIONS)):
            await self._store.txn((), [Put(_key(container.id), encode(container)) for container in some])

    def linked(self) -> list[Container]:
        """Those that run and have links: their files name other containers."""
        return [container for identity in self._linked if (container := self._by_id[identity]).status == "running"]

    async def remove(self, container: Container) -> None:
        await self._store.txn((), [Delete(_key(container.id)), Delete(f"{PREFIX}container-names/{container.name}")])
        del self._by_id[container.id]
        del self._names[container.name]
        self._linked.discard(container.id)

    def _remember(self, container: Container) -> None:
        self._by_id[container.id] = container
        self._names[container.name] = container.id
        if container.config.links or any(one.links for one in container.config.attachments):
            self._linked.add(container.id)

    def check_free(self, name: str) -> None:
        """Conflict, naming the container that has the name."""
        if name in self._names:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{self._names[name]}".'
                " You have to remove (or rename) that container to be able to reuse that name."
            )


def _key(identity: str) -> str:
    return f"{PREFIX}containers/{identity}"
