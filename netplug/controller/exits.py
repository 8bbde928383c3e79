"""The way out of networks that lead to their own members only: an endpoint on the gateway bridge, which comes and goes by itself.

Nobody asked for it, so nobody is shown it among a container's networks. It carries the default route and the published ports. Its bridge
keeps containers apart (`icc=false`): they have their own networks for that.
"""

from __future__ import annotations

from collections.abc import Sequence

from netplug.controller.core import Core
from netplug.controller.requests import NetworkRequest
from netplug.errors import Forbidden
from netplug.model import Endpoint, Network

GATEWAY = "netplug_gwbridge"
LINK = "netplug_gw"
"""A link's name has 15 letters at most."""

REQUEST = NetworkRequest(
    name=GATEWAY,
    options={"com.docker.network.bridge.name": LINK, "com.docker.network.bridge.enable_icc": "false"},
)


def needed(core: Core, endpoints: Sequence[Endpoint]) -> bool:
    """Whether one of these endpoints of a sandbox wants a way out, and none of them has it."""
    wanted = False
    for endpoint in endpoints:
        network = core.records.networks[endpoint.network]
        if network.internal or endpoint.implied:
            continue
        capabilities = core.driver(network).capabilities
        if capabilities.exit and (endpoint.gateway or endpoint.gateway6):
            return False
        wanted |= not capabilities.exit or (endpoint.attachment is not None and endpoint.attachment.exit)
    return wanted


def check_asked(network: Network) -> None:
    """Nobody is put on the gateway bridge, or taken off it, on request."""
    if network.name == GATEWAY:
        raise Forbidden(f"containers come on {GATEWAY} and leave it by themselves, with the networks whose way out it is")


def present(endpoints: Sequence[Endpoint]) -> Endpoint | None:
    return next((endpoint for endpoint in endpoints if endpoint.implied), None)
