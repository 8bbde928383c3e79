"""What iptables cannot do: frames that stay inside a bridge never reach it. So nftables' table `bridge netplug` judges them here too.

A kernel without nf_tables has no such table: then `icc=false` and anti-spoofing are refused, rather than promised in vain.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from functools import cached_property

from netplug.errors import KernelError
from netplug.kernel.firewall import ruleset
from netplug.kernel.firewall.elements import Elements, Place, additions, deletions, elements
from netplug.kernel.firewall.libnftables import Context
from netplug.kernel.firewall.listing import Listing
from netplug.kernel.netlink import NETLINK_NETFILTER
from netplug.plan import AllowPeer, Guard, Op

TABLE = "bridge netplug"
_USER_CHAIN = f"{TABLE} {ruleset.USER}"


def part(text: str) -> str:
    """What concerns the table, of nft commands that concern several."""
    lines: list[str] = []
    ours = False
    for line in text.splitlines(keepends=True):
        if not line.startswith(("\t", "}", "\n")):
            ours = TABLE in line
        if ours:
            lines.append(line)
    return "".join(lines)


BASE, EMPTY, CLEAR = part(ruleset.base()), part(ruleset.EMPTY), part(ruleset.CLEAR)


def is_ours(place: Place) -> bool:
    return place.set.startswith(f"{TABLE} ")


def peers(op: Op) -> Elements:
    """The elements that make `op` true inside its bridge."""
    if not isinstance(op, Guard | AllowPeer):
        return {}
    return {place: value for place, value in elements(op).items() if is_ours(place)}


class BridgeTable:
    """The table in the host; the calling thread is there."""

    def __init__(self) -> None:
        self._whole = Listing()
        """As it was after the last load."""
        self._user = ""
        """The administrator's chain, as nft would load it again, when last seen whole."""

    def read(self) -> Elements:
        """Its elements."""
        self._user = self._context.text(_USER_CHAIN)
        return {place: value for place, value in (self._context.read(TABLE) or {}).items() if place.set in ruleset.SETS}

    def load(self, state: Mapping[Place, str]) -> None:
        """Rules and elements, in one transaction. The administrator's chain stays; it comes back where all our chains are gone or empty."""
        emptied = not any(len(rules) > 1 for rules in self._list().chains.values())
        text = "\n".join((BASE, EMPTY, *additions(_of_bridge(state))))
        try:
            self._context.transact(f"{text}\n{self._user if emptied else ''}")
        except KernelError:  # another version's table, with sets that are declared otherwise
            self._context.transact(f"{CLEAR}{text}\n{self._user}")
        self._whole = self._list()
        self._user = self._context.text(_USER_CHAIN)

    def change(self, delete: Iterable[Place], add: Mapping[Place, str]) -> None:
        commands = deletions(place for place in delete if is_ours(place)) + additions(_of_bridge(add))
        if commands:
            self._context.transact("\n".join(commands))

    def gaps(self, state: Mapping[Place, str]) -> list[str]:
        """Words for what is missing of the table and of `state`."""
        found = self._list()
        words = found.damage(self._whole)
        words += [f"{place.key} in {place.set}" for place in state if is_ours(place) and place not in found.elements]
        if not words:
            self._user = self._context.text(_USER_CHAIN)
        return words

    def elements(self) -> Elements:
        """Those that are there, as nft lists them."""
        return {place: value for place, value in self._list().elements.items() if place.set in ruleset.SETS}

    def clear(self) -> None:
        self._context.transact(CLEAR)
        self._user = ""

    def _list(self) -> Listing:
        found = Listing()
        self._context.list(TABLE, found)
        return found

    @cached_property
    def _context(self) -> Context:
        try:
            # libnftables ends the process where the kernel has no netfilter over netlink.
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER).close()
        except OSError as error:
            raise KernelError(error.errno or errno.EPROTONOSUPPORT, "open an nftables context") from None
        return Context()


def _of_bridge(state: Mapping[Place, str]) -> Elements:
    return {place: value for place, value in state.items() if is_ours(place)}
