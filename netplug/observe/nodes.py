"""Whether this host can be a node of the cluster that its settings name; nothing is said where they name none."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from netplug.errors import NetplugError
from netplug.observe.situation import Finding, Situation, error, ok, warning
from netplug.settings import Settings

CHECK = "cluster"
_PATIENCE = 0.5
"""Seconds for a connection to a member of the store."""
_PORT = 2379


class Facts(NamedTuple):
    """`trouble` is why tunnels cannot end here; `members` says of each why no connection is to be had, `""`: it is."""

    trouble: str
    address: str
    mtu: int
    members: Mapping[str, str]
    room: int = 0
    """Of a tunnel, as in `Underlay`; 0 where none can end here."""


def look(settings: Settings) -> Facts | None:
    """None without a cluster."""
    if not settings.store:
        return None
    from netplug.cluster import location  # most hosts are in none
    from netplug.cluster import settings as cluster

    address, mtu, room, trouble = "", 0, 0, ""
    members: list[str] = []
    try:
        members = location.parse(settings.store)[0]
        cluster.check(settings)
        here = cluster.underlay(settings, Path(settings.run_dir) / "netns")
        address, mtu, room = here.address, here.mtu, here.room
    except NetplugError as failure:
        trouble = str(failure)
    return Facts(trouble, address, mtu, {member: _refusal(member) for member in members}, room)


def check(situation: Situation, facts: Facts | None) -> Iterator[Finding]:
    if facts is None:
        return
    if facts.trouble:
        yield error(CHECK, facts.trouble, "correct the daemon's --store, --store-…, --advertise, --node or --vxlan-port")
    else:
        port = situation.settings.vxlan_port
        yield ok(CHECK, f"other nodes reach this one at {facts.address}, UDP port {port}, by a link whose MTU is {facts.mtu}")
    away = {member: reason for member, reason in facts.members.items() if reason}
    for member, reason in away.items():
        found = f"no connection to {member} of the store: {reason}"
        if len(away) == len(facts.members):
            yield error(CHECK, found, "start etcd, or correct --store")
        else:
            yield warning(CHECK, found, "nothing to do as long as most of the members are there")
    if here := [member for member in facts.members if member not in away]:
        yield ok(CHECK, f"of the store answer {', '.join(here)}")


def _refusal(member: str) -> str:
    host, separator, port = member.rpartition(":")
    if not separator or "]" in port:
        host, port = member, str(_PORT)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, ValueError) as failure:
        return getattr(failure, "strerror", None) or str(failure)
    return ""
