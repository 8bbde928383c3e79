"""Networks of Docker v1 network plugins: what to do is asked of the plugin, what comes of it in the sandbox is a plan as any driver's.

The plugin makes a link on the host and says its name; the plan moves that into the sandbox and gives it what the plugin has answered.
Protocol: "Remote Drivers" of libnetwork. A plugin keeps what it was told over its own restarts, as with Docker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from netplug.driver import Capabilities
from netplug.errors import NetplugError
from netplug.model import Attachment, Endpoint, Network, PoolConfig, Sandbox
from netplug.plan import Address, Adopt, Announce, Ask, LinkUp, Plan, Remove, Route, Step
from netplug.plugins import places
from netplug.plugins.calls import Plugin, PluginRefused
from netplug_drivers.remote_answers import Capability, EndpointCreated, Joined, Nothing, attachment, chosen

ROLE = "NetworkDriver"
GENERIC = "com.docker.network.generic"
_ADDRESS_SPACE = "LocalDefault"
_TAKES = "netplug.takes"
"""A netplug at the other end would otherwise take us for the Docker Engine, whose lists say nothing of what is ours."""
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class Plugins:
    """The finder: every plugin that is there may be a network driver; whether it is one it says when it is asked."""

    noun = "plugins"

    def names(self) -> list[str]:
        return places.names()

    def driver(self, name: str) -> Remote:
        return Remote(name)


class Remote:
    """The driver that one plugin is."""

    capabilities = Capabilities(ports=False, lan=True)

    def __init__(self, name: str) -> None:
        self._plugin = Plugin(name, ROLE)

    def validate(self, network: Network) -> None:
        """Options are the plugin's business, and it says so when the network is made."""

    def create_network(self, network: Network) -> Plan:
        return ()

    def delete_network(self, network: Network) -> Plan:
        return ()

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        given = endpoint.attachment
        if given is None:
            what = f"plugin {self._plugin.name} is asked for a link, addresses and routes: what follows is known when it has answered"
            return (Ask(what=what),)
        if not given.link:
            return ()
        inside, link = sandbox.namespace, endpoint.interface
        addresses = tuple(filter(None, (endpoint.address, endpoint.address6)))
        steps: list[Step] = [_adoption(endpoint, given, sandbox)]
        steps += (Address(namespace=inside, link=link, address=address) for address in addresses)
        steps.append(LinkUp(namespace=inside, link=link, mac=endpoint.mac))
        steps += (Route(namespace=inside, destination=route.destination, gateway=route.gateway, link=link) for route in given.routes)
        if endpoint.mac:  # else it is the plugin's own, which nobody has told
            steps += (Announce(namespace=inside, link=link, address=address.split("/")[0], mac=endpoint.mac) for address in addresses)
        return tuple(steps)

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        given = endpoint.attachment
        return (Remove(op=_adoption(endpoint, given, sandbox)),) if given is not None and given.link else ()

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()

    # What is asked of the plugin

    async def make(self, network: Network) -> None:
        said = await self._plugin.call("GetCapabilities", {}, Capability)
        if said.Scope not in ("local", "global"):
            raise NetplugError(
                f'plugin "{self._plugin.name}" answered {ROLE}.GetCapabilities with scope "{said.Scope}", not local or global'
            )
        options: dict[str, Any] = {"com.docker.network.enable_ipv6": network.ipv6, GENERIC: network.options}
        if network.internal:
            options["com.docker.network.internal"] = True
        if await self._plugin.is_netplug():
            options[_TAKES] = True
        pools = {family: [_pool_data(pool) for pool in network.pools if (":" in pool.subnet) == (family == 6)] for family in (4, 6)}
        body = {"NetworkID": network.id, "Options": options, "IPv4Data": pools[4], "IPv6Data": pools[6]}
        await self._plugin.call("CreateNetwork", body, Nothing)

    async def unmake(self, network: str) -> None:
        await self._plugin.call("DeleteNetwork", {"NetworkID": network}, Nothing)

    async def attach(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        ids = {"NetworkID": network.id, "EndpointID": endpoint.id}
        asked = {"Address": endpoint.address, "AddressIPv6": endpoint.address6, "MacAddress": endpoint.mac}
        options = {**endpoint.options, **_ports(sandbox)}
        created = await self._plugin.call("CreateEndpoint", {**ids, "Interface": asked, "Options": options}, EndpointCreated)
        with self._sense("CreateEndpoint"):
            given = chosen(endpoint, created)
        # A netplug at the other end would otherwise put the link into a running container itself, as it does for Docker.
        body = {**ids, "SandboxKey": sandbox.namespace, "Options": {**options, _TAKES: True}}
        joined = await self._plugin.call("Join", body, Joined)
        with self._sense("Join"):
            return attachment(network, given, joined)

    async def detach(self, network: str, endpoint: str) -> None:
        ids = {"NetworkID": network, "EndpointID": endpoint}
        with contextlib.suppress(PluginRefused):  # it may never have joined
            await self._plugin.call("Leave", ids, Nothing)
        await self._plugin.call("DeleteEndpoint", ids, Nothing)

    @contextlib.contextmanager
    def _sense(self, method: str) -> Iterator[None]:
        """Of an answer that has the right form."""
        try:
            yield
        except ValueError as error:
            raise NetplugError(f'plugin "{self._plugin.name}" answered {ROLE}.{method} with what cannot be done: {error}') from error


def _adoption(endpoint: Endpoint, given: Attachment, sandbox: Sandbox) -> Adopt:
    return Adopt(source=given.link, name=endpoint.interface, link_namespace=sandbox.namespace)


def _pool_data(pool: PoolConfig) -> dict[str, Any]:
    """The gateway and auxiliary addresses carry the subnet's prefix."""
    prefix = pool.subnet.rsplit("/", 1)[1]
    data: dict[str, Any] = {"AddressSpace": _ADDRESS_SPACE, "Pool": pool.subnet}
    if pool.gateway:
        data["Gateway"] = f"{pool.gateway}/{prefix}"
    return {**data, "AuxAddresses": {name: f"{address}/{prefix}" for name, address in pool.auxiliary.items()}}


def _ports(sandbox: Sandbox) -> dict[str, Any]:
    """What the container serves and publishes, as Docker tells it; protocols by their numbers (IANA)."""
    exposed = (text.partition("/") for text in sandbox.exposed)
    bindings = [(binding, number) for binding in sandbox.ports for number in range(binding.count)]
    return {
        "com.docker.network.endpoint.exposedports": [
            {"Proto": _PROTOCOLS[protocol or "tcp"], "Port": int(port)} for port, _, protocol in exposed if port.isdecimal()
        ],
        "com.docker.network.portmap": [
            {
                "Proto": _PROTOCOLS[binding.protocol],
                "IP": "",
                "Port": binding.port + number,
                "HostIP": binding.host_ip,
                "HostPort": binding.host_port + number if binding.host_port else 0,
                "HostPortEnd": (binding.host_port_end or binding.host_port) + number if binding.host_port else 0,
            }
            for binding, number in bindings
        ],
    }
