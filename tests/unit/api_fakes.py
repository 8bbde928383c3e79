"""Doubles of the rooms behind the API, and a server over them on a socket of its own.

They keep records and answer as the real rooms do; nothing of the kernel is behind them. What is plugged in shows up in plans of one
`LinkUp` each, so that explain has something to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from api_fake_containers import FakeContainers

from netplug.api import Application, Services, application
from netplug.controller.requests import ControllerEvent, EndpointRequest, Events, NetworkRequest, PoolUsage, Taken
from netplug.controller.ways import Way
from netplug.errors import Conflict, Forbidden, NetworkInUse, NotFound
from netplug.model import Endpoint, Network, Node, PoolConfig, Sandbox, new_id, now
from netplug.plan import LinkUp, Plan, Step
from netplug.runtime.images import Removed
from netplug.runtime.model import Attachment, Container, Image

_plans: ContextVar[list[Plan] | None] = ContextVar("plans", default=None)


class FakeController:
    def __init__(self) -> None:
        self.events = Events()
        self.found: dict[str, Network] = {}
        self.plugged: dict[str, Endpoint] = {}
        self.boxes: dict[str, Sandbox] = {}
        self.remote: list[Endpoint] = []
        self.found_ways: list[Way] = []
        for name in ("bridge", "host", "none"):
            pools = (PoolConfig(subnet="172.17.0.0/16", gateway="172.17.0.1"),) if name == "bridge" else ()
            driver = "null" if name == "none" else name
            network = Network(id=new_id(), name=name, driver=driver, created=now(), predefined=True, pools=pools)
            self.found[network.id] = network

    def network(self, reference: str) -> Network:
        for network in self.found.values():
            if reference in (network.id, network.name) or network.id.startswith(reference):
                return network
        raise NotFound(f"network {reference} not found")

    def networks(self) -> list[Network]:
        return list(self.found.values())

    def endpoints(self, *, network: str = "", sandbox: str = "") -> list[Endpoint]:
        return [e for e in self.plugged.values() if (not network or e.network == network) and (not sandbox or e.sandbox == sandbox)]

    def remote_endpoints(self, network: str) -> list[Endpoint]:
        return [endpoint for endpoint in self.remote if endpoint.network == network]

    def sandboxes(self) -> list[Sandbox]:
        return list(self.boxes.values())

    def sandbox(self, id: str) -> Sandbox | None:
        return self.boxes.get(id)

    def ways(self) -> list[Way]:
        return self.found_ways

    def pool_usage(self, network: Network) -> list[PoolUsage]:
        return [
            PoolUsage(pool=pool, capacity=65533, taken=(Taken(address=pool.gateway, kind="gateway", since=network.created),))
            for pool in network.pools
        ]

    async def create_network(self, request: NetworkRequest) -> Network:
        if any(network.name == request.name for network in self.found.values()):
            raise Conflict(f"network with name {request.name} already exists")
        number = 17 + len(self.found)
        pools = request.pools
        if request.ipv4 and not any(":" not in pool.subnet for pool in pools):
            pools = (PoolConfig(subnet=f"172.{number}.0.0/16", gateway=f"172.{number}.0.1"), *pools)
        if request.ipv6 and not any(":" in pool.subnet for pool in pools):
            pools = (*pools, PoolConfig(subnet=f"fd00:{number}::/64", gateway=f"fd00:{number}::1"))
        fields = {name: getattr(request, name) for name in request.__struct_fields__ if name not in ("id", "leased")}
        network = Network(**{**fields, "pools": pools}, id=new_id(), created=now())
        self.found[network.id] = network
        self.applied(f"br-{network.id[:12]}")
        self.events.send(ControllerEvent(kind="network", action="create", network=network))
        return network

    async def remove_network(self, reference: str) -> Network:
        network = self.network(reference)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if self.endpoints(network=network.id):
            raise NetworkInUse(f"error while removing network: network {network.name} id {network.id} has active endpoints")
        del self.found[network.id]
        self.applied(f"br-{network.id[:12]}")
        self.events.send(ControllerEvent(kind="network", action="remove", network=network))
        return network

    async def plan_network(self, request: NetworkRequest) -> Plan:
        return (LinkUp(link=f"br-{request.name}"),)

    async def plan_network_removal(self, reference: str) -> Plan:
        return (LinkUp(link=f"br-{self.network(reference).name}"),)

    async def plan_connect(self, reference: str, sandbox: str, request: EndpointRequest) -> Plan:
        return (LinkUp(link=f"{self.network(reference).name}-{request.address or 'any'}"),)

    async def plan_disconnect(self, reference: str, sandbox: str) -> Plan:
        return (LinkUp(link=f"{self.network(reference).name}-gone"),)

    async def plan_sandbox_removal(self, identity: str) -> Plan:
        return tuple(LinkUp(link=f"gone-{endpoint.container_name}") for endpoint in self.endpoints(sandbox=identity))

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Plan]]:
        plans: list[Plan] = []
        token = _plans.set(plans)
        try:
            yield plans
        finally:
            _plans.reset(token)

    def explain(self, plans: Sequence[Plan]) -> list[str]:
        return [line for plan in plans for step in plan for line in step.explain()]

    def applied(self, link: str) -> None:
        plans = _plans.get()
        if plans is not None:
            plans.append((LinkUp(link=link),))

    def plug(self, network: Network, container: Container, wanted: Attachment) -> None:
        count = len(self.endpoints(network=network.id)) + 2
        subnet = next((pool.subnet for pool in network.pools if ":" not in pool.subnet), "0.0.0.0/0")
        base = subnet.split("/")[0].rsplit(".", 2)[0]
        prefix6 = next((pool.subnet.split("/")[0] for pool in network.pools if ":" in pool.subnet), "")
        box = self.boxes.get(container.id)
        ports = box.ports if box and not self.endpoints(sandbox=container.id) else ()
        endpoint = Endpoint(
            id=new_id(),
            network=network.id,
            sandbox=container.id,
            created=now(),
            container_name=container.name,
            address=f"{wanted.address or f'{base}.0.{count}'}/16" if network.ipv4 else "",
            gateway=f"{base}.0.1" if network.ipv4 else "",
            address6=f"{wanted.address6 or f'{prefix6}{count:x}'}/64" if network.ipv6 else "",
            gateway6=f"{prefix6}1" if network.ipv6 else "",
            mac=wanted.mac or "02:42:ac:12:00:02",
            names=(container.name, container.id[:12], *wanted.aliases),
            aliases=wanted.aliases,
            gateway_priority=wanted.gateway_priority,
            static_address=bool(wanted.address),
            static_address6=bool(wanted.address6),
            ports=ports,
        )
        self.plugged[endpoint.id] = endpoint
        self.applied(f"veth{endpoint.id[:7]}")
        self.events.send(ControllerEvent(kind="endpoint", action="connect", network=network, endpoint=endpoint))

    def unplug(self, network: Network, container: Container) -> None:
        for endpoint in self.endpoints(network=network.id, sandbox=container.id):
            del self.plugged[endpoint.id]
            self.applied(f"veth{endpoint.id[:7]}")
            self.events.send(ControllerEvent(kind="endpoint", action="disconnect", network=network, endpoint=endpoint))


class FakeImages:
    def __init__(self) -> None:
        host = Image(id="sha256:" + hashlib.sha256(b"host").hexdigest(), tags=("host:latest",))
        busybox = Image(id="sha256:" + "ab" * 32, tags=("busybox:latest",), created=now(), command=("sh",))
        server = Image(
            id="sha256:" + "ef" * 32, tags=("server:latest",), created=now(), entrypoint=("serve",), command=("-v",), exposed=("80/tcp",)
        )
        self.found = {image.tags[0]: image for image in (host, busybox, server)}
        self.received = b""
        self.changes: tuple[str, ...] = ()

    def get(self, reference: str) -> Image:
        for image in self.found.values():
            if reference in image.tags or f"{reference}:latest" in image.tags or reference == image.id:
                return image
        raise NotFound(f"No such image: {reference}")

    def all(self) -> list[Image]:
        return list(self.found.values())

    async def import_(self, stream: AsyncIterator[bytes], repository: str, changes: Sequence[str] = ()) -> Image:
        self.received = b"".join([chunk async for chunk in stream])
        self.changes = tuple(changes)
        tag = repository if ":" in repository else f"{repository}:latest"
        image = Image(id="sha256:" + "cd" * 32, tags=(tag,), created=now(), size=len(self.received))
        self.found[tag] = image
        return image

    def explain_import(self, digest: str, source: str) -> list[str]:
        return [f"tar {digest[:4]} {source}"]

    def explain_removal(self, reference: str, *, force: bool = False) -> list[str]:
        return [f"rm {self.get(reference).tags[0]}"]

    async def remove(self, reference: str, *, force: bool = False) -> Removed:
        image = self.get(reference)
        if "host:latest" in image.tags:
            raise Forbidden("conflict: unable to remove host")
        self.found = {name: other for name, other in self.found.items() if other.id != image.id}
        return Removed(untagged=image.tags, deleted=(image.id,))


class FakeNodes:
    """`n1` is this one; `n2` has endpoints and is away."""

    name = "n1"

    def __init__(self, controller: FakeController) -> None:
        self.controller = controller
        self.trouble = ""
        self.alive = {"n1"}
        self.found = {name: self.node(name, number) for number, name in enumerate(("n1", "n2"), 1)}

    @staticmethod
    def node(name: str, number: int) -> Node:
        return Node(name=name, address=f"192.0.2.{number}", identity=f"id{number}", incarnation="i", started=now(), version="0.1.0")

    def is_me(self, node: Node) -> bool:
        return node.name == self.name

    def all(self) -> list[tuple[Node, bool]]:
        return [(node, self.lives(name)) for name, node in self.found.items()]

    def get(self, name: str) -> Node:
        if name not in self.found:
            raise NotFound(f"No such node: {name}")
        return self.found[name]

    def lives(self, name: str) -> bool:
        return name in self.alive

    async def remove(self, name: str, *, force: bool = False) -> int:
        self.get(name)
        if self.lives(name) and not force:
            raise Conflict(f"node {name} is alive: stop its daemon first, or use --force")
        del self.found[name]
        return len(await self.endpoints_of(name))

    async def endpoints_of(self, name: str) -> list[Endpoint]:
        return [endpoint for endpoint in self.controller.remote if endpoint.node == name]


class FakeEntry(msgspec.Struct, frozen=True):
    time: str
    action: str
    subject: str
    by: str
    steps: tuple[Step, ...] = ()
    error: str = ""


class FakeJournal:
    def __init__(self) -> None:
        self._entries: list[FakeEntry] = []
        self.listeners: list[Callable[[FakeEntry], None]] = []

    def record(self, entry: FakeEntry) -> None:
        self._entries.append(entry)
        for listener in self.listeners:
            listener(entry)

    def entries(self, limit: int = 1000) -> list[FakeEntry]:
        return self._entries[-limit:] if limit > 0 else []

    def subscribe(self, listener: Callable[[FakeEntry], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


@dataclass
class FakeSettings:
    state_dir: Path = Path("/var/lib/netplug")
    store: str = ""
    advertise: str = ""
    default_network_options: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass
class Api:
    """A running server over doubles, and a client of it."""

    path: Path
    controller: FakeController
    containers: FakeContainers
    images: FakeImages
    journal: FakeJournal
    settings: FakeSettings
    nodes: FakeNodes | None
    application: Application
    http: aiohttp.ClientSession
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer's JSON (None where it is empty); its status and headers stay here."""
        params = {key: value if isinstance(value, str) else msgspec.json.encode(value).decode() for key, value in query.items()}
        data = None if body is None else io.BytesIO(body if isinstance(body, bytes) else msgspec.json.encode(body))
        headers = {"Content-Type": "application/json"} if data else None
        async with self.http.request(method, f"http://netplug{path}", data=data, params=params, headers=headers) as response:
            self.status, self.headers = response.status, response.headers
            content = await response.read()
        return msgspec.json.decode(content) if content and response.content_type == "application/json" else content.decode() or None

    async def run(self, name: str, network: str = "bridge", **body: Any) -> str:
        """A running container's id."""
        created = await self.ask(
            "POST",
            "/v1.47/containers/create",
            {"Image": "busybox", "Cmd": ["sleep", "9"], "HostConfig": {"NetworkMode": network}, **body},
            name=name,
        )
        assert self.status == 201, created
        await self.ask("POST", f"/v1.47/containers/{created['Id']}/start")
        assert self.status == 204
        return str(created["Id"])


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; fail if it does not within ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(*, cluster: bool = False) -> AsyncIterator[Api]:
    """The API on a socket below a short temporary folder: the path of a unix socket has 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="npa"))
    controller, images, journal = FakeController(), FakeImages(), FakeJournal()
    containers = FakeContainers(controller, images)
    settings = FakeSettings()
    nodes = FakeNodes(controller) if cluster else None
    server = application(Services(controller, containers, images, journal, settings, "0.1.0", nodes))
    try:
        await server.start(folder / "s")
        connector = aiohttp.UnixConnector(path=str(folder / "s"))
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as http:
            yield Api(folder / "s", controller, containers, images, journal, settings, nodes, server, http)
    finally:
        await server.close(grace=5)
        shutil.rmtree(folder)
