"""What nft says of a table of ours, read from its JSON (libnftables-json(5)): the elements, our rules, and the administrator's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from netplug.kernel.firewall.elements import PROTOCOLS, Elements, Place
from netplug.kernel.firewall.ruleset import CHAINS, SETS, USER

Json: TypeAlias = Mapping[str, Any]


@dataclass(slots=True)
class Listing:
    """Of all our tables. `chains` and `sets` are those that `ruleset` declares, as far as they are there; others are not ours."""

    elements: Elements = field(default_factory=dict)
    tables: dict[str, Json] = field(default_factory=dict)
    sets: dict[str, Json] = field(default_factory=dict)
    """How each is declared."""
    chains: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    """How each is declared, and its rules."""
    users: dict[str, list[Any]] = field(default_factory=dict)
    """The rules of each table's chain `user`; no entry where there is no such chain."""

    def damage(self, whole: Listing) -> list[str]:
        """Words for what differs from `whole`, elements aside."""
        words = [f"table {name}" for name, table in whole.tables.items() if self.tables.get(name) != table]
        gone = whole.tables.keys() - self.tables.keys()
        for name, declared in whole.sets.items():
            if name.rsplit(" ", 1)[0] not in gone and self.sets.get(name) != declared:
                words.append(f"set {name}")
        for (table, name), rules in whole.chains.items():
            if table not in gone and self.chains.get((table, name)) != rules:
                words.append(f"chain {table} {name}")
        return words


def read(listing: Json, into: Listing) -> None:
    """Add what `nft -j list table` prints."""
    for item in listing["nftables"]:
        ((kind, content),) = item.items()
        match kind:
            case "table":
                into.tables[_name(content)] = _bare(content)
            case "chain":
                _read_chain(content, into)
            case "rule":
                _rules(content["chain"], content, into).append(_bare(content))
            case "set" | "map":
                _read_set(content, kind, into)


def _read_chain(content: Json, into: Listing) -> None:
    rules = _rules(content["name"], content, into)
    if content["name"] != USER:
        rules.append(_bare(content))


def _rules(chain: str, content: Json, into: Listing) -> list[Any]:
    """Where the rules of a chain are collected."""
    table = f"{content['family']} {content['table']}"
    if chain == USER:
        return into.users.setdefault(table, [])
    return into.chains.setdefault((table, chain), []) if (table, chain) in CHAINS else []


def _bare(content: Json) -> Json:
    """Without the handle, which is new each time."""
    return {key: value for key, value in content.items() if key not in ("handle", "elem")}


def _name(content: Json) -> str:
    return f"{content['family']} {content['name']}"


def _read_set(content: Json, kind: str, into: Listing) -> None:
    name = f"{content['family']} {content['table']} {content['name']}"
    if name in SETS:
        into.sets[name] = _bare(content)
    types = content["type"] if isinstance(content["type"], list) else [content["type"]]
    for element in content.get("elem", ()):
        key, value = element if kind == "map" else (element, None)
        into.elements[Place(name, _read_key(key, types))] = "" if value is None else _read_value(value)


def _read_key(key: Any, types: list[str]) -> str:
    if isinstance(key, dict) and "elem" in key:  # it has a comment, a counter or a time-out
        key = key["elem"]["val"]
    parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
    return " . ".join(_read_part(part, kind) for part, kind in zip(parts, types, strict=True))


def _read_part(part: Any, kind: str) -> str:
    match part:
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{first}-{last}"
    match kind:
        case "ifname":
            return f'"{part}"'
        case "inet_proto":
            return PROTOCOLS.get(part, str(part))
        case "integer":  # a long one is a string
            return f"{int(str(part), 0):#x}"
        case _:
            return str(part)


def _read_value(value: Any) -> str:
    match value:
        case {"concat": parts}:
            return " . ".join(str(part) for part in parts)
        case {"goto": {"target": chain}}:
            return f"goto {chain}"
        case {"accept": _}:
            return "accept"
        case _:
            return str(value)
