"""The driver interface: what a network is made of in the kernel.

A driver is pure: it looks at records and returns a Plan; it changes nothing and reads nothing. It is found by entry point in group
`netplug.drivers` (the entry point's name is the driver's; `netplug.registry`), is called without arguments, and is shared by all networks.
Every plan must be safe to apply again: the controller *ensures* the plans of all records at each start. What it may offer beside this is
in `netplug.capability`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import Plan


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller must know before it asks for a plan."""

    scope: str = "local"
    addresses: bool = True
    """Endpoints get addresses from IPAM; False for `host` and `none`."""
    ports: bool = True
    """Ports may be published through this network."""
    exit: bool = True
    """Endpoints may carry the default route. False: the network leads to its own members only; unless it is internal, a sandbox on it
    that has no other way out is put on the gateway bridge too."""
    lan: bool = False
    """Subnets may be of a LAN that the host is on: nothing of them is routed by the host."""
    macs: bool = True
    """Endpoints have MACs of their own."""
    singleton: bool = False
    """Only the predefined network of this driver exists; users cannot make one."""


class Driver(Protocol):
    """What every driver offers."""

    capabilities: Capabilities

    def validate(self, network: Network) -> None:
        """Raise InvalidArgument for options that this driver does not take."""

    def create_network(self, network: Network) -> Plan: ...

    def delete_network(self, network: Network) -> Plan: ...

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        """Attach: link, addresses. The default route is the controller's, which sees all endpoints of the sandbox."""

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        """Detach. Must not need the sandbox's namespace: it may be gone."""

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        """Make `endpoint.ports` reachable; host ports are chosen and held already."""

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan: ...
