"""Connect and disconnect: the order of the steps.

Connect: address, ports held; then one transaction (the intent), the plan and the names, side by side; event. If a step fails, the kernel
has been put back by the executor, the opposite transaction frees name and address, and the error says which step it was. Disconnect: the
transaction, the plan that takes away and the names, side by side; then the address is free. On a global network the plan goes side by side
with what the cluster is asked; record, names and announcements come after its word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from netplug.controller import exits, handing, linking, names
from netplug.controller.claims import Answer, Claims
from netplug.controller.company import Stretch
from netplug.controller.core import Core, log
from netplug.controller.effects import Effects, Prepared
from netplug.controller.joining import Change, draft, joined, left, split
from netplug.controller.lending import Lending
from netplug.controller.names import open_resolver_sockets
from netplug.controller.networks import Networks
from netplug.controller.publishing import Ports, Publishing
from netplug.controller.records import delete_endpoint, put_endpoint, put_sandbox, sandbox_key, update_endpoint
from netplug.controller.requests import ControllerEvent, EndpointRequest
from netplug.errors import Conflict, NetplugError, NotFound, PortTaken
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import Plan
from netplug.store import Exists, Lost, Write


class Endpoints:
    """The life of endpoints."""

    def __init__(self, core: Core, claims: Claims, networks: Networks, effects: Effects) -> None:
        self._core, self._claims, self._networks = core, claims, networks
        self.farewells, self._effects = effects.farewells, effects
        self._lending = Lending(core, effects)
        self.publishing = Publishing(core)

    async def connect(self, reference: str, sandbox_id: str, request: EndpointRequest) -> Endpoint:
        core = self._core
        self.sandbox(sandbox_id)
        network = core.records.network(reference)
        exits.check_asked(network)
        async with (
            self._lending.addresses(network, sandbox_id, request) as request,
            self._effects.attached(network, sandbox_id, request) as prepared,
            core.lock(sandbox_id),
        ):
            sandbox = self.sandbox(sandbox_id)
            if network.scope == "global":
                endpoint = await self._join_shared(network, sandbox, request)
            else:
                endpoint = await self._join(network, sandbox, request, prepared)
            try:
                await self._settle_exit(sandbox_id)
            except BaseException:
                await self._leave(network, self.sandbox(sandbox_id), at_once=False)
                raise
        core.events.send(ControllerEvent(kind="endpoint", action="connect", network=network, endpoint=endpoint, sandbox=sandbox))
        return endpoint

    async def _join(self, network: Network, sandbox: Sandbox, request: EndpointRequest, prepared: Prepared | None = None) -> Endpoint:
        """`prepared`: as its driver has made it already."""
        core = self._core
        async with core.lock(network.id):
            network = core.records.network(network.id)
            present = core.records.of_sandbox(sandbox.id)
            if prepared is None:
                endpoint = draft(core, network, sandbox, present, request)
            else:
                endpoint = self._effects.settled(prepared, network, sandbox, present)
            try:
                return await self._attach(network, sandbox, present, endpoint)
            except BaseException:
                core.free(endpoint)
                raise

    async def _join_shared(self, network: Network, sandbox: Sandbox, request: EndpointRequest) -> Endpoint:
        """Without the network's lock, which would make all wait while one asks the cluster: that decides who is first."""
        core = self._core
        present = core.records.of_sandbox(sandbox.id)

        def drafted(stretch: Stretch | None) -> Endpoint:
            return draft(core, network, sandbox, present, request, stretch=stretch)

        return await self._claims.attached(network, drafted, partial(self._attach, network, sandbox, present))

    async def disconnect(self, reference: str, sandbox_id: str) -> Endpoint:
        core = self._core
        async with core.lock(sandbox_id):
            sandbox = self.sandbox(sandbox_id)
            network = core.records.network(reference)
            exits.check_asked(network)
            endpoint = await self._leave(network, sandbox)
            farewells = self.farewells.of_endpoints([endpoint], sandbox)
            await self._settle_exit(sandbox_id)
        await self.farewells.told(*farewells)
        core.events.send(ControllerEvent(kind="endpoint", action="disconnect", network=network, endpoint=endpoint, sandbox=sandbox))
        return endpoint

    async def _leave(self, network: Network, sandbox: Sandbox, *, at_once: bool = True) -> Endpoint:
        """With `at_once` false also where the cluster cannot be told now."""
        core = self._core
        endpoint = self.find(network, sandbox)
        async with self._claims.parting(endpoint, at_once=at_once) as release, core.lock(network.id):
            change = self._leaving(network, sandbox, core.records.of_sandbox(sandbox.id), endpoint)
            writes: list[Write] = [*delete_endpoint(endpoint), *map(update_endpoint, change.updated)]
            writes += [put_sandbox(change.sandbox)] if change.sandbox != sandbox else []
            writes += self._claims.debts.cleared(endpoint) if at_once else self._claims.debts.written([endpoint])
            farewells = self.farewells.of_endpoints([endpoint], sandbox)
            writes += self.farewells.written(farewells)
            present = core.records.of_sandbox(sandbox.id)
            core.records.drop_endpoint(endpoint)
            core.records.add_sandbox(change.sandbox)
            self._remember(change.updated)
            # The resolver works beside both.
            telling = names.forgotten(core, endpoint, sandbox)
            stay = partial(self._stay, network, sandbox, present, endpoint, change)
            try:
                subject = f"{network.name}/{sandbox.name}"
                record = core.store.txn((), writes) if release is None else self._once_free(release, writes)
                await core.dissolve("network disconnect", subject, change.plan, record, stay)
            finally:
                await telling
            self.farewells.due(*farewells)
            core.retire(endpoint)
            await self.publishing.settle(sandbox, change.endpoints)
        return endpoint

    async def _once_free(self, release: Answer[bool], writes: Sequence[Write]) -> None:
        """Its name and addresses in the cluster, then its record."""
        await release
        await self._core.store.txn((), writes)

    async def _stay(self, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], endpoint: Endpoint, change: Change) -> None:
        """The store could not be told that it leaves: all is again as the records say."""
        core = self._core
        ports = {one.id: one.ports for one in present}
        back = joined(core, network, sandbox, change.endpoints, endpoint, ports)
        core.records.add_endpoint(endpoint)
        core.records.add_sandbox(sandbox)
        self._remember(present)
        self.publishing.keep(sandbox, present)
        try:
            await core.apply("network connect", f"{network.name}/{sandbox.name}", back.plan)
        except NetplugError as error:
            log.error("%s: could not be put back: %s", f"{network.name}/{sandbox.name}", error)
        await names.told(core, endpoint, sandbox)

    async def _settle_exit(self, sandbox_id: str) -> None:
        """The way out comes with the first network that needs it, and goes with the last."""
        core = self._core
        if self.sandbox(sandbox_id).kind == "engine":
            return  # the engine's own business
        endpoints = core.records.of_sandbox(sandbox_id)
        present, needed = exits.present(endpoints), exits.needed(core, endpoints)
        if needed and present is None:
            if (gateway := core.records.network_named(exits.GATEWAY)) is None:
                gateway = await self._gateway_bridge()
            await self._join(gateway, self.sandbox(sandbox_id), EndpointRequest())
        elif present is not None and not needed:
            await self._leave(core.records.networks[present.network], self.sandbox(sandbox_id))

    async def _gateway_bridge(self) -> Network:
        async with self._core.lock(exits.GATEWAY):
            known = self._core.records.network_named(exits.GATEWAY)
            return known or await self._networks.create(exits.REQUEST, predefined=True)

    def plan_join(self, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], request: EndpointRequest) -> Change:
        """What joining one more network would do; address and host ports go straight back."""
        core = self._core
        endpoint = self._effects.unanswered(network, draft(core, network, sandbox, present, request), request)
        core.free(endpoint)
        sandbox, ports = self._hold_ports(sandbox, present, endpoint)
        self.publishing.keep(sandbox, core.records.of_sandbox(sandbox.id))
        change = joined(core, network, sandbox, present, endpoint, ports)
        return replace(change, plan=(*change.plan, *linking.rules(core, network, endpoint, sandbox)))

    def plan_leave(self, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], endpoint: Endpoint) -> Change:
        """What leaving one of them would do."""
        change = self._leaving(network, sandbox, present, endpoint)
        self.publishing.keep(sandbox, self._core.records.of_sandbox(sandbox.id))
        return change

    def find(self, network: Network, sandbox: Sandbox) -> Endpoint:
        for endpoint in self._core.records.of_sandbox(sandbox.id):
            if endpoint.network == network.id:
                return endpoint
        raise NotFound(f"container {sandbox.id} is not connected to network {network.name}")

    async def _attach(
        self, network: Network, sandbox: Sandbox, present: list[Endpoint], endpoint: Endpoint, claim: Answer[None] | None = None
    ) -> Endpoint:
        """`claim`: the cluster is being asked whether its name and addresses are its own."""
        core = self._core
        before = sandbox
        sandbox, ports = self._hold_ports(sandbox, present, endpoint)
        try:
            change = joined(core, network, sandbox, present, endpoint, ports)
        except BaseException:
            self.publishing.keep(sandbox, present)
            raise
        new = next(candidate for candidate in change.endpoints if candidate.id == endpoint.id)
        core.records.add_endpoint(new)
        core.records.add_sandbox(change.sandbox)
        self._remember(change.updated)
        old = [endpoint for endpoint in present if endpoint.id in {updated.id for updated in change.updated}]
        telling: Awaitable[None] | None = None
        sockets = None

        def told() -> Awaitable[None]:
            return names.told(core, new, change.sandbox)

        async def granted(claim: Answer[None]) -> None:
            nonlocal telling
            await claim
            telling = told() if sockets is None else None
            await self._intend(network, change, new)

        try:
            if change.sandbox.resolver_udp != sandbox.resolver_udp:
                sockets = open_resolver_sockets(change.sandbox)
            elif claim is None:
                telling = told()
            if sandbox.kind == "engine":
                await asyncio.sleep(0)  # its engine is answered now, and need not wait for what follows
            plan: Plan = (*change.plan, *linking.rules(core, network, new, change.sandbox))
            plan, said = split(plan) if claim is not None else (plan, ())
            subject = f"{network.name}/{sandbox.name}"
            record = self._intend(network, change, new) if claim is None else granted(claim)
            await core.establish("network connect", subject, plan, record, partial(self._withdraw, before, old, new))
        except BaseException:
            for opened in sockets or ():
                opened.close()
            core.records.drop_endpoint(new)
            core.records.add_sandbox(before)
            self._remember(old)
            self.publishing.keep(before, present)
            if telling is not None:
                await telling
                await names.forgotten(core, new, before)
            raise
        if said:
            await core.apply("network connect", subject, said)
        if handing.claimed(new):
            core.announced(new)
        if sockets is not None:
            await names.hand_over(core, change.sandbox, sockets)
            await names.told(core, new)
        elif telling is not None:
            await telling
        await self.publishing.settle(change.sandbox, change.endpoints)
        return new

    def _intend(self, network: Network, change: Change, new: Endpoint) -> Awaitable[None]:
        """On its way to the store when this returns."""
        compares, writes = put_endpoint(new)
        if handing.claimed(new):
            compares.append(Exists(sandbox_key(new.sandbox)))
        writes += [put_sandbox(change.sandbox), *map(update_endpoint, change.updated), *self._claims.debts.cleared(new)]
        writes += self.farewells.unsaid(self.farewells.of_endpoints([new], None))
        return self._intended(network, new, self._core.store.txn(compares, writes))

    async def _intended(self, network: Network, new: Endpoint, transaction: Awaitable[int]) -> None:
        try:
            await transaction
        except Lost as lost:
            if isinstance(lost.failed, Exists):
                raise NotFound(f"network {network.name} not found") from lost
            raise Conflict(f"endpoint with name {new.container_name} already exists in network {network.name}") from lost

    async def _withdraw(self, sandbox: Sandbox, old: Sequence[Endpoint], new: Endpoint) -> None:
        """The opposite of the intent, in the store."""
        writes = [*delete_endpoint(new), put_sandbox(sandbox), *map(update_endpoint, old), *self._claims.debts.written([new])]
        writes += self.farewells.written(self.farewells.of_endpoints([new], sandbox))
        await self._core.store.txn((), writes)

    def _leaving(self, network: Network, sandbox: Sandbox, present: Sequence[Endpoint], endpoint: Endpoint) -> Change:
        """What disconnecting means. Host ports that other endpoints will need are held."""
        sandbox, ports = self.publishing.hold_what_is_free(sandbox, present, [other for other in present if other.id != endpoint.id])
        return left(self._core, network, sandbox, present, endpoint, ports)

    def _hold_ports(self, sandbox: Sandbox, present: Sequence[Endpoint], endpoint: Endpoint) -> tuple[Sandbox, Ports]:
        try:
            return self.publishing.hold(sandbox, present, (*present, endpoint))
        except PortTaken as error:
            raise PortTaken(
                f"driver failed programming external connectivity on endpoint {sandbox.name} ({endpoint.id}): {error}"
            ) from error

    def _remember(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            self._core.records.add_endpoint(endpoint)

    def sandbox(self, identity: str) -> Sandbox:
        sandbox = self._core.records.sandboxes.get(identity)
        if sandbox is None:
            raise NotFound(f"no such sandbox: {identity}")
        return sandbox
