"""Our chains as iptables-save lists them, and what iptables-restore is to be told so that they hold our rules. Pure.

A document for `iptables-restore --noflush` is a few lines per table: `:CHAIN` makes a chain or empties it, then -A, -I and -D. Counters of
rules that are not named in it stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from netplug.kernel.firewall.elements import Elements, Place
from netplug.kernel.firewall.iptables_rules import USER, Table, chain_of, goes_first, text_of

Chains: TypeAlias = dict[str, list[str]]
"""The rules of each chain of a table."""

_RULE = re.compile(r"(?:(?P<match>.*?) )?(?P<target>-[jg] .*)")


def read_listing(text: str) -> dict[str, Chains]:
    """Each table's chains, as iptables-save prints them."""
    found: dict[str, Chains] = {}
    table: Chains = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = found.setdefault(line[1:], {})
        elif line.startswith(":"):
            table[line[1:].split(" ", 1)[0]] = []
        elif line.startswith("-A "):
            _, chain, words = (*line.split(" ", 2), "")[:3]
            table[chain].append(words)
    return found


def read_rules(table: Table, chains: Chains) -> Elements:
    """The rules of ops among those that are there; rules of the administrator's chain are none."""
    return {
        _read_rule(f"{table.family} {table.name} {chain}", words): _target(words)
        for chain, fixed in table.chains.items()
        if chain != USER
        for words in chains.get(chain, ())
        if words not in fixed
    }


def gaps(table: Table, chains: Chains, state: Mapping[Place, str]) -> list[str]:
    """Words for each thing of ours that is missing."""
    where = f"{table.family} {table.name}"
    lost = [chain for chain in table.chains if chain not in chains]
    if len(lost) == len(table.chains):
        return [f"our chains in {where}"]
    words = [f"chain {chain} in {where}" for chain in lost]
    words += [f"rule {rule} in {where} {chain}" for chain, rule in _jumps_missing(table, chains)]
    for chain, wanted in _filled(table, state).items():
        present = set(chains.get(chain, wanted))
        words += [f"rule {rule} in {where} {chain}" for rule in wanted if rule not in present]
    return words


def repair(table: Table, chains: Chains, state: Mapping[Place, str], user: Sequence[str] = ()) -> list[str]:
    """The lines of a document that makes our chains hold `state`, and nothing else; none if they do.

    The administrator's chain is made if it is missing. It gets the rules `user` where ours are gone too: one who empties it alone means it.
    """
    lines: list[str] = []
    declared = [f":{chain} - [0:0]" for chain in table.chains if chain == USER and chain not in chains]
    for chain, wanted in _filled(table, state).items():
        if chain not in chains or not _in_order(chains[chain], wanted, len(table.chains[chain])):
            declared.append(f":{chain} - [0:0]")  # this empties it, too
            lines += [f"-A {chain} {rule}" for rule in wanted]
    for built_in in dict(table.jumps):
        wanted = [text for chain, text in table.jumps if chain == built_in]
        present = [rule for rule in chains.get(built_in, ()) if _target(rule) in map(_target, wanted)]
        if [_target(rule) for rule in present] != [_target(rule) for rule in wanted]:
            lines += [f"-D {built_in} {rule}" for rule in present]
            lines += [f"-I {built_in} {rule}" for rule in reversed(wanted)]
    if USER in table.chains and not chains.get(USER) and not chains.get("NETPLUG-FORWARD"):
        lines += [f"-A {USER} {rule}" for rule in user]
    return declared + lines


def behind(table: Table, chains: Chains) -> dict[str, list[str]]:
    """By built-in chain: our rules that lead to our chains, and come after somebody else's for the same destination."""
    found: dict[str, list[str]] = {}
    for built_in, wanted in table.jumps:
        rules = chains.get(built_in, ())
        ours = [rule for rule in rules if _target(rule) == _target(wanted)]
        same = [rule for rule in rules if rule.partition(" -j ")[0].split(" -p ")[0] == wanted.partition(" -j ")[0]]
        if ours and same and same[0] not in ours:
            found[built_in] = ours
    return found


def fronting(table: Table, chains: Chains, state: Mapping[Place, str]) -> list[str]:
    """As `repair`, and what is `behind` comes to the front."""
    late = behind(table, chains)
    rest = {name: [rule for rule in rules if rule not in late.get(name, ())] for name, rules in chains.items()}
    lines = repair(table, rest, state)
    declared = [line for line in lines if line.startswith(":")]
    moved = [f"-D {name} {rule}" for name, rules in late.items() for rule in rules]
    return declared + moved + lines[len(declared) :]


def clearing(table: Table, chains: Chains) -> list[str]:
    """The lines that take everything of ours out of a table, and every rule that leads there."""
    ours = [chain for chain in chains if chain in table.chains]
    leading = [f"-D {chain} {rule}" for chain, found in chains.items() if chain not in ours for rule in found if _target(rule)[3:] in ours]
    return [*(f":{chain} - [0:0]" for chain in ours), *leading, *(f"-X {chain}" for chain in ours)]


def changes(delete: Iterable[Place], old: Mapping[Place, str], add: Mapping[Place, str]) -> dict[str, dict[str, list[str]]]:
    """Family -> table -> lines that take out `delete` (whose values are in `old`) and put in `add`."""
    found: dict[str, dict[str, list[str]]] = {}
    for place in delete:
        family, table, chain = chain_of(place)
        found.setdefault(family, {}).setdefault(table, []).append(f"-D {chain} {text_of(place, old[place])}")
    for place, value in add.items():
        family, table, chain = chain_of(place)
        found.setdefault(family, {}).setdefault(table, []).append(addition(place, value))
    return found


def addition(place: Place, value: str) -> str:
    return f"{'-I' if goes_first(place, value) else '-A'} {chain_of(place)[2]} {text_of(place, value)}"


def document(lines: Mapping[str, Sequence[str]]) -> str:
    """What iptables-restore reads: table -> lines. `""` if there are none. `filter` comes before `nat`: nothing is let in unjudged."""
    return "".join("\n".join((f"*{table}", *found, "COMMIT", "")) for table, found in sorted(lines.items()) if found)


def _filled(table: Table, state: Mapping[Place, str]) -> Chains:
    """All our chains of a table with all that is to be in them; not the administrator's."""
    chains = {chain: list(fixed) for chain, fixed in table.chains.items() if chain != USER}
    for place, value in state.items():
        family, name, chain = chain_of(place)
        if (family, name) == (table.family, table.name):
            position = len(table.chains[chain]) if goes_first(place, value) else len(chains[chain])
            chains[chain].insert(position, text_of(place, value))
    return chains


def _in_order(found: list[str], wanted: list[str], fixed: int) -> bool:
    """The same rules; in the same order as far as one matters."""
    if found[:fixed] != wanted[:fixed] or sorted(found) != sorted(wanted):
        return False
    returns = [rule == "-j RETURN" for rule in map(_target, found[fixed:])]
    return returns == sorted(returns, reverse=True)


def _jumps_missing(table: Table, chains: Chains) -> list[tuple[str, str]]:
    return [(chain, rule) for chain, rule in table.jumps if _target(rule) not in map(_target, chains.get(chain, ()))]


def _read_rule(chain: str, words: str) -> Place:
    found = _RULE.fullmatch(words)
    return Place(chain, (found["match"] or "") if found else words)


def _target(words: str) -> str:
    found = _RULE.fullmatch(words)
    return found["target"] if found else ""
