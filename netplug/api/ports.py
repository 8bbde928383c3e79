"""Published and exposed ports: Docker's `{"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}` to PortBindings and back."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import cast

from netplug.api.shapes import HostPort
from netplug.errors import InvalidArgument
from netplug.model import PortBinding, Protocol

PROTOCOLS = ("tcp", "udp", "sctp")
ANY_ADDRESS = "0.0.0.0"


def exposed(keys: Iterable[str]) -> tuple[str, ...]:
    """`80`, `80/tcp` and `7000-7002/udp` as single ports `80/tcp`, in the order given, each once."""
    found: dict[str, None] = {}
    for key in keys:
        text, protocol = _split(key)
        try:
            first, last = _range(text)
        except ValueError:
            raise InvalidArgument(f"Invalid port: {key}") from None
        found.update(dict.fromkeys(f"{port}/{protocol}" for port in range(first, last + 1)))
    return tuple(found)


def bindings(wanted: Mapping[str, Iterable[HostPort]]) -> tuple[PortBinding, ...]:
    """The bindings in the order given; a container port without any host port in its list is not published."""
    return tuple(_binding(key, host) for key, hosts in wanted.items() for host in hosts)


def publish_all(ports: Iterable[str], taken: Iterable[PortBinding]) -> tuple[PortBinding, ...]:
    """`-P`: every exposed port that is not published already gets a host port of the daemon's choice."""
    published = {f"{binding.port}/{binding.protocol}" for binding in taken}
    return tuple(_binding(port, HostPort()) for port in ports if port not in published)


def as_map(published: Iterable[PortBinding], ports: Iterable[str] = ()) -> dict[str, list[dict[str, str]] | None]:
    """`NetworkSettings.Ports`: exposed ports that lead nowhere are null."""
    result: dict[str, list[dict[str, str]] | None] = dict.fromkeys(ports)
    for binding in published:
        hosts = result.setdefault(f"{binding.port}/{binding.protocol}", []) or []
        hosts.append({"HostIp": binding.host_ip or ANY_ADDRESS, "HostPort": str(binding.host_port)})
        result[f"{binding.port}/{binding.protocol}"] = hosts
    return result


def as_asked(published: Iterable[PortBinding]) -> dict[str, list[dict[str, str]]]:
    """`HostConfig.PortBindings`: as the user said it, ranges and open choices included."""
    result: dict[str, list[dict[str, str]]] = {}
    for binding in published:
        first, last = binding.host_port, binding.host_port_end
        text = f"{first}-{last}" if last else str(first or "")
        result.setdefault(f"{binding.port}/{binding.protocol}", []).append({"HostIp": binding.host_ip, "HostPort": text})
    return result


def as_list(published: Iterable[PortBinding], ports: Iterable[str]) -> list[dict[str, object]]:
    """The `Ports` of a line of `ps`."""
    result: list[dict[str, object]] = [
        {
            "IP": binding.host_ip or ANY_ADDRESS,
            "PrivatePort": binding.port,
            "PublicPort": binding.host_port,
            "Type": binding.protocol,
        }
        for binding in published
    ]
    seen = {(line["PrivatePort"], line["Type"]) for line in result}
    for port, protocol in map(_split, ports):
        if (int(port), protocol) not in seen:
            result.append({"PrivatePort": int(port), "Type": protocol})
    return result


def _binding(key: str, host: HostPort) -> PortBinding:
    text, protocol = _split(key)
    try:
        first, last = _range(text)
    except ValueError:
        raise InvalidArgument(f"invalid containerPort: {text}") from None
    if first != last:
        raise InvalidArgument(f"invalid containerPort: {text}: give one container port per entry")
    host_first, host_last = _host_range(host.host_port)
    return PortBinding(
        protocol=protocol,
        port=first,
        host_ip=_host_address(host.host_ip),
        host_port=host_first,
        host_port_end=host_last if host_last != host_first else 0,
    )


def _split(key: str) -> tuple[str, Protocol]:
    text, _, protocol = key.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    return text, cast(Protocol, protocol)


def _range(text: str) -> tuple[int, int]:
    first, separator, last = text.partition("-")
    low, high = _port(first), _port(last) if separator else _port(first)
    if low > high:
        raise ValueError(text)
    return low, high


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(text)
    return int(text)


def _host_range(text: str) -> tuple[int, int]:
    """0, 0 where the choice is the daemon's."""
    if text in ("", "0"):
        return 0, 0
    try:
        return _range(text)
    except ValueError:
        raise InvalidArgument(f"invalid hostPort: {text}") from None


def _host_address(text: str) -> str:
    if not text:
        return ""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None
