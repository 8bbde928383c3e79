"""Published and exposed ports: Docker's `{"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}` to PortBindings and back.

Clients send a range port by port; here it becomes one binding with a count, and in what is shown it is port by port again.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, cast

import msgspec

from netplug.api.shapes import HostPort
from netplug.errors import InvalidArgument
from netplug.model import PortBinding, Protocol

PROTOCOLS = ("tcp", "udp", "sctp")
ANY_ADDRESS = "0.0.0.0"

Row: TypeAlias = tuple[Protocol, str, int]
"""Protocol, host address, and how much higher the host ports are than the container's."""


def exposed(keys: Iterable[str]) -> tuple[str, ...]:
    """`80`, `80/tcp` and `7000-7002/udp` as single ports `80/tcp`, in the order given, each once."""
    found: dict[str, None] = {}
    for key in keys:
        text, protocol = _split(key)
        try:
            first, last = _range(text)
        except ValueError:
            raise InvalidArgument(f"Invalid port: {key}") from None
        for port in range(first, last + 1):
            found[f"{port}/{protocol}"] = None
    return tuple(found)


def bindings(wanted: Mapping[str, Iterable[HostPort]]) -> tuple[PortBinding, ...]:
    """The bindings in the order given, rows of ports as one; a container port without any host port in its list is not published."""
    found: list[tuple[int, PortBinding]] = []
    rows: dict[Row, dict[int, int]] = defaultdict(dict)
    position = 0
    for key, hosts in wanted.items():
        text, protocol = _split(key)
        try:
            port = _port(text)
        except ValueError:
            raise InvalidArgument(f"invalid containerPort: {text}") from None
        for host in hosts:
            first, last = _host_range(host.host_port)
            address = _host_address(host.host_ip) if host.host_ip else ""
            position += 1
            if first and first == last:
                rows[protocol, address, first - port].setdefault(port, position)
            else:
                end = last if last != first else 0
                found.append((position, PortBinding(protocol=protocol, port=port, host_ip=address, host_port=first, host_port_end=end)))
    for row, ports in rows.items():
        found += _joined(row, ports)
    return tuple(binding for _, binding in sorted(found, key=lambda one: one[0]))


def _joined(row: Row, positions: Mapping[int, int]) -> Iterator[tuple[int, PortBinding]]:
    """Container ports that follow one another as one binding, at the position of the first."""
    protocol, address, offset = row
    ordered = sorted(positions)
    start = 0
    for index, port in enumerate(ordered):
        if index + 1 == len(ordered) or ordered[index + 1] != port + 1:
            first = ordered[start]
            binding = PortBinding(protocol=protocol, port=first, host_ip=address, host_port=first + offset, count=index + 1 - start)
            yield positions[first], binding
            start = index + 1


def each(bindings: Iterable[PortBinding]) -> Iterator[PortBinding]:
    """Port by port."""
    for binding in bindings:
        if binding.count == 1:
            yield binding
            continue
        for offset in range(binding.count):
            host_port = binding.host_port and binding.host_port + offset
            yield msgspec.structs.replace(binding, port=binding.port + offset, host_port=host_port, count=1)


def numbers(bindings: Iterable[PortBinding]) -> list[str]:
    """The container ports, `80/tcp` each, once."""
    found = dict.fromkeys(f"{port}/{one.protocol}" for one in bindings for port in range(one.port, one.port + one.count))
    return list(found)


def publish_all(ports: Iterable[str], taken: Iterable[PortBinding]) -> tuple[PortBinding, ...]:
    """`-P`: every exposed port that is not published already gets a host port of the daemon's choice."""
    published = set(numbers(taken))
    return bindings({port: (HostPort(),) for port in ports if port not in published})


def as_map(published: Iterable[PortBinding], ports: Iterable[str] = ()) -> dict[str, list[dict[str, str]] | None]:
    """`NetworkSettings.Ports`: exposed ports that lead nowhere are null."""
    result: dict[str, list[dict[str, str]] | None] = dict.fromkeys(ports)
    for binding in each(published):
        key = f"{binding.port}/{binding.protocol}"
        hosts = result.get(key) or []
        hosts.append({"HostIp": binding.host_ip or ANY_ADDRESS, "HostPort": str(binding.host_port or "")})
        result[key] = hosts
    return dict(sorted(result.items()))


def as_asked(published: Iterable[PortBinding]) -> dict[str, list[dict[str, str]]]:
    """`HostConfig.PortBindings`: as the user said it, ranges and open choices included."""
    result: dict[str, list[dict[str, str]]] = {}
    for binding in each(published):
        first, last = binding.host_port, binding.host_port_end
        text = f"{first}-{last}" if last else str(first or "")
        result.setdefault(f"{binding.port}/{binding.protocol}", []).append({"HostIp": binding.host_ip, "HostPort": text})
    return dict(sorted(result.items()))


def as_list(published: Iterable[PortBinding], ports: Iterable[str]) -> list[dict[str, object]]:
    """The `Ports` of a line of `ps`."""
    result: list[dict[str, object]] = [
        {
            "IP": binding.host_ip or ANY_ADDRESS,
            "PrivatePort": binding.port,
            **({"PublicPort": binding.host_port} if binding.host_port else {}),
            "Type": binding.protocol,
        }
        for binding in each(published)
    ]
    seen = {(line["PrivatePort"], line["Type"]) for line in result}
    for port, protocol in map(_split, ports):
        if (int(port), protocol) not in seen:
            result.append({"PrivatePort": int(port), "Type": protocol})
    return result


def _split(key: str) -> tuple[str, Protocol]:
    text, _, protocol = key.partition("/")
    if protocol not in PROTOCOLS:
        protocol = protocol.lower() or "tcp"
        if protocol not in PROTOCOLS:
            raise InvalidArgument(f"invalid proto: {protocol}")
    return text, cast(Protocol, protocol)


def _range(text: str) -> tuple[int, int]:
    first, separator, last = text.partition("-")
    low = high = _port(first)
    if separator:
        high = _port(last)
    if low > high:
        raise ValueError(text)
    return low, high


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 65535:
        raise ValueError(text)
    return number


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
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.scope_id is not None:
        raise InvalidArgument(f"invalid IP address: {text}: an address with an interface cannot be published on")
    if address.ipv4_mapped is None and address.is_link_local:
        raise InvalidArgument(
            f"invalid IP address: {text}: a link-local address belongs to one link only and cannot be published on:"
            " give another address of this host, or [::] for all of them"
        )
    return str(address.ipv4_mapped or address)
