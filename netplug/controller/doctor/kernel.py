"""What of the plans of all records does not hold in the kernel: of the host, the networks, the sandboxes, and the firewall.

Who is in the middle of a change (its lock is held) is left out; the looks themselves wait for nothing, so nothing changes meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial

from netplug.controller.core import Core
from netplug.controller.doctor.difference import Difference, Remedy, by_hand, deviation, first, lacking, meaning
from netplug.controller.joining import redirection
from netplug.controller.nouns import noun
from netplug.controller.restore import Restore
from netplug.controller.routing import Routing
from netplug.errors import NetplugError
from netplug.kernel import contrasts, firewall, survey, traits
from netplug.kernel.firewall.neighbours import Neighbours
from netplug.model import Network, Sandbox
from netplug.plan import HOST, Announce, Fdb, FirewallOp, LinkOp, LinkUp, Neighbour, Netns, PlacedOp, Plan, Step, Vxlan, removal

_PER_TURN = 8


class KernelLook:
    """One look."""

    def __init__(self, core: Core, restore: Restore, base: Plan) -> None:
        self._core, self._restore, self._base = core, restore, base

    def busy(self, *identities: str) -> bool:
        return any(self._core.lock(identity).locked() for identity in identities)

    def host_plan(self) -> Plan:
        return (*self._base, *self._core.routes)

    def networks(self) -> Iterator[tuple[Network, Plan]]:
        """Those that are on this node and are not being changed, with what they are made of."""
        core = self._core
        for network in list(core.records.networks.values()):
            if (core.place(network) and network.id not in core.joined) or self.busy(network.id, "networks"):
                continue
            yield network, core.network_plan(network)

    def sandboxes(self) -> Iterator[tuple[Sandbox, Plan]]:
        """Those that live and are not being changed."""
        core = self._core
        for sandbox in list(core.records.sandboxes.values()):
            on = [endpoint.network for endpoint in core.records.of_sandbox(sandbox.id)]
            if self._restore.alive(sandbox) and not self.busy(sandbox.id, *on):
                yield sandbox, self._restore.sandbox_plan(sandbox)

    def dead(self) -> list[Sandbox]:
        found = self._core.records.sandboxes.values()
        return [sandbox for sandbox in found if not self._restore.alive(sandbox) and not self.busy(sandbox.id)]

    def differing(self, subject: str, plan: Plan, remedy: tuple[str, Remedy]) -> Iterator[Difference]:
        """What of the plan is missing, stands elsewhere, or has somebody else's in its place."""
        explain = self._core.explain
        occupied: set[str] = set()
        for step, found in contrasts.foreign(plan):
            if isinstance(step, LinkOp):
                occupied.add(step.name)
                away = (f"ip link set {step.name} down", f"ip link set {step.name} name {contrasts.aside(step.name)}")
                words = f"somebody else has {found} where {noun(step)} belongs"
                yield Difference(subject, words, meaning(step), (*away, *explain([(step,)])), remedy)
        for step in survey.missing(plan):
            if not (isinstance(step, LinkOp) and step.name in occupied):
                yield Difference(subject, lacking(step), meaning(step), tuple(explain([(step,)])), remedy)
        for step, found in contrasts.elsewhere(plan):
            repair = _made_anew(step, plan) if isinstance(step, Vxlan) else (step,)
            yield Difference(subject, f"{noun(step)} leads elsewhere: {found}", meaning(step), tuple(explain([repair])), remedy)
        for trait in traits.altered(plan):
            yield Difference(subject, f"{trait.link} has {trait.words}", deviation(trait), (trait.command,), remedy)


class KernelCheck:
    """The differences of all plans, and what puts them right."""

    def __init__(self, core: Core, restore: Restore, routing: Routing) -> None:
        self._core, self._restore, self._routing = core, restore, routing
        self.base: Plan = ()
        self.neighbours: Neighbours | None = None

    def look(self) -> KernelLook:
        return KernelLook(self._core, self._restore, self.base)

    async def differences(self) -> list[Difference]:
        look = self.look()
        found = list(look.differing("the host", look.host_plan(), ("the host", self._mend_host)))
        for number, (network, plan) in enumerate(look.networks()):
            remedy: Remedy = partial(self._mend_network, network.id)
            subject = f"network {network.name}"
            found += looked_at(subject, look.differing(subject, plan, (f"network {network.id}", remedy)))
            await self._breathe(number)
        for number, (sandbox, plan) in enumerate(look.sandboxes()):
            found += looked_at(f"container {sandbox.name}", self._of_sandbox(look, sandbox, plan))
            await self._breathe(number)
        return [*found, *self._of_firewall(look), *looked_at("the firewall", self._of_leftovers(look)), *self._of_neighbours()]

    async def _breathe(self, number: int) -> None:
        if number % _PER_TURN == _PER_TURN - 1:
            await asyncio.sleep(0)

    def _of_sandbox(self, look: KernelLook, sandbox: Sandbox, plan: Plan) -> Iterator[Difference]:
        subject = f"container {sandbox.name}"
        remedy: tuple[str, Remedy] = (f"sandbox {sandbox.id}", partial(self._mend_sandbox, sandbox.id))
        yield from look.differing(subject, plan, remedy)
        for step in self._unredirected(sandbox):
            yield Difference(subject, "the way to its resolver is missing", meaning(step), tuple(self._core.explain([(step,)])), remedy)

    def _unredirected(self, sandbox: Sandbox) -> list[Step]:
        if not (steps := _rules(redirection(sandbox))):
            return []
        return self._core.firewall.survey(sandbox.namespace, steps).steps

    def _of_firewall(self, look: KernelLook) -> Iterator[Difference]:
        core = self._core
        gaps = core.firewall.survey(HOST, self._host_rules(look))
        remedy: tuple[str, Remedy] = ("the firewall", self._mend_firewall)
        if gaps.rules:
            words = f"missing or changed: {', '.join(gaps.rules)}"
            means = "networks are not kept apart, or nothing is let through"
            yield Difference("the firewall", words, means, tuple(core.firewall.explain_base()), remedy)
        for step in gaps.steps:
            yield Difference("the firewall", lacking(step), meaning(step), tuple(core.explain([(step,)])), remedy)
        for words, command in gaps.surplus:
            means = "it lets pass, or leads, what no record asks for"
            yield Difference("the firewall", f"{words}: nobody has asked for it", means, (command,), remedy)

    def _host_rules(self, look: KernelLook) -> list[FirewallOp]:
        plans = [look.host_plan(), *(plan for _, plan in look.networks()), *(plan for _, plan in look.sandboxes())]
        return _rules(step for plan in plans for step in plan if step.namespace == HOST)

    def _of_leftovers(self, look: KernelLook) -> Iterator[Difference]:
        names = {sandbox.namespace: sandbox.name for sandbox, _ in look.sandboxes() if sandbox.kind != "host"}
        for leftover in firewall.others_leftovers(self._core.firewall.name, names):
            subject = f"container {names[leftover.namespace]}" if leftover.namespace else "the firewall"
            words = f"{leftover.words} of another firewall backend is left" if leftover.table else f"{leftover.words} are left"
            means = "rules of a backend that is not in use any more judge packets beside those of this one"
            remedy: Remedy = partial(self._remove_leftover, leftover)
            yield Difference(subject, words, means, leftover.commands, (f"leftover {leftover.namespace} {leftover.words}", remedy))

    async def _remove_leftover(self, leftover: firewall.Leftover) -> None:
        firewall.remove_leftovers([leftover])
        self._core.journal.record("doctor", f"{leftover.words} of another firewall backend", ())

    def _of_neighbours(self) -> Iterator[Difference]:
        for chain in self.neighbours.lacking() if self.neighbours is not None else ():
            means = "what netplug allows is dropped by another tool's rules"
            repair = by_hand(f"a rule that accepts mark 0x1000 first in {chain}")
            yield Difference(
                "other tools' chains", f"{chain} drops what netplug allows", means, repair, ("neighbours", self._mend_neighbours)
            )

    # What puts it right

    async def _mend_host(self) -> None:
        await self._routing.settle()
        await self._mend("the host", self.look().host_plan())

    async def _mend_network(self, identity: str) -> None:
        core = self._core
        async with core.lock("networks"), core.lock(identity):
            if (network := core.records.networks.get(identity)) is None:
                return
            changed = await self._mend(f"network {network.name}", core.network_plan(network))
            if core.place(network) and any(isinstance(step, LinkOp | PlacedOp | Netns) for step in changed):
                # Once its bridge is there, a tunnel that was a port of it is missing; and with a tunnel, what was entered on it.
                await self._mend(f"network {network.name}", core.network_plan(network))

    async def _mend_sandbox(self, identity: str) -> None:
        core = self._core
        async with core.lock(identity):
            sandbox = core.records.sandboxes.get(identity)
            if sandbox is None or not self._restore.alive(sandbox):
                return
            plan = self._restore.sandbox_plan(sandbox)
            changed = await self._mend(f"container {sandbox.name}", plan, self._unredirected(sandbox))
            if any(isinstance(step, LinkOp | LinkUp) for step in changed):
                await core.executor.ensure(tuple(step for step in plan if isinstance(step, Announce)))

    async def _mend(self, subject: str, plan: Plan, rules: Iterable[Step] = ()) -> Plan:
        core = self._core
        for step, _ in contrasts.foreign(plan):
            if isinstance(step, LinkOp):
                contrasts.move_away(step.name)
        lost = [*survey.missing(plan), *(one.step for one in contrasts.elsewhere(plan)), *rules]
        changed, errors = await core.executor.ensure(tuple(lost))
        core.journal.record("doctor", subject, changed, "; ".join(map(str, errors)))
        first(errors)
        for trait in traits.put_right(plan):
            core.journal.record("doctor", f"{subject}: {trait.link} had {trait.words}", ())
        return changed

    async def _mend_firewall(self) -> None:
        core = self._core
        core.firewall.mend()
        lost = core.firewall.survey(HOST, self._host_rules(self.look())).steps
        _, errors = await core.executor.ensure(tuple(lost))
        core.journal.record("doctor", "the firewall", tuple(lost), "; ".join(map(str, errors)))
        first(errors)

    async def _mend_neighbours(self) -> None:
        if self.neighbours is not None:
            self.neighbours.adjust()


def looked_at(subject: str, differences: Iterator[Difference]) -> list[Difference]:
    """All of them; where a look fails, that is one: what is gone meanwhile shows in the next look."""
    try:
        return list(differences)
    except NetplugError as error:
        reason = error

        async def refuse() -> None:
            raise reason

        means, repair = "whether it is as it should be is not known", by_hand("look again")
        return [Difference(subject, f"it could not be looked at: {error}", means, repair, (subject, refuse))]


def _made_anew(tunnel: Vxlan, plan: Plan) -> Plan:
    """The tunnel, and what is entered on it: that goes with it."""
    entries = (step for step in plan if isinstance(step, Fdb | Neighbour) and step.link == tunnel.name)
    return (*removal((tunnel,)), tunnel, *entries)


def _rules(steps: Iterable[Step]) -> list[FirewallOp]:
    return list(dict.fromkeys(step for step in steps if isinstance(step, FirewallOp)))
