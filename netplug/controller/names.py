"""What the resolver is told of an endpoint."""

from __future__ import annotations

from netplug.controller.core import Core
from netplug.model import Endpoint, Network
from netplug.resolver.model import EndpointNames


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
