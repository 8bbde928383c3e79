"""What the controller's parts share: the rooms they call, the records, the locks, and the two ways to change the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

from netplug.addressing import Allocator, Ipams
from netplug.capability import PeerAware, Underlay
from netplug.controller.cluster import Cluster
from netplug.controller.hostports import HostPorts
from netplug.controller.leases import Leases
from netplug.controller.records import Records
from netplug.controller.requests import Events
from netplug.driver import Driver
from netplug.errors import NetplugError
from netplug.forwarder.client import Forwarder
from netplug.kernel import facts, routes
from netplug.kernel.executor import Executor
from netplug.kernel.firewall import Firewall
from netplug.kernel.journal import Journal
from netplug.kernel.outcome import Applied
from netplug.model import Endpoint, Network, PoolConfig, mac_of
from netplug.plan import IPV6_FORWARDING, Direct, FirewallOp, Plan, Publish, Remove, Step, Sysctl, removal
from netplug.registry import Drivers
from netplug.resolver.client import Resolver
from netplug.store import Store

log = logging.getLogger(__name__)

QUIET_SECONDS = 10.0

MOST_MACS = 10_000
"""How many former owners' MACs are remembered."""

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
    forwarder: Forwarder = field(init=False)
    leases: Leases = field(init=False)
    """What engines have been handed out."""
    events: Events = field(default_factory=Events)
    allocators: dict[str, list[tuple[PoolConfig, Allocator]]] = field(default_factory=dict)
    underlay: Underlay = field(default_factory=Underlay)
    """What tunnels to other nodes run through."""
    cluster: Cluster | None = None
    """None: this host is alone."""
    joined: set[str] = field(default_factory=set)
    """Global networks that this node is on."""
    peers: dict[str, dict[str, Endpoint]] = field(default_factory=lambda: defaultdict(dict))
    """By network that is joined, and id: endpoints on other nodes."""
    routes: Plan = ()
    """To networks of other nodes, and what lets that traffic pass: as it should be now."""
    last_macs: dict[tuple[str, str], str] = field(default_factory=dict)
    """By (network, address): the MAC of the last owner, where that was not made from the address."""
    ip_forward: bool = True
    """Whether forwarding is switched on where networks need it."""
    resolv_conf: str = ""
    """Of the host."""
    direct_routing: bool = False
    """Whether published ports are reached from outside by the containers' own addresses too."""
    _holders: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """By (network, address), in global networks: who has it as far as is known. Its next owner may be heard of before its last is gone."""
    _here: dict[tuple[str, str], Driver] = field(default_factory=dict)
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self.forwarder = Forwarder(self.run_dir)
        self.leases = Leases(self.store, self.ipams, self.host_subnets)

    def host_subnets(self) -> list[str]:
        """What a subnet that nobody has asked for keeps clear of: ways and addresses of this host, and its name servers."""
        return [*routes.host_subnets(), *self.name_servers()]

    def name_servers(self) -> list[str]:
        """Of the host, as subnets: one behind the default route would be looked for in the network that covers it."""
        return [str(server) for server in facts.name_servers(self.resolv_conf)]

    def lock(self, identity: str) -> asyncio.Lock:
        """The lock of a sandbox or a network. Order: the sandbox's, then the network's."""
        found = self._locks.get(identity)
        if found is None:
            found = self._locks[identity] = asyncio.Lock()
        return found

    async def quiet(self) -> None:
        """Once all that is under way now has come to its end, or has taken QUIET_SECONDS."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                for lock in list(self._locks.values()):
                    async with lock:
                        pass

    def driver(self, network: Network) -> Driver:
        """The network's, as it is on this node."""
        place = network.finder, network.driver
        found = self._here.get(place)
        if found is None:
            driver = self.drivers.get(network.driver, network.finder)
            found = self._here[place] = driver.on(self.underlay) if isinstance(driver, PeerAware) else driver
        return found

    async def apply(self, action: str, subject: str, plan: Plan) -> Applied:
        """Make the plan true, or raise with everything undone; noted in the journal either way."""
        self.note(plan)
        try:
            applied = await self.executor.apply(plan)
        except NetplugError as error:
            self.journal.record(action, subject, (), str(error))
            raise
        self.journal.record(action, subject, applied.changed)
        return applied

    async def establish(
        self,
        action: str,
        subject: str,
        plan: Plan,
        record: Awaitable[object],
        opposite: Callable[[], Awaitable[object]],
    ) -> None:
        """Make plan and `record` true, or neither. `opposite` takes a record back.

        The record is on its way to the disk: that and the kernel work side by side. What a daemon that dies has in one of them only, the
        next one makes or removes.
        """
        try:
            applied = await self.apply(action, subject, plan)
        except BaseException:
            if await _done(record):
                await opposite()
            raise
        try:
            await record
        except BaseException as error:
            self._forget(plan)
            errors = [error, *await self.executor.remove(applied.undo)]
            self.journal.record(action, subject, (), "; ".join(map(str, errors)))
            raise

    async def dissolve(
        self,
        action: str,
        subject: str,
        plan: Plan,
        record: Awaitable[object],
        opposite: Callable[[], Awaitable[object]],
    ) -> None:
        """The other way round: take the plan's things away, and their `record`. Where the record stays, `opposite` makes them again.

        Side by side as well: what a daemon that dies has in its records still, the next one makes again.
        """
        try:
            await self.remove(action, subject, plan)
        finally:
            try:
                await record
            except BaseException:
                await opposite()
                raise

    async def remove(self, action: str, subject: str, plan: Plan) -> None:
        """Take the plan's things away as far as possible; what resists is logged and is swept away at the next start."""
        self.note(plan)
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
        """Its addresses are free. Neighbours know them by its MAC for a while: noted where that is not what every owner has."""
        self.free(endpoint)
        for address in filter(None, (endpoint.address, endpoint.address6)):
            if endpoint.mac != mac_of(address, endpoint.id):
                self.last_macs[endpoint.network, address.split("/")[0]] = endpoint.mac
        while len(self.last_macs) > MOST_MACS:
            del self.last_macs[next(iter(self.last_macs))]

    def known_otherwise(self, endpoint: Endpoint, address: str) -> bool:
        """Whether neighbours may know its `address` by another MAC. One made from the address is every owner's."""
        made_from = (endpoint.address or endpoint.address6).split("/")[0]
        usual = mac_of(address, endpoint.id) if address == made_from else endpoint.mac
        return self.last_macs.get((endpoint.network, address), usual) != endpoint.mac

    def announced(self, endpoint: Endpoint) -> None:
        """Neighbours know its addresses by its own MAC now."""
        for address in (endpoint.address, endpoint.address6):
            self.last_macs.pop((endpoint.network, address.split("/")[0]), None)

    def take(self, endpoint: Endpoint) -> None:
        """Note that it has its addresses."""
        for address in filter(None, (endpoint.address, endpoint.address6)):
            if endpoint.node:
                self._holders.setdefault((endpoint.network, address.split("/")[0]), set()).add(endpoint.id)
            for allocator in self._allocators(endpoint.network, address):
                allocator.take(address.split("/")[0])

    def free(self, endpoint: Endpoint) -> None:
        """Give its addresses back to the pools that they came from, but for those that another endpoint has by now."""
        for address in filter(None, (endpoint.address, endpoint.address6)):
            place = endpoint.network, address.split("/")[0]
            holders = self._holders.get(place, set())
            holders.discard(endpoint.id)
            if not holders:
                self._holders.pop(place, None)
                self.give_back(endpoint.network, address)

    def held(self, endpoint: Endpoint, address: str) -> bool:
        """Whether another endpoint is known to have that address."""
        return bool(self._holders.get((endpoint.network, address), set()) - {endpoint.id})

    def give_back(self, network: str, address: str) -> None:
        if self.leases.holds(network, address.split("/")[0]):
            return
        for allocator in self._allocators(network, address):
            allocator.release(address.split("/")[0])

    def _allocators(self, network: str, address: str) -> Iterator[Allocator]:
        """Of the network's pools, those that `address` lies in."""
        text = address.split("/")[0]
        place = _packed(text) if text else b""
        for pool, allocator in self.allocators.get(network, ()):
            first, last = _bounds(pool.subnet)
            if len(place) == len(first) and first <= place <= last:
                yield allocator

    def place(self, network: Network) -> str:
        """The namespace in which a global network is on this node; `""` for another network."""
        driver = self.driver(network)
        return driver.namespace(network) if isinstance(driver, PeerAware) else ""

    def network_plan(self, network: Network, peers: Iterable[Endpoint] | None = None) -> Plan:
        """What the network is made of here; without IPv6 forwarding where that is the admin's business.

        `peers`: as if this node were on it, and these on other nodes.
        """
        driver = self.driver(network)
        plan = driver.create_network(network)
        if peers is None and network.id in self.joined:
            peers = self.peers[network.id].values()
        if isinstance(driver, PeerAware) and peers is not None:
            plan = (*plan, *driver.underlay(network), *self.peers_plan(network, peers))
        if self.ip_forward:
            return plan
        return tuple(step for step in plan if not (isinstance(step, Sysctl) and step.key == IPV6_FORWARDING))

    def peers_plan(self, network: Network, peers: Iterable[Endpoint]) -> Plan:
        """What leads to these endpoints on other nodes."""
        driver = self.driver(network)
        return tuple(step for peer in peers for step in driver.peer_added(network, peer)) if isinstance(driver, PeerAware) else ()

    def open_pools(self, network: Network) -> None:
        """Make the network's allocators, with nothing in them but what the pools reserve."""
        ipam = self.ipams.get(network.ipam_driver, network.ipam_finder)
        self.allocators[network.id] = [(pool, ipam.allocator(pool)) for pool in network.pools]
        for address in self.leases.of(network.id):
            for allocator in self._allocators(network.id, address):
                allocator.take(address)

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        """What makes the endpoint's ports reachable."""
        plan = self.driver(network).publish(network, endpoint)
        return (*plan, *_direct(plan)) if self.direct_routing else plan

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        plan = self.driver(network).unpublish(network, endpoint)
        return (*plan, *removal(_direct(plan))) if self.direct_routing else plan

    def note(self, plan: Plan) -> None:
        """For whoever records what the current task does."""
        plans = _recorder.get()
        if plans is not None and plan:
            plans.append(plan)

    def _forget(self, plan: Plan) -> None:
        """The opposite of `note`: it has been undone, and another may follow that does the same in another way."""
        plans = _recorder.get()
        if plans is not None and plan in plans:
            plans.remove(plan)


async def _done(record: Awaitable[object]) -> bool:
    """Whether it was made, as far as anybody can say."""
    with contextlib.suppress(asyncio.CancelledError):
        try:
            await record
        except Exception as error:  # whoever asks has an error of his own to raise
            log.warning("nor has it a record: %s", error)
            return False
    return True


def _packed(address: str) -> bytes:
    """As numbers that compare as addresses do; a tenth of what ipaddress takes."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


@lru_cache(maxsize=1024)
def _bounds(subnet: str) -> tuple[bytes, bytes]:
    """The first and last address, packed."""
    network = ipaddress.ip_network(subnet)
    return network.network_address.packed, network.broadcast_address.packed


def _room(step: Step) -> tuple[bool, str]:
    op = step.op if isinstance(step, Remove) else step
    return isinstance(op, FirewallOp), op.namespace


def _direct(plan: Plan) -> Plan:
    """What opens the container's own address where a port of the host leads to it; ports of the host's loopback are for nobody outside."""
    ops = (step.op if isinstance(step, Remove) else step for step in plan)
    published = (op for op in ops if isinstance(op, Publish) and not (op.host_ip and ipaddress.ip_address(op.host_ip).is_loopback))
    return tuple(dict.fromkeys(Direct(protocol=op.protocol, address=op.address, port=op.port, count=op.count) for op in published))
