"""At start: make kernel, resolver and held ports agree with the records, without tearing down what is right.

Sandboxes that are gone (another boot, a namespace that vanished or was replaced) give back all they had; what carries our mark without a
record is swept away; what is missing is put back. Containers that run lose no packet meanwhile.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from netplug.controller import handing, linking, names
from netplug.controller.core import Core, log
from netplug.controller.endpoints import Endpoints
from netplug.controller.joining import redirection
from netplug.controller.membership import Membership
from netplug.controller.names import endpoint_names, open_resolver_sockets
from netplug.controller.peers import Peers
from netplug.controller.records import delete_endpoint, put_sandbox
from netplug.controller.routing import Routing
from netplug.controller.sandboxes import Sandboxes, creation
from netplug.errors import NetplugError
from netplug.kernel import namespaces
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import PlacedOp, Plan, Route, removal
from netplug.resolver.model import EndpointNames, SandboxNames


@dataclass(frozen=True)
class Wanted:
    """A plan that must hold, and whose it is."""

    plan: Plan
    owner: str
    sandbox: Sandbox | None = None


class Restore:
    """One start."""

    def __init__(
        self, core: Core, endpoints: Endpoints, sandboxes: Sandboxes, membership: Membership, peers: Peers, routing: Routing
    ) -> None:
        self._core, self._endpoints, self._sandboxes = core, endpoints, sandboxes
        self._membership, self._peers, self._routing = membership, peers, routing

    async def run(self, base: Plan) -> None:
        """`base` is what the host needs whatever networks there are (forwarding)."""
        core = self._core
        await core.records.load(core.store)
        await core.leases.load()
        await core.leases.agree(core.records.networks)
        dead = await self._bury()
        for network in core.records.networks.values():
            core.open_pools(network)
        await self._membership.restore()
        await self._peers.load()
        await self._routing.load()
        for endpoint in (*core.records.endpoints.values(), *(peer for peers in core.peers.values() for peer in peers.values())):
            core.take(endpoint)
        wanted = [Wanted(base, "the host"), *self.wanted()]
        restored = await core.executor.restore([item.plan for item in wanted])
        for index, error in restored.failed.items():
            await self._failed(wanted[index], error)
        for name in restored.strays:
            log.info("removed %s: it carried our mark without a record", name)
        self._sweep_namespaces()
        await self._routing.sweep()
        if restored.missing or restored.strays or dead:
            core.journal.record(
                "restore", f"{len(restored.missing)} put back, {len(restored.strays)} swept away, {dead} sandboxes gone", ()
            )
        await self._endpoints.publishing.restore()

    async def names(self) -> None:
        """Tell the resolver all, and hand it the sockets it does not have."""
        core = self._core
        missing = await core.resolver.sync(*self.all_names())
        for identity in missing:
            sandbox = core.records.sandboxes.get(identity)
            if sandbox is not None:
                await self._hand_over(sandbox)

    def all_names(self) -> tuple[list[EndpointNames], list[SandboxNames]]:
        """What the resolver is to know."""
        core = self._core
        endpoints = [known for endpoint in core.records.endpoints.values() if (known := endpoint_names(core, endpoint))]
        endpoints += self._peers.names()
        with_names = [sandbox for sandbox in core.records.sandboxes.values() if sandbox.resolver_udp]
        return endpoints, [names.sandbox_names(self._core, sandbox) for sandbox in with_names]

    async def _hand_over(self, sandbox: Sandbox) -> None:
        try:
            sandbox, sockets = await self._sockets(sandbox)
        except NetplugError as error:
            log.error("no names in %s: %s", sandbox.name, error)
            return
        await names.hand_over(self._core, sandbox, sockets)

    async def _sockets(self, sandbox: Sandbox) -> tuple[Sandbox, tuple[socket.socket, socket.socket]]:
        """On the ports of the record; where somebody has them meanwhile, on others, and the redirection follows."""
        try:
            return sandbox, open_resolver_sockets(sandbox)
        except NetplugError:
            core = self._core
            old = sandbox
            sandbox = msgspec.structs.replace(sandbox, resolver_udp=sandbox.resolver_udp + 1, resolver_tcp=sandbox.resolver_tcp + 1)
            sockets = open_resolver_sockets(sandbox)
            core.records.add_sandbox(sandbox)
            await core.store.txn((), [put_sandbox(sandbox)])
            await core.remove("names", sandbox.name, removal(redirection(old)))
            await core.apply("names", sandbox.name, redirection(sandbox))
            return sandbox, sockets

    async def _bury(self) -> int:
        """Forget sandboxes that are gone and endpoints that hang in the air; how many sandboxes went."""
        core = self._core
        dead = [sandbox for sandbox in core.records.sandboxes.values() if not self.alive(sandbox)]
        for sandbox in dead:
            log.info("sandbox of %s is gone: its addresses, names and ports are free", sandbox.name)
            await self._sandboxes.forget(sandbox, core.records.of_sandbox(sandbox.id))
        for endpoint in list(core.records.endpoints.values()):
            if endpoint.sandbox not in core.records.sandboxes or endpoint.network not in core.records.networks:
                await core.store.txn((), [*self._sandboxes.owed([endpoint]), *delete_endpoint(endpoint)])
                core.records.drop_endpoint(endpoint)
        return len(dead)

    def alive(self, sandbox: Sandbox) -> bool:
        if sandbox.incarnation != self._core.incarnation:
            return False
        if sandbox.kind == "engine" and not sandbox.cookie:
            return True  # it is still to come
        return sandbox.kind == "host" or namespaces.cookie(sandbox.namespace) == sandbox.cookie

    def wanted(self) -> Iterator[Wanted]:
        core = self._core
        for network in core.records.networks.values():
            yield Wanted(core.network_plan(network), network.name)
        for sandbox in core.records.sandboxes.values():
            if plan := self.sandbox_plan(sandbox):
                yield Wanted(plan, sandbox.name, sandbox)
        if core.routes:
            yield Wanted(core.routes, "routes to other nodes")

    def sandbox_plan(self, sandbox: Sandbox) -> Plan:
        """All that its endpoints are."""
        core = self._core
        endpoints = core.records.of_sandbox(sandbox.id)
        if not endpoints:
            return ()
        plans = [self._joined(core.records.networks[endpoint.network], endpoint, sandbox) for endpoint in endpoints]
        route = handing.default_routes(core, sandbox, endpoints)
        return (*(step for plan in plans for step in plan), *route, *redirection(sandbox))

    def whole_plan(self, sandbox: Sandbox, endpoint: Endpoint | None = None) -> Plan:
        """The sandbox itself, and all that its endpoints are, or that one alone is."""
        if endpoint is None:
            return (*creation(sandbox), *self.sandbox_plan(sandbox))
        core = self._core
        plan = self._joined(core.records.networks[endpoint.network], endpoint, sandbox)
        routes = handing.default_routes(core, sandbox, core.records.of_sandbox(sandbox.id))
        own = tuple(step for step in routes if isinstance(step, Route) and step.link == endpoint.interface)
        return (*creation(sandbox), *plan, *own, *redirection(sandbox))

    def _joined(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        driver = self._core.driver(network)
        attached = handing.attached(driver.join(network, endpoint, sandbox), endpoint, sandbox)
        if not handing.arrived(endpoint) and namespaces.cookie(sandbox.namespace) is not None:
            # The engine may be taking it in just now.
            attached = tuple(step for step in attached if not isinstance(step, PlacedOp))
        # Each link once: it is its client's.
        links = linking.as_client(self._core, network, endpoint)
        return (*attached, *(self._core.publish(network, endpoint) if endpoint.ports else ()), *links)

    async def _failed(self, wanted: Wanted, error: NetplugError) -> None:
        log.error("%s could not be restored: %s", wanted.owner, error)
        if wanted.sandbox is not None and not self.alive(wanted.sandbox):
            await self._sandboxes.remove(wanted.sandbox.id)

    def _sweep_namespaces(self) -> None:
        """Namespaces in our folder that no record names: made just before the daemon died."""
        for path in self.stray_namespaces():
            log.info("removed namespace %s: it had no record", path)
            namespaces.remove(str(path))

    def stray_namespaces(self) -> list[Path]:
        """Those in our folder that no record names."""
        core = self._core
        folder = core.run_dir / "netns"
        known = {sandbox.namespace for sandbox in core.records.sandboxes.values() if sandbox.kind == "own"}
        known |= {core.place(core.records.networks[identity]) for identity in core.joined}
        there = os.listdir(folder) if folder.is_dir() else []
        unknown = [folder / name for name in there if os.path.join(folder, name) not in known]
        return [path for path in unknown if not any(path == Path(other) for other in known)]
