"""The iptables backend: the rules that a course on Docker shows, in chains of our own, applied by `iptables-restore --noflush`.

One call is one run for each IP version that it touches. The backend remembers which rules HOST has (`_state`); where a run fails, because
somebody else was at our chains or for what we asked, they are put back as remembered, all of them: so a call happens wholly or not at all.
Frames that stay inside a bridge are left to nftables (`iptables_bridge`). In a sandbox there are two rules, read before each change.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias, cast

from netplug import faults
from netplug.errors import InvalidArgument, KernelError, NetplugError
from netplug.kernel.firewall import FirewallStep, Gaps, Surplus, iptables_bridge
from netplug.kernel.firewall.elements import Change, Elements, Place, additions, deletions, judge
from netplug.kernel.firewall.generation import Generation
from netplug.kernel.firewall.iptables_bridge import BridgeTable, is_ours, peers
from netplug.kernel.firewall.iptables_chains import (
    Chains,
    addition,
    behind,
    changes,
    clearing,
    document,
    fronting,
    gaps,
    read_rules,
    repair,
)
from netplug.kernel.firewall.iptables_programs import Programs
from netplug.kernel.firewall.iptables_rules import FAMILIES, SANDBOX, TABLES, USER, Table, chain_of, needs_ipv6, rules, text_of
from netplug.kernel.namespaces import MISSING, entered
from netplug.plan import HOST, DnsRedirect, FirewallOp, Guard, Op, Plan, Remove, Step, inside, removal

log = logging.getLogger(__name__)

Listing: TypeAlias = dict[str, Chains]
Steps: TypeAlias = Sequence[Step]


class Iptables:
    """See `Firewall`. `variant`: `nft` or `legacy` tables; `""` those that the host uses."""

    name = "iptables"

    def __init__(self, *, accept_mark: str = "", variant: str = "") -> None:
        self._accept_mark = accept_mark
        self._programs = Programs(variant)
        self._bridge = BridgeTable()
        self._state: Elements = {}
        self._users: dict[str, list[str]] = {}
        """The administrator's rules, by family, as last seen whole."""
        self._absent: dict[str, str] = {}
        """What this kernel cannot do, and its words: `ip6`, `bridge`."""
        self._unlisted: set[str] = set()
        """What heal missed although it had just been put there: another version of iptables prints it in another way."""
        self._seen: int | None = None
        """The generation of nftables in which nothing was missing."""

    def start(self) -> None:
        self._absent = {}
        self._state = {}
        for part in (*FAMILIES, "bridge"):
            try:
                self._take_over(part)
            except KernelError as error:
                if part == "ip":
                    raise
                self._absent[part] = str(error)
                log.info("firewall without %s: %s", part, error)

    def apply(self, namespace: str, steps: Sequence[FirewallStep]) -> list[Step]:
        plan = _checked(namespace, steps)
        if not faults.enabled:
            return self._apply(namespace, plan)
        changed: list[Step] = []
        for step in plan:
            try:
                changed += self._apply(namespace, (step,))
            except NetplugError:
                self._apply(namespace, removal(tuple(changed)))
                raise
        return changed

    def replace(self, steps: Sequence[FirewallOp]) -> None:
        state = self._judge({}, _checked(HOST, steps)).add
        try:
            self._load_all(state)
        except KernelError:
            self._load_all(self._state)
            raise
        self._state = state

    def heal(self) -> list[str]:
        generation = self._generation
        if generation is not None and generation == self._seen:
            return []
        words = self._gaps()
        if words:
            self._load_all(self._state)
            self._unlisted |= set(words) & set(self._gaps())
        else:
            self._seen = generation
        return words

    def damage(self) -> list[str]:
        generation = self._generation
        return [] if generation is not None and generation == self._seen else self._gaps()

    def redirects(self, op: DnsRedirect) -> bool:
        return False  # asking takes a run of iptables-save

    def survey(self, namespace: str, steps: Sequence[FirewallOp]) -> Gaps:
        plan = _checked(namespace, steps)
        if namespace != HOST:
            with entered(namespace):
                return Gaps(self._judge(self._redirected()[1], plan, overwrite=True).steps)
        there = self._there()
        lost = self._missing(there)
        present = {place: value for place, value in self._state.items() if place not in lost} | there
        lacking = self._judge(present, plan, overwrite=True).steps
        # A rule that this version of iptables prints in another way looks like one too many.
        extra = {} if self._unlisted else {place: value for place, value in there.items() if place not in self._state}
        surplus = [Surplus(_words(place, value), self._deletion(place, value)) for place, value in extra.items()]
        return Gaps(lacking, [word for word in self._gaps() if word not in lost.values()], surplus)

    def mend(self) -> None:
        self.heal()
        self._load_all(self._state)

    def explain(self, namespace: str, steps: Sequence[FirewallStep]) -> list[str]:
        plan = _checked(namespace, steps)
        return list(self._explained(plan) if namespace == HOST else self._explained_in_sandbox(namespace, plan))

    def explain_base(self) -> list[str]:
        commands: list[str] = []
        for table in TABLES:
            iptables = self._command(table.family, table.name)
            commands += [f"{iptables} -N {chain}" for chain in table.chains]
            commands += [f"{iptables} -A {chain} {rule}" for chain, fixed in table.chains.items() for rule in fixed]
            commands += [f"{iptables} -I {chain} {rule}" for chain, rule in reversed(table.jumps)]
        return [*commands, f"nft -f - <<'EOF'\n{iptables_bridge.BASE.rstrip()}\nEOF"]

    def clear(self) -> None:
        for family in FAMILIES:
            if family not in self._absent:
                clear_chains(self._programs, family)
        if "bridge" not in self._absent:
            self._bridge.clear()
        self._state = {}
        self._users = {}

    @property
    def _generation(self) -> int | None:
        """None where changes of iptables do not raise it."""
        return self._nftables.read() if self._programs.kind == "nft" and "bridge" not in self._absent else None

    @cached_property
    def _nftables(self) -> Generation:
        return Generation()

    def _rules(self, op: Op) -> Elements:
        """What makes `op` true here; InvalidArgument for what this kernel cannot do."""
        found = rules(op, self._accept_mark) | peers(op)
        if "bridge" in self._absent:
            if isinstance(op, Guard) and found:
                raise InvalidArgument(
                    "icc=false and anti-spoofing need nftables besides iptables, which does not see what stays inside a bridge; this "
                    f"kernel has none ({self._absent['bridge']}): load the module nf_tables, or create the network with icc and with "
                    "-o netplug.antispoof=false"
                )
            found = {place: value for place, value in found.items() if not is_ours(place)}
        if "ip6" in self._absent:
            if needs_ipv6(op):
                raise InvalidArgument(
                    f"IPv6 needs ip6tables with table nat, which this host does not have ({self._absent['ip6']}): load the module "
                    "ip6table_nat, or create the network without --ipv6"
                )
            found = {place: value for place, value in found.items() if not place.set.startswith("ip6 ")}
        return found

    def _judge(self, state: Mapping[Place, str], steps: Steps, *, overwrite: bool = False) -> Change:
        return judge(state, steps, overwrite=overwrite, of=self._rules)

    def _apply(self, namespace: str, steps: Steps) -> list[Step]:
        if namespace != HOST:
            return self._apply_in_sandbox(namespace, steps)
        change = self._judge(self._state, steps)
        if not change.steps:
            return []
        try:
            self._run(change)
        except KernelError as error:
            log.warning("putting our firewall rules back, before another attempt: %s", error)
            self._load_all(self._state)
            try:
                self._run(change)
            except KernelError:
                self._load_all(self._state)
                raise
        change.update(self._state)
        return change.steps

    def _run(self, change: Change) -> None:
        add = {place: value for place, value in change.add.items() if self._state.get(place) != value}
        self._bridge.change(change.delete, add)
        rules_only = {place: value for place, value in add.items() if not is_ours(place)}
        lines = changes([place for place in change.delete if not is_ours(place)], self._state, rules_only)
        for family, found in sorted(lines.items()):
            self._programs.restore(family, document(found))

    def _take_over(self, part: str) -> None:
        """What an earlier daemon left, and the rules that never change."""
        if part == "bridge":
            self._state |= self._bridge.read()
            self._bridge.load(self._state)
            return
        listing = self._programs.listing(part)
        self._remember_user(part, listing)
        for table in _of(part):
            self._state |= read_rules(table, listing.get(table.name, {}))
        self._mend(part, listing, self._state)

    def _load_all(self, state: Elements) -> None:
        """Our rules and those of `state`, each table in one piece: packets meet the old ones or the new ones."""
        for family in FAMILIES:
            if family not in self._absent:
                self._mend(family, self._programs.listing(family), state)
        if "bridge" not in self._absent:
            self._bridge.load(state)

    def _mend(self, family: str, listing: Listing, state: Elements) -> None:
        users = self._users.get(family, ())
        if text := document({table.name: repair(table, listing.get(table.name, {}), state, users) for table in _of(family)}):
            self._programs.restore(family, text)

    def _gaps(self) -> list[str]:
        """What is missing. Where nothing is, the administrator's rules are as he wants them."""
        words: list[str] = []
        for family in FAMILIES:
            if family not in self._absent:
                listing = self._programs.listing(family)
                found = [word for table in _of(family) for word in gaps(table, listing.get(table.name, {}), self._state)]
                found = [word for word in found if word not in self._unlisted]
                if not found:
                    self._remember_user(family, listing)
                words += found
        return words if "bridge" in self._absent else words + self._bridge.gaps(self._state)

    def _remember_user(self, family: str, listing: Listing) -> None:
        chains = listing.get("filter", {})
        if USER in chains:
            self._users[family] = chains[USER]

    def _apply_in_sandbox(self, namespace: str, steps: Steps) -> list[Step]:
        try:
            with entered(namespace):
                return self._redirect(steps)
        except KernelError as error:
            if error.errno in MISSING and all(isinstance(step, Remove) for step in steps):
                return []  # the rules went with their namespace
            raise

    def _redirect(self, steps: Steps) -> list[Step]:
        chains, state = self._redirected()
        change = self._judge(state, steps, overwrite=True)
        if change.steps:
            change.update(state)
            lines = fronting(SANDBOX, chains, state) if state else clearing(SANDBOX, chains)
            self._programs.restore(SANDBOX.family, document({SANDBOX.name: lines}))
        return change.steps

    def _redirected(self) -> tuple[Chains, Elements]:
        """The chains of the calling thread's namespace, and the rules in them."""
        chains = self._programs.listing(SANDBOX.family).get(SANDBOX.name, {})
        # Rules that nothing leads to are none, nor are those that an engine's are asked before.
        return chains, {} if gaps(SANDBOX, chains, {}) or behind(SANDBOX, chains) else read_rules(SANDBOX, chains)

    def _there(self) -> Elements:
        """The rules of ops that HOST has."""
        found: Elements = {} if "bridge" in self._absent else self._bridge.elements()
        for family in FAMILIES:
            if family not in self._absent:
                listing = self._programs.listing(family)
                for table in _of(family):
                    found |= read_rules(table, listing.get(table.name, {}))
        return found

    def _missing(self, there: Mapping[Place, str]) -> dict[Place, str]:
        """Of what we were asked for: the words that `gaps` has for it."""
        words = {place: _words(place, value) for place, value in self._state.items() if there.get(place) != value}
        return {place: word for place, word in words.items() if word not in self._unlisted}

    def _deletion(self, place: Place, value: str) -> str:
        if is_ours(place):
            return next(_nft(deletions([place])))
        family, table, chain = chain_of(place)
        return f"{self._command(family, table)} {_quoted(f'-D {chain} {text_of(place, value)}')}"

    def _explained(self, steps: Steps) -> Iterator[str]:
        for step in steps:
            removing = isinstance(step, Remove)
            found = self._rules(step.op if isinstance(step, Remove) else step)
            for place, value in found.items():
                if is_ours(place):
                    yield from _nft(deletions([place]) if removing else additions({place: value}))
                    continue
                family, table, chain = chain_of(place)
                words = f"-D {chain} {text_of(place, value)}" if removing else addition(place, value)
                yield f"{self._command(family, table)} {_quoted(words)}"

    def _explained_in_sandbox(self, namespace: str, steps: Steps) -> Iterator[str]:
        state: Elements = {}
        self._judge(state, steps, overwrite=True).update(state)
        iptables = self._command(SANDBOX.family, SANDBOX.name)
        if state:
            made = [f"-N {chain}" for chain in SANDBOX.chains] + [f"-I {chain} {rule}" for chain, rule in SANDBOX.jumps]
            lines = [*made, *(addition(place, value) for place, value in state.items())]
        elif steps:
            lines = [f"-D {chain} {rule}" for chain, rule in SANDBOX.jumps]
            lines += [f"{verb} {chain}" for chain in SANDBOX.chains for verb in ("-F", "-X")]
        else:
            return
        for line in lines:
            yield inside(namespace, f"{iptables} {line}")

    def _command(self, family: str, table: str) -> str:
        return self._programs.name(family) + ("" if table == "filter" else f" -t {table}")


def _of(family: str) -> list[Table]:
    return [table for table in TABLES if table.family == family]


def clear_chains(programs: Programs, family: str) -> bool:
    """Take all of ours out of the calling thread's namespace; whether there was anything."""
    text = clearing_document(programs, family)
    if text:
        programs.restore(family, text)
    return bool(text)


def clearing_document(programs: Programs, family: str) -> str:
    """What takes all of ours out of the calling thread's namespace; `""` if there is nothing."""
    listing = programs.listing(family)
    lines: dict[str, list[str]] = {}
    for table in (*TABLES, SANDBOX):
        if table.family == family:
            lines.setdefault(table.name, []).extend(clearing(table, listing.get(table.name, {})))
    return document(lines)


def _words(place: Place, value: str) -> str:
    if is_ours(place):
        return f"{place.key} in {place.set}"
    family, table, chain = chain_of(place)
    return f"rule {text_of(place, value)} in {family} {table} {chain}"


def _checked(namespace: str, steps: Sequence[FirewallStep]) -> Plan:
    for step in steps:
        op = step.op if isinstance(step, Remove) else step
        if isinstance(op, DnsRedirect) == (namespace == HOST):
            raise InvalidArgument(f"{type(op).__name__} does not belong in {f'namespace {namespace}' if namespace else 'the host'}")
    return cast(Plan, tuple(steps))  # every FirewallOp is one of AnyOp


def _nft(commands: list[str]) -> Iterator[str]:
    for command in commands:
        words, braces, content = command.partition("{")
        yield f"nft {words}{shlex.quote(braces + content)}"


def _quoted(words: str) -> str:
    """For a shell: an IPv6 address in brackets would be a pattern."""
    return " ".join(word if word == "!" else shlex.quote(word) for word in shlex.split(words))
