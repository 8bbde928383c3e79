"""The NetworkDriver half of the plugin: the engine's networks and endpoints are networks and endpoints of ours.

An engine that lost our answer asks again: what is there already under the same id is the answer. Ids are the engine's own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable

import msgspec

from netplug.controller import Controller, EndpointRequest, NetworkRequest
from netplug.engines import shapes
from netplug.engines.ports import port_bindings
from netplug.engines.routes import Fields, Outcome, Table
from netplug.engines.ties import ENGINE, OTHER, Tie, Ties
from netplug.errors import Forbidden, InvalidArgument, NotFound
from netplug.model import Endpoint, PoolConfig
from netplug.registry import Drivers

DRIVER, NETWORK = "netplug.driver", "netplug.network"
"""Options of `docker network create`: what the network is made of, and which one it is, where it is there."""
NO_POOL = "0.0.0.0/0"
"""What the engine's `null` IPAM says."""
PREFIX = "com.docker.network.container_iface_prefix"


class NetworkDriver:
    """Handlers by method."""

    def __init__(self, controller: Controller, ties: Ties) -> None:
        self._controller, self._ties = controller, ties
        self._asked_for: set[str] = set()
        """Endpoints, by the engine that is there now, as far as this daemon knows."""

    def begin(self) -> None:
        """An engine has started, or is asking for the first time."""
        self._asked_for.clear()

    def table(self) -> Table:
        nothing = (shapes.Nothing, self.nothing)
        return {
            "NetworkDriver.CreateNetwork": (shapes.CreateNetwork, self.create_network),
            "NetworkDriver.DeleteNetwork": (shapes.NetworkRef, self.delete_network),
            "NetworkDriver.CreateEndpoint": (shapes.CreateEndpoint, self.create_endpoint),
            "NetworkDriver.DeleteEndpoint": (shapes.EndpointRef, self.leave),
            "NetworkDriver.EndpointOperInfo": (shapes.EndpointRef, self.information),
            "NetworkDriver.Join": (shapes.Join, self.join),
            "NetworkDriver.Leave": (shapes.EndpointRef, self.leave),
            "NetworkDriver.ProgramExternalConnectivity": (shapes.External, self.carry),
            "NetworkDriver.RevokeExternalConnectivity": (shapes.EndpointRef, self.release),
            "NetworkDriver.DiscoverNew": nothing,
            "NetworkDriver.DiscoverDelete": nothing,
        }

    def nothing(self, body: shapes.Nothing) -> Fields:
        """Nodes of a swarm do not concern us."""
        return {}

    # Networks

    async def create_network(self, body: shapes.CreateNetwork) -> Fields:
        identity = _checked(body.network_id, "network")
        if self._ties.get(identity) is not None:
            return {}
        options = shapes.text_options(body.options)
        existing = options.pop(NETWORK, "")
        given = _given(body)
        leased = [self._leased(one, identity) for one in given]
        if existing:
            await self._join_network(identity, existing, body, options, leased)
        else:
            await self._make_network(identity, body, options, given, leased)
        return {}

    async def _join_network(
        self, identity: str, existing: str, body: shapes.CreateNetwork, options: dict[str, str], leased: list[str]
    ) -> None:
        if options:
            raise InvalidArgument(f"{NETWORK}={existing} is there already: it takes no other options ({', '.join(sorted(options))})")
        network = self._controller.network(existing)
        if not network.pools or network.predefined or network.finder:
            raise Forbidden(f"{NETWORK}={existing}: that network is for netplug's own containers only")
        # The engine says `false` of IPv6 where the user has said nothing.
        for word, asked, has in (("--internal", shapes.INTERNAL, network.internal), ("--ipv6", shapes.ENABLE_IPV6, network.ipv6)):
            if shapes.flag(body.options, asked) and not has:
                raise InvalidArgument(f"{NETWORK}={existing} is there already, and was made without {word}: leave that away")
        for pool in map(self._controller.leases.pool, leased):
            if pool.network != network.id:
                raise InvalidArgument(
                    f"network {existing} has the subnet {network.pools[0].subnet}, not {pool.subnet}:"
                    f" give --subnet {network.pools[0].subnet}, or --ipam-driver null"
                )
        await self._ties.put(Tie(id=identity, network=network.id, joined=True, engine=_engine(body)))

    async def _make_network(
        self, identity: str, body: shapes.CreateNetwork, options: dict[str, str], given: list[shapes.IpamData], leased: list[str]
    ) -> None:
        leases = self._controller.leases
        for pool in map(leases.pool, leased):
            if pool.shared:
                name = self._controller.network(pool.network).name
                raise Forbidden(f"subnet {pool.subnet} is network {name}'s: give -o {NETWORK}={name} to join it, or another --subnet")
        driver = options.pop(DRIVER, "bridge")
        if Drivers().finder(driver):
            raise InvalidArgument(f"{DRIVER}={driver}: that is a plugin, which the engine can use itself")
        if not self._known(identity):
            await self._controller.create_network(
                NetworkRequest(
                    id=identity,
                    name=identity[:12],
                    driver=driver,
                    ipv6=shapes.flag(body.options, shapes.ENABLE_IPV6),
                    internal=shapes.flag(body.options, shapes.INTERNAL),
                    pools=tuple(self._pool(one, pool) for one, pool in zip(given, leased, strict=True)),
                    leased=tuple(leased),
                    options=options,
                )
            )
        await leases.bind(leased, identity)
        await self._ties.put(Tie(id=identity, network=identity, engine=_engine(body)))

    def _known(self, identity: str) -> bool:
        return any(network.id == identity for network in self._controller.networks())

    def _leased(self, data: shapes.IpamData, network: str) -> str:
        """The id of the pool that we handed out for it; it may have the network already, if that was asked for before."""
        pools = [pool for pool in self._controller.leases.pools.values() if pool.subnet == data.pool]
        free = [pool.id for pool in pools if pool.network in ("", network) or pool.shared]
        if not free:
            raise InvalidArgument(
                f"subnet {data.pool}: the engine's own IPAM does not know the addresses of netplug's containers:"
                " give --ipam-driver netplug too"
            )
        return free[-1]

    def _pool(self, data: shapes.IpamData, leased: str) -> PoolConfig:
        return PoolConfig(
            subnet=data.pool,
            ip_range=self._controller.leases.pool(leased).ip_range,
            gateway=data.gateway.split("/")[0],
            auxiliary={name: address.split("/")[0] for name, address in (data.aux_addresses or {}).items()},
        )

    async def delete_network(self, body: shapes.NetworkRef) -> Fields:
        """The engine forgets its network whatever we answer: one that others are on stays, as ours alone, and the engine's log says so."""
        await self.remove(body.network_id)
        return {}

    async def remove(self, identity: str) -> None:
        """The engine has no such network any more."""
        tie = self._ties.get(identity)
        if tie is None:
            return
        try:
            if not tie.joined and self._known(tie.network):
                await self._take_leave(tie)
                await self._controller.remove_network(tie.network)
        finally:  # last: a daemon that dies before is asked again, and has to know what is meant
            await self._ties.drop(tie.id)

    async def _take_leave(self, tie: Tie) -> None:
        """The engine has nothing on a network that it removes: what one had begun that died is on it still, if anything of its own is."""
        if any(other.network == tie.network and other.id != tie.id for other in self._ties.all()):
            return  # it may be on that other network, which has joined this one
        for endpoint in self._controller.endpoints(network=tie.network):
            sandbox = self._controller.sandbox(endpoint.sandbox)
            if sandbox is not None and sandbox.engine == tie.engine and endpoint.id not in self._asked_for:
                await self._controller.leave(endpoint.id)

    # Endpoints

    def create_endpoint(self, body: shapes.CreateEndpoint) -> Outcome:
        identity = _checked(body.endpoint_id, "endpoint")
        tie, asked = self._ties.find(body.network_id), body.interface or shapes.Interface()
        endpoint = self._endpoint(body)
        self._asked_for.add(identity)
        if endpoint is not None:
            return self._made(endpoint, asked)
        request = EndpointRequest(
            id=identity,
            address=_plain(asked.address),
            address6=_plain(asked.address6),
            leased=True,
            mac=asked.mac,
            options=shapes.text_options(body.options),
        )
        return self._once_made(identity, self._controller.attach(tie.network, request, tie.engine), asked)

    def _endpoint(self, body: shapes.EndpointRef | shapes.CreateEndpoint | shapes.Join | shapes.External) -> Endpoint | None:
        """The one that is meant; None where there is none of that id. NotFound: it is on another network.

        One whose network the engine has forgotten can be taken away.
        """
        endpoint, tie = self._controller.endpoint(body.endpoint_id), self._ties.get(body.network_id)
        if endpoint is not None and tie is not None and endpoint.network != tie.network:
            raise NotFound(f"endpoint {endpoint.id:.12} is not on network {body.network_id:.12}")
        return endpoint

    async def _once_made(self, identity: str, making: Awaitable[Endpoint], asked: shapes.Interface) -> Fields:
        try:
            return self._made(await making, asked)
        except BaseException:
            self._asked_for.discard(identity)
            raise

    def _made(self, endpoint: Endpoint, asked: shapes.Interface) -> Fields:
        """The engine takes no more than what it has not asked for."""
        ours = shapes.Interface(
            address=endpoint.address if not asked.address else "",
            address6=endpoint.address6 if not asked.address6 else "",
            mac=endpoint.mac if not asked.mac else "",
        )
        return {"Interface": msgspec.to_builtins(ours)}

    async def join(self, body: shapes.Join) -> Fields:
        tie = self._ties.find(body.network_id)
        network = self._controller.network(tie.network)
        namespace = _namespace(body.key)
        identity, sandbox = _checked(body.endpoint_id, "endpoint"), namespace.rpartition("/")[2]
        self._endpoint(body)
        endpoint = await self._controller.join(identity, sandbox, namespace, takes=shapes.flag(body.options, shapes.TAKES))
        answer: Fields = {
            "Gateway": endpoint.gateway,
            "GatewayIPv6": endpoint.gateway6,
        }
        passing = f"np{endpoint.id[:12]}"
        if endpoint.interface == passing:  # else it is in the container already
            answer["InterfaceName"] = {"SrcName": passing, "DstPrefix": network.options.get(PREFIX, "eth")}
        # Without, an engine that sees no IPv4 gateway gives the container a bridge of its own as the way out.
        if network.internal or (self._controller.leads_out(network) and not endpoint.gateway):
            answer["DisableGatewayService"] = True
        return answer

    def leave(self, body: shapes.EndpointRef) -> Outcome:
        return self._leave(body) if self._endpoint(body) is not None else {}

    async def _leave(self, body: shapes.EndpointRef) -> Fields:
        self._asked_for.discard(body.endpoint_id)
        await self._controller.leave(body.endpoint_id)
        return {}

    def information(self, body: shapes.EndpointRef) -> Outcome:
        """The engine asks for it after Join, before it tells anybody: here it hears how that has ended."""
        self._endpoint(body)
        pending = self._controller.pending(body.endpoint_id)
        return self._information(body) if pending is None else self._informed(pending, body)

    async def _informed(self, pending: Awaitable[None], body: shapes.EndpointRef) -> Fields:
        await pending
        return self._information(body)

    def _information(self, body: shapes.EndpointRef) -> Fields:
        endpoint = self._controller.endpoint(body.endpoint_id)
        return {"Value": {"netplug.ports": ", ".join(map(str, endpoint.ports))} if endpoint is not None and endpoint.ports else {}}

    async def carry(self, body: shapes.External) -> Fields:
        identity = _checked(body.endpoint_id, "endpoint")
        self._ties.find(body.network_id)
        self._endpoint(body)
        await self._controller.carry(identity, port_bindings(body.options))
        return {}

    async def release(self, body: shapes.EndpointRef) -> Fields:
        if self._endpoint(body) is not None:
            await self._controller.release(body.endpoint_id)
        return {}


def _given(body: shapes.CreateNetwork) -> list[shapes.IpamData]:
    """The pools that the engine's IPAM has for the network; the `null` one has none."""
    return [one for one in (*(body.ipv4 or ()), *(body.ipv6 or ())) if one.pool and one.pool not in (NO_POOL, "::/0")]


def _engine(body: shapes.CreateNetwork) -> str:
    """Whose network it is."""
    return OTHER if shapes.flag(body.options, shapes.TAKES) else ENGINE


def _checked(identity: str, what: str) -> str:
    """Names of links and keys of records are made of it."""
    if not re.fullmatch(r"[0-9a-f]{64}", identity):
        raise InvalidArgument(f"invalid {what} id {identity!r:.80}: 64 hex digits are needed")
    return identity


def _namespace(key: str) -> str:
    """A sandbox key is the path of the container's network namespace."""
    if not re.fullmatch(r"/[\w./-]+/[0-9a-zA-Z_-]{1,64}", key) or "/../" in key:
        raise InvalidArgument(f"invalid sandbox key {key!r:.120}: the path of a network namespace is needed")
    return key


def _plain(address: str) -> str:
    if not address:
        return ""
    try:
        return str(ipaddress.ip_interface(address).ip)
    except ValueError:
        raise InvalidArgument(f"invalid address {address!r:.60}: an address with its prefix is needed, as in 172.18.0.2/16") from None
