"""What network plugins answer, and what of it can be done; ValueError says what cannot. Members are the protocol's, and may be null."""

from __future__ import annotations

import ipaddress
import re

import msgspec

from netplug.model import Attachment, Endpoint, Family, Network, StaticRoute

_LINK = re.compile(r"[^\s/:]{1,15}")
_PREFIX = re.compile(r"[\w.-]{1,12}", re.ASCII)
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_NEXT_HOP, _CONNECTED = 0, 1
DEFAULTS = ("0.0.0.0/0", "::/0")


class Nothing(msgspec.Struct):
    """Whatever it says is not looked at."""


class Capability(msgspec.Struct):
    Scope: str | None = None
    ConnectivityScope: str | None = None


class Interface(msgspec.Struct):
    Address: str | None = None
    AddressIPv6: str | None = None
    MacAddress: str | None = None


class EndpointCreated(msgspec.Struct):
    Interface: Interface | None = None


class InterfaceName(msgspec.Struct):
    SrcName: str | None = None
    DstPrefix: str | None = None
    DstName: str | None = None


class JoinedRoute(msgspec.Struct):
    Destination: str | None = None
    RouteType: int = _NEXT_HOP
    NextHop: str | None = None


class Joined(msgspec.Struct):
    InterfaceName: InterfaceName | None = None
    Gateway: str | None = None
    GatewayIPv6: str | None = None
    StaticRoutes: list[JoinedRoute] | None = None
    DisableGatewayService: bool | None = None


def chosen(endpoint: Endpoint, created: EndpointCreated) -> Attachment:
    """What the plugin has chosen where nothing was asked for."""
    interface = created.Interface or Interface()
    return Attachment(
        mac=_new(_mac(interface.MacAddress), endpoint.mac, "MacAddress"),
        address=_new(_address(interface.Address, 4), endpoint.address, "Address"),
        address6=_new(_address(interface.AddressIPv6, 6), endpoint.address6, "AddressIPv6"),
    )


def attachment(network: Network, given: Attachment, joined: Joined) -> Attachment:
    """`given` and what joining adds. A default route is a gateway, whichever way it is said; an internal network has none."""
    name = joined.InterfaceName or InterfaceName()
    routes = [_route(route) for route in joined.StaticRoutes or ()]
    ways = {4: _gateway(joined.Gateway, 4), 6: _gateway(joined.GatewayIPv6, 6)}
    for route in routes:
        if route.destination in DEFAULTS and route.gateway:
            family = 6 if ":" in route.destination else 4
            ways[family] = ways[family] or route.gateway
    return msgspec.structs.replace(
        given,
        link=_matched(name.SrcName, _LINK, "InterfaceName.SrcName", "the name of a link"),
        prefix=_matched(name.DstPrefix, _PREFIX, "InterfaceName.DstPrefix", "a prefix of up to 12 letters"),
        interface=_matched(name.DstName, _LINK, "InterfaceName.DstName", "the name of a link"),
        gateway="" if network.internal else ways[4],
        gateway6="" if network.internal else ways[6],
        routes=tuple(route for route in routes if not (route.destination in DEFAULTS and (route.gateway or network.internal))),
        exit=not (network.internal or joined.DisableGatewayService or any(ways.values()) or _leads_out(routes)),
    )


def _leads_out(routes: list[StaticRoute]) -> bool:
    return any(route.destination in DEFAULTS for route in routes)


def _matched(text: str | None, pattern: re.Pattern[str], what: str, wanted: str) -> str:
    if text and (not pattern.fullmatch(text) or text in (".", "..")):
        raise ValueError(f"{what} {text[:40]!r} is not {wanted}")
    return text or ""


def _new(given: str, asked: str, what: str) -> str:
    """What the endpoint had when the plugin was asked is not the plugin's to choose."""
    if given and asked and given != asked:
        raise ValueError(f"{what} {given}, where {asked} was asked for")
    return "" if asked else given


def _mac(text: str | None) -> str:
    mac = (text or "").lower().replace("-", ":")
    if mac and (not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00"):
        raise ValueError(f"MacAddress {(text or '')[:40]!r} is no address of an interface")
    return mac


def _address(text: str | None, family: Family) -> str:
    if not text:
        return ""
    what = "Address" if family == 4 else "AddressIPv6"
    try:
        address = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"{what} {text[:60]!r} is no address with a prefix") from None
    if address.version != family or "/" not in text or "%" in text:
        raise ValueError(f"{what} {text[:60]!r} is no IPv{family} address with a prefix")
    return str(address)


def _gateway(text: str | None, family: Family) -> str:
    if not text:
        return ""
    gateway = _host(text, "Gateway" if family == 4 else "GatewayIPv6")
    if (":" in gateway) != (family == 6):
        raise ValueError(f"gateway {gateway} is no IPv{family} address")
    return gateway


def _route(route: JoinedRoute) -> StaticRoute:
    try:
        destination = str(ipaddress.ip_network(route.Destination or "", strict=False))
    except ValueError:
        raise ValueError(f"route to {(route.Destination or '')[:60]!r}, which is no subnet") from None
    if route.RouteType == _CONNECTED:
        return StaticRoute(destination=destination)
    if route.RouteType != _NEXT_HOP or not route.NextHop:
        raise ValueError(f"route to {destination} of type {route.RouteType} without a next hop")
    gateway = _host(route.NextHop, "NextHop")
    if (":" in gateway) != (":" in destination):
        raise ValueError(f"route to {destination} by {gateway}, which are of two IP versions")
    return StaticRoute(destination=destination, gateway=gateway)


def _host(text: str, what: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{what} {text[:60]!r} is no address") from None
    if "%" in text or address.is_unspecified or address.is_multicast:
        raise ValueError(f"{what} {text[:60]!r} is no address of a host")
    return str(address)
