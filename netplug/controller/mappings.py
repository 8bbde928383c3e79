"""What a container's published ports mean: host addresses, overlaps, and what packets cannot reach without a relay. Pure.

A sandbox has its ports as they were asked for. `mapping` says for each of them which host addresses it takes on the endpoints that carry
ports; `published` gives the endpoints' ports once a number is chosen.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from netplug.forwarder.model import Relay
from netplug.model import Endpoint, Family, PortBinding

ANY: Dictionary[Family, str] = {4: "0.0.0.0", 6: "::"}


class Carrier(NamedTuple):
    """The endpoint that carries ports of one IP version."""

    endpoint: Endpoint
    routed: bool = False
    """No host port is taken: the container's own address is reached."""
    host_binding: str = ""
    """The host address of ports that are published without one."""


Carriers = Dictionary[Family, Carrier]


class Mapping(NamedTuple):
    """One binding as asked, and the host addresses that it takes, all on one number."""

    asked: PortBinding
    held: tuple[str, ...]
    routed: tuple[str, ...] = ()
    """Host addresses only in name: their IP version needs no host port."""


def family(address: str) -> Family:
    return 6 if ":" in address else 4


def mapping(asked: PortBinding, carriers: Carriers) -> Mapping:
    held: list[str] = []
    routed: list[str] = []
    for address in (asked.host_ip,) if asked.host_ip else _everywhere(carriers):
        carrier = carriers.get(family(address))
        if carrier is None or not carrier.routed:
            held.append(address)
        elif not ipaddress.ip_address(address).is_loopback:  # nobody outside was meant to reach it, and the host does anyway
            routed.append(ANY[family(address)])
    return Mapping(asked, tuple(held), tuple(routed))


def _everywhere(carriers: Carriers) -> list[str]:
    """Every address of the host, of each IP version that is carried; or the one that the network's option names."""
    found = []
    for version, carrier in carriers.items():
        default = carrier.host_binding
        if default in ("", *ANY.values()):
            found.append(ANY[version])
        elif family(default) == version:
            found.append(default)
    return found


def published(mapping: Mapping, number: int, carriers: Carriers) -> list[tuple[str, PortBinding]]:
    """The bindings as they are, each with the id of the endpoint that carries it. A host port of 0: there is none."""
    result = []
    addresses = [(address, number) for address in mapping.held] + [(address, 0) for address in mapping.routed]
    for address, port in sorted(addresses, key=lambda found: family(found[0])):
        carrier = carriers.get(family(address)) or next(iter(carriers.values()))
        binding = msgspec.structs.replace(mapping.asked, host_ip=address, host_port=port, host_port_end=0, preferred=0)
        result.append((carrier.endpoint.id, binding))
    return result


def remembered(asked: PortBinding, number: int) -> PortBinding:
    """Where the choice is ours, it will be the same again if it can."""
    if asked.host_port and not asked.host_port_end:
        return asked
    return msgspec.structs.replace(asked, preferred=number)


def exclude(one: str, other: str) -> bool:
    """Whether two host addresses cannot have one port both."""
    return one == other or (family(one) == family(other) and ANY[family(one)] in (one, other))


def overlap(mappings: Sequence[Mapping]) -> tuple[PortBinding, PortBinding] | None:
    """Two bindings that want one port, with their host addresses written out; those whose number is to be chosen want none yet."""
    wanted = [
        (mapping.asked.protocol, mapping.asked.host_port, msgspec.structs.replace(mapping.asked, host_ip=address))
        for mapping in mappings
        if mapping.asked.host_port and not mapping.asked.host_port_end
        for address in mapping.held
    ]
    wanted.sort(key=lambda found: found[:2])
    for index, (protocol, first, binding) in enumerate(wanted):
        for other_protocol, other_first, other in wanted[index + 1 :]:
            if other_protocol != protocol or other_first >= first + binding.count:
                break
            if exclude(binding.host_ip, other.host_ip):
                return binding, other
    return None


def relay(endpoint: Endpoint, binding: PortBinding) -> Relay | None:
    """What the forwarder has to do for a binding; None where NAT does it, or nothing can be done.

    Packets from ::1 cannot leave the host, and NAT does not lead from one IP version to the other.
    """
    if not binding.host_port or binding.protocol == "sctp":
        return None
    own = endpoint.address6 if family(binding.host_ip) == 6 else endpoint.address
    if own and binding.host_ip not in ("::1", ANY[6]):
        return None
    return Relay(
        protocol=binding.protocol,
        host_ip=binding.host_ip,
        host_port=binding.host_port,
        count=binding.count,
        address=(own or endpoint.address or endpoint.address6).split("/")[0],
        port=binding.port,
        loopback=bool(own) and binding.host_ip == ANY[6],
    )
