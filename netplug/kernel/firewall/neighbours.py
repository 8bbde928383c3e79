"""Other tools' firewalls that drop by default: what we allow has to pass there too.

An accept ends our own chain only, a drop anywhere is final. What our chains allow carries the mark bit 0x1000 (`ruleset`), so one rule that
never changes goes where the other tool looks: DOCKER-USER where it is (dockerd flushes FORWARD's, and leaves that one to others), else the
forward chain itself. It stands behind what an administrator or a tool drops by name, and before what is dropped for want of a rule. What
our chains refuse stays refused.
"""

from __future__ import annotations

import errno
import logging
import shlex
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from netplug.errors import KernelError
from netplug.kernel.firewall import legacy, processes
from netplug.kernel.firewall.libnftables import Context
from netplug.kernel.firewall.verdicts import Chain, Chains, Drops, Expression, Rule, chain_drops, chains, forwarding, place

PRIORITIES = {"nftables": -10, "iptables": 0}
"""By backend: where our forward chain sets the mark. Chains before it cannot know what we allow."""
MARK = 0x1000
COMMENT = "netplug"
_FAMILIES = ("ip", "ip6", "inet")
_OUR_TABLE = "netplug"
_OUR_CHAIN = "NETPLUG-FORWARD"
"""The iptables backend's own accepts are in that very table."""
_DOCKER = "DOCKER-USER"
_RULE = f'meta mark and {MARK:#x} == {MARK:#x} counter accept comment "{COMMENT}"'
_LEGACY_RULE = f"-m mark --mark {MARK:#x}/{MARK:#x} -m comment --comment {COMMENT} -j ACCEPT"
_LEGACY_PROGRAMS = {"ip": "iptables-legacy", "ip6": "ip6tables-legacy"}
_NFT_PROGRAMS = {"ip filter": "iptables-nft", "ip6 filter": "ip6tables-nft"}
_ATTEMPTS = 3

log = logging.getLogger(__name__)


class Placed(NamedTuple):
    """A rule of ours that has been put in."""

    chain: str
    """`ip filter DOCKER-USER`; legacy tables say so."""
    how: Literal["new", "again", "moved"]
    """`again`: it had been taken away. `moved`: what it has to stand behind or before has changed."""


class _Move(NamedTuple):
    """Take away the rules with these handles, and put one in before that number of a chain's rules without them."""

    doomed: list[tuple[str, Rule]]
    goals: list[tuple[Chain, int]]


class Neighbours:
    """Of the namespace where it is made. `priority`: of our own forward chain."""

    def __init__(self, priority: int) -> None:
        self._priority = priority
        self._placed: set[str] = set()
        self._warned: set[str] = set()

    def adjust(self) -> list[Placed]:
        """Put our rule where it is needed and missing, and take it out of where it is of no more use."""
        placed = [one for table in self._tables() for one in self._adjust_table(table)]
        for family in legacy.FAMILIES:
            placed += self._adjust_legacy(family)
        return placed

    def lacking(self) -> list[str]:
        """Chains that `adjust` would put our rule into."""
        moves = {table: self._move(table, self._listing(table)) for table in self._tables()}
        return [f"{table} {chain.name}" for table, move in moves.items() if move is not None for chain, _ in move.goals]

    def withdraw(self) -> list[str]:
        """Take all our rules out again; the chains that had one."""
        found = []
        for table in self._tables():
            listing = self._listing(table)
            for name, rule in _ours(listing):
                self._host.transact(f"delete rule {table} {name} handle {rule.handle}")
                found.append(f"{table} {name}")
        for family, program in _legacy_programs():
            for name, _ in _ours(_legacy_listing(program)):
                processes.run([program, "-w", "-D", name, *shlex.split(_LEGACY_RULE)])
                found.append(f"{family} filter {name} (legacy)")
        self._placed.clear()
        return found

    @cached_property
    def _host(self) -> Context:
        return Context()

    def _tables(self) -> list[str]:
        """Others' tables with a forward chain: `ip filter`."""
        listing = self._host.json("list chains") or {"nftables": []}
        found = [item["chain"] for item in listing["nftables"] if "chain" in item]
        return sorted(
            {
                f"{chain['family']} {chain['table']}"
                for chain in found
                if chain.get("hook") == "forward" and chain["family"] in _FAMILIES and chain["table"] != _OUR_TABLE
            }
        )

    def _listing(self, table: str) -> Chains:
        found = chains(self._host.json(f"list table {table}") or {"nftables": []})
        return {name: Chain(name, _named(table, chain), *chain[2:]) for name, chain in found.items()}

    def _adjust_table(self, table: str) -> Iterator[Placed]:
        for _ in range(_ATTEMPTS):
            move = self._move(table, self._listing(table))
            if move is None:
                return
            try:
                self._host.transact("\n".join(_commands(table, move)))
            except KernelError as error:
                if error.errno == errno.ENOENT:  # the other tool was at work between looking and doing
                    continue
                self._warn(
                    table,
                    f"{table} drops what netplug allows, and takes no rule of ours ({error}): allow there the mark {MARK:#x}/{MARK:#x}",
                )
                return
            yield from (self._note(f"{table} {chain.name}", moved=bool(move.doomed)) for chain, _ in move.goals)
            return

    def _adjust_legacy(self, family: str) -> Iterator[Placed]:
        program = dict(_legacy_programs()).get(family)
        if program is None:
            return
        move = self._move(f"{family} filter (legacy)", _legacy_listing(program))
        if move is None:
            return
        rule = shlex.split(_LEGACY_RULE)
        for name, _ in move.doomed:
            processes.run([program, "-w", "-D", name, *rule])
        for chain, number in move.goals:
            done = processes.run([program, "-w", "-I", chain.name, str(number + 1), *rule])
            if done.returncode:
                log.error("%s: %s", program, done.stderr.strip())
            else:
                yield self._note(f"{family} filter {chain.name} (legacy)", moved=bool(move.doomed))

    def _move(self, table: str, listing: Chains) -> _Move | None:
        """What has to be done in a table; None where all is well."""
        ours = _ours(listing)
        goals = [] if _OUR_CHAIN in listing else list(self._goals(table, listing))
        if not goals or (len(ours) == len(goals) and all(_stands(chain, number) for chain, number in goals)):
            return None
        return _Move(ours, goals)

    def _goals(self, table: str, listing: Chains) -> Iterator[tuple[Chain, int]]:
        """Chains that need our rule, and before which of their other rules."""
        bare = {name: Chain(name, [rule for rule in chain.rules if not _is_ours(rule)], *chain[2:]) for name, chain in listing.items()}
        for base in forwarding(bare):
            if chain_drops(bare, base.name) is not Drops.REST:
                continue
            if base.priority <= self._priority:
                self._warn(f"{table} {base.name}", self._hopeless(table, base))
            if base.priority < self._priority:
                continue  # of two with one priority, the older one comes last
            number = place(bare, base.rules)
            if any(not rule.conditions and rule.target() == _DOCKER for rule in base.rules[: number + 1]) and _DOCKER in bare:
                yield listing[_DOCKER], place(bare, bare[_DOCKER].rules)
            else:
                yield listing[base.name], number

    def _hopeless(self, table: str, chain: Chain) -> str:
        return (
            f"{table} {chain.name} drops what nothing in it allows, before netplug says what it allows (its priority is {chain.priority}):"
            f" allow there what goes into the networks' bridges and out of them, or give that chain a priority above {self._priority}"
        )

    def _warn(self, about: str, words: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            log.warning("%s", words)

    def _note(self, chain: str, *, moved: bool) -> Placed:
        known = chain in self._placed
        self._placed.add(chain)
        return Placed(chain, "moved" if moved else "again" if known else "new")


def _commands(table: str, move: _Move) -> Iterator[str]:
    for chain, number in move.goals:
        others = [rule for rule in chain.rules if not _is_ours(rule)]
        if number < len(others):
            yield f"insert rule {table} {chain.name} handle {others[number].handle} {_RULE}"
        else:
            yield f"add rule {table} {chain.name} {_RULE}"
    for name, rule in move.doomed:
        yield f"delete rule {table} {name} handle {rule.handle}"


def _stands(chain: Chain, number: int) -> bool:
    """Whether the chain has our rule, once, and just there."""
    return [position for position, rule in enumerate(chain.rules) if _is_ours(rule)] == [number]


def _ours(listing: Chains) -> list[tuple[str, Rule]]:
    return [(chain.name, rule) for chain in listing.values() for rule in chain.rules if _is_ours(rule)]


def _is_ours(rule: Rule) -> bool:
    return rule.comment == COMMENT and rule.says("accept")


def _named(table: str, chain: Chain) -> list[Rule]:
    """With the comment of our rules as iptables-restore writes them: in xtables matches, which nft cannot look into."""
    suspects = [number for number, rule in enumerate(chain.rules) if rule.says("accept") and "comment" in rule.extensions("match")]
    program = shutil.which(_NFT_PROGRAMS.get(table, "")) if suspects else None
    if program is None:
        return chain.rules
    lines = processes.run([program, "-S", chain.name]).stdout.splitlines()
    said = [shlex.split(line)[2:] for line in lines if line.startswith("-A ")]
    rule = shlex.split(_LEGACY_RULE)
    return [
        one._replace(comment=COMMENT) if number in suspects and said[number : number + 1] == [rule] else one
        for number, one in enumerate(chain.rules)
    ]


def _legacy_programs() -> list[tuple[str, str]]:
    """By family, where there is a legacy table `filter`."""
    present = {table.name for table in legacy.signature()}
    return [(family, program) for family, program in _LEGACY_PROGRAMS.items() if f"{family} filter" in present and shutil.which(program)]


def _legacy_listing(program: str) -> Chains:
    """As nft would print it, from what `iptables -S` prints."""
    found: Chains = {}
    for line in processes.run([program, "-w", "-S"]).stdout.splitlines():
        verb, name, *words = shlex.split(line)
        if verb in ("-P", "-N"):
            policy = words[0].lower() if words else "accept"
            found[name] = Chain(name, [], "forward" if name == "FORWARD" else "", 0, policy)
        elif verb == "-A":
            found[name].rules.append(Rule(0, _expressions(words), _comment(words)))
    return found


def _comment(words: Sequence[str]) -> str:
    return words[words.index("--comment") + 1] if "--comment" in words else ""


def _expressions(words: Sequence[str]) -> list[Expression]:
    verdicts = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "LOG": "log", "NFLOG": "log"}
    found: list[Expression] = []
    for word, value in zip(words, [*words[1:], ""], strict=True):
        if word in ("-i", "-o"):
            found.append({"match": {"left": {"meta": {"key": "iifname"}}}})
        elif word in ("-s", "-d", "-p") or (word == "-m" and value != "comment"):
            found.append({"match": {"left": value}})
        elif word in ("-j", "-g"):
            found.append({verdicts[value]: None} if value in verdicts else {"jump": {"target": value}})
    return found


def judged(table: str, listing: Chains) -> tuple[list[str], bool]:
    """Which chains of a table drop what nothing in them allows, our own rules left out; and whether there is one of ours."""
    named = {name: Chain(name, _named(table, chain), *chain[2:]) for name, chain in listing.items()}
    bare = {name: Chain(name, [rule for rule in chain.rules if not _is_ours(rule)], *chain[2:]) for name, chain in named.items()}
    dropping = [chain.name for chain in forwarding(bare) if chain_drops(bare, chain.name) is Drops.REST]
    return dropping, bool(_ours(named)) or _OUR_CHAIN in listing


def legacy_listings() -> Iterator[tuple[str, Chains]]:
    """By family, the legacy tables `filter` that there are."""
    for family, program in _legacy_programs():
        yield family, _legacy_listing(program)
