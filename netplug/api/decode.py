"""From JSON to shapes, and from shapes to requests for networks and endpoints. Containers have `decode_container`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from netplug.api import shapes
from netplug.controller.requests import NetworkRequest
from netplug.errors import InvalidArgument
from netplug.model import BOOLEANS, PoolConfig
from netplug.runtime.model import Attachment
from netplug.words import check_words

Shape = TypeVar("Shape", bound=shapes.Body)

Defaults = Mapping[str, Mapping[str, str]]
"""Driver options by driver: what `--default-network-opt` gives to new networks."""

ENABLE_IPV4 = "com.docker.network.enable_ipv4"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
_WHERE = re.compile(r"^(.*?) - at `\$\.?(.*)`$")


def parse(data: bytes) -> dict[str, Any]:
    """A JSON object without its nulls: Go's clients send null for whatever was not said, and read null as a zero value in a map."""
    if not data.strip():
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument("invalid JSON: the request body must be an object")
    if b"null" not in data and b"\\u0000" not in data:
        return value  # a range of ports is ten thousand members
    without_nulls: dict[str, Any] = _without_nulls(value)
    return without_nulls


def convert(value: dict[str, Any], shape: type[Shape]) -> Shape:
    """The object in its shape; InvalidArgument names the member whose type is wrong."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        found = _WHERE.match(str(error))
        sentence = f"{found[2]}: {found[1][:1].lower()}{found[1][1:]}" if found else str(error)
        raise InvalidArgument(f"invalid JSON: {sentence}".replace("`", "")) from None


_ZERO: dict[str, Any] = {
    **dict.fromkeys(("Labels", "Options", "DriverOpts", "Sysctls", "AuxiliaryAddresses"), ""),
    "EndpointsConfig": {},
    "ExposedPorts": {},
    "PortBindings": [],
}
"""Members that are maps, whose keys are the user's and count even where the value is null."""


def _without_nulls(value: Any, zero: Any = None) -> Any:
    """`zero`: what a null stands for in this map; None where null means that the member is not there."""
    if isinstance(value, dict):
        inner = _ZERO if zero is None else {}
        members = ((key, zero if member is None else member) for key, member in value.items())
        return {key: _without_nulls(member, inner.get(key)) for key, member in members if member is not None}
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    if isinstance(value, str) and "\0" in value:
        # No argument, path or variable of a process can hold one.
        raise InvalidArgument(f"invalid JSON: a NUL character in {value!r}")
    return value


def network_request(body: shapes.NetworkCreate, defaults: Defaults) -> tuple[NetworkRequest, list[str]]:
    """What `network create` asks for, and what of it has no effect. `defaults` are the daemon's, for what the user leaves open."""
    _refuse_unknown_kinds(body)
    driver = body.driver or "bridge"
    options = {**defaults.get(driver, {}), **body.options}
    ipv4 = _enabled(body.enable_ipv4, options, ENABLE_IPV4, default=True)
    ipv6 = _enabled(body.enable_ipv6, options, ENABLE_IPV6, default=False)
    if not (ipv4 or ipv6):
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    unused = [pool.subnet for pool in body.ipam.config if pool.subnet and not (ipv6 if ":" in pool.subnet else ipv4)]
    request = NetworkRequest(
        name=body.name,
        driver=driver,
        ipv4=ipv4,
        ipv6=ipv6,
        internal=body.internal,
        attachable=body.attachable,
        ipam_driver=body.ipam.driver or "default",
        ipam_options=body.ipam.options,
        pools=tuple(_pool(pool) for pool in body.ipam.config if pool.subnet not in unused),
        options=options,
        labels=body.labels,
    )
    return request, [_without_effect(subnet) for subnet in unused]


def _enabled(said: bool | None, options: dict[str, str], option: str, *, default: bool) -> bool:
    """Whether the network has this IP version. A driver option says it too, but what the request itself says goes first."""
    if said is not None:
        options.pop(option, None)
        return said
    text = options.get(option, str(default).lower())
    if text not in BOOLEANS:
        raise InvalidArgument(f'driver-opt "{option}" is not a valid bool')
    return BOOLEANS[text]


def _without_effect(subnet: str) -> str:
    version = "IPv6" if ":" in subnet else "IPv4"
    return f"subnet {subnet} has no effect: {version} is not enabled for this network"


def _refuse_unknown_kinds(body: shapes.NetworkCreate) -> None:
    if body.config_only or body.config_from.network:
        raise InvalidArgument("configuration-only networks are not supported by this daemon")
    if body.ingress:
        raise InvalidArgument("ingress networks are not supported by this daemon")


def _pool(pool: shapes.IpamPool) -> PoolConfig:
    return PoolConfig(subnet=pool.subnet, ip_range=pool.ip_range, gateway=pool.gateway, auxiliary=pool.auxiliary_addresses)


def attachment(network: str, settings: shapes.EndpointSettings) -> Attachment:
    """How a container is to be on `network`."""
    if settings.ipam_config.link_local_ips:
        raise InvalidArgument("link-local addresses are not supported by this daemon")
    check_words("link", *settings.links)
    return Attachment(
        network=network,
        address=_address(settings.ipam_config.ipv4_address, ipaddress.IPv4Address),
        address6=_address(settings.ipam_config.ipv6_address, ipaddress.IPv6Address),
        mac=settings.mac_address,
        aliases=settings.aliases,
        links=settings.links,
        gateway_priority=settings.gw_priority,
        options=settings.driver_opts,
    )


def _address(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> str:
    """In canonical form; `""` stays."""
    try:
        return str(kind(text)) if text else ""
    except ValueError:
        raise InvalidArgument(f"invalid {'IPv4' if kind is ipaddress.IPv4Address else 'IPv6'} address: {text}") from None
