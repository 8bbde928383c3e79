"""What changes of sandboxes would do: their plans, worked out one after the other as if each had been made.

Two networks may have to come first, and belong to the plan: a global one that this node is not on yet, which is joined with the first
endpoint here (and left with the last), and the gateway bridge, which is made with the first endpoint that needs it. The cluster is asked
before anything is worked out; from then on nothing waits, so that nobody sees the gateway bridge that is only imagined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from netplug.controller import exits
from netplug.controller.core import Core
from netplug.controller.endpoints import Endpoints
from netplug.controller.membership import Membership
from netplug.controller.networks import Networks
from netplug.controller.requests import EndpointRequest, SandboxRequest
from netplug.controller.sandboxes import Sandboxes, creation
from netplug.errors import Conflict
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import Plan, Step

Others = Mapping[str, Sequence[Endpoint]]
"""By global network that this node is not on: the endpoints of other nodes."""


class Planning:
    """Nothing is changed by it."""

    def __init__(self, core: Core, membership: Membership, networks: Networks, endpoints: Endpoints, sandboxes: Sandboxes) -> None:
        self._core, self._membership = core, membership
        self._networks, self._endpoints, self._sandboxes = networks, endpoints, sandboxes

    async def connect(self, reference: str, sandbox_id: str, request: EndpointRequest) -> Plan:
        network = self._core.records.network(reference)
        exits.check_asked(network)
        others = await self._others([network])
        sandbox = self._endpoints.sandbox(sandbox_id)
        with self._sketch(sandbox, self._core.records.of_sandbox(sandbox_id), others) as sketch:
            return sketch.connect(network, request)

    async def disconnect(self, reference: str, sandbox_id: str) -> Plan:
        network = self._core.records.network(reference)
        exits.check_asked(network)
        sandbox = self._endpoints.sandbox(sandbox_id)
        endpoint = self._endpoints.find(network, sandbox)
        with self._sketch(sandbox, self._core.records.of_sandbox(sandbox_id), {}) as sketch:
            return sketch.disconnect(network, endpoint)

    async def sandbox(self, request: SandboxRequest, attachments: Sequence[tuple[str, EndpointRequest]]) -> list[Plan]:
        """A sandbox and its endpoints, as they would be made."""
        sandbox = self._sandboxes.prepare(request)
        wanted = [(self._core.records.network(reference), endpoint) for reference, endpoint in attachments]
        for network, _ in wanted:
            exits.check_asked(network)
        others = await self._others([network for network, _ in wanted])
        with self._sketch(sandbox, (), others) as sketch:
            return [creation(sandbox), *(sketch.connect(network, endpoint) for network, endpoint in wanted)]

    def sandbox_removal(self, sandbox: Sandbox) -> Plan:
        core = self._core
        endpoints = core.records.of_sandbox(sandbox.id)
        networks = [core.records.networks[endpoint.network] for endpoint in endpoints]
        last = [network for network in networks if network.id in core.joined and len(core.records.of_network(network.id)) == 1]
        parts = [step for network in last for step in core.driver(network).delete_network(network)]
        return (*self._sandboxes.plan_removal(sandbox, endpoints), *parts)

    async def _others(self, networks: Sequence[Network]) -> Others:
        found: dict[str, Sequence[Endpoint]] = {}
        for network in networks:
            if network.scope == "global" and network.id not in self._core.joined:
                cluster = self._membership.cluster()
                _, endpoints = await cluster.endpoints(network.id)
                found[network.id] = [endpoint for endpoint in endpoints if endpoint.node != cluster.node]
        return found

    @contextmanager
    def _sketch(self, sandbox: Sandbox, endpoints: Sequence[Endpoint], others: Others) -> Iterator[Sketch]:
        """Within the block the addresses of the others are taken, as they would be."""
        core = self._core
        others = {network: known for network, known in others.items() if network not in core.joined}
        sketch = Sketch(core, self._networks, self._endpoints, sandbox, endpoints, others)
        for endpoint in (peer for known in others.values() for peer in known):
            core.take(endpoint)
        try:
            yield sketch
        finally:
            for endpoint in (peer for known in others.values() for peer in known):
                core.free(endpoint)
            sketch.forget()


class Sketch:
    """A sandbox on its way."""

    def __init__(
        self, core: Core, networks: Networks, endpoints: Endpoints, sandbox: Sandbox, present: Sequence[Endpoint], others: Others
    ) -> None:
        self._core, self._networks, self._endpoints = core, networks, endpoints
        self._sandbox, self._present, self._others = sandbox, present, others
        self._imagined: Network | None = None

    def connect(self, network: Network, request: EndpointRequest) -> Plan:
        core = self._core
        steps: list[Step] = []
        if network.id in self._others:
            steps += core.network_plan(network, self._others[network.id])
        peers = self._others.get(network.id) or core.peers.get(network.id, {}).values()
        if any(peer.container_name == self._sandbox.name for peer in peers):
            raise Conflict(f"endpoint with name {self._sandbox.name} already exists in network {network.name}")
        return (*steps, *self._join(network, request), *self._settled_exit())

    def disconnect(self, network: Network, endpoint: Endpoint) -> Plan:
        core = self._core
        plan = self._leave(network, endpoint)
        if network.id in core.joined and core.records.of_network(network.id) == [endpoint]:
            plan = (*plan, *core.driver(network).delete_network(network))
        return (*plan, *self._settled_exit())

    def forget(self) -> None:
        """What was imagined is gone."""
        if (network := self._imagined) is not None:
            self._core.records.drop_network(network)
            self._core.allocators.pop(network.id, None)

    def _join(self, network: Network, request: EndpointRequest) -> Plan:
        change = self._endpoints.plan_join(network, self._sandbox, self._present, request)
        self._sandbox, self._present = change.sandbox, change.endpoints
        return change.plan

    def _leave(self, network: Network, endpoint: Endpoint) -> Plan:
        change = self._endpoints.plan_leave(network, self._sandbox, self._present, endpoint)
        self._sandbox, self._present = change.sandbox, change.endpoints
        return change.plan

    def _settled_exit(self) -> Plan:
        """The way out comes with the first network that needs it, and goes with the last."""
        core = self._core
        present, needed = exits.present(self._present), exits.needed(core, self._present)
        if needed and present is None:
            made: Plan = ()
            if (gateway := core.records.network_named(exits.GATEWAY)) is None:
                gateway, made = self._imagine_gateway()
            return (*made, *self._join(gateway, EndpointRequest()))
        if present is not None and not needed:
            return self._leave(core.records.networks[present.network], present)
        return ()

    def _imagine_gateway(self) -> tuple[Network, Plan]:
        core = self._core
        self._imagined = network = self._networks.prepare(exits.REQUEST, predefined=True)
        core.records.add_network(network)
        core.open_pools(network)
        return network, core.network_plan(network)
