"""The options of a bridge network: Docker's `com.docker.network.bridge.*` and its relatives, and our own.

As with Docker, an option that is not known has no meaning and is no error; a value that cannot be read is one.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from netplug.errors import InvalidArgument
from netplug.model import Family, Network, flag
from netplug.plan import GatewayMode

NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
HOST_BINDING6 = "com.docker.network.bridge.host_binding_ipv6"
MODE4 = "com.docker.network.bridge.gateway_mode_ipv4"
MODE6 = "com.docker.network.bridge.gateway_mode_ipv6"
INHIBIT_IPV4 = "com.docker.network.bridge.inhibit_ipv4"
TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
SOURCE4 = "com.docker.network.host_ipv4"
SOURCE6 = "com.docker.network.host_ipv6"
MTU = "com.docker.network.driver.mtu"
ANTISPOOF = "netplug.antispoof"
ROUTES = "netplug.routes"

SMALLEST_MTU, LARGEST_MTU = 68, 65535
"""IPv4's least (RFC 791) and what a veth takes (ETH_MAX_MTU)."""
SMALLEST_IPV6_MTU = 1280
"""RFC 8200 section 5; the kernel gives a link with less no IPv6."""

Mode: TypeAlias = Literal["nat", "nat-unprotected", "routed", "isolated"]
_MODES: dict[str, Mode] = {"": "nat", "nat": "nat", "nat-unprotected": "nat-unprotected", "routed": "routed", "isolated": "isolated"}
_LINK_NAME = re.compile(r"[\w.@+-]{1,15}", re.ASCII)
"""At most 15 characters (IFNAMSIZ less the final zero)."""


@dataclass(frozen=True, slots=True)
class Options:
    """All of them, read and checked."""

    name: str
    named: bool
    """Whether the name is the user's."""
    icc: bool
    masquerade: bool
    antispoof: bool
    inhibit_ipv4: bool
    mtu: int
    """0: the kernel's own."""
    host_binding: str
    host_binding6: str
    mode4: Mode
    mode6: Mode
    source4: str
    source6: str
    trusted: tuple[str, ...]
    routes: bool
    """Whether the other nodes of the cluster have routes to it, and it to theirs."""

    @classmethod
    def of(cls, network: Network) -> Options:
        """InvalidArgument names the option that cannot be read."""
        # Networks never change, and every step of an endpoint's life asks.
        return _read(network.id, tuple(network.options.items()), network.ipv6, network.internal)

    def mode(self, family: Family) -> Mode:
        return self.mode4 if family == 4 else self.mode6

    def isolated(self, family: Family) -> bool:
        return self.mode(family) == "isolated"

    def firewall_mode(self, family: Family) -> GatewayMode:
        """An isolated network is internal besides, so that its mode is nothing to the firewall."""
        mode = self.mode(family)
        return "nat" if mode == "isolated" else mode

    def binding(self, family: Family) -> str:
        """Without one of its own, IPv6 goes by that of IPv4: where ports are for one address only, they are for no other."""
        return self.host_binding6 or self.host_binding if family == 6 else self.host_binding

    def source(self, family: Family) -> str:
        return self.source4 if family == 4 else self.source6


def bridge_name(network: Network) -> str:
    """What the option says, or `br-` and the short id."""
    return Options.of(network).name


@lru_cache(maxsize=4096)
def _read(identity: str, items: tuple[tuple[str, str], ...], ipv6: bool, internal: bool) -> Options:
    options = dict(items)
    read = Options(
        name=_name(options.get(NAME, "") or f"br-{identity:.12}"),
        named=bool(options.get(NAME)),
        icc=flag(options, ICC, default=True),
        masquerade=flag(options, MASQUERADE, default=True),
        antispoof=flag(options, ANTISPOOF, default=True),
        inhibit_ipv4=flag(options, INHIBIT_IPV4, default=False),
        mtu=_mtu(options.get(MTU, ""), ipv6=ipv6),
        host_binding=_address(options, HOST_BINDING, 4),
        host_binding6=_address(options, HOST_BINDING6, 6),
        mode4=_mode(options, MODE4),
        mode6=_mode(options, MODE6),
        source4=_address(options, SOURCE4, 4),
        source6=_address(options, SOURCE6, 6),
        trusted=_interfaces(options.get(TRUSTED, "")),
        routes=_routes(options.get(ROUTES, "")),
    )
    if "isolated" in (read.mode4, read.mode6) and not internal:
        raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")
    if read.routes and internal:
        raise InvalidArgument(f"an internal network cannot have {ROUTES}: nothing is routed in or out of it")
    return read


def _name(text: str) -> str:
    if not _LINK_NAME.fullmatch(text) or text in {".", "..", "all", "default"}:
        raise InvalidArgument(f'invalid bridge name "{text}": 1 to 15 letters, digits or "_.@+-" are allowed, but not all or default')
    return text


def _mtu(text: str, *, ipv6: bool) -> int:
    text = text or "0"
    if not text.isdecimal():
        raise InvalidArgument(f'invalid MTU "{text}": a number from {SMALLEST_MTU} to {LARGEST_MTU} is needed')
    value = int(text)
    if value and not SMALLEST_MTU <= value <= LARGEST_MTU:
        raise InvalidArgument(f"invalid MTU number: {value} is not between {SMALLEST_MTU} and {LARGEST_MTU}")
    if ipv6 and 0 < value < SMALLEST_IPV6_MTU:
        raise InvalidArgument(f"invalid MTU number: {value} is too small for IPv6, which needs {SMALLEST_IPV6_MTU}")
    return value


def _mode(options: dict[str, str], option: str) -> Mode:
    text = options.get(option, "")
    if text not in _MODES:
        raise InvalidArgument(
            f'invalid value for {option}: unknown gateway mode "{text}" (there are nat, nat-unprotected, routed and isolated)'
        )
    return _MODES[text]


def _routes(text: str) -> bool:
    if text not in ("", "cluster"):
        raise InvalidArgument(f'invalid value for {ROUTES}: "{text}" is not known (there is cluster)')
    return bool(text)


def _address(options: dict[str, str], option: str, family: Family) -> str:
    """In canonical form; `""` where it is not given."""
    text = options.get(option, "")
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
        if address.version != family or "%" in text:
            raise ValueError
    except ValueError:
        raise InvalidArgument(f'invalid value for {option}: "{text}" is no IPv{family} address') from None
    return str(address)


def _interfaces(text: str) -> tuple[str, ...]:
    """Names between colons."""
    names = tuple(filter(None, text.split(":")))
    for name in names:
        if not _LINK_NAME.fullmatch(name) or name in {".", ".."}:
            raise InvalidArgument(f'invalid value for {TRUSTED}: "{name}" is no name of an interface (several are written eth0:eth1)')
    return names
