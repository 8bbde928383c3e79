"""What the resolver is told of sandboxes and endpoints."""

from __future__ import annotations

import socket
from collections.abc import Awaitable

from netplug.controller.core import Core, log
from netplug.errors import NetplugError, Unavailable
from netplug.kernel import namespaces
from netplug.model import Endpoint, Network, Sandbox
from netplug.resolver.model import EndpointNames, SandboxNames


def needs_resolver(core: Core, network: Network) -> bool:
    """User-defined networks have names; the default bridge has links only, as with Docker."""
    return not network.predefined and core.driver(network).capabilities.addresses


def endpoint_names(core: Core, endpoint: Endpoint) -> EndpointNames | None:
    """None where it has none, or its network has no resolver."""
    network = core.records.networks[endpoint.network]
    if not needs_resolver(core, network) or not endpoint.names:
        return None
    return EndpointNames(
        network=endpoint.network,
        endpoint=endpoint.id,
        names=endpoint.names,
        address=endpoint.address.split("/")[0],
        network_name=network.name,
        address6=endpoint.address6.split("/")[0],
    )


def sandbox_names(core: Core, sandbox: Sandbox) -> SandboxNames:
    """What the resolver must know of a sandbox: its networks, and whom to ask about other names."""
    networks = [core.records.networks[endpoint.network] for endpoint in core.records.of_sandbox(sandbox.id)]
    return SandboxNames(
        id=sandbox.id,
        networks=tuple(network.id for network in networks if needs_resolver(core, network)),
        cookie=sandbox.cookie,
        servers=sandbox.dns.servers,
        forward=any(not network.internal for network in networks),
    )


async def hand_over(core: Core, sandbox: Sandbox, sockets: tuple[socket.socket, socket.socket]) -> None:
    """Give the sandbox's listening sockets to the resolver."""
    await tell(core.resolver.add_sandbox(sandbox_names(core, sandbox), *sockets))


def told(core: Core, endpoint: Endpoint, sandbox: Sandbox | None = None) -> Awaitable[None]:
    """The resolver learns the endpoint's names, and which networks `sandbox` is on now. It has been told when this returns."""
    names, known = endpoint_names(core, endpoint), _known(core, sandbox)
    if names is not None:
        return tell(core.resolver.put(names, known))
    return tell(core.resolver.update_sandbox(known) if known is not None else None)


def forgotten(core: Core, endpoint: Endpoint, sandbox: Sandbox | None = None) -> Awaitable[None]:
    """The opposite, with a `sandbox` that stays."""
    known = _known(core, sandbox)
    if endpoint_names(core, endpoint) is not None:
        return tell(core.resolver.drop(endpoint.network, endpoint.id, known))
    return tell(core.resolver.update_sandbox(known) if known is not None else None)


async def tell(message: Awaitable[None] | None) -> None:
    """A resolver that is away learns everything when it is back; a change of the network does not wait for it."""
    try:
        if message is not None:
            await message
    except (Unavailable, OSError) as error:
        log.warning("the resolver does not answer, names follow when it is back: %s", error)


def _known(core: Core, sandbox: Sandbox | None) -> SandboxNames | None:
    """What the resolver is to know of a sandbox that it serves."""
    return sandbox_names(core, sandbox) if sandbox is not None and sandbox.resolver_udp else None


def open_resolver_sockets(sandbox: Sandbox) -> tuple[socket.socket, socket.socket]:
    """The UDP and the listening TCP socket in the sandbox, on the ports of its record."""
    udp = namespaces.open_socket(sandbox.namespace, socket.AF_INET, socket.SOCK_DGRAM)
    tcp = namespaces.open_socket(sandbox.namespace, socket.AF_INET, socket.SOCK_STREAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind(("127.0.0.11", sandbox.resolver_udp))
        tcp.bind(("127.0.0.11", sandbox.resolver_tcp))
        tcp.listen(128)
    except OSError as error:
        udp.close()
        tcp.close()
        raise NetplugError(f"the resolver's sockets in {sandbox.namespace} cannot be opened: {error.strerror}") from error
    return udp, tcp
