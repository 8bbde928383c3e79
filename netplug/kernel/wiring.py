"""Links, addresses, routes and entries for peers of one namespace: consecutive steps in one send.

Everything is tried first as if nothing were there. What the kernel refuses is then looked at by itself, in order: it may be there as
asked, a route may lead elsewhere and be replaced, an earlier step that failed may have been repaired; else it is a failure.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, TypeAlias

from netplug.errors import KernelError
from netplug.kernel import addresses, adoption, links, peers, routes, stacked, vxlan
from netplug.kernel.links import Link
from netplug.kernel.namespaces import MISSING, entered, opened
from netplug.kernel.netlink import Kept, Message, Refused, Socket
from netplug.kernel.outcome import Change, Failure, Outcome, PutBack, describe
from netplug.kernel.syscalls import Descriptor, asked, refusal
from netplug.plan import (
    DOOMED_GROUP,
    Address,
    Adopt,
    AnyOp,
    Bridge,
    Dummy,
    Fdb,
    Ipvlan,
    LinkUp,
    Macvlan,
    Neighbour,
    Parent,
    PlacedOp,
    Remove,
    Route,
    Step,
    Veth,
    Vlan,
    Vxlan,
)

_LINGERING = 0.2
"""Seconds that a tunnel may outlast its namespace."""
Places: TypeAlias = dict[str, Descriptor | OSError]
"""By path: namespaces, or why they cannot be opened."""

_GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO})


class Draft(NamedTuple):
    """Messages for one step; `change` is made when the first of them is accepted. Without messages it is as asked already."""

    messages: Sequence[Message] = ()
    change: Change | None = None


class Wiring:
    """Knows the indexes of links made by the steps it has performed, so that steps on a new link need no lookup."""

    def __init__(self, kept: Kept, dumped: dict[str, dict[str, Link]] | None = None) -> None:
        """`kept`: a socket of the host.

        `dumped`: by namespace, the links that are there, where many plans are performed at once that hold already for the most part.
        """
        self._kept = kept
        self.born: dict[tuple[str, str], int] = {}
        self.near: dict[tuple[str, str], tuple[str, int]] = {}
        """Namespaces and indexes of near ends, by namespace and name of their far ends."""
        self.dumped = dumped or {}
        self.restoring = dumped is not None

    def perform(self, namespace: str, steps: Sequence[Step | PutBack], outcome: Outcome) -> None:
        """All steps are tried; their changes and failures are added to `outcome`."""
        places, there = _opened_places(steps), False
        try:
            with entered(namespace):
                there = True
                self._perform_there(namespace, steps, places, outcome)
        except KernelError as error:
            if there:
                raise
            outcome.failures += [Failure(step, error) for step in steps if not (_removes(step) and error.errno in MISSING)]
        finally:
            places.clear()  # closed now: an error's traceback may outlive this, and a namespace lives as long as it is open

    def _perform_there(self, namespace: str, steps: Sequence[Step | PutBack], places: Places, outcome: Outcome) -> None:
        try:
            with self._kept.at(namespace) as netlink:
                _Bench(self, namespace, netlink, places, outcome).perform(steps)
        except OSError as error:
            # The socket itself, not a message: what was sent is in the outcome as far as we know it.
            outcome.failures.append(Failure(steps[0], refusal(describe(steps[0]), error)))

    def settle_carriers(self, steps: Sequence[Step | PutBack]) -> None:
        """Let bridges forward at once to the links that these steps set up.

        A far end that comes up gives the near one its carrier, and the bridge learns of that from a kernel worker a little later: a
        container's first packet could be lost, and ARP asks again only after a second. Since Linux 6.8 looking at the near end
        does the worker's job.
        """
        ends: dict[str, list[int]] = {}
        for step in steps:
            if isinstance(step, LinkUp) and (near := self.near.get((step.namespace, step.link))) is not None:
                ends.setdefault(near[0], []).append(near[1])
        for namespace, indexes in ends.items():
            with entered(namespace), asked("look at links"), self._kept.at(namespace) as netlink:
                for index in indexes:
                    links.look(netlink, index)


class _Bench:
    """One visit to one namespace."""

    def __init__(self, wiring: Wiring, namespace: str, netlink: Socket, places: Places, outcome: Outcome) -> None:
        self._wiring, self._namespace, self._netlink, self._places, self._outcome = wiring, namespace, netlink, places, outcome
        self._seen: dict[str, Link | None] = {}
        self._tunnels: dict[str, int] = {}
        """Indexes of links that peers are entered on, of which there may be thousands."""

    def perform(self, steps: Sequence[Step | PutBack]) -> None:
        drafts = [self._first_draft(step) for step in steps]
        answers = iter(self._netlink.send([message for draft in drafts if isinstance(draft, Draft) for message in draft.messages]))
        # The answers are all there: a repair below may send without mixing them up.
        for step, draft in zip(steps, drafts, strict=True):
            error = draft if isinstance(draft, OSError) else self._settle(draft, answers)
            if error is not None and not _is_settled(step, error):
                self._repair(step)

    def _first_draft(self, step: Step | PutBack) -> Draft | OSError:
        try:
            return self._draft(step, again=False)
        except OSError as error:
            return error

    def _repair(self, step: Step | PutBack) -> None:
        """The second and last try, knowing what is there."""
        self._seen.clear()
        try:
            draft = self._draft(step, again=True)
            error: OSError | None = self._settle(draft, iter(self._netlink.send(draft.messages)))
            if isinstance(step, Vxlan) and error is not None:
                error = self._outlast(step, draft, error)
        except OSError as refused:
            error = refused
        if error is not None and not _is_settled(step, error):
            if isinstance(step, Macvlan | Ipvlan | Vlan | Dummy):
                error = stacked.reason(self._netlink, step, error)
            elif isinstance(step, Vxlan):
                error = vxlan.reason(step, error)
            elif isinstance(step, Fdb):
                error = peers.reason(step, error)
            self._outcome.failures.append(Failure(step, refusal(describe(step), error)))

    def _settle(self, draft: Draft, answers: Iterator[Refused | None]) -> Refused | None:
        """Notes the change; the first refusal, if any."""
        own = list(islice(answers, len(draft.messages)))
        if own and own[0] is None and draft.change is not None:
            self._outcome.changes.append(draft.change)
        return next((answer for answer in own if answer is not None), None)

    def _draft(self, step: Step | PutBack, *, again: bool) -> Draft:
        match step:
            case Remove(op=op):
                return self._draft_removal(step, op)
            case PutBack():
                return Draft([step.route])
            case Bridge():
                return self._draft_bridge(step, again=again)
            case Veth():
                return self._draft_veth(step, again=again)
            case Parent():
                # A restored network keeps its parent, whose MTU somebody may have changed meanwhile.
                mtu = 0 if self._wiring.restoring else step.mtu
                stacked.check_parent(self._netlink, self._find(step.name, again=again), step.carries, mtu)
                return Draft()
            case Dummy() | Vlan():
                return self._draft_carrier(step, again=again)
            case Macvlan() | Ipvlan():
                return self._draft_stacked(step, again=again)
            case Vxlan():
                return self._draft_vxlan(step)
            case Fdb() | Neighbour():
                return self._draft_entry(step, again=again)
            case Adopt():
                return self._draft_adoption(step, again=again)
            case LinkUp():
                born = None if again else self._born(step.link)
                if born is None and (link := self._link(step.link, again=again)).up:
                    return Draft()
                return Draft([links.set_up(born if born is not None else link.index, step.alias, step.mac)], _made(step))
            case Address():
                return Draft([addresses.add(step, self._index(step.link, again=again))], _made(step))
            case Route():
                return self._draft_route(step, again=again)
        raise TypeError(f"{type(step).__name__} is not wiring")

    def _draft_bridge(self, op: Bridge, *, again: bool) -> Draft:
        existing = self._find(op.name, again=again)
        if existing is None:
            return Draft(links.new_bridge(op, self._bear(self._namespace, op.name)), _made(op))
        if existing.kind != "bridge":
            raise Refused(errno.EEXIST, f"{op.name} is there already, and it is no bridge")
        _refuse_doomed(existing)
        self._wiring.born.pop((self._namespace, op.name), None)
        # Setting a MAC, even to what it is, holds it fast. One that the user has changed since is left to him.
        hold = op.mac if op.given and existing.mac == op.mac else ""
        if existing.up:
            return Draft([links.set_up(existing.index, mac=hold)] if hold else ())
        up = LinkUp(link=op.name, namespace=op.namespace)
        return Draft([links.set_up(existing.index, mac=hold)], _made(up))

    def _draft_veth(self, op: Veth, *, again: bool) -> Draft:
        master = self._index(op.master, again=again) if op.master else 0
        # First we just make it, and look only where the kernel says that there is one already.
        existing = self._find(op.name, again=again) if again or self._wiring.restoring else None
        if existing is not None:
            self._wiring.born.pop((self._namespace, op.name), None)
            self._wiring.born.pop((op.peer_namespace, op.peer), None)
            return _draft_corrections(op, existing, master)
        peer = self._place(op.peer_namespace) if op.peer_namespace != self._namespace else None
        index, peer_index = self._bear(self._namespace, op.name), self._bear(op.peer_namespace, op.peer)
        self._wiring.near[op.peer_namespace, op.peer] = self._namespace, index
        return Draft(links.new_veth(op, index, peer_index, peer, master), _made(op))

    def _draft_carrier(self, op: Dummy | Vlan, *, again: bool) -> Draft:
        existing = self._find(op.name, again=again)
        if existing is None:
            parent = self._index(op.parent, again=again) if isinstance(op, Vlan) else 0
            index = self._bear(self._namespace, op.name)
            messages = stacked.new_vlan(op, index, parent) if isinstance(op, Vlan) else stacked.new_dummy(op, index, self._netlink)
            return Draft(messages, _made(op))
        _refuse_doomed(existing)
        if not existing.ours:
            if isinstance(op, Vlan):
                return Draft()
            raise Refused(errno.EEXIST, f"a link {op.name} is there already, and it is not ours")
        return Draft() if existing.up else Draft([links.set_up(existing.index)], _made(LinkUp(link=op.name, namespace=op.namespace)))

    def _draft_stacked(self, op: Macvlan | Ipvlan, *, again: bool) -> Draft:
        namespace = self._place(op.link_namespace)
        if again or self._wiring.restoring:
            with entered(op.link_namespace), Socket() as netlink:
                existing = links.find(netlink, op.name)
            if existing is not None:
                self._wiring.born.pop((op.link_namespace, op.name), None)
                _refuse_foreign(existing, type(op).__name__.lower())
                return Draft()
        parent, index = self._index(op.parent, again=again), self._bear(op.link_namespace, op.name)
        return Draft([stacked.new(op, index, parent, namespace)], _made(op))

    def _draft_adoption(self, op: Adopt, *, again: bool) -> Draft:
        namespace = self._place(op.link_namespace)
        message = adoption.adopt(op, self._find(op.source, again=again), namespace)
        return Draft() if message is None else Draft([message], _made(op))

    def _draft_vxlan(self, op: Vxlan) -> Draft:
        """One of ours that is there with another number, port or address is made anew: what is entered on it goes with it."""
        namespace = self._place(op.link_namespace)
        with entered(op.link_namespace), Socket() as there:
            master = links.find(there, op.master) if op.master else None
            if op.master and master is None:
                raise Refused(errno.ENODEV, f"there is no link {op.master}")
            existing, tunnel = links.find(there, op.name), vxlan.find(there, op.name)
            if existing is not None and tunnel is not None:
                self._wiring.born.pop((op.link_namespace, op.name), None)
                _refuse_foreign(existing, "vxlan")
                if tunnel.fits(op):
                    self._correct_port(there, op, existing, master)
                    return Draft()
                there.request(links.delete(existing.index))
        index = self._bear(op.link_namespace, op.name)
        return Draft([vxlan.new(op, index, namespace, master.index if master is not None else 0)], _made(op))

    def _outlast(self, op: Vxlan, draft: Draft, error: OSError) -> OSError | None:
        """A namespace that was let go of with its tunnel in it: the kernel ends it within a moment, and then the number is free."""
        deadline = time.monotonic() + _LINGERING
        while error.errno == errno.EEXIST and time.monotonic() < deadline and not vxlan.visible(op):
            time.sleep(_LINGERING / 40)
            again = self._settle(draft, iter(self._netlink.send(draft.messages)))
            if again is None:
                return None
            error = again
        return error

    def _correct_port(self, there: Socket, op: Vxlan, existing: Link, master: Link | None) -> None:
        """Up, and a port of its bridge. Nothing takes that back."""
        if not existing.up or (master is not None and existing.master != master.index):
            there.request(links.enslave(existing.index, master.index) if master is not None else links.set_up(existing.index))
            self._outcome.changes.append(Change(op, ()))

    def _draft_entry(self, op: Fdb | Neighbour, *, again: bool) -> Draft:
        index = self._tunnel(op.link)
        if not (again or self._wiring.restoring):
            return Draft(peers.add(op, index), _made(op))
        former = peers.there(self._netlink, op, index)
        if former == op:
            return Draft()
        return Draft(peers.put(op, index), _made(op) if former is None else Change(op, (former,)))

    def _draft_entry_removal(self, step: Remove, op: Fdb | Neighbour) -> Draft:
        index = self._tunnel(op.link)
        return Draft(peers.delete(op, index), Change(step, (op,))) if peers.holds(self._netlink, op, index) else Draft()

    def _tunnel(self, name: str) -> int:
        if name not in self._tunnels:
            self._tunnels[name] = self._index(name, again=False)
        return self._tunnels[name]

    def _draft_route(self, op: Route, *, again: bool) -> Draft:
        index = self._index(op.link, again=again)
        existing = routes.find(self._netlink, op) if again else None
        if existing is None:
            return Draft([routes.add(op, index)], _made(op))
        if existing.leads_as(op, index):
            return Draft()
        put_back = PutBack(route=existing.put_back(), namespace=self._namespace)
        return Draft([routes.replace(op, index)], Change(op, (put_back,)))

    def _draft_removal(self, step: Remove, op: AnyOp) -> Draft:
        if isinstance(op, Fdb | Neighbour):
            return self._draft_entry_removal(step, op)
        if isinstance(op, Adopt):
            if adoption.give_back(op):
                self._outcome.changes.append(Change(step, (op,)))
            return Draft()
        if not isinstance(op, LinkUp | Address | Route):
            raise TypeError(f"removing {type(op).__name__} is not wiring")
        link = self._find(op.link, again=True)
        if link is None or (isinstance(op, LinkUp) and not link.up):
            return Draft()
        change = Change(step, (op,))
        match op:
            case LinkUp():
                return Draft([links.set_down(link.index)], change)
            case Address():
                return Draft([addresses.delete(op, link.index)], change)
            case Route():
                return Draft([routes.delete(op, link.index)], change)

    def _place(self, path: str) -> int:
        """The descriptor of another namespace, in which a link is to be born."""
        place = self._places[path]
        if isinstance(place, OSError):
            raise place
        return place.number

    def _index(self, name: str, *, again: bool) -> int:
        if not again:
            born = self._born(name)
            if born is not None:
                return born
            if not self._wiring.restoring:
                # An ioctl takes no lock; netlink's answer waits for whoever changes links at the moment, anywhere on the machine.
                with suppress(OSError):
                    return socket.if_nametoindex(name)
        return self._link(name, again=again).index

    def _born(self, name: str) -> int | None:
        return self._wiring.born.get((self._namespace, name))

    def _bear(self, namespace: str, name: str) -> int:
        """The index of a link that is about to be made."""
        index = links.choose_index()
        self._wiring.born[namespace, name] = index
        return index

    def _link(self, name: str, *, again: bool) -> Link:
        link = self._find(name, again=again)
        if link is None:
            raise Refused(errno.ENODEV, f"there is no link {name}")
        return link

    def _find(self, name: str, *, again: bool) -> Link | None:
        dumped = self._wiring.dumped.get(self._namespace)
        if dumped is not None and not again:
            return dumped.get(name)
        if name not in self._seen:
            self._seen[name] = links.find(self._netlink, name)
        return self._seen[name]


def _made(op: AnyOp) -> Change:
    return Change(op, (Remove(op=op, namespace=op.namespace),))


def _removes(step: Step | PutBack) -> bool:
    return isinstance(step, Remove)


def _is_settled(step: Step | PutBack, error: OSError) -> bool:
    """The refusal says that it is as asked already."""
    if isinstance(step, Remove):
        return error.errno in _GONE
    return isinstance(step, Address) and error.errno == errno.EEXIST


def _draft_corrections(op: Veth, existing: Link, master: int) -> Draft:
    """A veth of ours that is there: its master, state, alias and hairpin as they should be. Nothing takes that back."""
    _refuse_foreign(existing, "veth")
    _refuse_doomed(existing)
    messages = []
    if master and existing.master != master:
        messages.append(links.enslave(existing.index, master))
    elif not existing.up:
        messages.append(links.set_up(existing.index))
    if messages or existing.alias != op.alias or (op.master and not existing.hairpin):
        messages.append(links.dress(op, existing.index))
    return Draft(messages, Change(op, ()))


def _refuse_foreign(existing: Link, kind: str) -> None:
    if existing.kind != kind or not existing.ours:
        raise Refused(errno.EEXIST, f"a link {existing.name} is there already, and it is not ours")


def _refuse_doomed(existing: Link) -> None:
    if existing.group == DOOMED_GROUP:
        raise Refused(errno.EBUSY, f"{existing.name} is being deleted")


def _opened_places(steps: Iterable[Step | PutBack]) -> Places:
    """The other namespaces in which links are to be born."""
    places: Places = {}
    for path in map(_elsewhere, steps):
        if path is not None and path not in places:
            try:
                places[path] = opened(path)
            except OSError as error:
                places[path] = error
    return places


def _elsewhere(step: Step | PutBack) -> str | None:
    """The namespace in which the step makes a link, if that is not the one in which it acts."""
    match step:
        case Veth():
            return step.peer_namespace if step.peer_namespace != step.namespace else None
        case PlacedOp() | Adopt():
            return step.link_namespace
    return None
