"""Ways to the networks of other nodes: which of them this host may have a route to, and why not to the others. Pure.

A route of ours never takes a subnet away from anybody: not from a network of this host, not from a route that the host has already, not
from a node that was there before.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from netplug.kernel.addresses import IPNetwork
from netplug.kernel.lan import Known, Neighbour
from netplug.model import Network, Reachable
from netplug.plan import Plan, Route


@dataclass(frozen=True, slots=True)
class Way:
    """To one subnet. With a `reason` there is no route of ours; where the host has the very same route from somebody else, that is `kept`.

    One that no network of this host would use is not `needed`.
    """

    subnet: str
    via: str
    node: str
    network: str
    """Its name on that node."""
    link: str = ""
    kept: bool = False
    needed: bool = True
    reason: str = ""

    @property
    def route(self) -> Plan:
        """What leads there, as far as it is for us to make."""
        return () if self.reason or self.kept else (Route(destination=self.subnet, link=self.link, gateway=self.via),)

    @property
    def status(self) -> str:
        if self.reason:
            return f"{'skipped' if self.needed else 'not needed'}: {self.reason}"
        return "installed by somebody else" if self.kept else "installed"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is on this host."""

    networks: Sequence[Network]
    versions: frozenset[int]
    """IP versions of the networks that are to reach others."""
    others: Sequence[Known]
    neighbour: Callable[[str], Neighbour]


def ways(published: Iterable[Reachable], here: Surroundings) -> list[Way]:
    """One for each subnet, those of older networks first."""
    found: list[Way] = []
    for network in sorted(published, key=lambda one: (one.created, one.node, one.network)):
        for text in network.subnets:
            subnet = ipaddress.ip_network(text)
            via = next((via for via in network.via if ipaddress.ip_address(via).version == subnet.version), "")
            found.append(_judged(Way(text, via, network.node, network.network), subnet, found, here))
    return found


def _judged(way: Way, subnet: IPNetwork, before: Sequence[Way], here: Surroundings) -> Way:
    if subnet.version not in here.versions:
        return replace(way, needed=False, reason=f"no network of this host with netplug.routes=cluster has IPv{subnet.version}")
    if not way.via:
        return replace(way, reason=f"node {way.node} has no IPv{subnet.version} address beside the one that it advertises")
    if reason := _local(subnet, here.networks) or _elder(subnet, before):
        return replace(way, reason=reason)
    met = [known for known in here.others if _overlap(known.subnet, subnet)]
    same = Known(subnet, way.via)
    if strange := [known for known in met if known != same]:
        through = f" through {strange[0].gateway}" if strange[0].gateway else ""
        return replace(way, reason=f"this host has a way to {strange[0].subnet}{through} already")
    link, reason = here.neighbour(way.via)
    return replace(way, link=link, kept=same in met, reason=reason)


def _local(subnet: IPNetwork, networks: Iterable[Network]) -> str:
    for network in networks:
        for pool in network.pools:
            if _overlap(ipaddress.ip_network(pool.subnet), subnet):
                return f"it overlaps {pool.subnet} of network {network.name} of this host"
    return ""


def _elder(subnet: IPNetwork, before: Iterable[Way]) -> str:
    for way in before:
        if way.link and _overlap(ipaddress.ip_network(way.subnet), subnet):
            return f"it overlaps {way.subnet} of network {way.network} on node {way.node}"
    return ""


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def readable(network: Reachable) -> bool:
    """Whether somebody has published subnets and addresses, and nothing else."""
    try:
        for text in network.subnets:
            ipaddress.ip_network(text)
        for text in network.via:
            ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def clash(subnets: Iterable[str], published: Mapping[str, Reachable]) -> tuple[str, str, Reachable] | None:
    """One of ours, one of another node's that it overlaps, and whose that is."""
    for text in subnets:
        for network in published.values():
            for other in network.subnets:
                if _overlap(ipaddress.ip_network(text), ipaddress.ip_network(other)):
                    return text, other, network
    return None
