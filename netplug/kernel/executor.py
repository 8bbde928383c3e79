"""Applies plans: all of a plan or nothing, with what was really changed for the journal.

Consecutive steps that one room can do at once form a group: links, addresses and routes of a namespace go out in one send (`wiring`),
deletions of links to the reaper, firewall steps of a namespace into one transaction, everything else by itself (`settings`). Only
waiting for deleted links is asynchronous; what is sent to the kernel takes well under a millisecond.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby, islice
from typing import TypeGuard

from netplug import faults
from netplug.errors import KernelError, NetplugError, StepFailed
from netplug.kernel import announce, conntrack, descriptors, links, namespaces, peers, reception, settings
from netplug.kernel.deletion import Deletions, Departure
from netplug.kernel.firewall import Firewall
from netplug.kernel.glance import Glance
from netplug.kernel.links import Link
from netplug.kernel.namespaces import MISSING
from netplug.kernel.netlink import Kept, Socket
from netplug.kernel.outcome import Applied, Change, Failure, Outcome, PutBack, Restored, Undo, describe
from netplug.kernel.syscalls import asked
from netplug.kernel.wiring import Wiring
from netplug.plan import (
    DOOMED_GROUP,
    HOST,
    LINK_GROUP,
    RETIRED_GROUP,
    Address,
    Adopt,
    Announce,
    Fdb,
    FirewallOp,
    FlushFlows,
    ForgetFlows,
    LinkOp,
    LinkUp,
    Neighbour,
    Op,
    Parent,
    PlacedOp,
    Plan,
    Remove,
    Route,
    Step,
)

_PLANS_PER_TURN = 16
"""How many plans `restore` performs before the loop may do something else: two or three milliseconds."""
_STEPS_PER_TURN = 250
"""How many steps of a plan are sent before the loop may do something else, ten milliseconds: a network may have thousands of peers."""

_PASSING = (Announce, FlushFlows, ForgetFlows)

_log = logging.getLogger(__name__)


class _Room(enum.Enum):
    WIRING = enum.auto()
    DELETION = enum.auto()
    FIREWALL = enum.auto()
    ANNOUNCE = enum.auto()
    FLOWS = enum.auto()
    SETTINGS = enum.auto()


class Executor:
    """One per daemon; acts in the namespace in which `start` is called, and from there in others."""

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall
        self._netlink = Kept()
        self._deletions = Deletions(self._netlink)
        self._tracking = conntrack.Tracking()

    async def start(self) -> None:
        self._deletions.start()

    def watch(self, link_gone: Callable[[str], None]) -> None:
        """Call `link_gone` with the name of each link of the host that goes without a plan."""
        self._deletions.watch(link_gone)

    async def close(self) -> None:
        """Waits for links that are being deleted."""
        self._tracking.close()
        await self._deletions.close()
        self._netlink.close()

    async def apply(self, plan: Plan) -> Applied:
        """All of it, or StepFailed when what was changed has been undone. What is there as asked is no change."""
        outcome = Outcome()
        try:
            await self._perform(plan, outcome, Wiring(self._netlink), stop=True)
        except BaseException:
            # Cancelled while waiting, or a plan that no room can do: nothing half done stays.
            await self._undo(outcome)
            raise
        if outcome.failures:
            failure = outcome.failures[0]
            undone = await self._undo(outcome)
            raise _failed(failure, undone) from failure.error
        return Applied(outcome.changed(), outcome.undo())

    async def remove(self, plan: Plan | Undo) -> list[NetplugError]:
        """Every step is tried, what is missing is fine; the errors that there were."""
        outcome = Outcome()
        await self._perform(plan, outcome, Wiring(self._netlink), stop=False)
        return [error for _, error in outcome.failures]

    async def ensure(self, plan: Plan) -> tuple[Plan, list[NetplugError]]:
        """Every step is tried and nothing is undone: what was really changed, and the errors that there were."""
        outcome = Outcome()
        await self._perform(plan, outcome, Wiring(self._netlink), stop=False)
        return outcome.changed(), [_failed(failure) for failure in outcome.failures]

    async def restore(self, plans: Iterable[Plan], *, peers_known: bool = True) -> Restored:
        """Make everything of these plans be there, tearing down nothing of it; then remove what carries our mark beside it.

        That is looked for in the host, and where the plans have ends of links; entries for peers stay where the plans cannot name all
        of them yet (`peers_known`). Tracked flows are kept and nothing is announced: where all is well, nobody notices. A plan that
        fails is told by its position, and what can be done of it is done; KernelError where the firewall refuses, which concerns all.
        """
        plans = list(plans)
        named = _named(plans)
        found: dict[str, dict[str, Link]] = {}
        strays: list[str] = []
        for place, names in named.items():
            found[place], gone = await self._finish_deletions(place, names)
            strays += gone
        wiring, glance = Wiring(self._netlink, found), Glance(self._firewall, found)
        missing: list[str] = []
        failed: dict[int, NetplugError] = {}
        for position, plan in enumerate(plans):
            lasting = [step for step in plan if _lasts(step)]
            if not glance.holds(lasting):
                outcome = Outcome()
                await self._perform(lasting, outcome, wiring, stop=False)
                missing += [describe(change.step) for change in outcome.changes]
                if outcome.failures:
                    failed[position] = _failed(outcome.failures[0])
            if position % _PLANS_PER_TURN == 0:
                await asyncio.sleep(0)
        # Rules of plans that failed stay too: a rule for nothing is harmless, a network without its isolation is not.
        self._firewall.replace([step for plan in plans for step in plan if _of_host_firewall(step)])
        for place, names in named.items():
            strays += await self._remove_strays(place, found[place], names)
        stale = await self._drop_stale(named, plans) if peers_known else 0
        return Restored(missing, strays, failed, stale)

    async def delete_strays(self, place: str, strays: Sequence[Link]) -> None:
        """Links of ours there that nobody wants; KernelError where that fails."""
        await self._deletions.delete_links(strays, place)

    async def resync(self, plan: Plan) -> tuple[Plan, list[NetplugError], int]:
        """Ensure a plan that names all peers of a network, then remove entries for others; how many those were comes last."""
        changed, errors = await self.ensure(plan)
        return changed, errors, await self._drop_stale(_named([plan]), [plan])

    async def _perform(self, plan: Sequence[Step | PutBack], outcome: Outcome, wiring: Wiring, *, stop: bool) -> None:
        """Adds to `outcome`; with `stop` nothing after a group with a failure is tried."""
        departures: list[Departure] = []
        settled = 0
        for room, namespace, steps in _groups(plan):
            try:
                if room is _Room.ANNOUNCE:
                    settled = await self._settle_addresses(outcome, settled)
                departures += await self._perform_group(room, namespace, steps, outcome, wiring)
            except KernelError as error:
                outcome.failures.append(Failure(steps[0], error))
            if stop and outcome.failures:
                break
            if len(steps) == _STEPS_PER_TURN:
                await asyncio.sleep(0)
        try:
            await self._deletions.done(departures)
            await self._settle_addresses(outcome, settled)
        except KernelError as error:
            outcome.failures.append(Failure(plan[-1], error))

    async def _perform_group(
        self, room: _Room, namespace: str, steps: Sequence[Step | PutBack], outcome: Outcome, wiring: Wiring
    ) -> list[Departure]:
        """The links that are on their way out afterwards."""
        match room:
            case _Room.WIRING:
                await self._deletions.finished(_places(steps))
                wiring.perform(namespace, steps, outcome)
                wiring.settle_carriers(steps)
            case _Room.DELETION:
                removals = [step for step in steps if isinstance(step, Remove)]
                return self._deletions.delete(namespace, removals, outcome)
            case _Room.FIREWALL:
                self._guard(namespace, steps, outcome)
            case _Room.ANNOUNCE:
                _announce(steps)
            case _Room.FLOWS:
                settings.flush(namespace, steps, self._tracking if namespace == HOST else None)
            case _Room.SETTINGS:
                _set(steps, outcome)
        return []

    async def _settle_addresses(self, outcome: Outcome, settled: int) -> int:
        """Of the changes after the first `settled` ones; how many there are by now. After a failure nobody will use them."""
        given = [change.step for change in islice(outcome.changes, settled, None) if isinstance(change.step, Address)]
        if not outcome.failures:
            await reception.settle(self._netlink, given)
        return len(outcome.changes)

    def _guard(self, namespace: str, steps: Sequence[Step | PutBack], outcome: Outcome) -> None:
        """One transaction. One that cannot be done is tried step by step, to know which step it is and to do what can be done."""
        rules = [step for step in steps if isinstance(step, FirewallOp | Remove)]
        try:
            changed = self._firewall.apply(namespace, rules)
        except KernelError as error:
            if len(rules) == 1:
                _note_failure(rules[0], error, outcome)
                return
            for rule in rules:
                self._guard(namespace, [rule], outcome)
            return
        outcome.changes += [_guarded(step) for step in changed]

    async def _undo(self, outcome: Outcome) -> bool:
        """Take back what was changed; False where that failed, and the log says why."""
        errors = await self.remove(outcome.undo())
        for error in errors:
            _log.error("undoing a plan: %s", error)
        return not errors

    async def _finish_deletions(self, place: str, named: set[str]) -> tuple[dict[str, Link], list[str]]:
        """The links there, after those have gone which an earlier daemon was about to delete; names of the strays among them."""
        try:
            with namespaces.entered(place), asked("read links"), Socket() as netlink:
                found = links.dump(netlink)
        except KernelError as error:
            if error.errno not in MISSING:
                raise
            return {}, []
        doomed = [link for link in found.values() if link.group in (DOOMED_GROUP, RETIRED_GROUP)]
        await self._deletions.delete_links(doomed, place)
        for link in doomed:
            del found[link.name]
        return found, [link.name for link in doomed if link.name not in named]

    async def _remove_strays(self, place: str, found: dict[str, Link], named: set[str]) -> list[str]:
        strays = [link for link in found.values() if link.group == LINK_GROUP and link.name not in named]
        if strays:
            await self._deletions.delete_links(strays, place)
        return [link.name for link in strays]

    async def _drop_stale(self, places: Iterable[str], plans: Iterable[Plan]) -> int:
        wanted: dict[str, list[peers.Entry]] = {place: [] for place in places if place != HOST}
        for step in itertools.chain.from_iterable(plans):
            if isinstance(step, Fdb | Neighbour):
                wanted.setdefault(step.namespace, []).append(step)
        count = 0
        for place, entries in wanted.items():
            stale = await asyncio.to_thread(peers.find_stale, place, entries)
            for first in range(0, len(stale), _STEPS_PER_TURN):
                peers.send(place, stale[first : first + _STEPS_PER_TURN])
                await asyncio.sleep(0)
            count += len(stale)
        return count


def _groups(plan: Sequence[Step | PutBack]) -> Iterator[tuple[_Room, str, list[Step | PutBack]]]:
    """Consecutive steps of one room and one namespace. With faults enabled each is a group of its own."""
    if faults.enabled:
        for step in plan:
            yield _room(step), _namespace(step), [step]
        return
    for (room, namespace), steps in groupby(plan, key=lambda step: (_room(step), _namespace(step))):
        # What goes into one transaction stays together.
        while group := list(islice(steps, _STEPS_PER_TURN if room is _Room.WIRING else None)):
            yield room, namespace, group


def _room(step: Step | PutBack) -> _Room:
    return _room_of_removal(type(step.op)) if isinstance(step, Remove) else _room_of(type(step))


@cache
def _room_of(kind: type[Op]) -> _Room:
    if issubclass(kind, LinkOp | PlacedOp | Parent | PutBack | Adopt | LinkUp | Address | Route | Fdb | Neighbour):
        return _Room.WIRING
    if issubclass(kind, FirewallOp):
        return _Room.FIREWALL
    if issubclass(kind, Announce):
        return _Room.ANNOUNCE
    return _Room.FLOWS if issubclass(kind, FlushFlows | ForgetFlows) else _Room.SETTINGS


@cache
def _room_of_removal(kind: type[Op]) -> _Room:
    if issubclass(kind, LinkOp | PlacedOp):
        return _Room.DELETION
    return _Room.SETTINGS if issubclass(kind, Parent | Announce) else _room_of(kind)


def _namespace(step: Step | PutBack) -> str:
    """A removal acts where its op did, whether or not it says so itself."""
    return step.op.namespace if isinstance(step, Remove) else step.namespace


def _places(steps: Iterable[Step | PutBack]) -> Iterator[tuple[str, str]]:
    """Namespaces and names of the links that they make, but for far ends."""
    for step in steps:
        if isinstance(step, LinkOp):
            yield step.namespace, step.name
        elif isinstance(step, PlacedOp):
            yield step.link_namespace, step.name


def _named(plans: Iterable[Plan]) -> dict[str, set[str]]:
    """By namespace: the host and those that are ours, which have ends of links or a bridge. In a sandbox others may have links too."""
    steps = [step for plan in plans for step in plan]
    named: dict[str, set[str]] = {HOST: set()}
    named |= {step.namespace: set() for step in steps if isinstance(step, LinkOp)}
    for place, name in _places(steps):
        if place in named:
            named[place].add(name)
    return named


def _failed(failure: Failure, undone: bool = True) -> StepFailed:
    """The reason is the kernel's alone where it is about the very step, else with what was asked of it."""
    what, error = describe(failure.step), failure.error
    return StepFailed(what, error.detail if error.detail and error.operation == what else str(error), undone)


def _set(steps: Sequence[Step | PutBack], outcome: Outcome) -> None:
    for step in steps:
        if isinstance(step, PutBack):
            continue
        try:
            change = settings.perform(step)
        except KernelError as error:
            _note_failure(step, error, outcome)
        else:
            outcome.changes += [change] if change is not None else []


def _note_failure(step: Step, error: KernelError, outcome: Outcome) -> None:
    """In a namespace that is gone there is nothing left to remove."""
    if not (isinstance(step, Remove) and error.errno in MISSING):
        outcome.failures.append(Failure(step, error))


def _guarded(step: Step) -> Change:
    if isinstance(step, Remove):
        return Change(step, (step.op,))
    return Change(step, (Remove(op=step, namespace=step.namespace),))


def _announce(steps: Sequence[Step | PutBack]) -> None:
    """Neighbours that do not hear of it ask by themselves, later: no reason to fail."""
    for step in steps:
        if not isinstance(step, Announce):
            continue
        try:
            packet_socket = announce.send(step.namespace, step.link, step.address, step.mac)
        except KernelError as error:
            _log.warning("%s: %s", describe(step), error)
        else:
            descriptors.close_later(packet_socket.close)


def _lasts(step: Step) -> bool:
    """What `restore` performs plan by plan: neither moments (flows, announcements) nor what goes into one transaction at the end."""
    return not (isinstance(step, _PASSING) or _of_host_firewall(step))


def _of_host_firewall(step: Step) -> TypeGuard[FirewallOp]:
    return isinstance(step, FirewallOp) and step.namespace == HOST
