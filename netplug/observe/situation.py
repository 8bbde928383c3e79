"""What checks give (`Finding`), and what they are asked about (`Situation`, `Wanted`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

import msgspec

from netplug.errors import InvalidArgument
from netplug.kernel.facts import Subnet
from netplug.model import Network, PortBinding
from netplug.settings import Settings

Result = Literal["ok", "warning", "error"]
MTU = "com.docker.network.driver.mtu"
DEFAULT_MTU = 1500
"""What a network's links get when nobody says anything."""


class Finding(msgspec.Struct, frozen=True, rename="pascal"):
    """`result` is `error` where something will not work, `warning` where something may not, or not as expected."""

    check: str
    result: Result
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def warning(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "warning", found, remedy)


def error(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "error", found, remedy)


class WantedBinding(msgspec.Struct, frozen=True, rename="pascal"):
    """As in Docker's PortBindings."""

    host_ip: str = ""
    host_port: str = ""


class Wanted(msgspec.Struct, frozen=True, rename="pascal"):
    """What somebody is about to make."""

    subnets: tuple[str, ...] = ()
    port_bindings: dict[str, tuple[WantedBinding, ...]] = {}
    """By container port: `80/tcp`."""
    mtu: int = 0

    def networks(self) -> list[Subnet]:
        found = []
        for text in self.subnets:
            try:
                found.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise InvalidArgument(f"invalid subnet {text}: a CIDR is needed, as in 10.7.0.0/24") from None
        return found

    def bindings(self) -> Iterator[PortBinding]:
        for key, bindings in self.port_bindings.items():
            port, _, protocol = key.partition("/")
            for binding in bindings:
                first, _, last = binding.host_port.partition("-")
                values = {"protocol": protocol or "tcp", "port": port, "host_ip": binding.host_ip}
                values |= {"host_port": first or "0", "host_port_end": last or "0"}
                try:
                    if binding.host_ip:
                        ipaddress.ip_address(binding.host_ip)  # a name would be looked up where it is bound
                    yield msgspec.convert(values, PortBinding, strict=False)
                except (msgspec.ValidationError, ValueError):
                    raise InvalidArgument(f"invalid port {binding.host_ip}:{binding.host_port}:{key}") from None


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon that runs (`pid` is its own), or one that is about to start (0)."""

    settings: Settings
    wanted: Wanted = Wanted()
    pid: int = 0
    networks: tuple[Network, ...] = ()
    published: tuple[tuple[str, PortBinding], ...] = ()
    """Ports as they are, with the container's name."""
    waiting: tuple[tuple[str, PortBinding], ...] = ()
    """Ports that containers which do not run will want."""
    endpoints: int = 0

    @property
    def running(self) -> bool:
        return self.pid != 0

    @property
    def ipv6(self) -> bool:
        """Whether there is, or is to be, a network with IPv6."""
        wanted = any(subnet.version == 6 for subnet in self.wanted.networks())
        return wanted or self.settings.ipv6 or any(network.ipv6 for network in self.networks)


def mtu_of(network: Network) -> int:
    """As its option says; the kernel's own where it says nothing, or what only its driver understands."""
    text = network.options.get(MTU, "")
    return int(text) if text.isdecimal() and int(text) else DEFAULT_MTU
