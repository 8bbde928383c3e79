"""What a backend really does: it is started in a namespace of its own, and nft and iptables are asked what is there, before and after."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from netplug.kernel.firewall import Firewall, backend
from netplug.kernel.namespaces import entered
from netplug.plan import HOST
from tests.golden.scenarios import Scenario
from tests.hosts import Namespace

NFT_TABLES = ("inet netplug", "bridge netplug", "ip netplug")
PROGRAMS = (("iptables", "raw"), ("iptables", "filter"), ("iptables", "nat"), ("ip6tables", "filter"), ("ip6tables", "nat"))
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Shown:
    """`base`: what the backend starts with; `added`: lines that a scenario adds to it; `inside`: those in the container's namespace."""

    base: tuple[str, ...]
    added: tuple[str, ...]
    inside: tuple[str, ...] = ()


def shown(name: str, scenario: Scenario) -> Shown:
    """The scenario's rules as the backend `name` makes them."""
    with _namespace() as host, _namespace() as box:
        with entered(host.path):
            firewall = backend(name)
            firewall.start()
        base = listing(name, host)
        _apply(firewall, host, scenario.before)
        before = listing(name, host)
        _apply(firewall, host, scenario.adds)
        added = _new(before, listing(name, host))
        nothing = listing(name, box)
        with entered(host.path):
            firewall.apply(box.path, [msgspec.structs.replace(op, namespace=box.path) for op in scenario.inside])
        return Shown(tuple(base), tuple(added), tuple(_new(nothing, listing(name, box))))


def _apply(firewall: Firewall, host: Namespace, steps: Sequence[object]) -> None:
    if steps:
        with entered(host.path):
            firewall.apply(HOST, steps)  # type: ignore[arg-type]


def listing(name: str, host: Namespace) -> list[str]:
    """Commands that would make what is there, elements last; iptables has nftables' bridge table beside it."""
    return [*(_iptables(host) if name == "iptables" else ()), *_nft(host)]


def text_of_tables(host: Namespace) -> dict[str, str]:
    """Each table of ours as `nft list table` prints it, but for what its rules have counted."""
    there = host.run("nft", "list", "tables").stdout
    return {
        table: host.run("nft", "--stateless", "list", "table", *table.split()).stdout for table in NFT_TABLES if f"table {table}\n" in there
    }


def _nft(host: Namespace) -> Iterator[str]:
    for table, text in text_of_tables(host).items():
        yield _without_elements(text)
        for name, found in elements(text):
            yield from (f"nft add element {table} {name} '{{ {element} }}'" for element in found)


def elements(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each set and map of a listing with its elements, in order."""
    for found in re.finditer(r"\t(?:set|map) (\S+) {\n(.*?)\n\t}", text, re.DOTALL):
        inner = re.search(r"elements = {(.*)}", found[2], re.DOTALL)
        yield found[1], sorted((" ".join(one.split()) for one in inner[1].split(",")), key=_natural) if inner else []


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text)]


def _without_elements(text: str) -> str:
    """Declarations in one line each; an anonymous set's members stand in an order of the kernel's own, so they are sorted."""
    bare = re.sub(r"\n\t\telements = {.*?}", "", text, flags=re.DOTALL)
    bare = re.sub(r"\t(set|map) (\S+) {\n\t\t(typ.*)\n(?:\t\t(flags .*)\n)?\t}\n\n?", _declared, bare)
    return re.sub(r"{ ([^{}\n]+) }", lambda found: f"{{ {', '.join(sorted(found[1].split(', ')))} }}", bare).rstrip()


def _declared(found: re.Match[str]) -> str:
    return f"\t{found[1]} {found[2]} {{ {'; '.join(part for part in found.group(3, 4) if part)}; }}\n"


def _iptables(host: Namespace) -> Iterator[str]:
    for program, table in PROGRAMS:
        for line in host.run(program, "-t", table, "-S").stdout.splitlines():
            if "NETPLUG" in line:
                yield f"{program}{'' if table == 'filter' else f' -t {table}'} {line}"


def _new(before: list[str], after: list[str]) -> list[str]:
    known = set(before)
    assert known <= set(after), "a scenario only adds"
    return [line for line in after if line not in known]


@contextmanager
def _namespace() -> Iterator[Namespace]:
    namespace = Namespace(f"npg-{os.getpid()}-{next(_numbers)}")
    try:
        yield namespace
    finally:
        namespace.remove()
