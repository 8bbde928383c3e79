"""Learns from the engine what its plugin protocol does not say: names, and, after a time apart, what is there no more.

All of it comes after the fact. The engine waits for a handler's answer with its locks held, so no handler asks it anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple

from netplug.controller import Controller
from netplug.engines.engine_api import EngineApi
from netplug.engines.network_driver import NetworkDriver
from netplug.engines.ties import ENGINE, Ties
from netplug.errors import NetplugError, NotFound, Unavailable
from netplug.model import Endpoint

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds until the engine is tried again."""
_CONNECT_SECONDS = 0.03
"""An engine that says that a container is connected has still to write that down, and answers nothing about it before it has; and who
connects it may go on to something else that the question would be in the way of. So it is asked once for all that happens meanwhile.
"""
_DOUBT_SECONDS = 5.0
"""What the engine does not know twice, so far apart, is not just being made."""


class Leftover(NamedTuple):
    """Something of ours that the engine does not know."""

    kind: str
    """`network`, `endpoint`, `pool` or `address`."""
    id: str
    address: str = ""
    owner: str = ""
    """What had it and is lost, too: where there was none at first, it may be of something that is just being made."""


class Learner:
    """`start`, and `stop`."""

    def __init__(self, controller: Controller, ties: Ties, driver: NetworkDriver, engine: EngineApi) -> None:
        self._controller, self._ties, self._driver, self._engine = controller, ties, driver, engine
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting: set[str] = set()
        """Containers about which the engine will be asked in a moment."""
        self._known = False

    def start(self) -> None:
        self._run(self._follow())

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        """For good: an engine that is away comes back, and one that says what makes no sense says something else next time."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._engine.events("start", "rename", "connect", "create") as events:
                    pause, self._known = _FIRST_PAUSE, True
                    self._run(self._quietly(self._agree()))
                    async for event in events:
                        self._hear(event)
            except Unavailable as error:
                (log.info if self._known else log.debug)("%s", error)
                self._known = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _hear(self, event: dict[str, Any]) -> None:
        try:
            self._take(event)
        except Exception:  # as in `_quietly`
            log.exception("an event of the Docker Engine: %.200r", event)

    def _take(self, event: dict[str, Any]) -> None:
        actor = event.get("Actor") or {}
        identity, attributes = str(actor.get("ID", "")), actor.get("Attributes") or {}
        match event.get("Type"), event.get("Action"):
            case "container", "start" | "rename":
                self._run(self._quietly(self._container(identity)))
            case "network", "connect" if self._ties.get(identity) is not None:
                self._run(self._quietly(self._connected(str(attributes.get("container", "")))))
            case "network", "create":
                self._run(self._quietly(self._network(identity, str(attributes.get("name", "")))))

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        """What has gone meanwhile, or an engine that has, is no matter: the next look tells."""
        try:
            await work
        except (NotFound, Unavailable) as error:
            log.debug("%s", error)
        except NetplugError as error:
            log.warning("names of the Docker Engine: %s", error)
        except Exception:  # what an engine says must not end the learning of the rest
            log.exception("names of the Docker Engine")

    async def _network(self, identity: str, name: str) -> None:
        tie = self._ties.get(identity)
        if tie is not None and not tie.joined and name:
            await self._controller.name_network(tie.network, name)

    async def _connected(self, identity: str) -> None:
        if identity in self._connecting:
            return
        self._connecting.add(identity)
        try:
            await asyncio.sleep(_CONNECT_SECONDS)
        finally:
            self._connecting.discard(identity)
        await self._container(identity)

    async def _container(self, identity: str) -> None:
        if not identity:
            return
        container = await self._engine.get("containers", identity, "json")
        settings = container.get("NetworkSettings") or {}
        sandbox = str(settings.get("SandboxKey", "")).rpartition("/")[2]
        if self._controller.sandbox(sandbox) is None:
            return
        aliases = {str(one.get("EndpointID", "")): _names(one) for one in (settings.get("Networks") or {}).values() if one}
        await self._controller.name_container(sandbox, str(container["Id"]), str(container["Name"]).lstrip("/"), aliases)

    # After a time apart

    async def _agree(self) -> None:
        names = {str(one["Id"]): str(one["Name"]) for one in await self._engine.get("networks")}
        for identity, name in names.items():
            await self._network(identity, name)
        await self._controller.engine_restarted(ENGINE)
        for container in await self._engine.get("containers", "json"):
            await self._quietly(self._container(str(container["Id"])))
        await self._clear()

    async def _clear(self) -> None:
        """Until there is nothing any more, or nothing that can be taken away."""
        before: set[Leftover] = set()
        while (doubtful := await self._leftovers()) and doubtful != before:
            before = doubtful
            await asyncio.sleep(_DOUBT_SECONDS)
            await self._clear_away(doubtful)

    async def _clear_away(self, doubtful: set[Leftover]) -> None:
        # Endpoints before the network that they are on, and before the addresses that they have.
        for one in sorted(doubtful & await self._leftovers(), key=lambda one: ("endpoint", "network", "address", "pool").index(one.kind)):
            log.info("the Docker Engine has no %s %.12s %s any more: taken away", one.kind, one.id, one.address)
            await self._quietly(self._remove(one))

    async def _remove(self, one: Leftover) -> None:
        match one.kind:
            case "endpoint":
                await self._controller.leave(one.id)
            case "network":
                await self._driver.remove(one.id)
            case "pool":
                await self._controller.leases.release_pool(one.id)
            case "address":
                await self._controller.release_address(one.id, one.address)

    async def _leftovers(self) -> set[Leftover]:
        """By what this engine says: what another netplug has here it knows nothing of."""
        networks = {str(one["Id"]) for one in await self._engine.get("networks")}
        ties = {tie.id: tie for tie in self._ties.all() if tie.engine == ENGINE}
        known = set(self._endpoints(await self._engine.get("containers", "json?all=1")))
        for identity in ties.keys() & networks:
            found = await self._engine.get("networks", identity)
            known |= {str(one.get("EndpointID")) for one in (found.get("Containers") or {}).values()}
        gone = ties.keys() - networks
        endpoints = [one for one in self._controller.endpoints() if self._of_engine(one.sandbox)]
        lost = {Leftover("endpoint", one.id) for one in endpoints if one.id not in known}
        lost |= {Leftover("network", identity) for identity in gone}
        return lost | self._lost_leases(gone, endpoints, known)

    def _lost_leases(self, gone: Set[str], endpoints: Sequence[Endpoint], known: Set[str]) -> set[Leftover]:
        """Pools and addresses. What goes with a network or an endpoint is lost with it: who makes the same again waits for one doubt."""
        lost = set[Leftover]()
        ended = {tie.network: tie.id for tie in self._ties.all() if tie.id in gone}
        tied = {tie.network for tie in self._ties.all() if tie.id not in gone}
        owners = {address.split("/")[0]: one.id for one in endpoints for address in (one.address, one.address6)}
        used = {address for address, endpoint in owners.items() if endpoint in known}
        for pool in self._controller.leases.pools.values():
            if pool.word:  # lent to another netplug, which asks by words
                continue
            if pool.network not in tied and not pool.released:
                lost.add(Leftover("pool", pool.id, owner=ended.get(pool.network, "")))
            reserved = self._reserved(pool.network)
            addresses = self._controller.leases.addresses(pool.id) if pool.network else frozenset()
            lost |= {Leftover("address", pool.id, address, owners.get(address, "")) for address in addresses - used - reserved}
        return lost

    def _of_engine(self, sandbox: str) -> bool:
        found = self._controller.sandbox(sandbox)
        return found is not None and found.engine == ENGINE

    def _reserved(self, network: str) -> frozenset[str]:
        """Auxiliary addresses are handed out and are nobody's."""
        found = [one for one in self._controller.networks() if one.id == network]
        return frozenset(address for one in found for pool in one.pools for address in pool.auxiliary.values())

    def _endpoints(self, containers: Iterable[dict[str, Any]]) -> Iterator[str]:
        for container in containers:
            for network in ((container.get("NetworkSettings") or {}).get("Networks") or {}).values():
                yield str((network or {}).get("EndpointID", ""))


def _names(network: dict[str, Any]) -> tuple[str, ...]:
    """Aliases; newer engines tell all names."""
    return tuple(dict.fromkeys((*(network.get("Aliases") or ()), *(network.get("DNSNames") or ()))))
