"""What another tool's forward chain does to packets that nothing in it speaks of, and where in it a rule of ours belongs. Pure.

Chains are read as `nft -j list table` prints them (libnftables-json(5)), those of iptables-nft too. A rule that drops what it names (an
address, a port) is somebody's will and stays before ours; one that drops all the rest, or all that is left of an interface, is what
ours has to come before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

Expression: TypeAlias = Mapping[str, Any]

_INTERFACES = frozenset({"iif", "oif", "iifname", "oifname", "iiftype", "oiftype", "ibrname", "obrname"})
_SILENT = frozenset({"counter", "log", "mangle", "notrack", "flow", "dup", "set"})


class Drops(enum.IntEnum):
    """How much of what reaches a rule or chain ends there."""

    NOTHING = 0
    SOME = 1
    REST = 2
    """Everything, or everything of an interface."""


class Rule(NamedTuple):
    handle: int
    expressions: Sequence[Expression]
    comment: str = ""

    def says(self, *keys: str) -> bool:
        return any(key in expression for expression in self.expressions for key in keys)

    def target(self) -> str:
        """The chain that it leads to."""
        for expression in self.expressions:
            for key in ("jump", "goto"):
                if key in expression:
                    return str(expression[key]["target"])
        return ""

    def extensions(self, kind: str) -> list[str]:
        """xtables matches or targets, which nft knows by name only."""
        found = [expression["xt"] for expression in self.expressions if isinstance(expression.get("xt"), dict)]
        return [str(one["name"]) for one in found if one.get("type") == kind]

    @property
    def drops(self) -> bool:
        return self.says("drop", "reject") or not {"DROP", "REJECT"}.isdisjoint(self.extensions("target"))

    @property
    def conditions(self) -> list[Expression]:
        return [expression for expression in self.expressions if not _acts(expression)]

    @property
    def by_interface(self) -> bool:
        """Whether it asks for nothing but interfaces, if it asks for anything."""
        return all(_is_interface(condition) for condition in self.conditions)


class Chain(NamedTuple):
    name: str
    rules: list[Rule]
    hook: str = ""
    priority: int = 0
    policy: str = "accept"


Chains: TypeAlias = dict[str, Chain]


def chains(listing: Mapping[str, Any]) -> Chains:
    """The chains of one table's listing, with their rules."""
    found: Chains = {}
    for item in listing["nftables"]:
        if "chain" in item:
            chain = item["chain"]
            found[chain["name"]] = Chain(chain["name"], [], chain.get("hook", ""), chain.get("prio", 0), chain.get("policy", "accept"))
        elif "rule" in item:
            rule = item["rule"]
            found[rule["chain"]].rules.append(Rule(rule["handle"], rule["expr"], rule.get("comment", "")))
    return found


def chain_drops(table: Chains, name: str, within: frozenset[str] = frozenset()) -> Drops:
    """The policy included."""
    chain = table.get(name)
    if chain is None or name in within:
        return Drops.NOTHING
    most = Drops.NOTHING
    for rule in chain.rules:
        most = max(most, rule_drops(table, rule, within | {name}))
        if not rule.conditions and rule.says("accept", "return", "goto"):
            return most
    return Drops.REST if chain.policy == "drop" else most


def rule_drops(table: Chains, rule: Rule, within: frozenset[str] = frozenset()) -> Drops:
    if rule.drops:
        return Drops.SOME if rule.conditions else Drops.REST
    drops = chain_drops(table, rule.target(), within) if rule.target() else Drops.NOTHING
    return drops if rule.by_interface else min(drops, Drops.SOME)


def place(table: Chains, rules: Sequence[Rule]) -> int:
    """Before which of a chain's rules an accept belongs: as late as it can be of use, and before rules that only log."""
    position = next((number for number, rule in enumerate(rules) if _ends(table, rule)), len(rules))
    while position and rule_drops(table, rules[position - 1]) == Drops.NOTHING:
        position -= 1
    return position


def forwarding(table: Chains) -> Iterable[Chain]:
    """Base chains that see forwarded packets."""
    return [chain for chain in table.values() if chain.hook == "forward"]


def _ends(table: Chains, rule: Rule) -> bool:
    return rule_drops(table, rule) == Drops.REST or (not rule.conditions and rule.says("return"))


def _acts(expression: Expression) -> bool:
    """A verdict or a side effect; else it is a condition."""
    if "xt" in expression:
        one = expression["xt"]
        return isinstance(one, dict) and one.get("type") == "target"
    return not _SILENT.isdisjoint(expression) or not {"accept", "drop", "reject", "return", "jump", "goto", "continue"}.isdisjoint(
        expression
    )


def _is_interface(condition: Expression) -> bool:
    left = condition.get("match", {}).get("left", {})
    return isinstance(left, dict) and left.get("meta", {}).get("key") in _INTERFACES
