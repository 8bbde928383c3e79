"""Published ports: `-p` and `--expose` as text, and how `ps` and `port` show them.

A published port is `[ip:][hostPort:]containerPort[/tcp|udp|sctp]`; both ports may be ranges of one length, and a range of host ports
for a single container port means any one of them. The sentences of `PortError` are Docker's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

LAST_PORT = 65535
PROTOCOLS = ("tcp", "udp", "sctp")


class PortError(ValueError):
    """The text is no port, range or publication; its sentence says which part is not."""


class Published(NamedTuple):
    """One container port to publish. `host_port` is "" (any), a port, or `first-last` (any of them), as the API takes it."""

    port: str
    """`80/tcp`."""
    host_ip: str
    host_port: str


def port_range(text: str) -> tuple[int, int]:
    """`80` or `80-90`, first and last."""
    first, dash, last = text.partition("-")
    numbers = (first, last.partition("-")[0] if dash else first)
    if not all(re.fullmatch(r"[0-9]{1,5}", number) and int(number) <= LAST_PORT for number in numbers):
        wrong = next(number for number in numbers if not re.fullmatch(r"[0-9]{1,5}", number) or int(number) > LAST_PORT)
        reason = "value out of range" if re.fullmatch(r"[0-9]+", wrong) else "invalid syntax"
        raise PortError(f'strconv.ParseUint: parsing "{wrong}": {reason}')
    if int(numbers[1]) < int(numbers[0]):
        raise PortError(f"invalid range specified for port: {text}")
    return int(numbers[0]), int(numbers[1])


def _split(text: str) -> tuple[str, str, str]:
    """Address, host port and container port with its protocol; an IPv6 address has colons of its own."""
    *before, container = text.split(":")
    if not before:
        return "", "", container
    *address, host = before
    return ":".join(address), host, container


def _address(text: str) -> str:
    """An IPv4 or IPv6 address, without brackets; "" stays."""
    if not text:
        return ""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        raise PortError(f"invalid IP address: {bare}") from None
    if "%" in bare:  # an interface belongs to it
        raise PortError(f"invalid IP address: {bare}")
    return bare


def _protocol(text: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise PortError(f"invalid proto: {text}")
    return protocol


def published(text: str) -> list[Published]:
    """What one `-p` asks for, a container port each."""
    address, host, container = _split(_short_form(text))
    container, _, protocol = container.partition("/")
    host_ip = _address(address)
    if not container:
        raise PortError(f"no port specified: {text}<empty>")
    try:
        first, last = port_range(container)
    except PortError:
        raise PortError(f"invalid containerPort: {container}") from None
    try:
        host_first, host_last = port_range(host) if host else (0, 0)
    except PortError:
        raise PortError(f"invalid hostPort: {host}") from None
    one_of_many = first == last and host_first != host_last
    if host and not one_of_many and last - first != host_last - host_first:
        raise PortError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    protocol = _protocol(protocol)
    if one_of_many:
        return [Published(f"{first}/{protocol}", host_ip, f"{host_first}-{host_last}")]
    return [
        Published(f"{port}/{protocol}", host_ip, str(host_first + offset) if host else "")
        for offset, port in enumerate(range(first, last + 1))
    ]


def _short_form(text: str) -> str:
    """`target=80,published=8080,protocol=udp` in the short form."""
    if "=" not in text:
        return text
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        if not separator or not value:
            raise PortError(f"invalid port format {text}")
        fields[key] = value
    if unknown := sorted(set(fields) - {"target", "published", "protocol", "mode"}):
        raise PortError(f"invalid field key {unknown[0]}")
    host = f"{fields['published']}:" if "published" in fields else ""
    return f"{host}{fields.get('target', '')}/{fields.get('protocol', 'tcp')}"


def exposed(text: str) -> list[str]:
    """What one `--expose` asks for: `80/tcp` each."""
    if ":" in text:
        raise PortError(f"invalid port format for --expose: {text}")
    ports, _, protocol = text.partition("/")
    try:
        first, last = port_range(ports)
    except PortError as error:
        raise PortError(f"invalid range format for --expose: {text}, error: {error}") from None
    return [f"{port}/{_protocol(protocol)}" for port in range(first, last + 1)]


def bindings(specs: Iterable[Published]) -> dict[str, list[dict[str, str]]]:
    """The API's PortBindings."""
    found: dict[str, list[dict[str, str]]] = {}
    for spec in specs:
        binding = {"HostIp": spec.host_ip, "HostPort": spec.host_port}
        if binding not in found.setdefault(spec.port, []):
            found[spec.port].append(binding)
    return found


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def shown(ports: Iterable[Mapping[str, Any]]) -> str:
    """The PORTS column of `ps`, in Docker's order: ports that have the same number outside, neighbours as a range; then the others."""
    entries = sorted((int(p["PrivatePort"]), p.get("IP") or "", int(p.get("PublicPort") or 0), p.get("Type", "tcp")) for p in ports)
    ranges: dict[tuple[str, str], list[int]] = {}
    whole: list[str] = []
    others: list[str] = []
    for private, address, public, protocol in entries:
        if address and public != private:
            others.append(f"{_host(address)}:{public}->{private}/{protocol}")
            continue
        known = ranges.get((address, protocol))
        if known and private in (known[1], known[1] + 1):
            known[1] = private
            continue
        if known:
            whole.append(_range(address, protocol, *known))
        ranges[address, protocol] = [private, private]
    return ", ".join([*whole, *(_range(*key, *ends) for key, ends in ranges.items()), *others])


def _range(address: str, protocol: str, first: int, last: int) -> str:
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"


def mapping_lines(ports: Mapping[str, Any]) -> list[str]:
    """`netplug port CONTAINER`: a line for each published address, in Docker's order."""
    return sorted((f"{port} -> {host}" for port in ports for host in hosts(ports[port])), key=_natural)


def hosts(found: Iterable[Mapping[str, str]] | None) -> list[str]:
    """`0.0.0.0:8080` for each binding of one port."""
    lines = (f"{_host(binding.get('HostIp') or '0.0.0.0')}:{binding.get('HostPort', '')}" for binding in found or ())
    return sorted(lines, key=_natural)


def _natural(text: str) -> list[tuple[int, int]]:
    """For sorting: character by character, but digits in a row as one number."""
    return [(ord("0"), int(part)) if part.isdigit() else (ord(part), 0) for part in re.findall(r"[0-9]+|[^0-9]", text)]
