"""A container's network: which sandbox and endpoints to ask the controller for.

Modes: networks (a sandbox of its own, an endpoint per attachment), `none` (a sandbox of its own with nothing but `lo`), `host` (the
daemon's namespace), `container:<id>` (the namespace and the files of another container).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import msgspec

from netplug.controller import exits
from netplug.controller.requests import EndpointRequest, Events, SandboxRequest
from netplug.errors import Conflict, Forbidden, InvalidArgument, NetplugError
from netplug.model import DnsConfig, Endpoint, Network, PortBinding, Sandbox, usual_mac
from netplug.plan import Plan
from netplug.runtime import links
from netplug.runtime.model import Attachment, Container, ContainerConfig

DEFAULT_NETWORK = "bridge"


class Controller(Protocol):
    """What the runtime needs of netplug.controller.Controller."""

    @property
    def events(self) -> Events: ...
    def network(self, reference: str, /) -> Network: ...
    def endpoints(self, *, network: str = "", sandbox: str = "") -> list[Endpoint]: ...
    def sandbox(self, identity: str, /) -> Sandbox | None: ...
    async def create_sandbox(self, request: SandboxRequest, /) -> Sandbox: ...
    async def remove_sandbox(self, identity: str, /) -> None: ...
    async def connect(self, reference: str, sandbox: str, request: EndpointRequest, /) -> Endpoint: ...
    async def disconnect(self, reference: str, sandbox: str, /) -> Endpoint: ...
    async def plan_sandbox(self, request: SandboxRequest, attachments: Sequence[tuple[str, EndpointRequest]] = (), /) -> list[Plan]: ...
    async def plan_sandbox_removal(self, identity: str, /) -> Plan: ...
    def explain(self, plans: Sequence[Plan], /) -> list[str]: ...


@dataclass(frozen=True)
class Joined:
    """Where a container's process is to run. `namespace` None: the daemon's own. `own`: no other container shares it."""

    namespace: str | None
    own: bool


def shares(container: Container) -> str:
    """The id of the container whose network it shares; `""` if it has its own."""
    mode, separator, other = container.config.network_mode.partition(":")
    return other if mode == "container" and separator else ""


def attachments(container: Container) -> tuple[Attachment, ...]:
    """The networks it is on, or will be on when it starts."""
    return container.config.attachments


def wanted_attachments(config: ContainerConfig) -> tuple[Attachment, ...]:
    """The networks that a new container is to be on: those asked for, or the one that its mode names."""
    mode = config.network_mode
    if mode in ("host", "none") or mode.startswith("container:"):
        return ()
    return config.attachments or (Attachment(network=DEFAULT_NETWORK if mode in ("", "default") else mode),)


def endpoint_request(container: Container, attachment: Attachment, linked: tuple[str, ...] = ()) -> EndpointRequest:
    """The endpoint that an attachment of a running container makes; `linked` are ids of the containers that it links to there."""
    return EndpointRequest(
        address=attachment.address,
        address6=attachment.address6,
        mac=attachment.mac,
        names=(container.name, container.id[:12]),
        aliases=attachment.aliases,
        gateway_priority=attachment.gateway_priority,
        links=linked,
        options=attachment.options,
    )


class Networking:
    """`find` gives a container by name or id; NotFound if there is none."""

    def __init__(self, controller: Controller, find: Callable[[str], Container]) -> None:
        self._controller, self._find = controller, find

    async def up(self, container: Container, hostname: str, dns: DnsConfig) -> Joined:
        """Make the sandbox and connect it everywhere. After an error, `down` clears what was made."""
        if shares(container):
            return self._join(self._find(shares(container)))
        if self.present(container.id):
            # Left by an end that could not be cleared away.
            await self.down(container.id)
        request, endpoints = self.requests(container, hostname, dns)
        sandbox = await self._controller.create_sandbox(request)
        for network, endpoint in endpoints:
            await self._controller.connect(network, container.id, endpoint)
        return Joined(None, own=False) if request.kind == "host" else Joined(sandbox.namespace, own=True)

    def requests(self, container: Container, hostname: str, dns: DnsConfig) -> tuple[SandboxRequest, list[tuple[str, EndpointRequest]]]:
        """What `up` asks of the controller: the sandbox, and an endpoint for each (network, request)."""
        networks = attachments(container)
        sandbox = SandboxRequest(
            id=container.id,
            name=container.name,
            kind="host" if container.config.network_mode == "host" else "own",
            hostname=hostname,
            dns=dns,
            ports=container.config.ports if networks else (),
            exposed=container.config.exposed if networks else (),
        )
        return sandbox, [(one.network, endpoint_request(container, one, self.linked(container, one))) for one in networks]

    async def down(self, container: str) -> None:
        """Give everything back; fine if there is nothing."""
        await self._controller.remove_sandbox(container)

    async def connect(self, container: Container, attachment: Attachment) -> None:
        request = endpoint_request(container, attachment, self.linked(container, attachment))
        await self._controller.connect(attachment.network, container.id, request)

    def linked(self, container: Container, attachment: Attachment) -> tuple[str, ...]:
        """Ids of the containers that it links to on that network: `--link` of `run` is about the default bridge."""
        wanted = (*attachment.links, *(container.config.links if attachment.network == DEFAULT_NETWORK else ()))
        found = []
        for name, _ in map(links.parse, wanted):
            with suppress(NetplugError):
                found.append(self._find(name).id)
        return tuple(dict.fromkeys(found))

    def check(self, container: Container, attachment: Attachment) -> None:
        """What a container may ask of a network; NotFound if there is no such network."""
        mode = container.config.network_mode
        network = self._controller.network(attachment.network)
        exits.check_asked(network)
        if mode == "none" or network.name == "none":
            raise Forbidden("container cannot be connected to multiple networks with one of the networks in private (none) mode")
        if network.name == "host":
            raise Forbidden("container cannot be disconnected from host network or connected to host network")
        if mode == "host" or shares(container):
            raise Forbidden("container sharing network namespace with another container or host cannot be connected to any other network")
        if network.predefined and (attachment.address or attachment.address6):
            raise InvalidArgument("user specified IP address is supported on user defined networks only")
        if network.predefined and attachment.aliases:
            raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")

    def network_id(self, reference: str) -> str:
        """The id of a network; the reference itself if there is none (any more)."""
        try:
            return self._controller.network(reference).id
        except NetplugError:
            return reference

    def connected(self, container: str) -> set[str]:
        """Ids of the networks that a sandbox is on."""
        return {endpoint.network for endpoint in self._controller.endpoints(sandbox=container)}

    def agreed(self, container: Container) -> Container:
        """A running container's record with the networks that it is really on.

        A daemon that died between the network's change and the record's has written down the old ones. A container whose sandbox is
        gone, with its end still to be seen, keeps the ones that it is to start with again.
        """
        if not self.present(container.id):
            return container
        asked = (endpoint for endpoint in self._controller.endpoints(sandbox=container.id) if not endpoint.implied)
        names = {self._controller.network(endpoint.network).name: endpoint for endpoint in asked}
        recorded = attachments(container)
        if names.keys() == {one.network for one in recorded}:
            return container
        kept = tuple(one for one in recorded if one.network in names)
        new = tuple(
            Attachment(
                network=name,
                address=endpoint.address.split("/")[0] if endpoint.static_address else "",
                address6=endpoint.address6.split("/")[0] if endpoint.static_address6 else "",
                mac="" if endpoint.mac == usual_mac(endpoint) else endpoint.mac,
                aliases=endpoint.aliases,
                gateway_priority=endpoint.gateway_priority,
                options=endpoint.options,
            )
            for name, endpoint in names.items()
            if name not in {one.network for one in kept}
        )
        config = msgspec.structs.replace(container.config, attachments=(*kept, *new))
        return msgspec.structs.replace(container, config=config)

    def ports(self, container: Container) -> tuple[PortBinding, ...]:
        """Those asked for, with the numbers that were chosen: they are to be the same the next time, if they are free."""
        sandbox = self._controller.sandbox(container.id)
        return sandbox.ports if sandbox and sandbox.ports else container.config.ports

    def present(self, container: str) -> bool:
        return self._controller.sandbox(container) is not None

    def _join(self, other: Container) -> Joined:
        if other.status != "running":
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        if other.config.network_mode == "host":
            return Joined(None, own=False)
        if shares(other):
            return self._join(self._find(shares(other)))
        sandbox = self._controller.sandbox(other.id)
        if sandbox is None:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return Joined(sandbox.namespace, own=False)
