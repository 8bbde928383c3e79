"""All checks at once: the facts are read here, once, and handed to each check. Takes a fifth of a second; run it in a thread."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netplug import settings as settings_file
from netplug.addressing import Ipams
from netplug.errors import NetplugError
from netplug.kernel import chains, company, facts, parts, places, sockets
from netplug.model import Network
from netplug.observe import directories, filters, forwarding, limits, mtu, nodes, pools, ports, programs, sources
from netplug.observe import parts as kernel_parts
from netplug.observe.situation import MTU, Finding, Situation, Wanted

log = logging.getLogger(__name__)


def run(situation: Situation) -> list[Finding]:
    """Every finding, by subject. The calling thread must be in the host's namespace."""
    return list(_findings(situation))


def run_here(values: dict[str, Any], wanted: Wanted) -> list[Finding]:
    """As a daemon with these settings would find things if it started now, in this process' place."""
    return run(Situation(settings=settings_file.decode(values), wanted=wanted))


def advise(network: Network, *, chosen: bool = False, resolv_conf: str = "", room: int = 0) -> list[str]:
    """Sentences on what a network that has just been made may run into; the log gets them too.

    `chosen`: nobody has asked for its subnets, which are free ones. `resolv_conf`: the host's.
    `room`: of a tunnel to another node, 0 without a cluster.
    """
    try:
        sentences = _sentences(network, chosen, resolv_conf, room)
    except NetplugError as error:
        log.warning("what network %s may run into cannot be told: %s", network.name, error)
        return []
    for sentence in sentences:
        log.warning("network %s: %s", network.name, sentence)
    return sentences


def _sentences(network: Network, chosen: bool, resolv_conf: str, room: int) -> list[str]:
    """Half a millisecond, however many links the host has: it looks at those few that matter, where anything can be the matter."""
    routes = facts.host_routes() if network.ipv6 or not chosen else []
    foreign = pools.but_its_own(network, (route for route in routes if not route.ours and not route.default))
    findings = [found for subnet in pools.subnets(network) for found in pools.beside(str(subnet), subnet, foreign)]
    servers = facts.name_servers(resolv_conf) if not chosen else []
    findings += [found for subnet in pools.subnets(network) for found in pools.hiding(str(subnet), subnet, servers)]
    bridge = facts.host_link(mtu.bridge_name(network)) if network.found or MTU in network.options else None
    findings += mtu.of_network(network, [bridge] if bridge else [], _uplinks() if mtu.concerned(network) else [], room)
    findings += sources.of_network(network, sockets.local)
    if network.ipv6:
        findings += forwarding.advertised(routes, facts.value)
    return [f"{found.found}; {found.remedy}" for found in findings if found.result != "ok"]


def _findings(situation: Situation) -> Iterator[Finding]:
    settings = situation.settings
    routes = facts.host_routes()
    node = nodes.look(settings)
    there = parts.parts()
    usage = _usage(situation)
    run_place, state_place = places.place(Path(settings.run_dir)), places.place(Path(settings.state_dir))
    yield from directories.check(situation, usage, run_place, state_place, places.private_mounts())
    yield from pools.check(situation, routes, Ipams(settings.address_pools()), facts.name_servers(settings.resolv_conf))
    yield from _ports(situation, sctp=there["sctp"] is not False)
    yield from forwarding.check(situation, routes, facts.value)
    yield from filters.check(situation, chains.foreign_chains())
    yield from mtu.check(situation, facts.host_links(), _uplinks(), node.room if node is not None else 0)
    yield from nodes.check(situation, node)
    yield from kernel_parts.check(situation, there)
    needed = programs.needs(situation)
    yield from programs.check(needed, programs.look(needed))
    yield from limits.check(situation, limits.hard_limit(), facts.value)


def _ports(situation: Situation, *, sctp: bool) -> Iterator[Finding]:
    asked = [*situation.wanted.bindings(), *(binding for _, binding in situation.waiting)]
    taken = [one for protocol in sorted({binding.protocol for binding in asked}) for one in sockets.bound(protocol)]
    numbers = {number for binding in asked for number in ports.numbers(binding)}
    matter = [one for one in taken if one.port in numbers]
    foreign = frozenset(address for address in {binding.host_ip for binding in asked} if address and not sockets.local(address))
    return ports.check(situation, matter, sockets.owners(one.inode for one in matter), ports.Lacks(foreign, sctp=not sctp))


def _uplinks() -> list[facts.HostLink]:
    """Ways out, of IPv4 and IPv6; one of ours is none."""
    found = (facts.uplink(family) for family in (socket.AF_INET, socket.AF_INET6))
    return list(dict.fromkeys(link for link in found if link is not None and not link.ours))


def _usage(situation: Situation) -> directories.Usage:
    run_lock, state_lock = directories.LOCKS
    settings = situation.settings
    listener = company.listener(settings.socket)
    return directories.Usage(
        facts.lock_holder(Path(settings.run_dir) / run_lock),
        facts.lock_holder(Path(settings.state_dir) / state_lock),
        listener.pid if listener is not None else None,
        company.daemon(),
    )
