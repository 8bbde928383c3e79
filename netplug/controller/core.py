"""What the controller's parts share: the rooms they call, the records, the locks, and the two ways to change the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from netplug.addressing import Allocator, Ipams
from netplug.controller.hostports import HostPorts
from netplug.controller.records import Records
from netplug.controller.requests import Events
from netplug.driver import Driver, Drivers
from netplug.errors import NetplugError
from netplug.kernel.executor import Executor
from netplug.kernel.firewall import Firewall
from netplug.kernel.journal import Journal
from netplug.model import Endpoint, Network, PoolConfig, mac_of
from netplug.plan import FirewallOp, Plan, Remove, Step
from netplug.resolver.client import Resolver
from netplug.store import Store

log = logging.getLogger(__name__)

_recorder: ContextVar[list[Plan] | None] = ContextVar("recorder", default=None)


@contextlib.contextmanager
def recording() -> Iterator[list[Plan]]:
    """Collect the plans that are applied for the current task."""
    plans: list[Plan] = []
    token = _recorder.set(plans)
    try:
        yield plans
    finally:
        _recorder.reset(token)


@dataclass
class Core:
    """The rooms, wired together once by the daemon."""

    store: Store
    executor: Executor
    firewall: Firewall
    resolver: Resolver
    drivers: Drivers
    ipams: Ipams
    journal: Journal
    run_dir: Path
    incarnation: str
    records: Records = field(default_factory=Records)
    ports: HostPorts = field(default_factory=HostPorts)
    events: Events = field(default_factory=Events)
    allocators: dict[str, list[tuple[PoolConfig, Allocator]]] = field(default_factory=dict)
    last_macs: dict[tuple[str, str], str] = field(default_factory=dict)
    """By (network, address): the MAC of the last owner, where that was of the user's choice."""
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def lock(self, identity: str) -> asyncio.Lock:
        """The lock of a sandbox or a network. Order: the sandbox's, then the network's."""
        found = self._locks.get(identity)
        if found is None:
            found = self._locks[identity] = asyncio.Lock()
        return found

    def driver(self, network: Network) -> Driver:
        return self.drivers.get(network.driver)

    async def apply(self, action: str, subject: str, plan: Plan) -> None:
        """Make the plan true, or raise with everything undone; noted in the journal either way."""
        self._note(plan)
        try:
            applied = await self.executor.apply(plan)
        except NetplugError as error:
            self.journal.record(action, subject, (), str(error))
            raise
        self.journal.record(action, subject, applied.changed)

    async def remove(self, action: str, subject: str, plan: Plan) -> None:
        """Take the plan's things away as far as possible; what resists is logged and is swept away at the next start."""
        self._note(plan)
        errors = await self.executor.remove(plan)
        for error in errors:
            log.error("%s %s: %s", action, subject, error)
        self.journal.record(action, subject, plan, "; ".join(map(str, errors)))

    def explain(self, plans: Sequence[Plan]) -> list[str]:
        """The plans as shell commands that do the same."""
        lines: list[str] = []
        steps = itertools.chain.from_iterable(plans)
        for (firewall, namespace), group in itertools.groupby(steps, _room):
            if firewall:
                rules = [step for step in group if isinstance(step, FirewallOp | Remove)]
                lines += self.firewall.explain(namespace, rules)
            else:
                lines += itertools.chain.from_iterable(step.explain() for step in group)
        return lines

    def retire(self, endpoint: Endpoint) -> None:
        """Its address is free. Where its MAC was of the user's choice, neighbours know the address by that for a while."""
        self.free(endpoint.network, endpoint.address)
        if endpoint.mac != mac_of(endpoint.address, endpoint.id):
            self.last_macs[endpoint.network, endpoint.address] = endpoint.mac

    def known_otherwise(self, endpoint: Endpoint) -> bool:
        """Whether neighbours may know its address by another MAC. One made from the address is every owner's."""
        usual = mac_of(endpoint.address, endpoint.id)
        return self.last_macs.get((endpoint.network, endpoint.address), usual) != endpoint.mac

    def take(self, network: str, address: str) -> None:
        """Note that somebody has an address of the network."""
        text = address.split("/")[0]
        for pool, allocator in self.allocators.get(network, ()):
            if text and ipaddress.ip_address(text) in ipaddress.ip_network(pool.subnet):
                allocator.take(text)

    def free(self, network: str, address: str) -> None:
        """Give an address back to whichever pool of the network it came from."""
        text = address.split("/")[0]
        for pool, allocator in self.allocators.get(network, ()):
            if text and ipaddress.ip_address(text) in ipaddress.ip_network(pool.subnet):
                allocator.release(text)

    def _note(self, plan: Plan) -> None:
        plans = _recorder.get()
        if plans is not None and plan:
            plans.append(plan)


def _room(step: Step) -> tuple[bool, str]:
    op = step.op if isinstance(step, Remove) else step
    return isinstance(op, FirewallOp), op.namespace
