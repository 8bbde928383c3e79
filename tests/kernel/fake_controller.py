"""A controller double: it makes real, empty network namespaces with `lo` up, gives out addresses, and notes every call.

What it made is written to a file, so that the next daemon's controller knows it, as the real one's store does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from netplug.controller.requests import ControllerEvent, EndpointRequest, Events, SandboxRequest
from netplug.errors import Conflict, Forbidden, NotFound
from netplug.kernel import namespaces
from netplug.model import Endpoint, Network, PoolConfig, Sandbox, new_id, now
from netplug.plan import LinkUp, Netns, Plan, Remove


class State(msgspec.Struct):
    sandboxes: dict[str, Sandbox] = {}
    endpoints: dict[str, Endpoint] = {}
    given: int = 1


def _network(name: str, number: int, *, predefined: bool = False) -> Network:
    pool = PoolConfig(subnet=f"10.77.{number}.0/24", gateway=f"10.77.{number}.1")
    identity = f"{number:02x}" * 32
    return Network(id=identity, name=name, driver="bridge", created=now(), predefined=predefined, pools=(pool,))


class FakeController:
    """Networks: bridge, host and none (predefined), demo and other."""

    def __init__(self, run_dir: Path) -> None:
        self.events = Events()
        self.calls: list[str] = []
        self.refuse = ""
        """Name of a network that cannot be connected to."""
        self._run, self._file = run_dir, run_dir / "controller.json"
        names = ("bridge", "host", "none", "demo", "other")
        self._networks = [_network(name, number, predefined=number <= 3) for number, name in enumerate(names, 1)]
        self._state = msgspec.json.decode(self._file.read_bytes(), type=State) if self._file.exists() else State()
        self._sweep()

    def network(self, reference: str) -> Network:
        for network in self._networks:
            if reference in (network.name, network.id) or (reference and network.id.startswith(reference)):
                return network
        raise NotFound(f"network {reference} not found")

    def endpoints(self, *, network: str = "", sandbox: str = "") -> list[Endpoint]:
        return [e for e in self._state.endpoints.values() if network in ("", e.network) and sandbox in ("", e.sandbox)]

    def sandbox(self, identity: str) -> Sandbox | None:
        return self._state.sandboxes.get(identity)

    async def create_sandbox(self, request: SandboxRequest) -> Sandbox:
        self.calls.append(f"create_sandbox {request.name}")
        if request.id in self._state.sandboxes:
            raise Conflict(f"sandbox {request.id} exists already")
        path, cookie = "", 0
        if request.kind == "own":
            path = str(self._run / "netns" / request.id[:12])
            Path(path).parent.mkdir(exist_ok=True)
            cookie = namespaces.create(path)
        sandbox = Sandbox(
            id=request.id,
            created=now(),
            name=request.name,
            namespace=path,
            cookie=cookie,
            incarnation="test",
            kind=request.kind,
            hostname=request.hostname,
            dns=request.dns,
            ports=request.ports,
        )
        self._state.sandboxes[request.id] = sandbox
        self._save()
        return sandbox

    async def remove_sandbox(self, identity: str) -> None:
        sandbox = self._state.sandboxes.pop(identity, None)
        if sandbox is None:
            return
        self.calls.append(f"remove_sandbox {sandbox.name}")
        gone = self.endpoints(sandbox=identity)
        for endpoint in gone:
            del self._state.endpoints[endpoint.id]
        if sandbox.namespace:
            namespaces.remove(sandbox.namespace)
        self._save()
        for endpoint in gone:
            self.events.send(ControllerEvent(kind="endpoint", action="disconnect", endpoint=endpoint))

    async def connect(self, reference: str, sandbox: str, request: EndpointRequest) -> Endpoint:
        network = self.network(reference)
        self.calls.append(f"connect {network.name} {request.names[0]}")
        if network.name == self.refuse:
            raise Forbidden(f"no address is left in {network.name}")
        self._state.given += 1
        address = request.address or f"{network.pools[0].subnet.rpartition('.')[0]}.{self._state.given}"
        endpoint = Endpoint(
            id=new_id(),
            network=network.id,
            sandbox=sandbox,
            created=now(),
            container_name=request.names[0],
            interface="eth0",
            address=f"{address}/24",
            names=request.names,
            aliases=request.aliases,
        )
        self._state.endpoints[endpoint.id] = endpoint
        self._save()
        self.events.send(ControllerEvent(kind="endpoint", action="connect", network=network, endpoint=endpoint))
        return endpoint

    async def disconnect(self, reference: str, sandbox: str) -> Endpoint:
        network = self.network(reference)
        endpoint = next((e for e in self.endpoints(network=network.id, sandbox=sandbox)), None)
        if endpoint is None:
            raise Forbidden(f"container {sandbox} is not connected to network {reference}")
        self.calls.append(f"disconnect {network.name} {endpoint.container_name}")
        del self._state.endpoints[endpoint.id]
        self._save()
        self.events.send(ControllerEvent(kind="endpoint", action="disconnect", network=network, endpoint=endpoint))
        return endpoint

    async def plan_sandbox(self, request: SandboxRequest, attachments: Sequence[tuple[str, EndpointRequest]] = ()) -> list[Plan]:
        return [(Netns(path=f"netns/{request.id[:12]}"),), *((LinkUp(link=network),) for network, _ in attachments)]

    async def plan_sandbox_removal(self, identity: str) -> Plan:
        return (Remove(op=Netns(path=f"netns/{identity[:12]}")),)

    def explain(self, plans: Sequence[Plan]) -> list[str]:
        return [line for plan in plans for step in plan for line in step.explain()]

    def _sweep(self) -> None:
        """Namespaces that were made just before the end, and never written down."""
        known = {sandbox.namespace for sandbox in self._state.sandboxes.values()}
        for path in (self._run / "netns").glob("*"):
            if str(path) not in known:
                namespaces.remove(str(path))

    def _save(self) -> None:
        """In one step: the process may be killed at any time."""
        new = self._file.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(self._state))
        new.replace(self._file)
