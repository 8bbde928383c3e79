"""Create and remove networks: the order of the steps.

Create: pools from IPAM, then one durable transaction (record, name, claims) beside the driver's plan. Remove: the records first, so that
nothing new can join, then the kernel. A daemon that dies in between finds either a record whose plan it makes true, or marked links without
a record. One that other nodes have routes to is published when it is made, and made with the next free subnet where another node was
quicker.
"""

from __future__ import annotations

import ipaddress
import json
import re
from functools import partial

import msgspec

from netplug.capability import Adopts, Claims, Effectful, Gatewayless
from netplug.controller import addresses, exits, interfaces
from netplug.controller.cluster import in_use
from netplug.controller.core import Core
from netplug.controller.effects import Effects
from netplug.controller.lending import Lending
from netplug.controller.records import Records, delete_network, put_network
from netplug.controller.requests import ControllerEvent, NetworkRequest
from netplug.controller.routing import Routing
from netplug.controller.shared import Shared
from netplug.errors import Conflict, Forbidden, InvalidArgument, NetplugError, PoolOverlap, Unavailable
from netplug.kernel import found, routes
from netplug.model import Family, FoundLink, Network, PoolConfig, new_id, now
from netplug.plan import Plan
from netplug.store import Lost

PREDEFINED = ("bridge", "host", "none", "default")
_LONGEST_NAME = 255
"""Characters; no longer one could be part of a container's name in DNS (RFC 1035)."""
PUBLISHED = "published"
"""The lock of those that other nodes have routes to."""
_ATTEMPTS = 50
"""How often a subnet is chosen anew because another node was quicker."""


class Networks:
    """The life of networks."""

    def __init__(self, core: Core, shared: Shared, routing: Routing, effects: Effects) -> None:
        self._core, self._shared, self._routing, self._effects = core, shared, routing, effects
        self._lending = Lending(core, effects)

    async def create(self, request: NetworkRequest, *, predefined: bool = False) -> Network:
        async with self._lending.pools(request) as request:
            return await self._create(request, predefined=predefined)

    async def _create(self, request: NetworkRequest, *, predefined: bool) -> Network:
        core = self._core
        driver = core.drivers.named(request.driver)
        if driver.capabilities.scope == "global":
            # Not with the lock of all networks: this host's own do not wait for the cluster.
            async with core.lock("global networks"):
                network = await self._shared.create(lambda: self.prepare(request))
        elif core.cluster is not None and not predefined and self._routing.wanted(self._draft(request)):
            async with core.lock(PUBLISHED):
                network = await self._create_reached(request)
        elif isinstance(driver, Effectful):
            network = await self._create_outside(request)
        else:
            network = await self._create_here(request, predefined=predefined)
        core.events.send(ControllerEvent(kind="network", action="create", network=network))
        return network

    async def _create_reached(self, request: NetworkRequest) -> Network:
        for _ in range(_ATTEMPTS):
            await self._routing.read()
            before = self._core.routes
            network = await self._create_here(request)
            try:
                await self._routing.publish(network)
            except PoolOverlap:
                await self._remove_here(network.id)
                continue
            except BaseException:
                await self._remove_here(network.id)
                raise
            await self._routing.settle(before)
            return network
        raise Unavailable(f"network {request.name} could not be made: other nodes make networks all the time; try again")

    async def _create_here(self, request: NetworkRequest, *, predefined: bool = False) -> Network:
        core = self._core
        async with core.lock("networks"):
            network = self.prepare(request, predefined=predefined)
            core.records.add_network(network)
            await self._establish(network)
        return network

    async def _create_outside(self, request: NetworkRequest) -> Network:
        """Without the lock of all networks while the driver is asked. Meanwhile it is in the records, so that others keep off."""
        core = self._core
        async with core.lock("networks"):
            network = self.prepare(request)
            core.records.add_network(network)
        try:
            async with self._effects.made(network), core.lock("networks"):
                await self._establish(network)
        except BaseException:
            core.records.drop_network(network)
            raise
        return network

    async def _establish(self, network: Network) -> None:
        """Record and plan of one that is in the memory already; out of it again where that fails."""
        core = self._core
        claims, farewell = self._claims(network), self._effects.farewells.of_network(network)
        compares, writes = put_network(network, claims)
        writes += self._effects.farewells.unsaid(farewell)
        opposite = [*delete_network(network, claims), *self._effects.farewells.written(farewell)]
        core.open_pools(network)
        try:
            plan = core.network_plan(network)
            record = core.store.txn(compares, writes, durable=True)
            take_back = partial(core.store.txn, (), opposite, durable=True)
            await core.establish("network create", network.name, plan, record, take_back)
        except BaseException as error:
            core.records.drop_network(network)
            core.allocators.pop(network.id, None)
            if isinstance(error, Lost):
                raise self._taken(network, error) from error
            raise

    async def drafted(self, request: NetworkRequest) -> Network:
        """What `create` would make, or what it would raise."""
        if self._core.drivers.named(request.driver).capabilities.scope != "global":
            return self.prepare(request)
        async with self._core.lock("global networks"):
            return await self._shared.could(lambda: self.prepare(request))

    async def remove(self, reference: str, *, predefined: bool = False) -> Network:
        network = await self._remove(reference, predefined=predefined)
        await self._core.leases.unbind(network.id)
        return network

    async def _remove(self, reference: str, *, predefined: bool) -> Network:
        core = self._core
        if (network := core.records.network(reference)).scope == "global":
            self.plan_removal(network)
            await self._shared.remove(network)
            return network
        network = await self._remove_here(reference, predefined=predefined)
        if self._routing.wanted(network):
            await self._routing.settle()
        core.events.send(ControllerEvent(kind="network", action="remove", network=network))
        return network

    async def _remove_here(self, reference: str, *, predefined: bool = False) -> Network:
        core = self._core
        async with core.lock("networks"):
            network = core.records.network(reference)
            async with core.lock(network.id):
                plan = self.plan_removal(network, predefined=predefined)
                farewell = self._effects.farewells.of_network(network)
                core.records.drop_network(network)
                core.allocators.pop(network.id, None)
                core.last_macs = {key: mac for key, mac in core.last_macs.items() if key[0] != network.id}
                writes = [*delete_network(network, self._claims(network)), *self._effects.farewells.written(farewell)]
                await core.store.txn((), writes, durable=True)
                await core.remove("network rm", network.name, plan)
        self._effects.farewells.due(*farewell)
        await self._effects.farewells.told(*farewell)
        return network

    def plan_removal(self, network: Network, *, predefined: bool = False) -> Plan:
        """What removing it would do; raises if it cannot go."""
        if network.predefined and not predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        self._effects.check_idle(network)
        if endpoints := self._core.records.of_network(network.id):
            raise in_use(network, [*endpoints, *self._core.peers.get(network.id, {}).values()])
        return self._core.driver(network).delete_network(network)

    def prepare(self, request: NetworkRequest, *, predefined: bool = False) -> Network:
        """The record that the request makes, checked; changes nothing."""
        records = self._core.records
        check_name(records, request.name)
        if request.name in PREDEFINED and not predefined:
            raise Forbidden(f"operation is not permitted on predefined {request.name} network")
        if records.network_named(request.name) is not None:
            raise Conflict(f"network with name {request.name} already exists")
        driver = self._core.drivers.named(request.driver)
        if request.name == exits.GATEWAY and request.driver != exits.REQUEST.driver:
            raise Forbidden(f"{exits.GATEWAY} is the way out of other networks: it can be made with the driver {exits.REQUEST.driver} only")
        if driver.capabilities.singleton and not predefined:
            raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
        network = self._draft(request, predefined=predefined)
        driver.validate(network)
        interfaces.checked_prefix(network)
        addresses.check_options(network)
        if reached := self._routing.wanted(network):
            self._check_cluster()
        if driver.capabilities.addresses:
            if not (network.ipv4 or network.ipv6):
                raise InvalidArgument("IPv4 or IPv6 must be enabled")
            network = msgspec.structs.replace(network, found=self._found(network))
            driver.validate(network)
            network = msgspec.structs.replace(network, pools=self._pools(network, request.pools, request.leased))
        driver.validate(network)
        if reached:
            self._routing.check(network)
        self._check_claims(network)
        return network

    def _draft(self, request: NetworkRequest, *, predefined: bool = False) -> Network:
        """Without what has to be looked for."""
        return Network(
            id=request.id or new_id(),
            name=request.name,
            driver=request.driver,
            created=now(),
            scope="global" if self._core.drivers.named(request.driver).capabilities.scope == "global" else "local",
            finder=self._core.drivers.finder(request.driver),
            ipv4=request.ipv4,
            ipv6=request.ipv6,
            internal=request.internal,
            attachable=request.attachable,
            predefined=predefined,
            ipam_driver=request.ipam_driver,
            ipam_finder=self._core.ipams.finder(request.ipam_driver),
            ipam_options=request.ipam_options,
            options=request.options,
            labels=request.labels,
        )

    def _check_cluster(self) -> None:
        if self._core.cluster is None:
            raise InvalidArgument(
                "netplug.routes=cluster: this host is in no cluster; start the daemon with --store etcd://HOST:PORT and --advertise ADDRESS"
            )

    def _found(self, network: Network) -> tuple[FoundLink, ...]:
        driver = self._core.driver(network)
        names = driver.adopts(network) if isinstance(driver, Adopts) else ()
        return tuple(link for name in names if (link := found.users_link(name)) is not None)

    def _pools(self, network: Network, wanted: tuple[PoolConfig, ...], leased: tuple[str, ...]) -> tuple[PoolConfig, ...]:
        """What the user wants of each IP version that the network has, or a subnet that is free here."""
        asked: dict[Family, list[PoolConfig]] = {4: [], 6: []}
        for pool in wanted:
            asked[_family(pool, network)].append(pool)
        enabled: dict[Family, bool] = {4: network.ipv4, 6: network.ipv6}
        for family, pools in asked.items():
            if pools and not enabled[family]:
                raise InvalidArgument(f"subnet {pools[0].subnet} needs IPv{family}, which the network has not: {_REMEDY[family]}")
        # A bridge that the user has made already may carry the network's subnet. Those of our other networks are no news (see `_pool`).
        known = [pool.subnet for other in self._core.records.networks.values() for pool in other.pools]
        host = routes.host_subnets(beside=tuple(link.name for link in network.found), known=known)
        taken = self._core.leases.unused(leased)
        chosen: list[PoolConfig] = []
        for family in asked:
            if enabled[family]:
                for pool in asked[family] or [PoolConfig(subnet="")]:
                    chosen += self._pool(network, family, _as_found(pool, family, network.found), host, chosen, taken)
        return tuple(chosen)

    def _pool(
        self, network: Network, family: Family, wanted: PoolConfig, host: list[str], chosen: list[PoolConfig], leased: list[str]
    ) -> tuple[PoolConfig, ...]:
        """One pool; none where the IPAM driver gives no addresses."""
        core = self._core
        driver = core.driver(network)
        automatic = wanted == PoolConfig(subnet="")
        taken = [pool.subnet for other in core.records.networks.values() for pool in other.pools]
        taken += [pool.subnet for pool in chosen] + ([*host, *core.name_servers()] if automatic else []) + leased
        taken += self._routing.taken() if automatic and self._routing.wanted(network) else []
        pool = core.ipams.get(network.ipam_driver, network.ipam_finder).request_pool(
            None if automatic else wanted,
            taken,
            network.ipam_options,
            network.scope,
            family=family,
            gateway=not (isinstance(driver, Gatewayless) and driver.gatewayless(network, family)),
        )
        if not pool.subnet:
            return ()
        if not driver.capabilities.lan:
            self._check_host(pool, host)
        return (pool,)

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
        wanted = self._claims(network)
        for other in self._core.records.networks.values():
            for claim in self._claims(other):
                if any(_clash(claim, own) for own in wanted):
                    raise self._clash(network, other, claim)

    def _clash(self, network: Network, other: Network, claim: str) -> NetplugError:
        what, _, name = claim.partition("=")[0].partition("/")
        if what != "bridge":
            return Forbidden(f"network {other.name} ({other.id:.12}) is already using {what} {name}")
        return Forbidden(
            f"cannot create network {network.id} ({name}): conflicts with network {other.id} ({name}): networks have same {what} name"
            f" (the other is {other.name})"
        )

    def _taken(self, network: Network, lost: Lost) -> NetplugError:
        if "/claims/" in lost.failed.key:
            return Forbidden(f"cannot create network {network.name}: {lost.failed.key.split('/claims/')[1]} belongs to another network")
        return Conflict(f"network with name {network.name} already exists")


def check_name(records: Records, name: str) -> None:
    """Raises where no network can be called so, whoever has what name."""
    if not name:
        raise InvalidArgument("invalid name: name is empty")
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", name):
        raise InvalidArgument(f"invalid network name {json.dumps(name[:80])}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if len(name) > _LONGEST_NAME:
        raise InvalidArgument(f'invalid network name "{name:.20}…": {_LONGEST_NAME} characters are the most')
    if name in records.networks:
        raise Conflict(f'invalid network name "{name:.12}…": it is the id of network {records.network_name(name)}')


def _clash(one: str, other: str) -> bool:
    """Whether two networks cannot both have what they claim; what two claim behind the same `=` they share."""
    (what, _, share), (other_what, _, other_share) = one.partition("="), other.partition("=")
    return what == other_what and not (share and share == other_share)


_REMEDY: dict[Family, str] = {4: "leave --ipv4=false away", 6: "give --ipv6"}


def _family(pool: PoolConfig, network: Network) -> Family:
    """Of a pool without a subnet: the first IP version that the network has."""
    text = pool.subnet or pool.ip_range or pool.gateway
    if text:
        return 6 if ":" in text else 4
    return 4 if network.ipv4 else 6


def _as_found(wanted: PoolConfig, family: Family, found: tuple[FoundLink, ...]) -> PoolConfig:
    """Subnet and gateway of the user's link, as far as the user has not said otherwise."""
    for text in (address for link in found for address in link.addresses):
        address = ipaddress.ip_interface(text)
        if address.version != family or address.is_link_local:
            continue
        if wanted == PoolConfig(subnet=""):
            return PoolConfig(subnet=str(address.network), gateway=str(address.ip))
        if wanted.subnet == str(address.network) and not wanted.gateway:
            return msgspec.structs.replace(wanted, gateway=str(address.ip))
    return wanted
