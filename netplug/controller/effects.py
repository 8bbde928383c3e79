"""What drivers that act outside the kernel are asked for: networks before they have a plan, endpoints before they have a record.

No lock is held while a driver is asked, which may take long. So a network keeps its name and subnets, and an endpoint its address,
while they are being made; and what was true before is looked at again afterwards: somebody may have been quicker, or have gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from netplug import faults
from netplug.capability import Effectful
from netplug.controller import interfaces
from netplug.controller.cluster import in_use
from netplug.controller.core import Core
from netplug.controller.farewells import Farewell, Farewells
from netplug.controller.joining import checked_mac, draft
from netplug.controller.requests import EndpointRequest
from netplug.errors import Conflict, Forbidden, NotFound, Unavailable
from netplug.model import Attachment, Endpoint, Network, Sandbox

T = TypeVar("T")


@dataclass
class Prepared:
    """An endpoint that its driver has made."""

    endpoint: Endpoint
    owned: bool = True
    """Its addresses are to be given back by whoever prepared it; False: by whoever has it now."""


class Effects:
    """What is being made at present."""

    def __init__(self, core: Core, farewells: Farewells) -> None:
        self._core, self.farewells = core, farewells
        self._networks: dict[str, Network] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._ending = asyncio.Event()

    @property
    def ends(self) -> bool:
        return self._ending.is_set()

    def end(self) -> None:
        """Wait for no driver any more: what is under way fails, and is taken back by the next daemon."""
        self._ending.set()

    def check_idle(self, network: Network) -> None:
        """Raises where something is being made of it: it cannot go now."""
        if network.id in self._networks:
            raise Conflict(f"network {network.name} is being made: try again")
        if coming := [endpoint for endpoint in self._endpoints.values() if endpoint.network == network.id]:
            raise in_use(network, coming)

    @asynccontextmanager
    async def made(self, network: Network) -> AsyncIterator[None]:
        """Its driver has made it; in the block it gets its record and its plan. Undone if that fails."""
        driver = self._core.driver(network)
        assert isinstance(driver, Effectful)
        farewell = Farewell(network=network)
        self._networks[network.id] = network
        try:
            async with self._noted(farewell):
                await self.asked(driver.make(network), network.driver)
                yield
        finally:
            del self._networks[network.id]

    @asynccontextmanager
    async def attached(self, network: Network, sandbox: str, request: EndpointRequest) -> AsyncIterator[Prepared | None]:
        """The endpoint as its driver has made it, None where it acts in the kernel only; in the block it gets its record and its plan."""
        driver = self._core.driver(network)
        if not isinstance(driver, Effectful):
            yield None
            return
        prepared, known = await self._draft(network, sandbox, request)
        self._endpoints[prepared.endpoint.id] = prepared.endpoint
        try:
            async with self._noted(Farewell(network=network, endpoint=prepared.endpoint)):
                await self.farewells.caught_up(Farewell(network=network))
                given = await self.asked(driver.attach(network, prepared.endpoint, known), network.driver)
                prepared.endpoint = _answered(prepared.endpoint, given)
                yield prepared
        except BaseException:
            if prepared.owned:
                self._core.free(prepared.endpoint)
            raise
        finally:
            del self._endpoints[prepared.endpoint.id]

    def settled(self, prepared: Prepared, network: Network, sandbox: Sandbox, present: list[Endpoint]) -> Endpoint:
        """The endpoint as it can be now, with both locks held; from here on its addresses are the caller's to give back."""
        prepared.owned = False
        endpoint = prepared.endpoint
        others = any(other.network == network.id for other in present)
        if others or self._core.records.has_container(network.id, sandbox.name):
            self._core.free(endpoint)
            raise Forbidden(f"endpoint with name {sandbox.name} already exists in network {network.name}")
        given = endpoint.attachment or Attachment()
        try:
            name = interfaces.free_name(network, present, endpoint.options, given)
        except BaseException:
            self._core.free(endpoint)
            raise
        return msgspec.structs.replace(endpoint, interface=name)

    def unanswered(self, network: Network, endpoint: Endpoint, request: EndpointRequest) -> Endpoint:
        """A draft, without what its driver is to choose: the way out, the link, and what the user has not chosen."""
        if not isinstance(self._core.driver(network), Effectful):
            return endpoint
        return msgspec.structs.replace(endpoint, mac=checked_mac(request.mac), gateway="", gateway6="", host_interface="")

    async def _draft(self, network: Network, identity: str, request: EndpointRequest) -> tuple[Prepared, Sandbox]:
        core = self._core
        async with core.lock(identity), core.lock(network.id):
            sandbox = core.records.sandboxes.get(identity)
            if sandbox is None:
                raise NotFound(f"no such sandbox: {identity}")
            network = core.records.network(network.id)
            if network.id in self._networks:
                raise Conflict(f"network {network.name} is being made: try again")
            endpoint = draft(core, network, sandbox, core.records.of_sandbox(identity), request)
        return Prepared(self.unanswered(network, endpoint, request)), sandbox

    @asynccontextmanager
    async def _noted(self, farewell: Farewell) -> AsyncIterator[None]:
        """Within the block it comes to be, and the transaction that makes its record unsays this; or it is taken back."""
        await self.farewells.note(farewell)
        try:
            yield
        except BaseException:
            self.farewells.due(farewell)
            if not self._ending.is_set():
                await self.farewells.told(farewell)
            raise

    async def asked(self, question: Coroutine[Any, Any, T], whom: str) -> T:
        """The answer; Unavailable where the daemon stops meanwhile."""
        faults.point("driver.before")
        asked, ending = asyncio.ensure_future(question), asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((asked, ending), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise Unavailable(f"the daemon is stopping: {whom} was not waited for")
            faults.point("driver.after")
            return asked.result()
        finally:
            for task in (asked, ending):
                task.cancel()
            await asyncio.gather(asked, ending, return_exceptions=True)


def _answered(endpoint: Endpoint, given: Attachment) -> Endpoint:
    return msgspec.structs.replace(
        endpoint,
        mac=given.mac or endpoint.mac,
        address=given.address or endpoint.address,
        address6=given.address6 or endpoint.address6,
        gateway=given.gateway,
        gateway6=given.gateway6,
        attachment=given,
    )
