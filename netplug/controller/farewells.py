"""What drivers that act outside the kernel have yet to be told: endpoints and networks that are gone, or that did not come to be.

Each is noted in the host's own store, below `farewells/<network>/<endpoint>`, before the driver is asked for anything, and again in the
transaction that forgets the record; it goes when the driver has been told. Whatever this daemon dies in the middle of, and however long
a plugin is away, it hears of it in the end: endpoints before their networks, plugin by plugin, so that none waits for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from netplug import faults
from netplug.capability import Effectful
from netplug.controller.core import Core, log
from netplug.controller.farewell import KEYS, Farewell
from netplug.controller.loans import give_back, is_lent, lent_addresses
from netplug.errors import NetplugError, Unavailable
from netplug.model import Endpoint, Network, Sandbox, encode
from netplug.store import Delete, Put, Write

__all__ = ["Farewell", "Farewells"]

AGAIN_SECONDS = 1.0
LONGEST_SECONDS = 30.0
PATIENCE = 5.0
"""Seconds that whoever removes something waits for the driver; then it goes on in the background."""
REFUSALS = 3
"""After so many a driver is not told again: it most likely knows nothing of it."""


@dataclass
class _Due:
    farewell: Farewell
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    complained: bool = False
    refusals: int = 0


class Farewells:
    """Of this host."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._due: dict[str, _Due] = {}
        self._tellers: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._wakeups: dict[tuple[str, str], asyncio.Event] = {}
        self._slow: set[tuple[str, str]] = set()
        """Drivers that somebody has waited for in vain, as long as they are not heard of again: many may have something to tell them."""

    async def start(self) -> None:
        """Go on with what an earlier daemon left."""
        for item in (await self._core.store.range(KEYS))[1]:
            farewell = msgspec.json.decode(item.value, type=Farewell)
            await self._bring_home(farewell)
            self.due(farewell)

    async def close(self) -> None:
        for task in self._tellers.values():
            task.cancel()
        await asyncio.gather(*self._tellers.values(), return_exceptions=True)

    def waiting(self) -> list[Farewell]:
        """Those that no driver has heard yet."""
        return [due.farewell for due in self._due.values()]

    def of_network(self, network: Network) -> list[Farewell]:
        """None where its driver acts in the kernel only; so below."""
        found = [Farewell(network=network)] if isinstance(self._core.driver(network), Effectful) else []
        if is_lent(self._core, network):
            found += [Farewell(network=network, slot=str(number), pool=pool) for number, pool in enumerate(network.pools)]
        return found

    def of_endpoints(self, endpoints: Iterable[Endpoint], sandbox: Sandbox | None) -> list[Farewell]:
        networks, found = self._core.records.networks, list[Farewell]()
        for endpoint in endpoints:
            if (network := networks.get(endpoint.network)) is None:
                continue
            if endpoint.attachment is not None:
                found.append(Farewell(network=network, endpoint=endpoint, sandbox=sandbox))
            if is_lent(self._core, network):
                found += [
                    Farewell(network=network, endpoint=endpoint, slot=slot, pool=pool, address=address)
                    for slot, pool, address in lent_addresses(network, endpoint)
                ]
        return found

    def written(self, farewells: Iterable[Farewell]) -> list[Write]:
        """For the transaction that forgets the records."""
        return [Put(farewell.key, encode(farewell)) for farewell in farewells]

    async def note(self, farewell: Farewell) -> None:
        """Before anything of it is asked for."""
        await self._core.store.txn((), self.written([farewell]))

    def unsaid(self, farewells: Iterable[Farewell]) -> list[Write]:
        """For the transaction that makes the records."""
        return [Delete(farewell.key) for farewell in farewells]

    async def unsay(self, farewell: Farewell) -> None:
        await self._core.store.txn((), self.unsaid([farewell]))

    def is_due(self, farewell: Farewell) -> bool:
        return farewell.key in self._due

    def due(self, *farewells: Farewell) -> None:
        """Nothing of these is in records and kernel any more."""
        for farewell in farewells:
            self._due[farewell.key] = _Due(farewell)
            teller = _teller(farewell)
            if teller not in self._tellers or self._tellers[teller].done():
                self._wakeups[teller] = asyncio.Event()
                self._tellers[teller] = asyncio.create_task(self._tell(teller))
            self._wakeups[teller].set()

    async def told(self, *farewells: Farewell) -> None:
        """Once each has been tried, or it takes too long, or is known to."""
        waiting = [self._due[farewell.key] for farewell in farewells if farewell.key in self._due]
        await self._tried([due for due in waiting if _teller(due.farewell) not in self._slow])

    async def caught_up(self, farewell: Farewell) -> None:
        """Once whoever is to hear that has been told, as far as now possible, of all that it may still believe to be in the way of anew."""
        if waiting := self._of(_teller(farewell)):
            for due in waiting:
                due.tried.clear()
            self._wakeups[_teller(farewell)].set()
            await self._tried(waiting)

    async def _tried(self, waiting: list[_Due]) -> None:
        if waiting:
            tasks = {asyncio.ensure_future(due.tried.wait()): _teller(due.farewell) for due in waiting}
            _, late = await asyncio.wait(tasks, timeout=PATIENCE)
            for task in late:
                self._slow.add(tasks[task])
                task.cancel()

    async def _tell(self, teller: tuple[str, str]) -> None:
        """Until there is nothing left that this driver has to be told."""
        pause = AGAIN_SECONDS
        while waiting := self._of(teller):
            self._wakeups[teller].clear()
            if await self._tell_all(waiting):
                pause = AGAIN_SECONDS
                continue
            try:
                async with asyncio.timeout(pause):
                    await self._wakeups[teller].wait()
            except TimeoutError:
                pause = min(2 * pause, LONGEST_SECONDS) if any(due.complained for due in waiting) else AGAIN_SECONDS

    def _of(self, teller: tuple[str, str]) -> list[_Due]:
        """Endpoints first."""
        found = [due for due in self._due.values() if _teller(due.farewell) == teller]
        return sorted(found, key=lambda due: due.farewell.endpoint is None)

    async def _tell_all(self, waiting: list[_Due]) -> bool:
        """Whether all have heard."""
        for number, due in enumerate(waiting):
            if self._is_too_early(due.farewell):
                due.tried.set()
                continue
            try:
                done = await self._told_one(due)
            except Unavailable as error:
                if not due.complained:
                    log.warning("%s: gone here, and told when it can be: %s", due.farewell, error)
                due.complained = True
                for left in waiting[number:]:
                    left.tried.set()
                return False
            except Exception:  # whatever it was, the others are to be told all the same
                log.exception("telling a driver of the end of the %s", due.farewell)
                done = False
            if not done:
                due.tried.set()
        return not any(due.farewell.key in self._due for due in waiting)

    def _is_too_early(self, farewell: Farewell) -> bool:
        """A network after all its endpoints, a pool after all its addresses."""
        others = [due.farewell for due in self._due.values() if _teller(due.farewell) == _teller(farewell)]
        return farewell.endpoint is None and any(other.endpoint and other.network.id == farewell.network.id for other in others)

    async def _told_one(self, due: _Due) -> bool:
        farewell = due.farewell
        driver = self._core.driver(farewell.network)
        try:
            faults.point("driver.before")
            if farewell.slot:
                await give_back(self._core, farewell)
            elif not isinstance(driver, Effectful):
                raise NetplugError(f"driver {farewell.network.driver} is another one by now")
            elif farewell.endpoint is not None:
                await driver.detach(farewell.network.id, farewell.endpoint.id)
            else:
                await driver.unmake(farewell.network.id)
        except Unavailable:
            raise
        except NetplugError as error:
            due.refusals += 1
            if due.refusals < REFUSALS:
                return False
            log.error("%s: gone here, and no more is done about it there: %s", farewell, error)
        faults.point("driver.after")
        self._slow.discard(_teller(farewell))
        await self.unsay(farewell)
        self._due.pop(farewell.key, None)
        due.tried.set()
        return True

    async def _bring_home(self, farewell: Farewell) -> None:
        """The daemon may have died before its link was given back."""
        core = self._core
        if farewell.endpoint is not None and farewell.sandbox is not None and not farewell.slot:
            plan = core.driver(farewell.network).leave(farewell.network, farewell.endpoint, farewell.sandbox)
            await core.remove("network disconnect", f"{farewell.network.name}/{farewell.sandbox.name}", plan)


def _teller(farewell: Farewell) -> tuple[str, str]:
    """Which driver is to be told: one task does it."""
    network = farewell.network
    return (f"ipam {network.ipam_finder}", network.ipam_driver) if farewell.slot else (network.finder, network.driver)
