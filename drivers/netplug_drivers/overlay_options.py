"""The options of an overlay network: Docker's, and our own for the UDP port.

As with Docker, an option that is not known has no meaning and is no error; a value that cannot be read is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from netplug.errors import InvalidArgument
from netplug.model import Network

VNIS = "com.docker.network.driver.overlay.vxlanid_list"
MTU = "com.docker.network.driver.mtu"
ENCRYPTED = "encrypted"
PORT = "netplug.vxlan.port"
ANTISPOOF, ROUTES = "netplug.antispoof", "netplug.routes"
"""The bridge driver's, which would have no effect here."""

FIRST_VNI, LARGEST_VNI = 4096, (1 << 24) - 1
"""Docker starts there too: below lie the numbers that hardware uses. A VNI has 24 bits (RFC 7348)."""
SMALLEST_MTU, LARGEST_MTU = 68, 65535
SMALLEST_IPV6_MTU = 1280


@dataclass(frozen=True, slots=True)
class Options:
    """All of them, read and checked."""

    vnis: tuple[range, ...]
    mtu: int
    """0: what the underlay leaves."""
    port: int
    """0: the nodes' own."""

    @classmethod
    def of(cls, network: Network) -> Options:
        """InvalidArgument names the option that cannot be read."""
        if ENCRYPTED in network.options:
            raise InvalidArgument(f"overlay networks cannot be {ENCRYPTED} yet: their traffic would be plain between the nodes")
        return cls(_vnis(network), _mtu(network), _number(network, PORT, 1, 65535))


def check_new(network: Network) -> None:
    """InvalidArgument for what nobody would mean who makes a network; one that is there already is taken with it."""
    for option in (ANTISPOOF, ROUTES):
        if network.options.get(option, "").lower() not in _NOTHING:
            raise InvalidArgument(f"an overlay network cannot have {option}: {_NO_EFFECT[option]}")
    if VNIS in network.options and not network.options[VNIS]:
        raise InvalidArgument(f"invalid value for {VNIS}: there is no number in it; leave it out for one that is free")
    if (port := network.options.get(PORT, "")) and not port.strip("0"):
        raise InvalidArgument(f'invalid value for {PORT}: "{port}" is no number from 1 to 65535')


_NOTHING = ("", "0", "f", "false")
_NO_EFFECT = {
    ANTISPOOF: "the rules for it belong to bridges of the host, and its containers trust one another",
    ROUTES: "all nodes are on it, and need no routes to it",
}


def _vnis(network: Network) -> tuple[range, ...]:
    """`4096,5000-5010`, in the order given."""
    text = network.options.get(VNIS, "")
    if not text:
        return (range(FIRST_VNI, LARGEST_VNI + 1),)
    return tuple(map(_vni_range, text.split(",")))


def _vni_range(text: str) -> range:
    matched = re.fullmatch(r"\s*(\d{1,8})\s*(?:-\s*(\d{1,8})\s*)?", text, re.ASCII)
    if matched is not None:
        first, last = int(matched[1]), int(matched[2] or matched[1])
        if 1 <= first <= last <= LARGEST_VNI:
            return range(first, last + 1)
    raise InvalidArgument(f'invalid value for {VNIS}: "{text}" is neither a number from 1 to {LARGEST_VNI} nor a range of them')


def _mtu(network: Network) -> int:
    mtu = _number(network, MTU, SMALLEST_MTU, LARGEST_MTU)
    if mtu and network.ipv6 and mtu < SMALLEST_IPV6_MTU:
        raise InvalidArgument(f'invalid value for {MTU}: "{mtu}" is too small for IPv6, which needs {SMALLEST_IPV6_MTU}')
    return mtu


def _number(network: Network, option: str, least: int, most: int) -> int:
    """0 where it is not given."""
    text = network.options.get(option, "") or "0"
    value = int(text) if re.fullmatch(r"\d{1,8}", text, re.ASCII) else -1
    if value and not least <= value <= most:
        raise InvalidArgument(f'invalid value for {option}: "{text}" is no number from {least} to {most}')
    return value
