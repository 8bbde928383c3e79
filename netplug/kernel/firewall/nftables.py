"""The nftables backend: own tables, maps instead of rules, one transaction per call.

In the host `Tables` remembers what is there; in a sandbox there are four elements, which are read before each change.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import TypeAlias, cast

from netplug import faults
from netplug.errors import InvalidArgument, KernelError, NetplugError
from netplug.kernel import descriptors
from netplug.kernel.firewall import FirewallStep, Gaps, redirection, ruleset
from netplug.kernel.firewall.elements import Elements, additions, deletions, elements, judge
from netplug.kernel.firewall.libnftables import Context
from netplug.kernel.firewall.tables import Tables, command
from netplug.kernel.namespaces import MISSING, entered
from netplug.kernel.netlink import NETLINK_NETFILTER, Socket
from netplug.kernel.syscalls import asked
from netplug.plan import HOST, DnsRedirect, FirewallOp, Plan, Remove, Step, inside, removal

Steps: TypeAlias = Sequence[Step]


class Nftables:
    """See `Firewall`."""

    name = "nftables"

    def __init__(self, *, accept_mark: str = "") -> None:
        self._base = ruleset.base(accept_mark)
        self._tables = Tables(self._base)

    def start(self) -> None:
        self._tables.start()

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
        self._tables.load(judge({}, _checked(HOST, steps)).add)

    def heal(self) -> list[str]:
        return self._tables.heal()

    def damage(self) -> list[str]:
        return self._tables.damage()

    def redirects(self, op: DnsRedirect) -> bool:
        # Closing a socket that has read, and changed nothing, keeps nobody waiting.
        with asked("read the redirection of names"), Socket(NETLINK_NETFILTER) as netlink:
            return redirection.holds(netlink, op)

    def survey(self, namespace: str, steps: Sequence[FirewallOp]) -> Gaps:
        plan = _checked(namespace, steps)
        if namespace == HOST:
            return self._tables.survey(plan)
        with ExitStack() as afterwards, entered(namespace):
            return Gaps(judge(_redirected(afterwards), plan, overwrite=True).steps)

    def mend(self) -> None:
        self._tables.mend()

    def explain(self, namespace: str, steps: Sequence[FirewallStep]) -> list[str]:
        plan = _checked(namespace, steps)
        return _explained_in_host(plan) if namespace == HOST else _explained_in_sandbox(namespace, plan)

    def explain_base(self) -> list[str]:
        return [_document(self._base)]

    def clear(self) -> None:
        self._tables.clear()

    def _apply(self, namespace: str, steps: Plan) -> list[Step]:
        return self._tables.change(steps) if namespace == HOST else _apply_in_sandbox(namespace, steps)


def _apply_in_sandbox(namespace: str, steps: Steps) -> list[Step]:
    try:
        # Closed after leaving: a thread that is started for it inherits our namespace, and would keep the sandbox's alive.
        with ExitStack() as afterwards, entered(namespace):
            return _redirect(steps, afterwards)
    except KernelError as error:
        if error.errno in MISSING and all(isinstance(step, Remove) for step in steps):
            return []  # the rules went with their namespace
        raise


def _redirect(steps: Steps, afterwards: ExitStack) -> list[Step]:
    state = _redirected(afterwards)
    change = judge(state, steps, overwrite=True)
    if change.steps:
        change.update(state)
        context = Context()
        afterwards.callback(context.close)
        context.transact(_sandbox(redirection.pruned(state)))
    return change.steps


def _redirected(afterwards: ExitStack) -> Elements:
    """What there is in the namespace of the calling thread."""
    with asked("read the redirection of names"):
        netlink = Socket(NETLINK_NETFILTER)
        afterwards.callback(descriptors.close_later, netlink.close)
        return redirection.installed(netlink)


def _sandbox(state: Elements) -> str:
    """What makes a sandbox's table hold `state`; a table that would be empty is deleted."""
    if not state:
        return f"delete table {ruleset.SANDBOX_TABLE}"
    return "\n".join((ruleset.SANDBOX, *additions(state), *map(ruleset.refusal, redirection.udp_ports(state))))


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
    return [command(text) for text in commands]


def _explained_in_sandbox(namespace: str, steps: Steps) -> list[str]:
    state: Elements = {}
    judge(state, steps, overwrite=True).update(state)
    if state:
        return [inside(namespace, _document(_sandbox(state)))]
    return [inside(namespace, f"nft delete table {ruleset.SANDBOX_TABLE}")] if steps else []


def _document(text: str) -> str:
    return f"nft -f - <<'EOF'\n{text.rstrip()}\nEOF"
