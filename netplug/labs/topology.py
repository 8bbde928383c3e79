"""What a running lab is made of at this moment, read from the kernel: places, their interfaces, and which veth leads where.

An interface's peer is known to the kernel as an index and the number that *its* namespace has given to the peer's (man 7 rtnetlink,
RTM_GETNSID); so each namespace is asked which number it has for each other one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from netplug.kernel import namespaces
from netplug.kernel.netlink import Message, Refused, Socket, attribute, parse_attributes
from netplug.labs.places import Place

_RTM_GETNSID = 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_FAMILY = b"\0" * 4  # struct rtgenmsg, padded


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    kind: str
    """veth, bridge, vxlan, …; empty for `lo`."""
    up: bool
    carrier: bool
    addresses: tuple[str, ...] = ()
    """Without link-local ones."""
    master: str = ""
    detail: str = ""
    """What else there is to say: `vni 42 port 4789`."""
    mtu: int = 0
    peer: tuple[str, str] | None = None
    """(place, interface); None where it has none, or it is out of sight."""

    @property
    def state(self) -> str:
        if not self.up:
            return "DOWN"
        return "UP" if self.carrier else "NO-CARRIER"


@dataclass(frozen=True, slots=True)
class Drawn:
    """One place of the picture."""

    name: str
    interfaces: tuple[Interface, ...]
    inner: tuple[Drawn, ...] = field(default=())
    """The namespaces on it."""

    @property
    def title(self) -> str:
        return self.name.rpartition("/")[2]


def read(places: Sequence[Place]) -> list[Drawn]:
    """The hosts, with the namespaces on each."""
    told = {place.name: place.json("ip", "-j", "-d", "address") for place in places}
    numbers = {place.name: _numbers(place, places) for place in places}
    indexes = {(name, link["ifindex"]): link["ifname"] for name, links in told.items() for link in links}

    def interfaces(name: str) -> tuple[Interface, ...]:
        return tuple(_interface(link, _peer(link, name, numbers[name], indexes)) for link in told[name])

    def inner(host: Place) -> tuple[Drawn, ...]:
        return tuple(Drawn(place.name, interfaces(place.name)) for place in places if place.inner and place.host == host.name)

    return [Drawn(place.name, interfaces(place.name), inner(place)) for place in places if not place.inner]


def _numbers(place: Place, others: Iterable[Place]) -> dict[int, str]:
    """Names of the places that a place has numbered."""
    found = {}
    with namespaces.entered(place.path):
        netlink = Socket()
    with netlink:
        for other in others:
            handle = os.open(other.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                reply = netlink.get(Message(_RTM_GETNSID, _FAMILY + attribute(_NETNSA_FD, struct.pack("=I", handle))))
            except Refused:
                continue
            finally:
                os.close(handle)
            (number,) = struct.unpack("=i", parse_attributes(reply, len(_FAMILY))[_NETNSA_NSID])
            if number >= 0:
                found[number] = other.name
    return found


def _peer(link: dict[str, Any], place: str, numbers: dict[int, str], indexes: dict[tuple[str, int], str]) -> tuple[str, str] | None:
    if link.get("linkinfo", {}).get("info_kind") != "veth":
        return None
    if "link" in link:  # in the same namespace, or with the name that the index has here
        if "link_netnsid" not in link:
            return place, str(link["link"])
        return None
    other = numbers.get(link.get("link_netnsid", -1))
    name = indexes.get((other, link.get("link_index", 0))) if other else None
    return (other, name) if other and name else None


def _interface(link: dict[str, Any], peer: tuple[str, str] | None) -> Interface:
    info = link.get("linkinfo", {})
    flags = link["flags"]
    return Interface(
        name=link["ifname"],
        kind=info.get("info_kind", ""),
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        addresses=tuple(f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one.get("scope") != "link"),
        master=link.get("master", ""),
        detail=_detail(info),
        mtu=link["mtu"],
        peer=peer,
    )


def _detail(info: dict[str, Any]) -> str:
    data = info.get("info_data", {})
    if info.get("info_kind") == "vxlan":
        return f"VNI {data.get('id')}, port {data.get('port')}" + ("" if data.get("learning") else ", no learning")
    return ""
