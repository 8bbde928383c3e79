"""Containers of other engines as endpoints of ours.

An engine asks for an endpoint before it says whose it will be: until then the endpoint has a sandbox of its own, of its id (`attach`).
Then it names the namespace that it is going to make (`join`), and takes the link in when the namespace is there. What we do inside is a
second plan, carried out once the link has `arrived`: from then on the endpoint is one like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Any, TypeAlias

import msgspec

from netplug.controller import handing, interfaces
from netplug.controller.core import Core, log
from netplug.controller.endpoints import Endpoints
from netplug.controller.furnishing import Furnishing, Sockets, log_failure
from netplug.controller.joining import redirection, settle
from netplug.controller.records import delete_sandbox, put_sandbox, update_endpoint
from netplug.controller.requests import ControllerEvent, EndpointRequest, SandboxRequest
from netplug.controller.sandboxes import Sandboxes
from netplug.errors import Conflict, NetplugError, NotFound, PortTaken
from netplug.kernel import arrivals, namespaces
from netplug.model import Endpoint, PortBinding, Sandbox, now
from netplug.plan import Announce, FirewallOp, Plan, Step
from netplug.shelter import Shelter

Claim: TypeAlias = tuple[Endpoint, Sandbox]
"""An endpoint, and whose it is."""
_MOST_REFUSED = 100
_PAUSE, _LONGEST_PAUSE, _PATIENCE = 0.003, 0.2, 30.0
"""Seconds between looks whether an engine has done with a link that it has taken; it is a matter of milliseconds."""


class Engined:
    """Those of this host."""

    def __init__(self, core: Core, endpoints: Endpoints, sandboxes: Sandboxes, changes: Shelter) -> None:
        """`changes`: where what goes on behind an answer comes to its end."""
        self._core, self._endpoints, self._sandboxes, self._changes = core, endpoints, sandboxes, changes
        self._furnishing = Furnishing(core, changes)
        self._refused: dict[str, BaseException] = {}
        """By endpoint: what became of one that was answered for."""
        self._joining: dict[str, asyncio.Task[None]] = {}
        """By endpoint: what goes on behind the answer to `join`."""
        self._awaited: dict[str, asyncio.Task[None]] = {}

    def attach(self, reference: str, request: EndpointRequest, engine: str) -> Coroutine[Any, Any, Endpoint]:
        """An endpoint whose container is not known yet; `request.id` says what it is called. It is begun at once.

        Where nobody else can object to it, store and firewall have still to be told of it when there is a result. `join` comes after
        them, and raises what they have refused.
        """
        self._refused.pop(request.id, None)
        return self._attached(request.id, self._changes.start(self._attach(reference, request, engine)))

    async def _attached(self, identity: str, attaching: asyncio.Task[Endpoint]) -> Endpoint:
        endpoints = self._core.records.endpoints
        if identity not in endpoints:
            await asyncio.sleep(0)
        endpoint, cluster = endpoints.get(identity), self._core.cluster
        if endpoint is None or (cluster is not None and identity in cluster.claiming):
            return await attaching
        attaching.add_done_callback(partial(log_failure, f"endpoint {identity:.12}"))
        return endpoint

    async def _attach(self, reference: str, request: EndpointRequest, engine: str) -> Endpoint:
        place = str(self._core.run_dir / "engines" / request.id[:12])
        wanted = SandboxRequest(id=request.id, name=request.id[:12], namespace=place, kind="engine", engine=engine)
        sandbox = await self._sandboxes.create(wanted, recorded=False)
        try:
            return await self._endpoints.connect(reference, request.id, request)
        except BaseException as error:
            self._refuse(request.id, error)
            try:
                await self._sandboxes.remove(request.id)
            except NetplugError:  # the store has refused both
                self._core.records.drop_sandbox(sandbox)
            raise

    async def join(self, identity: str, sandbox_id: str, namespace: str, *, takes: bool = False) -> Endpoint:
        """The endpoint is of the container whose namespace is, or will be, at that path. NotFound without `attach`; twice is fine.

        Conflict: it is another container's already, or what is known by `sandbox_id` is at another path.

        Where the container runs, its link is in it at the end, and set up: the engine has nothing to take in, for which it needs longer.
        That end may come behind the answer, where the engine asks how it went before it tells anybody (`pending`). Not so with one that
        starts, whose first link is called what the engine calls it; nor with `takes`: it wants to do that itself.
        """
        core = self._core
        async with self._locks(sandbox_id, self.endpoint(identity).sandbox) as held:
            endpoint = self.endpoint(identity)
            former = core.records.sandboxes[endpoint.sandbox]
            network = core.records.networks[endpoint.network]
            known = core.records.sandboxes.get(sandbox_id)
            if known is not None and known.namespace != namespace:
                raise Conflict(f"sandbox {sandbox_id:.12} is at {known.namespace}, not at {namespace}")
            if former.id == sandbox_id:
                return endpoint
            if handing.claimed(endpoint):  # an engine gives one that starts anew another endpoint
                raise Conflict(f"endpoint {identity:.12} has joined already, at {former.namespace}: Leave comes before another Join")
            sandbox = known or msgspec.structs.replace(former, id=sandbox_id, created=now(), namespace=namespace)
            joined = msgspec.structs.replace(endpoint, sandbox=sandbox_id)
            cookie, names = (0, frozenset[str]()) if takes else arrivals.inside(namespace)
            sockets: Sockets | None = None
            # An engine that has ports of a driver of its own to tell of asks no more after Join.
            asks = names <= {"lo", *(one.interface for one in core.records.of_sandbox(sandbox_id))}
            if names - {"lo"}:
                sandbox = msgspec.structs.replace(sandbox, cookie=cookie)
                joined = msgspec.structs.replace(joined, interface=handing.free_name(network, names))
                sandbox, sockets = self._furnishing.opened(sandbox, network)
            self._swap((endpoint, former), (joined, sandbox))
            try:
                await self._take_in(endpoint, former, joined, sandbox, known, sockets, held if asks else None)
            except BaseException:
                self._swap((joined, sandbox), (endpoint, former))
                if known is not None:
                    core.records.add_sandbox(known)
                raise
        core.events.send(ControllerEvent(kind="sandbox", action="remove", sandbox=former))
        core.events.send(ControllerEvent(kind="endpoint", action="update", network=network, endpoint=joined, sandbox=sandbox))
        return joined

    def _known(self, step: Step, endpoint: Endpoint) -> bool:
        """Whether it tells neighbours what they know."""
        return isinstance(step, Announce) and not self._core.known_otherwise(endpoint, step.address)

    def _swap(self, old: Claim, new: Claim) -> None:
        """In memory."""
        records = self._core.records
        records.drop_endpoint(old[0])
        records.drop_sandbox(old[1])
        records.add_sandbox(new[1])
        records.add_endpoint(new[0])

    async def _take_in(
        self,
        endpoint: Endpoint,
        former: Sandbox,
        joined: Endpoint,
        sandbox: Sandbox,
        known: Sandbox | None,
        sockets: Sockets | None,
        held: contextlib.AsyncExitStack | None,
    ) -> None:
        """Record and kernel, side by side; what leads to its names, where the link is in its container.

        With `held`, what the kernel hardly ever refuses goes on behind the record, and takes these locks with it.
        """
        core, network = self._core, self._core.records.networks[joined.network]
        plan = handing.attached(core.driver(network).join(network, joined, sandbox), joined, sandbox)
        # The rules for its port are there since `attach`.
        plan = tuple(step for step in plan if not isinstance(step, FirewallOp) and not self._known(step, joined))
        if sockets is not None:
            plan = (*plan, *redirection(sandbox))

        async def opposite() -> None:
            back = delete_sandbox(sandbox) if known is None else put_sandbox(known)
            await core.store.txn((), [put_sandbox(former), update_endpoint(endpoint), back])

        own = [put_sandbox(sandbox)] if sandbox != known else []
        record = core.store.txn((), [*own, update_endpoint(joined), delete_sandbox(former)])
        subject = f"{network.name}/{sandbox.name}"
        if held is not None and sockets is None and handing.arrived(joined) and handing.harmless(plan):
            await record
            self._follow_up(joined.id, self._wire(joined, sandbox, subject, plan, held.pop_all()))
            return
        establishing = core.establish("network connect", subject, plan, record, opposite)
        if handing.arrived(joined):
            await self._furnishing.furnish(sandbox, establishing, sockets)
            core.announced(joined)
        else:
            await establishing

    async def _wire(self, endpoint: Endpoint, sandbox: Sandbox, subject: str, plan: Plan, held: contextlib.AsyncExitStack) -> None:
        """The plan of an endpoint that has its record; with one that the kernel refuses after all the endpoint goes, and leaves nothing."""
        try:
            async with held:
                await self._furnishing.furnish(sandbox, self._core.apply("network connect", subject, plan), None)
                self._core.announced(endpoint)
        except NetplugError as error:
            self._refuse(endpoint.id, error)
            await self.leave(endpoint.id)
            raise

    def _follow_up(self, identity: str, work: Coroutine[Any, Any, None]) -> None:
        def done(task: asyncio.Task[None]) -> None:
            del self._joining[identity]
            log_failure(f"endpoint {identity:.12} in its container", task)

        self._joining[identity] = task = self._changes.start(work)
        task.add_done_callback(done)

    def pending(self, identity: str) -> asyncio.Task[None] | None:
        """What goes on behind the answer to `join`, with what it may raise; raises what has become of one that is at its end."""
        if identity not in self._core.records.endpoints and identity in self._refused:
            raise self._refused[identity]
        return self._joining.get(identity)

    def _refuse(self, identity: str, error: BaseException) -> None:
        self._refused[identity] = error
        while len(self._refused) > _MOST_REFUSED:
            del self._refused[next(iter(self._refused))]

    async def leave(self, identity: str) -> None:
        """Take the endpoint away, and its container with the last one; fine if it is gone."""
        core = self._core
        endpoint = core.records.endpoints.get(identity)
        if endpoint is None:
            return
        # Together: a daemon that dies in between would leave a container of which the engine says nothing any more.
        if not await self._sandboxes.remove(endpoint.sandbox, last=identity):
            with contextlib.suppress(NotFound):  # its container was found gone just now
                await self._endpoints.disconnect(endpoint.network, endpoint.sandbox)

    async def carry(self, identity: str, ports: tuple[PortBinding, ...]) -> None:
        """The container goes out by this endpoint, and is reached by it on these ports."""
        await self._carry(identity, 1, ports)

    async def release(self, identity: str) -> None:
        """It does so no more; fine if it is gone."""
        if identity in self._core.records.endpoints:
            await self._carry(identity, 0, ())

    async def _carry(self, identity: str, priority: int, ports: tuple[PortBinding, ...]) -> None:
        core, publishing = self._core, self._endpoints.publishing
        async with core.lock(self.endpoint(identity).sandbox):
            endpoint = self.endpoint(identity)
            before = core.records.sandboxes[endpoint.sandbox]
            async with core.lock(endpoint.network):
                chosen = msgspec.structs.replace(endpoint, gateway_priority=priority)
                wanted = msgspec.structs.replace(before, ports=ports)
                try:
                    sandbox, carried = publishing.hold(wanted, (), (chosen,))
                    after, _, plan = settle(core, sandbox, (endpoint,), (chosen,), carried)
                    await core.apply("network connect", f"{core.records.network_name(endpoint.network)}/{sandbox.name}", plan)
                except BaseException as error:
                    publishing.keep(wanted, (endpoint,))
                    if isinstance(error, PortTaken):
                        what = f"driver failed programming external connectivity on endpoint {before.name} ({identity})"
                        raise PortTaken(f"{what}: {error}") from error
                    raise
                await core.store.txn((), [put_sandbox(sandbox), update_endpoint(after[0])])
                core.records.add_sandbox(sandbox)
                core.records.add_endpoint(after[0])
                await publishing.settle(before if before.ports else sandbox, after)

    # The second plan

    def look(self) -> None:
        """Wait for links that an engine has begun to take in."""
        for endpoint in list(self._core.records.endpoints.values()):
            if not handing.arrived(endpoint) and handing.claimed(endpoint) and not arrivals.present(endpoint.interface):
                self.taken(endpoint.interface)

    def taken(self, name: str) -> None:
        """A link of the host has gone: if it is one that an engine takes in, do the rest when that has done with it."""
        for endpoint in self._core.records.endpoints.values():
            if endpoint.interface == name and endpoint.id not in self._awaited and not handing.arrived(endpoint):
                task = asyncio.get_running_loop().create_task(self._await(endpoint.id))
                self._awaited[endpoint.id] = task
                task.add_done_callback(partial(self._done, endpoint.id))

    def _done(self, identity: str, task: asyncio.Task[None]) -> None:
        self._awaited.pop(identity, None)

    async def stop(self) -> None:
        tasks = list(self._awaited.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _await(self, identity: str) -> None:
        pause, end = _PAUSE, asyncio.get_running_loop().time() + _PATIENCE
        try:
            while identity in self._core.records.endpoints and not await self.arrive(identity):
                if asyncio.get_running_loop().time() > end:
                    log.warning("endpoint %.12s: the engine has taken its link and not set it up", identity)
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        except NetplugError as error:
            log.error("endpoint %.12s in its container: %s", identity, error)

    async def arrive(self, identity: str) -> bool:
        """If the engine has done with the endpoint's link, do what is ours in the container: True, also if that was done before."""
        core = self._core
        async with core.lock(self.endpoint(identity).sandbox):
            endpoint = core.records.endpoints.get(identity)
            if endpoint is None or handing.arrived(endpoint):
                return True
            sandbox = core.records.sandboxes[endpoint.sandbox]
            given = tuple(filter(None, (endpoint.address, endpoint.address6)))
            name = arrivals.find(sandbox.namespace, endpoint.mac, given)
            cookie = namespaces.cookie(sandbox.namespace) if name else None
            if cookie is None:
                return False
            endpoint = msgspec.structs.replace(endpoint, interface=name)
            sandbox = msgspec.structs.replace(sandbox, cookie=cookie)
            sandbox, sockets = self._furnishing.opened(sandbox, core.records.networks[endpoint.network])
            try:
                await core.store.txn((), [put_sandbox(sandbox), update_endpoint(endpoint)])
            except BaseException:
                for one in sockets or ():
                    one.close()
                raise
            core.records.add_sandbox(sandbox)
            core.records.add_endpoint(endpoint)
            plan: Plan = tuple(interfaces.settings(endpoint, sandbox))
            if sockets is not None:
                plan = (*plan, *redirection(sandbox))
            subject = f"{core.records.network_name(endpoint.network)}/{sandbox.name}"
            await self._furnishing.furnish(sandbox, core.apply("network connect", subject, plan), sockets)
            core.events.send(ControllerEvent(kind="sandbox", action="update", sandbox=sandbox))
            return True

    def endpoint(self, identity: str) -> Endpoint:
        found = self._core.records.endpoints.get(identity)
        if found is None:
            if (refused := self._refused.pop(identity, None)) is not None:
                raise refused
            raise NotFound(f"endpoint {identity:.12} not found: it was not created here, or has gone")
        return found

    @contextlib.asynccontextmanager
    async def _locks(self, *identities: str) -> AsyncIterator[contextlib.AsyncExitStack]:
        """In one order, so that no two wait for each other. Whoever takes them from the stack gives them back."""
        async with contextlib.AsyncExitStack() as stack:
            for identity in sorted(set(identities)):
                await stack.enter_async_context(self._core.lock(identity))
            yield stack
