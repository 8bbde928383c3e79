"""What callers ask of the controller, and what it tells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from netplug.model import DnsConfig, Endpoint, Family, Network, PoolConfig, PortBinding, Record, Sandbox


class NetworkRequest(Record, frozen=True, kw_only=True):
    """A network to make. A pool with subnet `""` is cut from the predefined ones; no pools: one such."""

    name: str
    id: str = ""
    """64 hex digits, where somebody has chosen them already."""
    driver: str = "bridge"
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = {}
    pools: tuple[PoolConfig, ...] = ()
    leased: tuple[str, ...] = ()
    """Ids of pools that were handed out for it before it was there."""
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class SandboxRequest(Record, frozen=True, kw_only=True):
    """A sandbox to make (`own`), to take as it is (`given`, with its path), to be the host's namespace (`host`), or to come (`engine`)."""

    id: str
    name: str
    namespace: str = ""
    kind: Literal["own", "given", "host", "engine"] = "own"
    engine: str = ""
    hostname: str = ""
    dns: DnsConfig = DnsConfig()
    ports: tuple[PortBinding, ...] = ()
    """To publish; a `host_port` of 0 is chosen when the first network that can publish is joined."""
    exposed: tuple[str, ...] = ()
    """Ports that it serves, published or not: `80/tcp`."""


class EndpointRequest(Record, frozen=True, kw_only=True):
    """One attachment: `""` leaves the choice to IPAM and to the driver."""

    id: str = ""
    """64 hex digits, where somebody has chosen them already."""
    address: str = ""
    address6: str = ""
    leased: bool = False
    """The addresses were handed out before."""
    lent: tuple[Family, ...] = ()
    """Of these IP versions the address is the choice of an IPAM driver that is another process."""
    mac: str = ""
    names: tuple[str, ...] = ()
    """Container name and short id."""
    aliases: tuple[str, ...] = ()
    gateway_priority: int = 0
    links: tuple[str, ...] = ()
    """Ids of sandboxes whose exposed ports it may reach also where `icc` is off."""
    options: dict[str, str] = {}


class Taken(Record, frozen=True, kw_only=True):
    """An address of a pool and who has it, since when."""

    address: str
    kind: Literal["gateway", "reserved", "endpoint"]
    owner: str = ""
    since: str = ""


class PoolUsage(Record, frozen=True, kw_only=True):
    pool: PoolConfig
    capacity: int
    """Addresses that containers can get in all."""
    taken: tuple[Taken, ...] = ()


class ControllerEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that has happened; sent after the kernel and the store agree on it."""

    kind: Literal["network", "endpoint", "sandbox"]
    action: Literal["create", "remove", "connect", "disconnect", "update"]
    network: Network | None = None
    endpoint: Endpoint | None = None
    sandbox: Sandbox | None = None


class Events:
    """Subscribers are called in turn, on the loop; they must not block."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[ControllerEvent], None]] = []

    def subscribe(self, callback: Callable[[ControllerEvent], None]) -> Callable[[], None]:
        """Returns what ends the subscription."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def send(self, event: ControllerEvent) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber(event)
