"""Limits that a host runs into when it has many containers: descriptors, tracked flows, neighbours."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from netplug.observe.forwarding import Read
from netplug.observe.situation import Finding, Situation, error, ok, warning

CHECK = "limits"
DESCRIPTORS_EACH = 8
"""Of the daemon for one container, at most: its streams, its pidfd, its ports."""
_SPARE = 512
_FULL = 0.8


def check(situation: Situation, descriptors: int, read: Read) -> Iterator[Finding]:
    """`descriptors`: how many files this process may open (the daemon raises its soft limit to the hard one)."""
    findings = [*_descriptors(situation, descriptors), *_flows(read), *_neighbours(situation, read)]
    yield from findings or [ok(CHECK, f"{descriptors} descriptors; tracked flows and neighbours have room")]


def hard_limit() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def _descriptors(situation: Situation, descriptors: int) -> Iterator[Finding]:
    room = max(descriptors - _SPARE, 0) // DESCRIPTORS_EACH
    if room < max(100, situation.endpoints):
        found = f"the daemon may open {descriptors} files: enough for about {room} containers"
        yield warning(CHECK, found, "LimitNOFILE=1048576 in the unit, or ulimit -Hn 1048576")


def _flows(read: Read) -> Iterator[Finding]:
    count, most = read("net.netfilter.nf_conntrack_count"), read("net.netfilter.nf_conntrack_max")
    if count is None or not most or count < most * _FULL:
        return
    remedy = f"sysctl -w net.netfilter.nf_conntrack_max={most * 4}"
    found = f"{count} of {most} flows are tracked"
    yield (
        error(CHECK, f"{found}: new connections are dropped", remedy) if count >= most else warning(CHECK, f"{found}: nearly full", remedy)
    )


def _neighbours(situation: Situation, read: Read) -> Iterator[Finding]:
    """gc_thresh3 counts the whole machine's neighbours; a container is one on its bridge, and has its gateway."""
    for version in ("ipv4", "ipv6"):
        most = read(f"net.{version}.neigh.default.gc_thresh3")
        if most is not None and situation.endpoints * 2 > most * _FULL:
            key = f"net.{version}.neigh.default.gc_thresh3"
            found = f"{situation.endpoints} endpoints have up to {situation.endpoints * 2} neighbour entries, and {key} is {most}"
            yield warning(CHECK, found, f"sysctl -w {key}={max(8192, situation.endpoints * 8)}")
