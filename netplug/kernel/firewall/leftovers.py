"""What another backend left behind: a daemon that is started with a new one has the old one's rules beside its own.

They are looked for over netlink and by a file in /proc; a process is started only where there are legacy tables, or something to take away.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterable, Iterator

from netplug.errors import InvalidArgument, KernelError
from netplug.kernel.firewall import Leftover, ruleset
from netplug.kernel.firewall.iptables import clearing_document
from netplug.kernel.firewall.iptables_programs import Programs, legacy_tables
from netplug.kernel.firewall.iptables_rules import FAMILIES, SANDBOX, TABLES
from netplug.kernel.firewall.libnftables import Context
from netplug.kernel.namespaces import MISSING, entered
from netplug.kernel.netlink import NETLINK_NETFILTER, Message, Socket, parse_attributes, parse_text
from netplug.kernel.syscalls import asked
from netplug.plan import HOST, inside

log = logging.getLogger(__name__)

_KEPT_TABLES = {"nftables": ruleset.TABLES, "iptables": ("bridge netplug",)}
_KEPT_IN_SANDBOXES = {"nftables": (ruleset.SANDBOX_TABLE,), "none": (ruleset.SANDBOX_TABLE,)}

_GETTABLE, _GETCHAIN = 10 << 8 | 1, 10 << 8 | 4  # NFNL_SUBSYS_NFTABLES, NFT_MSG_…
_TABLE_NAME, _CHAIN_TABLE, _CHAIN_NAME = 1, 1, 3
_INFO = struct.Struct("=BBH")  # family, version, resource
_FAMILY_NAMES = {1: "inet", int(socket.AF_INET): "ip", 7: "bridge", int(socket.AF_INET6): "ip6"}


def find(name: str, sandboxes: Iterable[str]) -> list[Leftover]:
    """What backends other than `name` have in the calling thread's namespace and in the sandboxes; nothing is changed."""
    variant = Programs().kind if name == "iptables" else ""
    found = list(_there(HOST, _KEPT_TABLES.get(name, ()), variant))
    for sandbox in sandboxes:
        try:
            with entered(sandbox):
                found += _there(sandbox, _KEPT_IN_SANDBOXES.get(name, ()), variant)
        except KernelError as error:
            if error.errno not in MISSING:
                raise
    return found


def remove(leftovers: Iterable[Leftover]) -> None:
    """Take them away, chains of the administrator's included."""
    for leftover in leftovers:
        with entered(leftover.namespace):
            if leftover.table:
                context = Context()
                try:
                    context.transact(f"delete table {leftover.table}")
                finally:
                    context.close()
            else:
                programs = Programs(leftover.variant)
                if document := clearing_document(programs, leftover.family):
                    programs.restore(leftover.family, document)


def clean_up(name: str, sandboxes: Iterable[str]) -> list[str]:
    """Take away what backends other than `name` have in the calling thread's namespace and, if there was anything, in the sandboxes.

    Words for each thing taken away from the host.
    """
    found = find(name, ())
    if found:
        remove(find(name, sandboxes))
    return [leftover.words for leftover in found]


def _there(namespace: str, kept: Iterable[str], kept_variant: str) -> Iterator[Leftover]:
    """In the calling thread's namespace, which is that one."""
    tables = {f"{family} {table}" for family, table in _listed(_GETTABLE, _TABLE_NAME)}
    ours = (ruleset.SANDBOX_TABLE,) if namespace else ruleset.TABLES
    for table in ours:
        if table in tables and table not in kept:
            yield Leftover(namespace, f"table {table}", (inside(namespace, f"nft delete table {table}"),), table=table)
    names = {(table.family, table.name, chain) for table in ((SANDBOX,) if namespace else TABLES) for chain in table.chains}
    if kept_variant != "nft":
        chains = set(_listed(_GETCHAIN, _CHAIN_TABLE, _CHAIN_NAME))
        for family in FAMILIES:
            if any(name in names for name in chains if name[0] == family):
                yield from _of_iptables(namespace, "nft", family)
    if kept_variant != "legacy" and legacy_tables():
        for family in FAMILIES:
            yield from _of_iptables(namespace, "legacy", family)


def _of_iptables(namespace: str, variant: str, family: str) -> Iterator[Leftover]:
    """Other tools may bring their own program for tables that the host has none for."""
    programs = Programs(variant)
    try:
        document = clearing_document(programs, family)
    except InvalidArgument as error:
        log.warning("whether iptables-%s has chains of ours cannot be told: %s", variant, error)
        return
    if document:
        restore = inside(namespace, f"{programs.name(family)}-restore --noflush <<'EOF'\n{document}EOF")
        yield Leftover(namespace, f"{family} chains of iptables-{variant}", (restore,), variant=variant, family=family)


def _listed(what: int, *kinds: int) -> Iterator[tuple[str, ...]]:
    """Of each object that nf_tables has in the calling thread's namespace: its family, and the attributes of these kinds."""
    with asked("read what nf_tables has"), Socket(NETLINK_NETFILTER) as netlink:
        for body in netlink.dump(Message(what, _INFO.pack(socket.AF_UNSPEC, 0, 0))):
            found = parse_attributes(body, _INFO.size)
            yield _FAMILY_NAMES.get(body[0], ""), *(parse_text(found[kind]) for kind in kinds)
