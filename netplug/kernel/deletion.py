"""Deleting links: marked at once, deleted by the reaper, done when the monitor hears of it.

Only links that carry our mark go, whatever a plan says: a bridge of the user's, or a link that took an old name, stays.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Collection, Iterable, Sequence

from netplug.errors import KernelError
from netplug.kernel import links
from netplug.kernel.links import Link
from netplug.kernel.monitor import Monitor
from netplug.kernel.namespaces import MISSING, entered
from netplug.kernel.netlink import Kept, Refused, Socket
from netplug.kernel.outcome import Change, Failure, Outcome, describe
from netplug.kernel.reaper import BridgeReaper, Reaper
from netplug.kernel.syscalls import asked, refusal
from netplug.plan import DOOMED_GROUP, HOST, LinkOp, Remove, StackedOp

Departure = asyncio.Future[None]


class Deletions:
    """Of links in the namespace in which `start` is called; those in other namespaces are deleted there and then, by a worker thread."""

    def __init__(self, host: Kept) -> None:
        """`host`: a socket of that namespace."""
        self._netlink = host
        self._monitor = Monitor()
        self._reaper = Reaper()
        self._bridge_reaper = BridgeReaper()
        self._leaving: dict[str, Departure] = {}

    def watch(self, unexpected: Callable[[str], None]) -> None:
        """Call `unexpected` with the name of each link that goes without our deleting it."""
        self._monitor.unexpected = unexpected

    def start(self) -> None:
        self._monitor.start()
        self._bridge_reaper.start()

    async def close(self) -> None:
        await asyncio.to_thread(self._reaper.stop)
        await asyncio.to_thread(self._bridge_reaper.stop)
        self._monitor.close()

    async def delete(self, namespace: str, steps: Sequence[Remove], outcome: Outcome) -> list[Departure]:
        """Begin to delete what these steps name. The caller waits for the departures with `done`, later, for all of a plan at once."""
        places = _by_place(namespace, steps)
        names = places.pop(HOST, {})
        for place, elsewhere in places.items():
            await asyncio.to_thread(_delete_elsewhere, place, elsewhere, outcome)
        if not names:
            return []
        with asked("delete links"), self._netlink.opened() as netlink:
            found = [link for name in names if (link := links.find(netlink, name)) is not None and link.ours]
            self._retire(netlink, [link for link in found if link.kind == "bridge"], names, outcome)
            found = [link for link in found if link.kind != "bridge"]
            answers = self._doom(netlink, found)
        departures = []
        for link, answer in zip(found, answers, strict=True):
            step = names[link.name]
            if isinstance(answer, Refused):
                outcome.failures.append(Failure(step, refusal(describe(step), answer)))
            else:
                outcome.changes.append(Change(step, (step.op,)))
                departures.append(answer)
        return departures

    def _retire(self, netlink: Socket, bridges: Sequence[Link], names: dict[str, Remove], outcome: Outcome) -> None:
        """A bridge that is down and has another name is out of use: nobody need wait for the rest."""
        answers = iter(netlink.send([message for bridge in bridges for message in links.retire(bridge.index)]))
        for bridge in bridges:
            step, down, named = names[bridge.name], next(answers), next(answers)
            refused = down or named
            if refused is None:
                self._bridge_reaper.take(bridge.index)
                outcome.changes.append(Change(step, (step.op,)))
            elif refused.errno != errno.ENODEV:
                outcome.failures.append(Failure(step, refusal(describe(step), refused)))

    async def delete_links(self, doomed: Sequence[Link]) -> None:
        """Delete these and wait until they are gone; raises KernelError."""
        with asked("delete links"), Socket() as netlink:
            answers = self._doom(netlink, doomed)
        await self.done([answer for answer in answers if isinstance(answer, asyncio.Future)])
        for answer in answers:
            if isinstance(answer, Refused):
                raise refusal("delete links", answer)

    async def done(self, departures: Collection[Departure]) -> None:
        await self._monitor.gone(departures)

    async def finished(self, names: Iterable[str]) -> None:
        """Waits until no link of these names is being deleted, so that it can be made anew."""
        leaving = [self._leaving[name] for name in names if name in self._leaving]
        if leaving:
            await self.done(leaving)

    def _doom(self, netlink: Socket, found: Sequence[Link]) -> list[Departure | Refused]:
        """Mark them and hand them to the reaper."""
        # Listening comes first: a reaper at work already may delete a link as soon as it is marked.
        departures = [self._expect(link) for link in found]
        answers = netlink.send([links.set_group(link.index, DOOMED_GROUP) for link in found])
        results: list[Departure | Refused] = []
        for link, departure, answer in zip(found, departures, answers, strict=True):
            if answer is None:
                self._reaper.take(link.index)
            else:
                self._monitor.departed(link.index)
            results.append(answer if answer is not None and answer.errno != errno.ENODEV else departure)
        return results

    def _expect(self, link: Link) -> Departure:
        departure = self._monitor.departure(link.index)
        self._leaving[link.name] = departure
        departure.add_done_callback(lambda _: self._left(link.name, departure))
        return departure

    def _left(self, name: str, departure: Departure) -> None:
        if self._leaving.get(name) is departure:
            del self._leaving[name]


def _by_place(namespace: str, steps: Sequence[Remove]) -> dict[str, dict[str, Remove]]:
    """By the namespace that the link lives in: steps by the link's name."""
    places: dict[str, dict[str, Remove]] = {}
    for step in steps:
        if isinstance(step.op, LinkOp):
            places.setdefault(namespace, {})[step.op.name] = step
        elif isinstance(step.op, StackedOp):
            places.setdefault(step.op.link_namespace, {})[step.op.name] = step
    return places


def _delete_elsewhere(namespace: str, names: dict[str, Remove], outcome: Outcome) -> None:
    try:
        with entered(namespace), asked("delete links"), Socket() as netlink:
            found = [link for name in names if (link := links.find(netlink, name)) is not None and link.ours]
            answers = netlink.send([links.delete(link.index) for link in found])
    except KernelError as error:
        if error.errno not in MISSING:
            outcome.failures += [Failure(step, error) for step in names.values()]
        return
    for link, answer in zip(found, answers, strict=True):
        step = names[link.name]
        if answer is None:
            outcome.changes.append(Change(step, (step.op,)))
        elif answer.errno != errno.ENODEV:
            outcome.failures.append(Failure(step, refusal(describe(step), answer)))
