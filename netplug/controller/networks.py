"""Create and remove networks: the order of the steps.

Create: pools from IPAM, one durable transaction (record, name, claims), the driver's plan. Remove: the records first, so that nothing new
can join, then the kernel. A daemon that dies in between finds either a record whose plan it makes true, or marked links without a record.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from netplug.controller.core import Core
from netplug.controller.joining import interface_prefix
from netplug.controller.records import delete_network, put_network
from netplug.controller.requests import ControllerEvent, NetworkRequest
from netplug.driver import Claims
from netplug.errors import Conflict, Forbidden, InvalidArgument, NetplugError, NetworkInUse, PoolOverlap
from netplug.kernel import routes
from netplug.model import Network, PoolConfig, new_id, now
from netplug.plan import Plan
from netplug.store import Lost

PREDEFINED = ("bridge", "host", "none")


class Networks:
    """The life of networks."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, request: NetworkRequest, *, predefined: bool = False) -> Network:
        core = self._core
        async with core.lock("networks"):
            network = self.prepare(request, predefined=predefined)
            core.records.add_network(network)
            claims = self._claims(network)
            try:
                compares, writes = put_network(network, claims)
                await core.store.txn(compares, writes, durable=True)
            except Lost as lost:
                core.records.drop_network(network)
                raise self._taken(network, lost) from lost
            except BaseException:
                core.records.drop_network(network)
                raise
            self.open_pools(network)
            try:
                await core.apply("network create", network.name, core.driver(network).create_network(network))
            except BaseException:
                core.records.drop_network(network)
                core.allocators.pop(network.id, None)
                await core.store.txn((), delete_network(network, claims), durable=True)
                raise
        core.events.send(ControllerEvent(kind="network", action="create", network=network))
        return network

    async def remove(self, reference: str, *, predefined: bool = False) -> Network:
        core = self._core
        async with core.lock("networks"):
            network = core.records.network(reference)
            async with core.lock(network.id):
                plan = self.plan_removal(network, predefined=predefined)
                core.records.drop_network(network)
                core.allocators.pop(network.id, None)
                core.last_macs = {key: mac for key, mac in core.last_macs.items() if key[0] != network.id}
                await core.store.txn((), delete_network(network, self._claims(network)), durable=True)
                await core.remove("network rm", network.name, plan)
        core.events.send(ControllerEvent(kind="network", action="remove", network=network))
        return network

    def plan_removal(self, network: Network, *, predefined: bool = False) -> Plan:
        """What removing it would do; raises if it cannot go."""
        if network.predefined and not predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        endpoints = self._core.records.of_network(network.id)
        if endpoints:
            names = ", ".join(f"{endpoint.container_name or endpoint.id[:12]}" for endpoint in endpoints[:5])
            more = ", …" if len(endpoints) > 5 else ""
            raise NetworkInUse(f"error while removing network: network {network.name} id {network.id} has active endpoints ({names}{more})")
        return self._core.driver(network).delete_network(network)

    def prepare(self, request: NetworkRequest, *, predefined: bool = False) -> Network:
        """The record that the request makes, checked; changes nothing."""
        records = self._core.records
        self._check_name(request.name, predefined)
        if records.network_named(request.name) is not None:
            raise Conflict(f"network with name {request.name} already exists")
        driver = self._core.drivers.get(request.driver)
        if driver.capabilities.singleton and not predefined:
            raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
        network = Network(
            id=new_id(),
            name=request.name,
            driver=request.driver,
            created=now(),
            scope="global" if driver.capabilities.scope == "global" else "local",
            internal=request.internal,
            attachable=request.attachable,
            predefined=predefined,
            ipam_driver=request.ipam_driver,
            ipam_options=request.ipam_options,
            options=request.options,
            labels=request.labels,
        )
        driver.validate(network)
        interface_prefix(network)
        if driver.capabilities.addresses:
            network = msgspec.structs.replace(network, pools=self._pools(request, driver.capabilities.scope))
        driver.validate(network)
        self._check_claims(network)
        return network

    def open_pools(self, network: Network) -> None:
        """Make the network's allocators, with nothing in them but what the pools reserve."""
        ipam = self._core.ipams.get(network.ipam_driver)
        self._core.allocators[network.id] = [(pool, ipam.allocator(pool)) for pool in network.pools]

    def _check_name(self, name: str, predefined: bool) -> None:
        if not name:
            raise InvalidArgument("invalid name: name is empty")
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", name):
            raise InvalidArgument(f'invalid network name "{name}": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed')
        if name in PREDEFINED and not predefined:
            raise Forbidden(f"operation is not permitted on predefined {name} network")

    def _pools(self, request: NetworkRequest, scope: str) -> tuple[PoolConfig, ...]:
        ipam = self._core.ipams.get(request.ipam_driver)
        others = [pool.subnet for network in self._core.records.networks.values() for pool in network.pools]
        # A bridge that the user has made already may carry the network's subnet.
        host = routes.host_subnets(beside=request.options.get("com.docker.network.bridge.name", ""))
        pools: list[PoolConfig] = []
        for wanted in request.pools or (PoolConfig(subnet=""),):
            automatic = wanted == PoolConfig(subnet="")
            taken = [*others, *(pool.subnet for pool in pools), *(host if automatic else ())]
            pool = ipam.request_pool(None if automatic else wanted, taken, request.ipam_options, scope)
            if pool.subnet:
                self._check_host(pool, host)
                pools.append(pool)
        return tuple(pools)

    def _check_host(self, pool: PoolConfig, host: list[str]) -> None:
        """A subnet inside a wider route of the host is the user's choice; one that covers what the host reaches today cuts that off."""
        subnet = ipaddress.ip_network(pool.subnet)
        for text in host:
            route = ipaddress.ip_network(text)
            if route.version == subnet.version and route.network_address in subnet and route.prefixlen >= subnet.prefixlen:
                raise PoolOverlap(f"subnet {subnet} covers {route}, which this host reaches by a route of its own: give another --subnet")

    def _claims(self, network: Network) -> tuple[str, ...]:
        driver = self._core.driver(network)
        return driver.claims(network) if isinstance(driver, Claims) else ()

    def _check_claims(self, network: Network) -> None:
        wanted = set(self._claims(network))
        for other in self._core.records.networks.values():
            both = wanted & set(self._claims(other))
            if both:
                raise self._clash(network, other, both.pop())

    def _clash(self, network: Network, other: Network, claim: str) -> NetplugError:
        what, _, name = claim.partition("/")
        return Forbidden(
            f"cannot create network {network.id} ({name}): conflicts with network {other.id} ({name}): networks have same {what} name"
            f" (the other is {other.name})"
        )

    def _taken(self, network: Network, lost: Lost) -> NetplugError:
        if "/claims/" in lost.failed.key:
            return Forbidden(f"cannot create network {network.name}: {lost.failed.key.split('/claims/')[1]} belongs to another network")
        return Conflict(f"network with name {network.name} already exists")
