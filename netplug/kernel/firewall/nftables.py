"""The nftables backend: own tables, maps instead of rules, one transaction per call.

The backend remembers which elements HOST has (`_state`), to tell a change from what is there already. The kernel stays the truth: where an
answer shows that somebody else was at our tables, they are read again, and if they are gone (`nft flush ruleset`) put back whole.
In a sandbox there are two elements, which are read before each change.
"""

from __future__ import annotations

import errno
import logging
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import groupby
from typing import TypeAlias, cast

from netplug import faults
from netplug.errors import InvalidArgument, KernelError, NetplugError
from netplug.kernel.firewall import FirewallStep, ruleset
from netplug.kernel.firewall.elements import Elements, additions, deletions, elements, judge
from netplug.kernel.firewall.libnftables import Context
from netplug.kernel.namespaces import MISSING, entered
from netplug.plan import HOST, DnsRedirect, FirewallOp, Plan, Remove, Step, inside, removal

log = logging.getLogger(__name__)

Steps: TypeAlias = Sequence[Step]


class Nftables:
    """See `Firewall`."""

    name = "nftables"

    def __init__(self) -> None:
        self._state: Elements = {}

    def start(self) -> None:
        self._host.transact(ruleset.BASE)
        self._state = self._read() or {}

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
        self._load(judge({}, _checked(HOST, steps)).add)

    def heal(self) -> list[str]:
        found = self._read()
        if found == self._state:
            return []
        words = ["our firewall tables"] if found is None else [f"{place.key} in {place.set}" for place in self._state.keys() - found.keys()]
        self._load(self._state)
        return words

    def explain(self, namespace: str, steps: Sequence[FirewallStep]) -> list[str]:
        plan = _checked(namespace, steps)
        return _explained_in_host(plan) if namespace == HOST else _explained_in_sandbox(namespace, plan)

    def explain_base(self) -> list[str]:
        return [_document(ruleset.BASE)]

    def clear(self) -> None:
        self._host.transact(ruleset.CLEAR)
        self._state = {}

    @cached_property
    def _host(self) -> Context:
        return Context()

    def _apply(self, namespace: str, steps: Steps) -> list[Step]:
        if namespace != HOST:
            return _apply_in_sandbox(namespace, steps)
        try:
            return self._apply_in_host(steps)
        except KernelError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                raise
            self._look_again()
            return self._apply_in_host(steps)

    def _apply_in_host(self, steps: Steps) -> list[Step]:
        change = judge(self._state, steps)
        if text := change.text():
            self._host.transact(text)
        change.update(self._state)
        return change.steps

    def _look_again(self) -> None:
        """The kernel did not hold what we thought."""
        state = self._read()
        if state is None:
            log.warning("somebody has deleted our firewall tables: putting them back, with %d elements", len(self._state))
            self._load(self._state)
        else:
            self._state = state

    def _read(self) -> Elements | None:
        """All our elements; None if a table is missing."""
        found: Elements = {}
        for table in ruleset.TABLES:
            part = self._host.read(table)
            if part is None:
                return None
            found |= part
        return found

    def _load(self, state: Elements) -> None:
        """Rules and elements, in one transaction: packets meet the old ones or the new ones."""
        self._host.transact("\n".join((ruleset.BASE, ruleset.EMPTY, *additions(state))))
        self._state = dict(state)


def _apply_in_sandbox(namespace: str, steps: Steps) -> list[Step]:
    try:
        # Closed after leaving: a thread that is started for it inherits our namespace, and would keep the sandbox's alive.
        with ExitStack() as afterwards, entered(namespace):
            context = Context()
            afterwards.callback(context.close)
            return _redirect(context, steps)
    except KernelError as error:
        if error.errno in MISSING and all(isinstance(step, Remove) for step in steps):
            return []  # the rules went with their namespace
        raise


def _redirect(context: Context, steps: Steps) -> list[Step]:
    state = context.read(ruleset.SANDBOX_TABLE) or {}
    change = judge(state, steps, overwrite=True)
    if change.steps:
        change.update(state)
        context.transact(_sandbox(state))
    return change.steps


def _sandbox(state: Elements) -> str:
    """What makes a sandbox's table hold `state`; a table that would be empty is deleted."""
    return "\n".join((ruleset.SANDBOX, *additions(state))) if state else f"delete table {ruleset.SANDBOX_TABLE}"


def _checked(namespace: str, steps: Sequence[FirewallStep]) -> Plan:
    for step in steps:
        op = step.op if isinstance(step, Remove) else step
        if isinstance(op, DnsRedirect) == (namespace == HOST):
            raise InvalidArgument(f"{type(op).__name__} does not belong in {f'namespace {namespace}' if namespace else 'the host'}")
    return cast(Plan, tuple(steps))  # every FirewallOp is one of AnyOp


def _explained_in_host(steps: Steps) -> list[str]:
    commands: list[str] = []
    for removing, run in groupby(steps, lambda step: isinstance(step, Remove)):
        state: Elements = {}
        for step in run:
            state |= elements(step.op if isinstance(step, Remove) else step)
        commands += deletions(state) if removing else additions(state)
    return [_command(text) for text in commands]


def _explained_in_sandbox(namespace: str, steps: Steps) -> list[str]:
    state: Elements = {}
    judge(state, steps, overwrite=True).update(state)
    if state:
        return [inside(namespace, _document(_sandbox(state)))]
    return [inside(namespace, f"nft delete table {ruleset.SANDBOX_TABLE}")] if steps else []


def _command(text: str) -> str:
    """`nft add element inet netplug bridges '{ "br0" }'`."""
    words, braces, content = text.partition("{")
    return f"nft {words}{shlex.quote(braces + content)}"


def _document(text: str) -> str:
    return f"nft -f - <<'EOF'\n{text.rstrip()}\nEOF"
