"""The text of docs/firewall.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tests.golden.rules import Shown, shown
from tests.golden.scenarios import SCENARIOS, Scenario
from tests.golden.sentences import CHAINS, IPTABLES, SETS

HEAD = """\
# The firewall, as it is

Made by `make docs` from real rules: each scenario is planned by the bridge driver, applied by the real backend in a network namespace, and
read back with `nft` and `iptables`. A test fails when this page and the rules differ.

Rules say once what a network is. With nftables, whatever comes and goes (networks, ports, containers, links) is an element of a set or map,
so that a packet's way is as long with 5,000 published ports as with one. With iptables there are rules of the classic kind, in chains of
our own; what stays inside a bridge never reaches iptables, so nftables' table `bridge netplug` judges it there too.

Your own rules go to chain `user` (nftables) or `NETPLUG-USER` (iptables): it is asked before all others, and never emptied. Other tables
and chains are none of netplug's business, with one exception: where another tool drops what is forwarded, a rule that accepts our mark.
"""
BACKENDS = {"nftables": "nftables", "iptables": "iptables"}


def document() -> str:
    """The whole page; needs root, for namespaces."""
    return HEAD + "".join(_section(number, scenario) for number, scenario in enumerate(SCENARIOS, 1))


def _section(number: int, scenario: Scenario) -> str:
    text = f"\n## {number}. {scenario.title}\n\n{_wrapped(scenario.about)}\n\n{_code(scenario.commands, 'console')}"
    for backend, name in BACKENDS.items():
        found = shown(backend, scenario)
        text += f"\n### {number}.{list(BACKENDS).index(backend) + 1} {name}\n\n"
        text += _base(backend, found) if number == 1 else _additions(found)
    return text


def _base(backend: str, found: Shown) -> str:
    """Everything, and a sentence on every part of it."""
    parts = named(found.base)
    if backend == "iptables":
        # The bridge table is the other backend's, shown there.
        rules = [line for line in found.base if line.startswith(("iptables ", "ip6tables "))]
        only6 = [line for line in rules if line.startswith("ip6") and f"ip{line.removeprefix('ip6')}" not in rules]
        same = "`ip6tables` has the same in its tables filter and nat, and besides:"
        shown_parts = [part for part in parts if part in IPTABLES]
        return f"{_code(line for line in rules if not line.startswith('ip6'))}\n{same}\n\n{_code(only6)}\n{_table(shown_parts)}"
    return f"{_code(found.base)}\n{_table(parts)}"


def _additions(found: Shown) -> str:
    text = _code(found.added) if found.added else "Nothing.\n"
    if found.inside:
        text += f"\nIn the container's namespace:\n\n{_code(found.inside)}"
    return f"{text}\n{_list(named([*found.added, *found.inside]))}"


def named(lines: Iterable[str]) -> list[str]:
    """Sets, maps and chains that the lines are about, in order, each once."""
    found: dict[str, None] = {}
    for line in lines:
        found.update(dict.fromkeys(_named(line)))
    return list(found)


def _named(line: str) -> Iterator[str]:
    if line.startswith("table "):
        table = line.split(" {")[0].removeprefix("table ")
        yield from (f"{table} {name}" for _, name in re.findall(r"^\t(set|map|chain) (\S+) {", line, re.MULTILINE))
    elif element := re.match(r"nft add element (\w+ \w+) (\S+) ", line):
        yield f"{element[1]} {element[2]}"
    elif rule := re.match(r"ip6?tables(?: -t (\w+))? -[AN] (\S+)", line):
        yield f"{rule[1] or 'filter'} {rule[2]}"


def sentence(part: str) -> str:
    """KeyError for what nobody has described."""
    return {**SETS, **CHAINS, **IPTABLES}[part]


def _table(parts: Iterable[str]) -> str:
    rows = "".join(f"| `{part}` | {sentence(part)} |\n" for part in parts)
    return f"| what | what it is for |\n|---|---|\n{rows}"


def _list(parts: Iterable[str]) -> str:
    return "".join(f"- `{part}`: {sentence(part)}\n" for part in parts)


def _code(lines: Iterable[str], language: str = "") -> str:
    prompt = "# " if language == "console" else ""
    body = "\n".join(f"{prompt}{line.rstrip()}".expandtabs(4) for line in lines)
    return f"```{language}\n{body}\n```\n"


def _wrapped(text: str, width: int = 140) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
