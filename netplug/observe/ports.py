"""Published ports: the same one twice in overlapping forms, taken by a program or a container, or what this host cannot hold."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from netplug.kernel.sockets import Bound, Process, meet
from netplug.model import PortBinding
from netplug.observe.situation import Finding, Situation, error, ok, warning

CHECK = "ports"
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")


class Lacks(NamedTuple):
    """What ports are wanted on and this host does not have."""

    addresses: frozenset[str] = frozenset()
    sctp: bool = False


NOTHING = Lacks()


def check(situation: Situation, bound: Sequence[Bound], owners: Mapping[int, Process], lacks: Lacks = NOTHING) -> Iterator[Finding]:
    wanted = list(situation.wanted.bindings())
    for one, other in combinations(wanted, 2):
        if both := clash(one, other):
            yield error(
                CHECK, f"{form(one)} and {form(other)} are the same port {both}/{one.protocol}", "publish one of them on another port"
            )
    yield from (_wanted(binding, holder(binding, situation, bound, owners), lacks) for binding in wanted)
    for name, binding in situation.waiting:
        if taken := holder(binding, situation, bound, owners):
            yield warning(
                CHECK, f"container {name} does not run, and {form(binding)} is taken by {taken}", "it cannot start until that ends"
            )
    count = len(situation.published)
    yield ok(CHECK, f"{count} published by netplug" if count else "none published by netplug")


def _wanted(binding: PortBinding, taken: str, lacks: Lacks) -> Finding:
    if binding.protocol == "sctp" and lacks.sctp:
        remedy = "use a kernel that has it (CONFIG_IP_SCTP), or load its module"
        return error(CHECK, f"{form(binding)} cannot be held: this host's kernel has no SCTP", remedy)
    if _of_one_link(binding.host_ip):
        found = f"{form(binding)} cannot be held: a link-local address belongs to one link only"
        return error(CHECK, found, "give another address of this host, or [::] for all of them")
    if binding.host_ip in lacks.addresses:
        remedy = f"give an address that this host has, or none for all of them; or add {binding.host_ip} to a link first"
        return error(CHECK, f"{form(binding)} cannot be held: {binding.host_ip} is not an address of this host", remedy)
    if taken:
        return error(CHECK, f"{form(binding)} is taken by {taken}", f"choose another host port, or end {taken}")
    return ok(CHECK, f"{form(binding)} is free")


def _of_one_link(address: str) -> bool:
    """Whether a bind would need the link beside the address; IPv4's link-local addresses do without."""
    return ":" in address and ipaddress.IPv6Address(address) in _LINK_LOCAL


def holder(binding: PortBinding, situation: Situation, bound: Sequence[Bound], owners: Mapping[int, Process]) -> str:
    """Who has the port; of a range, who has the last one if all are taken. `""`: it is to be had."""
    if not binding.host_port:
        return ""
    taken = ""
    for port in numbers(binding):
        taken = _holder(binding, port, situation, bound, owners)
        if bool(taken) != (binding.count == 1):  # one of a range is enough; of a row, each is needed
            return taken
    return taken


def numbers(binding: PortBinding) -> range:
    """The host ports that it may take: all of a row, one of a range."""
    first = binding.host_port
    return range(first, max(binding.host_port_end, first + binding.count - 1) + 1)


def _holder(binding: PortBinding, port: int, situation: Situation, bound: Sequence[Bound], owners: Mapping[int, Process]) -> str:
    for name, published in situation.published:
        first = published.host_port
        if published.protocol == binding.protocol and first <= port < first + published.count and meet(binding.host_ip, published.host_ip):
            return f"container {name}"
    for one in bound:
        if (one.protocol, one.port) == (binding.protocol, port) and one.excludes(binding.host_ip):
            return str(owners.get(one.inode, "a program that cannot be seen from here"))
    return ""


def clash(one: PortBinding, other: PortBinding) -> int:
    """The first host port that both need; 0: none. A range of which one is chosen needs none in particular."""
    if one.protocol != other.protocol or not meet(one.host_ip, other.host_ip):
        return 0
    if not (one.host_port and other.host_port) or max(one.host_port_end, other.host_port_end) > max(one.host_port, other.host_port):
        return 0
    both = set(range(one.host_port, one.host_port + one.count)) & set(range(other.host_port, other.host_port + other.count))
    return min(both, default=0)


def form(binding: PortBinding) -> str:
    """As one writes it: `127.0.0.1:8080:80`."""
    address = f"[{binding.host_ip}]" if ":" in binding.host_ip else binding.host_ip
    last = numbers(binding)[-1]
    port = f"{binding.host_port}-{last}" if last > binding.host_port else str(binding.host_port or "")
    return ":".join(part for part in (address, port, f"{binding.port}/{binding.protocol}") if part)
