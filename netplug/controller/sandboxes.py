"""Make and end sandboxes.

A namespace that we make exists before its record does: one without a record is swept away at the next start. Ending goes the other way:
the records first, in chunks that the store can take, then names, links and the namespace itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from netplug.controller import handing, linking, names
from netplug.controller.claims import Claims
from netplug.controller.core import Core
from netplug.controller.endpoints import Endpoints
from netplug.controller.joining import redirection
from netplug.controller.records import delete_endpoint, delete_sandbox, put_sandbox
from netplug.controller.requests import ControllerEvent, SandboxRequest
from netplug.errors import Conflict, InvalidArgument
from netplug.kernel import namespaces
from netplug.model import Endpoint, Network, Sandbox, now
from netplug.plan import Netns, Plan, Remove, Step, Sysctl, removal
from netplug.store import MAX_OPERATIONS, Write


class Sandboxes:
    """The life of sandboxes."""

    def __init__(self, core: Core, endpoints: Endpoints, claims: Claims) -> None:
        self._core, self._claims = core, claims
        self._endpoints = endpoints

    async def create(self, request: SandboxRequest, *, recorded: bool = True) -> Sandbox:
        """`recorded` false: it has no namespace to be swept away, and its record is written with its first endpoint's."""
        core = self._core
        async with core.lock(request.id):
            sandbox = self.prepare(request)
            plan = creation(sandbox)
            if plan:
                await core.apply("sandbox create", sandbox.name, plan)
            try:
                sandbox = self._identified(sandbox)
                if recorded:
                    await core.store.txn((), [put_sandbox(sandbox)])
            except BaseException:
                await core.remove("sandbox create", sandbox.name, removal_of_namespace(sandbox))
                raise
            core.records.add_sandbox(sandbox)
        core.events.send(ControllerEvent(kind="sandbox", action="create", sandbox=sandbox))
        return sandbox

    async def remove(self, identity: str, last: str = "") -> bool:
        """With all its endpoints, in one transaction if they are few; False: it is gone, or has others than the endpoint `last`."""
        core = self._core
        async with core.lock(identity):
            sandbox = core.records.sandboxes.get(identity)
            endpoints = core.records.of_sandbox(identity)
            if sandbox is None or (last and any(endpoint.id != last for endpoint in endpoints)):
                return False
            networks = {endpoint.network: core.records.networks[endpoint.network] for endpoint in endpoints}
            farewells = self._endpoints.farewells.of_endpoints(endpoints, sandbox)
            await self.forget(sandbox, endpoints)
            if sandbox.resolver_udp:
                await names.tell(core.resolver.remove_sandbox(identity))
            plan = self.plan_removal(sandbox, endpoints, networks)
            if sandbox.kind in ("engine", "given") and sandbox.resolver_udp and namespaces.cookie(sandbox.namespace) == sandbox.cookie:
                # The namespace lives on without us, and nobody listens any more where its questions were led.
                plan = (*removal(redirection(sandbox)), *plan)
            await core.remove("sandbox rm", sandbox.name, plan)
            for endpoint in endpoints:
                if endpoint.node:
                    await self._claims.debts.settle(endpoint)
                core.retire(endpoint)
            await self._endpoints.publishing.settle(sandbox, ())
            self._endpoints.farewells.due(*farewells)
        await self._endpoints.farewells.told(*farewells)
        for endpoint in endpoints:
            await self._claims.left(endpoint)
            network = networks[endpoint.network]
            core.events.send(ControllerEvent(kind="endpoint", action="disconnect", network=network, endpoint=endpoint, sandbox=sandbox))
        core.events.send(ControllerEvent(kind="sandbox", action="remove", sandbox=sandbox))
        return True

    async def forget(self, sandbox: Sandbox, endpoints: list[Endpoint]) -> None:
        """Out of the store, the memory and the resolver: endpoints first, so that no chunk leaves one without its sandbox."""
        core = self._core
        writes: list[Write] = [*self.owed(endpoints, sandbox), *(write for endpoint in endpoints for write in delete_endpoint(endpoint))]
        writes.append(delete_sandbox(sandbox))
        for start in range(0, len(writes), MAX_OPERATIONS):
            await core.store.txn((), writes[start : start + MAX_OPERATIONS])
        for endpoint in endpoints:
            await names.forgotten(core, endpoint)
            core.records.drop_endpoint(endpoint)
        core.records.drop_sandbox(sandbox)

    def owed(self, endpoints: Sequence[Endpoint], sandbox: Sandbox | None = None) -> list[Write]:
        """Goes with what forgets them: the cluster's store must not keep them either, nor drivers that act outside the kernel."""
        farewells = self._endpoints.farewells
        return [*self._claims.debts.written(endpoints), *farewells.written(farewells.of_endpoints(endpoints, sandbox))]

    def prepare(self, request: SandboxRequest) -> Sandbox:
        """The record that the request makes; its cookie is known once the namespace is there."""
        core = self._core
        if request.id in core.records.sandboxes:
            raise Conflict(f"sandbox {request.id} exists already")
        own = str(core.run_dir / "netns" / request.id[:12])
        return Sandbox(
            id=request.id,
            created=now(),
            name=request.name,
            namespace={"own": own, "given": request.namespace, "engine": request.namespace, "host": ""}[request.kind],
            cookie=0,
            incarnation=core.incarnation,
            kind=request.kind,
            engine=request.engine,
            hostname=request.hostname,
            dns=request.dns,
            ports=request.ports,
            exposed=request.exposed,
        )

    def plan_removal(self, sandbox: Sandbox, endpoints: list[Endpoint], networks: Mapping[str, Network] | None = None) -> Plan:
        """`networks`, by id, are the endpoints': another node may remove one as soon as they have left it."""
        core = self._core
        steps: list[Step] = []
        for endpoint in endpoints:
            network = (networks or core.records.networks)[endpoint.network]
            driver = core.driver(network)
            if endpoint.ports:
                steps += core.unpublish(network, endpoint)
            steps += removal(linking.rules(core, network, endpoint, sandbox))
            steps += handing.detached(driver.leave(network, endpoint, sandbox), endpoint, sandbox)
        return (*steps, *removal_of_namespace(sandbox))

    def _identified(self, sandbox: Sandbox) -> Sandbox:
        if sandbox.kind in ("host", "engine"):
            return sandbox
        cookie = namespaces.cookie(sandbox.namespace)
        if cookie is None:
            raise InvalidArgument(f"{sandbox.namespace} is no network namespace")
        return msgspec.structs.replace(sandbox, cookie=cookie)


def creation(sandbox: Sandbox) -> Plan:
    """The namespace, and in it what every later link inherits: no IPv6 until a network asks for it."""
    if sandbox.kind != "own":
        return ()
    no_ipv6 = Sysctl(namespace=sandbox.namespace, key="net.ipv6.conf.default.disable_ipv6", value="1")
    return (Netns(path=sandbox.namespace), no_ipv6)


def removal_of_namespace(sandbox: Sandbox) -> Plan:
    return (Remove(op=Netns(path=sandbox.namespace)),) if sandbox.kind == "own" else ()
