"""Is there such a firewall rule, and has it met packets?"""

from __future__ import annotations

import re
from typing import Literal

from netplug.labs.checks.base import Check, Find
from netplug.labs.places import Place


class RuleCheck(Check, frozen=True, tag="rule"):
    """A line of the rules, written as TABLE CHAIN RULE, in which the regular expression `like` is found.

    iptables' lines are those of `iptables-save` (`nat -A POSTROUTING …`); nft's those of `nft list ruleset`
    (`ip lab postrouting: …`, and `type nat hook …` as a chain's first).
    """

    tool: Literal["iptables", "nft"]
    like: str
    what: str
    """The rule in words."""
    packets: int = 0
    """It must have counted so many at least."""
    absent: bool = False

    def look(self, find: Find) -> None:
        place = self.place(find)
        found = [line for line in rules(place, self.tool) if re.search(self.like, line)]
        if self.absent:
            if found:
                raise self.unmet(f"no {self.what} on {self.at}", f"there is one: {found[0]}")
            return
        if not found:
            raise self.unmet(f"{self.what} on {self.at}", "no such rule")
        counted = sum(_count(line) for line in found)
        if counted < self.packets:
            raise self.unmet(f"{self.what} on {self.at}, with at least {self.packets} packets counted", f"{counted} packets")


def rules(place: Place, tool: str) -> list[str]:
    """All rules, a line each."""
    return _iptables(place) if tool == "iptables" else _nft(place)


def _iptables(place: Place) -> list[str]:
    lines, table = [], ""
    for line in place.run("iptables-save", "--counters").stdout.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("["):
            counters, _, rule = line.partition(" ")
            lines.append(f"{table} {rule} {counters}")
        elif line.startswith(":"):
            lines.append(f"{table} {line}")
    return lines


def _nft(place: Place) -> list[str]:
    lines, path = [], list[str]()
    for line in place.run("nft", "list", "ruleset").stdout.splitlines():
        text = line.strip()
        if text.endswith("{"):
            path.append(text.removesuffix("{").strip().partition(" ")[2])
        elif text == "}":
            path.pop()
        elif text:
            lines.append(f"{' '.join(path)}: {text}")
    return lines


def _count(line: str) -> int:
    found = re.search(r"\[(\d+):\d+\]|counter packets (\d+)", line)
    return int(found[1] or found[2]) if found else 0
