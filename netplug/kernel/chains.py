"""Other tools' firewall chains, and what each does to what we have accepted: looked at, never changed.

nft and iptables are asked as programs: whoever looks may be in a thread beside the daemon's, and libnftables serves one thread only.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

from netplug.kernel.firewall import neighbours, processes
from netplug.kernel.firewall.verdicts import Chains, chains, forwarding

_OURS = "netplug"
_FAMILIES = ("ip", "ip6", "inet")


class Chain(NamedTuple):
    """`priority` of one that sees what is forwarded, else None. `drops`: all of that which nothing in it allows."""

    table: str
    """`ip filter`"""
    name: str
    priority: int | None = None
    drops: bool = False
    ours: bool = False
    """A rule in its table lets through what we have marked as accepted."""
    legacy: bool = False

    def __str__(self) -> str:
        return f"{'iptables-legacy ' if self.legacy else ''}{self.table} {self.name}"


def foreign_chains() -> list[Chain] | None:
    """Of all tables but ours, in the calling thread's namespace; None where there is no nft to ask."""
    nft = shutil.which("nft")
    if nft is None:
        return None
    answer = processes.run([nft, "-j", "list", "ruleset"]).stdout
    found = [chain for table, listing in _tables(json.loads(answer or '{"nftables": []}')) for chain in _judged(table, listing)]
    for family, listing in neighbours.legacy_listings():
        found += _judged(f"{family} filter", listing, legacy=True)
    return found


def _tables(answer: dict[str, Any]) -> Iterator[tuple[str, Chains]]:
    """The chains of each table."""
    items: dict[str, list[dict[str, Any]]] = {}
    for item in answer["nftables"]:
        for inner in item.values():
            if isinstance(inner, dict) and "table" in inner and inner["table"] != _OURS:
                items.setdefault(f"{inner['family']} {inner['table']}", []).append(item)
    for table, found in items.items():
        yield table, chains({"nftables": found})


def _judged(table: str, listing: Chains, *, legacy: bool = False) -> Iterator[Chain]:
    drops, ours = neighbours.judged(table, listing)
    bases = {chain.name: chain.priority for chain in forwarding(listing)} if table.split()[0] in _FAMILIES else {}
    for name in listing:
        yield Chain(table, name, bases.get(name), name in drops and name in bases, ours, legacy)
