"""What another backend left behind: a daemon that is started with a new one has the old one's rules beside its own.

A host where there is nothing is asked over netlink and by a file in /proc; no process is started for that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack

from netplug.errors import InvalidArgument, KernelError
from netplug.kernel.firewall import ruleset
from netplug.kernel.firewall.iptables import clear_chains
from netplug.kernel.firewall.iptables_programs import Programs, legacy_tables
from netplug.kernel.firewall.iptables_rules import FAMILIES, SANDBOX_CHAIN
from netplug.kernel.firewall.libnftables import Context
from netplug.kernel.namespaces import MISSING, entered

log = logging.getLogger(__name__)

_KEPT_TABLES = {"nftables": ruleset.TABLES, "iptables": ("bridge netplug",)}
_KEPT_IN_SANDBOXES = {"nftables": (ruleset.SANDBOX_TABLE,), "none": (ruleset.SANDBOX_TABLE,)}


def clean_up(name: str, sandboxes: Iterable[str]) -> list[str]:
    """Take away what backends other than `name` have in the calling thread's namespace and, if there was anything, in the sandboxes.

    Words for each thing taken away.
    """
    variant = Programs().kind if name == "iptables" else ""
    cleaned = _clean(_KEPT_TABLES.get(name, ()), ruleset.TABLES, variant, "filter NETPLUG-FORWARD")
    if cleaned:
        for sandbox in sandboxes:
            try:
                with entered(sandbox):
                    _clean(_KEPT_IN_SANDBOXES.get(name, ()), (ruleset.SANDBOX_TABLE,), variant, f"nat {SANDBOX_CHAIN}")
            except KernelError as error:
                if error.errno not in MISSING:
                    raise
    return cleaned


def _clean(kept: Iterable[str], tables: Iterable[str], kept_variant: str, chain: str) -> list[str]:
    """`chain`: the table and the chain by which ours are known."""
    with ExitStack() as afterwards:
        context = Context()
        afterwards.callback(context.close)
        doomed = [table for table in tables if table not in kept and context.read(table) is not None]
        for table in doomed:
            context.transact(f"delete table {table}")
        families = [family for family in FAMILIES if context.text(f"{family} {chain}")]
    cleaned = [f"table {table}" for table in doomed]
    if kept_variant != "nft":
        cleaned += _clear("nft", families)
    if kept_variant != "legacy" and legacy_tables():
        cleaned += _clear("legacy", FAMILIES)
    return cleaned


def _clear(variant: str, families: Iterable[str]) -> list[str]:
    """Other tools may bring their own program for tables that the host has none for."""
    try:
        return [f"{family} chains of iptables-{variant}" for family in families if clear_chains(Programs(variant), family)]
    except InvalidArgument as error:
        log.warning("whether iptables-%s has chains of ours cannot be told: %s", variant, error)
        return []
