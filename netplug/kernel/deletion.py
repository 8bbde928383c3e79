"""Deleting links: marked at once, deleted by the reaper, done when the monitor hears of it.

Only links that carry our mark go, whatever a plan says: a bridge of the user's, or a link that took an old name, stays.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from netplug.errors import KernelError
from netplug.kernel import links
from netplug.kernel.links import Link
from netplug.kernel.monitor import Monitor
from netplug.kernel.namespaces import MISSING, entered
from netplug.kernel.netlink import Kept, Refused, Socket
from netplug.kernel.outcome import Change, Failure, Outcome, describe
from netplug.kernel.reaper import BridgeReaper, Reaper
from netplug.kernel.syscalls import asked, refusal
from netplug.plan import DOOMED_GROUP, HOST, Bridge, LinkOp, PlacedOp, Remove

Departure = asyncio.Future[None]


class Deletions:
    """Of links in the namespace in which `start` is called, and in others by their path."""

    def __init__(self, host: Kept) -> None:
        """`host`: a socket of that namespace."""
        self._netlink = host
        self._monitor = Monitor()
        self._reaper = Reaper()
        self._bridge_reaper = BridgeReaper()
        self._leaving: dict[tuple[str, str], Departure] = {}
        self._elsewhere: set[asyncio.Task[None]] = set()

    def watch(self, unexpected: Callable[[str], None]) -> None:
        """Call `unexpected` with the name of each link that goes without our deleting it."""
        self._monitor.unexpected = unexpected

    def start(self) -> None:
        self._monitor.start()
        self._bridge_reaper.start()

    async def close(self) -> None:
        await asyncio.to_thread(self._reaper.stop)
        await asyncio.to_thread(self._bridge_reaper.stop)
        await asyncio.gather(*self._elsewhere, return_exceptions=True)
        self._monitor.close()

    def delete(self, namespace: str, steps: Sequence[Remove], outcome: Outcome) -> list[Departure]:
        """Begin to delete what these steps name. The caller waits for the departures with `done`, later, for all of a plan at once."""
        departures: list[Departure] = []
        for place, names in _by_place(namespace, steps).items():
            try:
                departures += self._delete_named(place, names, outcome)
            except KernelError as error:
                if error.errno not in MISSING:
                    outcome.failures += [Failure(step, error) for step in names.values()]
        return departures

    def _delete_named(self, place: str, names: dict[str, Remove], outcome: Outcome) -> list[Departure]:
        with entered(place), asked("delete links"), self._netlink.at(place) as netlink:
            found = {name: index for name in names if (index := links.find_ours(netlink, name)) is not None}
            if place == HOST:
                # The bridge of another namespace goes as every link does: there it goes with its network only.
                bridges = {name: found.pop(name) for name, step in names.items() if name in found and isinstance(step.op, Bridge)}
                self._retire(netlink, bridges, names, outcome)
        answers = self._doom(place, found)
        departures = []
        for name, answer in zip(found, answers, strict=True):
            step = names[name]
            if isinstance(answer, Refused):
                outcome.failures.append(Failure(step, refusal(describe(step), answer)))
            else:
                outcome.changes.append(Change(step, (step.op,)))
                departures.append(answer)
        return departures

    def _retire(self, netlink: Socket, bridges: Mapping[str, int], names: dict[str, Remove], outcome: Outcome) -> None:
        """A bridge that is down and has another name is out of use: nobody need wait for the rest."""
        if not bridges:
            return
        answers = iter(netlink.send([message for index in bridges.values() for message in links.retire(index)]))
        for name, index in bridges.items():
            step, down, named = names[name], next(answers), next(answers)
            refused = down or named
            if refused is None:
                self._bridge_reaper.take(index)
                outcome.changes.append(Change(step, (step.op,)))
            elif refused.errno != errno.ENODEV:
                outcome.failures.append(Failure(step, refusal(describe(step), refused)))

    async def delete_links(self, doomed: Sequence[Link], place: str = HOST) -> None:
        """Delete these and wait until they are gone; raises KernelError."""
        answers = self._doom(place, {link.name: link.index for link in doomed})
        await self.done([answer for answer in answers if isinstance(answer, asyncio.Future)])
        for answer in answers:
            if isinstance(answer, Refused):
                raise refusal("delete links", answer)

    async def done(self, departures: Collection[Departure]) -> None:
        await self._monitor.gone(departures)
        for departure in departures:
            departure.result()

    async def finished(self, places: Iterable[tuple[str, str]]) -> None:
        """Waits until no link of these namespaces and names is being deleted, so that it can be made anew."""
        leaving = [self._leaving[place] for place in places if place in self._leaving]
        if leaving:
            await self.done(leaving)

    def _doom(self, place: str, found: Mapping[str, int]) -> Sequence[Departure | Refused]:
        """Mark these links, by name, and hand them to the reaper."""
        if not found:
            return ()
        with entered(place), asked("delete links"), self._netlink.at(place) as netlink:
            monitor, there = (self._monitor, None) if place == HOST else (_listening(), Socket())
            # Listening comes first: a reaper at work already may delete a link as soon as it is marked.
            departures = [self._expect(monitor, (place, name), index) for name, index in found.items()]
            answers = netlink.send([links.set_group(index, DOOMED_GROUP) for index in found.values()])
        for index, answer in zip(found.values(), answers, strict=True):
            if answer is not None:
                monitor.departed(index)
        # Not in there: a thread of the reaper's stays where it was started.
        self._reaper.take([index for index, answer in zip(found.values(), answers, strict=True) if answer is None], there)
        if place != HOST:
            departures = [self._see_off(monitor, departures)] * len(departures)
        pairs = zip(departures, answers, strict=True)
        return [answer if answer is not None and answer.errno != errno.ENODEV else departure for departure, answer in pairs]

    def _expect(self, monitor: Monitor, place: tuple[str, str], index: int) -> Departure:
        departure = monitor.departure(index)
        self._leaving[place] = departure
        departure.add_done_callback(lambda _: self._left(place, departure))
        return departure

    def _left(self, place: tuple[str, str], departure: Departure) -> None:
        if self._leaving.get(place) is departure:
            del self._leaving[place]

    def _see_off(self, monitor: Monitor, departures: Collection[Departure]) -> Departure:
        """Done when all are; then nobody listens in that namespace, which would keep it alive."""

        async def wait() -> None:
            try:
                await monitor.gone(departures)
            finally:
                monitor.close()

        task = asyncio.get_running_loop().create_task(wait())
        self._elsewhere.add(task)
        task.add_done_callback(self._elsewhere.discard)
        return task


def _listening() -> Monitor:
    """In the calling thread's namespace."""
    monitor = Monitor()
    monitor.start()
    return monitor


def _by_place(namespace: str, steps: Sequence[Remove]) -> dict[str, dict[str, Remove]]:
    """By the namespace that the link lives in: steps by the link's name."""
    places: dict[str, dict[str, Remove]] = {}
    for step in steps:
        if isinstance(step.op, LinkOp):
            places.setdefault(namespace, {})[step.op.name] = step
        elif isinstance(step.op, PlacedOp):
            places.setdefault(step.op.link_namespace, {})[step.op.name] = step
    return places
