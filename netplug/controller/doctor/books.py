"""What is kept outside the kernel: names in the resolver, sockets that hold host ports, the store, and what is owed to others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from netplug.controller.core import Core
from netplug.controller.debts import Debts
from netplug.controller.doctor.difference import Difference, Remedy, by_hand, first
from netplug.controller.endpoints import Endpoints
from netplug.controller.farewells import Farewells
from netplug.controller.records import endpoint_key, network_key, sandbox_key
from netplug.controller.restore import Restore
from netplug.errors import NetplugError
from netplug.model import Sandbox, encode
from netplug.store import MAX_OPERATIONS, PREFIX, Delete, Put, Write

_KINDS = ("networks", "sandboxes", "endpoints")


class BookCheck:
    """Of this host's daemon."""

    def __init__(self, core: Core, restore: Restore, endpoints: Endpoints, debts: Debts, farewells: Farewells) -> None:
        self._core, self._restore, self._endpoints = core, restore, endpoints
        self._debts, self._farewells = debts, farewells

    async def differences(self) -> list[Difference]:
        return [*await self._of_resolver(), *self._of_ports(), *await self._of_store(), *self._owed()]

    async def _of_resolver(self) -> list[Difference]:
        core = self._core
        remedy: tuple[str, Remedy] = ("the resolver", self._restore.names)
        endpoints, sandboxes = self._restore.all_names()
        repair = by_hand("netplug doctor --fix tells the resolver all names again, and hands it the sockets that it lacks")

        def difference(subject: str, found: str, means: str) -> Difference:
            return Difference(subject, found, means, repair, remedy)

        try:
            compared = await core.resolver.compare(endpoints, sandboxes)
        except NetplugError as error:
            return [difference("the resolver", str(error), "no name of a container resolves")]
        found = []
        for identity in sorted(compared.missing):
            sandbox = core.records.sandboxes.get(identity)
            name = sandbox.name if sandbox is not None else identity[:12]
            found.append(difference(f"container {name}", "the resolver does not answer it as it should", "names do not resolve in it"))
        known = {names.endpoint: names for names in endpoints}
        for identity in sorted(compared.unknown):
            names = known[identity]
            words = f"the resolver does not know {names.names[0]} as {names.address or names.address6}"
            found.append(difference(f"network {names.network_name}", words, "others on the network do not find it by its names"))
        if compared.surplus:
            words = f"{compared.surplus} endpoints or sandboxes that are not there have names still"
            found.append(difference("the resolver", words, "a name leads to an address that nobody has"))
        return found

    def _of_ports(self) -> Iterator[Difference]:
        for sandbox in list(self._core.records.sandboxes.values()):
            if self._core.lock(sandbox.id).locked():
                continue
            for where in self._endpoints.publishing.unheld(sandbox):
                yield Difference(
                    f"container {sandbox.name}",
                    f"host port {where} is published, and not held",
                    "another program has the number, or may take it: what it serves there is reached by nobody",
                    by_hand(f"end what has {where} (ss -lntup), then netplug doctor --fix"),
                    (f"ports {sandbox.id}", partial(self._hold, sandbox.id)),
                )

    async def _hold(self, identity: str) -> None:
        async with self._core.lock(identity):
            sandbox: Sandbox | None = self._core.records.sandboxes.get(identity)
            if sandbox is not None:
                first(await self._endpoints.publishing.hold_again(sandbox))

    async def _of_store(self) -> list[Difference]:
        remedy: tuple[str, Remedy] = ("the store", self._mend_store)
        repair = by_hand("netplug doctor --fix writes the daemon's records to its store")
        found = []
        for write in await self._lacking():
            key = write.key.removeprefix(PREFIX)
            if isinstance(write, Put):
                words, means = f"the store has no record {key}", "the next start of the daemon knows nothing of it, and takes it away"
            else:
                words, means = (
                    f"the store has a record {key} that the daemon does not know",
                    "the next start of the daemon would believe it",
                )
            found.append(Difference("the store", words, means, repair, remedy))
        return found

    async def _lacking(self) -> list[Write]:
        """What makes the store have the records that there are in memory."""
        core = self._core
        there = {item.key for kind in _KINDS for item in (await core.store.range(f"{PREFIX}{kind}/"))[1]}
        records = core.records
        wanted = {network_key(one.id): encode(one) for one in records.networks.values() if one.scope != "global"}
        wanted |= {sandbox_key(one.id): encode(one) for one in records.sandboxes.values()}
        wanted |= {endpoint_key(one): encode(one) for one in records.endpoints.values()}
        shared = {network_key(one.id) for one in records.networks.values() if one.scope == "global"}
        writes: list[Write] = [Put(key, value) for key, value in wanted.items() if key not in there]
        return [*writes, *(Delete(key) for key in sorted(there - wanted.keys() - shared))]

    async def _mend_store(self) -> None:
        await self._core.quiet()
        writes = await self._lacking()
        for start in range(0, len(writes), MAX_OPERATIONS):
            await self._core.store.txn((), writes[start : start + MAX_OPERATIONS])

    def _owed(self) -> Iterator[Difference]:
        for identity, network in self._debts.owed().items():
            yield Difference(
                "the cluster",
                f"endpoint {identity[:12]} of network {network[:12]} is gone here, and the cluster's store has it still",
                "other nodes send packets for it here, and its address is taken",
                by_hand("it goes by itself as soon as the cluster's store answers: netplug node ls"),
                ("debts", self._remind),
            )
        for farewell in self._farewells.waiting():
            yield Difference(
                f"driver {farewell.network.driver}",
                f"it has not heard that the {farewell} is gone",
                "it may keep an address or a link for what is not there",
                by_hand("it is told as soon as it answers: look whether the plugin runs"),
                (f"farewells {farewell.network.id}", partial(self._farewells.caught_up, farewell)),
            )

    async def _remind(self) -> None:
        self._debts.remind()
