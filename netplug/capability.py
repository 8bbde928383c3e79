"""What a driver may offer beside the driver interface, each a protocol of one method: a driver has it by having the method.

Pure, as the interface is. The controller asks `isinstance(driver, HostBinding)`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from netplug.model import Endpoint, Family, Network, PortBinding
from netplug.plan import Plan


@runtime_checkable
class HostBinding(Protocol):
    """Ports published without a host address go to this one; one of the other IP version: in this one to none."""

    def host_binding(self, network: Network, family: Family) -> str: ...


@runtime_checkable
class Routed(Protocol):
    """Whether ports of that IP version are reached by the containers' own addresses, so that none is taken on the host."""

    def routed(self, network: Network, family: Family) -> bool: ...


@runtime_checkable
class Claims(Protocol):
    """What only one network may have on this host, as words: `bridge/lab0`; networks that say the same behind `=` share it."""

    def claims(self, network: Network) -> tuple[str, ...]: ...


@runtime_checkable
class Adopts(Protocol):
    """Links that a network takes as they are, addresses and all, where the user has made them before.

    Subnet and gateway are the link's own unless the user says otherwise; `Network.found` says what was there.
    """

    def adopts(self, network: Network) -> tuple[str, ...]: ...


@runtime_checkable
class Gatewayless(Protocol):
    """Whether the network goes without a gateway in that IP version, so that no address is kept for one."""

    def gatewayless(self, network: Network, family: Family) -> bool: ...


@runtime_checkable
class Linking(Protocol):
    """Lets `client` reach `ports` (protocol and port count) of `server` where the network keeps its containers apart."""

    def link(self, network: Network, client: Endpoint, server: Endpoint, ports: tuple[PortBinding, ...]) -> Plan: ...
