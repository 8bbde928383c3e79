"""Puts back what others take away of ours, and knows when to stop.

What the watch hears is gathered for a moment, so that a bridge that goes with a thousand ports is one matter. Then each network or sandbox
that is concerned is looked at under its lock, where none of our own changes is half done: what its plan has and the kernel has not is put
back, nothing else is touched. A container that is gone altogether is no loss to heal: its sandbox gives back what it had.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from netplug.controller.account import Account
from netplug.controller.backoff import Backoff, Verdict
from netplug.controller.concern import Concern, Subject
from netplug.controller.core import Core, log
from netplug.controller.joining import redirection
from netplug.controller.nouns import kind, links, made_links, noun, shortened
from netplug.controller.requests import ControllerEvent
from netplug.controller.restore import Restore
from netplug.controller.routing import Routing
from netplug.errors import KernelError, NetplugError
from netplug.kernel import carriers, survey
from netplug.kernel.firewall import legacy
from netplug.kernel.firewall.neighbours import PRIORITIES, Neighbours
from netplug.kernel.losses import Loss
from netplug.kernel.watch import Watch
from netplug.model import Network, Sandbox
from netplug.plan import HOST, Announce, DnsRedirect, LinkOp, LinkUp, Netns, Plan, Route, Step, Sysctl, Veth

GATHER_SECONDS = 0.05
POLL_SECONDS = 0.5
"""Legacy iptables tables raise no events; looking whether there are any takes 0.02 ms."""
RETRY_SECONDS = 1.0
"""After which what could not be put right is tried again; the backoff sees to it that this ends."""
TOLD_SECONDS = 1.0
"""Nothing tells that a thing is right again, which is to be known before it is told anew."""
SYSCTL_SECONDS = 10.0
"""Nor do most sysctls, nor IPv4 routes that go with a link that is set down."""
_PER_TURN = 8
"""So many sandboxes are looked at before the loop may do something else: a few milliseconds."""


class Healing:
    """Of this host. With `enabled` false it only says what it sees."""

    def __init__(
        self,
        core: Core,
        restore: Restore,
        routing: Routing,
        watch: Watch,
        *,
        enabled: bool,
        vanished: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._core, self._restore, self._routing, self._watch = core, restore, routing, watch
        self._enabled, self._vanished = enabled, vanished
        self._concern = Concern(core)
        self._backoff = Backoff()
        self._neighbours = Neighbours(PRIORITIES[core.firewall.name]) if core.firewall.name in PRIORITIES else None
        self._base: Plan = ()
        self._losses: dict[Loss, None] = {}
        self._waiting: dict[Subject, None] = {}
        self._account = Account(core.journal)
        self._woken: list[tuple[Veth, Plan]] = []
        self._legacy: legacy.Signature = ()
        """As we left it."""
        self._wakeup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def listen(self) -> None:
        """From here on nothing is missed."""
        self._watch.lost = self._lost
        self._watch.start()
        self._core.events.subscribe(self._follow)

    def start(self, base: Plan) -> None:
        """Once kernel and records agree. `base` is what the host needs whatever networks there are."""
        self._base = base
        for identity in self._core.joined:
            self.moved(self._core.records.networks[identity], True)
        for sandbox in self._core.records.sandboxes.values():
            self._follow(ControllerEvent(kind="sandbox", action="create", sandbox=sandbox))
        for endpoint in self._core.records.endpoints.values():
            self._follow(ControllerEvent(kind="endpoint", action="connect", endpoint=endpoint))
        self._greet_neighbours()
        self._legacy = self._signature()
        works = (self._work, self._poll_legacy, self._check_sysctls, *(() if self._enabled else (self._check_told,)))
        self._tasks = [asyncio.create_task(work()) for work in works]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._watch.close()

    @property
    def healed(self) -> Mapping[str, int]:
        """How much has been put back since the start, by kind."""
        return self._account.healed

    @property
    def neighbours(self) -> Neighbours | None:
        """Our rule in other tools' chains; None where we have no firewall."""
        return self._neighbours

    def suspended(self) -> list[str]:
        """What is left alone at present, because it was taken away again and again."""
        return self._backoff.paused()

    def forget_told(self) -> None:
        """Somebody has put things right: what goes from now on is news."""
        self._account.told.clear()

    # What is heard

    def moved(self, network: Network, joined: bool) -> None:
        """This host is on that global network now, or is no more: the namespace that it has for it is heard, or not."""
        self._concern.moved(network, joined)
        place = self._core.place(network)
        (self._watch.follow if joined else self._watch.forget)(place)

    def _lost(self, loss: Loss) -> None:
        # A disconnect of ours takes routes with it. It is judged now: in a moment the sandbox may be connected anew.
        if loss.namespace == HOST or self._concern.any(loss):
            self._losses[loss] = None
            self._wakeup.set()

    def _look_at(self, subject: Subject) -> None:
        self._waiting[subject] = None
        self._wakeup.set()

    def _follow(self, event: ControllerEvent) -> None:
        self._concern.follow(event)
        sandbox = event.sandbox
        if event.kind == "sandbox" and sandbox is not None and sandbox.kind != "host":
            if event.action in ("create", "update"):
                self._watch.follow(sandbox.namespace)
            elif event.action == "remove":
                self._watch.forget(sandbox.namespace)

    async def _poll_legacy(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._signature() != self._legacy:
                self._look_at(Subject("neighbours"))
                if self._core.firewall.name == "iptables":
                    self._look_at(Subject("firewall"))

    def _signature(self) -> legacy.Signature:
        try:
            return legacy.signature()
        except KernelError:  # a table went while it was read
            return ()

    async def _check_sysctls(self) -> None:
        while True:
            await asyncio.sleep(SYSCTL_SECONDS)
            core = self._core
            plans = {Subject("host"): (*self._base, *core.routes)}
            for network in core.records.networks.values():  # what leads to other nodes' endpoints has none of these
                plans[Subject("network", network.id)] = core.network_plan(network, peers=() if network.id in core.joined else None)
            for subject, plan in plans.items():
                with contextlib.suppress(KernelError):
                    if survey.missing([step for step in plan if isinstance(step, Sysctl | Route)]):
                        self._look_at(subject)

    async def _check_told(self) -> None:
        while True:
            await asyncio.sleep(TOLD_SECONDS)
            for subject in self._account.told:
                self._look_at(subject)

    # What is done about it

    async def _work(self) -> None:
        while True:
            await self._wakeup.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._wakeup.clear()
            losses, self._losses = self._losses, {}
            waiting, self._waiting = self._waiting, {}
            try:
                subjects = self._concern.subjects(losses) | {subject: [] for subject in waiting}
                if subjects:
                    # Whoever takes much away may still hold the lock of all links: the loop must not wait for that.
                    await asyncio.to_thread(survey.settled)
                    await self._heal(subjects)
            except Exception:  # a mistake of ours about one loss must not end the healing of others
                log.exception("healing")

    async def _heal(self, subjects: dict[Subject, list[str]]) -> None:
        queue = deque(subjects)
        queued = set(queue)
        turn = 0
        while queue:
            subject = queue.popleft()
            self._account.blame(subjects.get(subject, ()))
            try:
                more = set(await self._look(subject)) - queued
            except NetplugError as error:
                log.error("%s could not be looked at: %s", self._owner(subject), error)
                self._account.notice(subject, ())
                self._try_again(f"{self._owner(subject)}: {subject.kind}", subject)
                continue
            queue += more
            queued |= more
            turn += 1
            if turn % _PER_TURN == 0:
                await asyncio.sleep(0)
        self._account.say()
        await self._wake_neighbours()

    async def _wake_neighbours(self) -> None:
        """Who has asked for a neighbour's address in vain would ask again after a second only."""
        pairs, self._woken = self._woken, []
        for turn, (pair, announcements) in enumerate(pairs):
            with contextlib.suppress(KernelError):  # the container may have gone since
                carriers.settle(pair)
            await self._core.executor.ensure(announcements)
            if turn % _PER_TURN == 0:
                await asyncio.sleep(0)

    async def _look(self, subject: Subject) -> Iterable[Subject]:
        """Look at one, put back what is missing; whom to look at in consequence."""
        match subject.kind:
            case "firewall":
                self._heal_firewall(subject)
                self._legacy = self._signature()
            case "neighbours":
                self._heal_neighbours(subject)
                self._legacy = self._signature()
            case "host":
                # Where a link has gone down there is no way to put back, and where somebody has made one of his own there need not be.
                await self._routing.settle()
                await self._put_back(subject, "the host", (*self._base, *self._core.routes))
            case "network":
                return await self._heal_network(subject)
            case "sandbox" | "port" | "names":
                await self._heal_sandbox(subject)
        return ()

    def _heal_firewall(self, subject: Subject) -> None:
        thing = "the firewall"
        if not self._enabled:
            self._account.notice(subject, [f"{thing}: {shortened(words)}"] if (words := self._core.firewall.damage()) else [])
        elif not self._backoff.left(thing) and (words := self._core.firewall.heal()):
            self._account.put_back(thing, ["firewall"] * len(words), words)
            if self._backoff.judge(thing) is Verdict.PAUSE:
                self._pause(thing, subject)

    def _heal_neighbours(self, subject: Subject) -> None:
        thing = "the rule in other tools' chains"
        if self._neighbours is None or self._backoff.left(thing):
            return
        if not self._enabled:
            self._account.notice(subject, [f"{chain} drops what netplug allows" for chain in self._neighbours.lacking()])
            return
        placed = self._neighbours.adjust()
        again = [one.chain for one in placed if one.how == "again"]
        self._welcome([one.chain for one in placed if one.how == "new"])
        if again:
            self._account.put_back(thing, ["neighbours"] * len(again), again)
            if self._backoff.judge(thing) is Verdict.PAUSE:
                self._pause(thing, subject)

    def _greet_neighbours(self) -> None:
        try:
            if self._neighbours is not None:
                self._welcome([one.chain for one in self._neighbours.adjust() if one.how == "new"])
            else:  # no firewall of ours: nor a rule that an earlier daemon left
                Neighbours(0).withdraw()
        except NetplugError as error:
            log.error("other tools' firewalls could not be looked at: %s", error)

    def _welcome(self, chains: Sequence[str]) -> None:
        for chain in chains:
            log.info("%s drops what nothing in it allows: what netplug allows passes there by a rule of ours (mark 0x1000)", chain)
            self._core.journal.record("firewall", f"rule in {chain}", ())

    async def _heal_network(self, subject: Subject) -> Iterable[Subject]:
        core = self._core
        # This host's own networks, of which new ones must keep off, do not wait for the cluster's.
        networks = core.lock("networks") if core.cluster is None or subject.id not in core.joined else contextlib.nullcontext()
        async with networks, core.lock(subject.id):
            network = core.records.networks.get(subject.id)
            if network is None:
                self._account.notice(subject, ())
                return ()
            changed = await self._rebuilt(subject, network)
        if not any(isinstance(step, LinkOp) for step in changed):
            return ()
        # Its ports went with it; those that had been looked at before it came back could not be helped.
        return [Subject("port", identity) for identity in {endpoint.sandbox for endpoint in core.records.of_network(subject.id)}]

    async def _rebuilt(self, subject: Subject, network: Network) -> Plan:
        """What was put back. Once its bridge is there, a tunnel that was a port of it is missing."""
        core = self._core
        place = core.place(network)
        if place and network.id not in core.joined:
            return ()
        changed = await self._put_back(subject, network.name, core.network_plan(network))
        if place and any(isinstance(step, LinkOp | Netns) for step in changed):
            self._watch.follow(place)
            changed = (*changed, *await self._put_back(subject, network.name, core.network_plan(network)))
        return changed

    async def _heal_sandbox(self, subject: Subject) -> None:
        core = self._core
        if not self._enabled and subject.kind == "port":
            subject = Subject("sandbox", subject.id)  # it has all of a port's, which is told once
        async with core.lock(subject.id):
            sandbox = core.records.sandboxes.get(subject.id)
            if sandbox is None:
                self._account.notice(subject, ())
                return
            if self._restore.alive(sandbox):
                if subject.kind == "names":
                    await self._heal_names(subject, sandbox)
                    return
                plan = self._restore.sandbox_plan(sandbox)
                ports = tuple(step for step in plan if step.namespace != sandbox.namespace)
                changed = await self._put_back(subject, sandbox.name, ports if subject.kind == "port" else plan)
                if subject.kind == "port" and any(isinstance(step, LinkOp) for step in changed):
                    # A new pair: its end in the sandbox has neither address nor route yet.
                    await self._put_back(subject, sandbox.name, plan)
                return
        self._account.notice(subject, ())
        await self._vanished(subject.id)

    async def _heal_names(self, subject: Subject, sandbox: Sandbox) -> None:
        thing = f"{sandbox.name}: the way to its resolver"
        plan = redirection(sandbox)
        if not self._enabled:
            lacking = self._core.firewall.survey(sandbox.namespace, [step for step in plan if isinstance(step, DnsRedirect)]).steps
            self._account.notice(subject, [thing] if lacking else [])
        elif plan and not self._backoff.left(thing):
            changed, errors = await self._core.executor.ensure(plan)
            self._log_errors(sandbox.name, errors)
            if changed:
                self._account.put_back(sandbox.name, ["names"], ["the way to its resolver"], changed)
                if self._backoff.judge(thing) is Verdict.PAUSE:
                    self._pause(thing, subject)

    async def _put_back(self, subject: Subject, owner: str, plan: Plan) -> Plan:
        """What was really put back."""
        lost = survey.missing(plan)
        if not self._enabled:
            self._account.notice(subject, [f"{owner}: {noun(step)}" for step in lost])
            return ()
        if not lost:
            return ()
        chosen = self._allowed(subject, owner, lost)
        changed, errors = await self._core.executor.ensure(tuple(chosen)) if chosen else ((), [])
        self._log_errors(owner, errors)
        if errors:
            self._look_later(RETRY_SECONDS, subject)
        if changed:
            self._woken += self._to_wake(plan, changed)
            self._account.put_back(owner, map(kind, changed), [noun(step) for step in changed], changed)
        return changed

    def _to_wake(self, plan: Plan, changed: Plan) -> Iterator[tuple[Veth, Plan]]:
        """Pairs that have come up again, and what their neighbours are to be told."""
        ups = {(step.namespace, step.link) for step in changed if isinstance(step, LinkUp)}
        for pair in plan:
            if isinstance(pair, Veth) and (pair in changed or (pair.peer_namespace, pair.peer) in ups):
                far = pair.peer_namespace, pair.peer
                yield pair, tuple(step for step in plan if isinstance(step, Announce) and (step.namespace, step.link) == far)

    def _allowed(self, subject: Subject, owner: str, lost: Sequence[Step]) -> list[Step]:
        """What of it is not left alone, nor hangs on a link that is."""
        chosen: list[Step] = []
        absent: set[str] = set()
        for step in lost:
            thing = f"{owner}: {noun(step)}"
            verdict = self._backoff.judge(thing)
            if verdict is Verdict.PAUSE:
                self._pause(thing, subject)
            if verdict is Verdict.PUT_BACK and absent.isdisjoint(links(step)):
                chosen.append(step)
            else:
                absent |= made_links(step)
        return chosen

    def _pause(self, thing: str, subject: Subject) -> None:
        seconds = self._backoff.left(thing)
        self._account.leave_alone(thing, seconds)
        self._look_later(seconds + GATHER_SECONDS, subject)

    def _try_again(self, thing: str, subject: Subject) -> None:
        """Soon, and after some times later and later."""
        verdict = self._backoff.judge(thing)
        if verdict is Verdict.PUT_BACK:
            self._look_later(RETRY_SECONDS, subject)
        elif verdict is Verdict.PAUSE:
            self._pause(thing, subject)

    def _look_later(self, seconds: float, subject: Subject) -> None:
        """And first at the networks of a sandbox: what it lacks may be for want of theirs."""
        of_sandbox = self._core.records.of_sandbox(subject.id) if subject.kind in ("sandbox", "port") else ()
        for one in (*(Subject("network", endpoint.network) for endpoint in of_sandbox), subject):
            asyncio.get_running_loop().call_later(seconds, self._look_at, one)

    def _log_errors(self, owner: str, errors: Iterable[NetplugError]) -> None:
        for error in errors:
            log.error("%s could not be put right: %s", owner, error)

    def _owner(self, subject: Subject) -> str:
        records = self._core.records
        found: Network | Sandbox | None = records.networks.get(subject.id) or records.sandboxes.get(subject.id)
        return found.name if found is not None else f"the {subject.kind}"
