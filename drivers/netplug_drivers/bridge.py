"""Attach endpoints to a Linux bridge.

Names: bridge `br-<network id 12>` (the default network: `netplug0`), host end of a pair `veth<endpoint id 7>`, in the sandbox `eth<N>`.
The bridge carries the gateway's address; its MAC is made from it, so that a bridge that is made again keeps its neighbours' caches valid.
"""

from __future__ import annotations

import ipaddress
import re

from netplug.driver import Capabilities
from netplug.errors import InvalidArgument
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import (
    Address,
    Announce,
    FlushFlows,
    Guard,
    Isolate,
    LinkUp,
    Masquerade,
    Plan,
    Publish,
    Remove,
    Step,
    Sysctl,
    Veth,
    removal,
)
from netplug.plan import Bridge as BridgeLink

NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
MTU = "com.docker.network.driver.mtu"
DEFAULT_BRIDGE = "com.docker.network.bridge.default_bridge"

SMALLEST_MTU, LARGEST_MTU = 68, 65535
"""IPv4's least (RFC 791) and what a veth takes (ETH_MAX_MTU)."""


class Bridge:
    """One bridge per network; containers are ports of it."""

    capabilities = Capabilities()

    def validate(self, network: Network) -> None:
        bridge_name(network)
        mtu(network)
        flag(network, ICC)
        flag(network, MASQUERADE)
        binding = network.options.get(HOST_BINDING, "")
        if binding and not _is_ipv4(binding):
            raise InvalidArgument(f'invalid value for {HOST_BINDING}: "{binding}" is no IPv4 address')
        if sum(":" not in pool.subnet for pool in network.pools) > 1:
            raise InvalidArgument("bridge driver doesn't support multiple subnets")

    def claims(self, network: Network) -> tuple[str, ...]:
        """No two networks share a bridge."""
        return (f"bridge/{bridge_name(network)}",)

    def host_binding(self, network: Network) -> str:
        return network.options.get(HOST_BINDING, "")

    def create_network(self, network: Network) -> Plan:
        bridge = bridge_name(network)
        steps: list[Step] = [
            BridgeLink(name=bridge, mac=bridge_mac(network), mtu=mtu(network), alias=f"netplug:{network.id:.12}"),
            Sysctl(key=f"net.ipv6.conf.{_escaped(bridge)}.disable_ipv6", value="1"),
            # 127.0.0.1:PORT on the host is DNATed to a container: the kernel must not take the reply path for a martian.
            Sysctl(key=f"net.ipv4.conf.{_escaped(bridge)}.route_localnet", value="1"),
        ]
        for pool in network.pools:
            if pool.gateway:
                prefix = pool.subnet.rsplit("/", 1)[1]
                steps.append(Address(link=bridge, address=f"{pool.gateway}/{prefix}"))
        steps += self._rules(network)
        return tuple(steps)

    def delete_network(self, network: Network) -> Plan:
        rules = removal(tuple(self._rules(network)))
        return (*rules, Remove(op=BridgeLink(name=bridge_name(network), mac=bridge_mac(network))))

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        inside, link = sandbox.namespace, endpoint.interface
        address = endpoint.address.split("/")[0]
        return (
            *self._port_rules(network, endpoint),
            Veth(
                name=endpoint.host_interface,
                peer=link,
                peer_namespace=inside,
                mac=endpoint.mac,
                mtu=mtu(network),
                master=bridge_name(network),
                alias=f"netplug:{network.id:.12}/{endpoint.id:.12}",
            ),
            Address(namespace=inside, link=link, address=endpoint.address),
            LinkUp(namespace=inside, link=link),
            Announce(namespace=inside, link=link, address=address, mac=endpoint.mac),
        )

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        veth = Veth(name=endpoint.host_interface, peer=endpoint.interface, peer_namespace=sandbox.namespace, mac=endpoint.mac)
        return (*removal(self._port_rules(network, endpoint)), Remove(op=veth))

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        # A client that sent before the port was there has a tracked flow without NAT, which would go on being used.
        stale = tuple(FlushFlows(protocol=port.protocol, port=port.host_port) for port in endpoint.ports if port.protocol == "udp")
        return (*self._published(endpoint), *stale)

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        stale = tuple(FlushFlows(protocol=port.protocol, port=port.host_port) for port in endpoint.ports)
        return (*removal(self._published(endpoint)), *stale)

    def _rules(self, network: Network) -> list[Step]:
        subnets = tuple(pool.subnet for pool in network.pools)
        steps: list[Step] = [
            Isolate(bridge=bridge_name(network), subnets=subnets, internal=network.internal, icc=flag(network, ICC)),
        ]
        if not network.internal and flag(network, MASQUERADE):
            steps += [Masquerade(subnet=subnet) for subnet in subnets]
        return steps

    def _port_rules(self, network: Network, endpoint: Endpoint) -> Plan:
        if flag(network, ICC):
            return ()
        return (Guard(link=endpoint.host_interface, bridge=bridge_name(network), bridge_mac=bridge_mac(network), icc=False),)

    def _published(self, endpoint: Endpoint) -> Plan:
        address = endpoint.address.split("/")[0]
        return tuple(
            Publish(
                protocol=port.protocol,
                host_ip="" if port.host_ip == "0.0.0.0" else port.host_ip,
                host_port=port.host_port,
                address=address,
                port=port.port,
            )
            for port in endpoint.ports
        )


def bridge_name(network: Network) -> str:
    """What the option says, or `br-` and the short id. At most 15 characters (IFNAMSIZ less the final zero)."""
    name = network.options.get(NAME, "") or f"br-{network.id:.12}"
    if not re.fullmatch(r"[\w.@+-]{1,15}", name, re.ASCII) or name in {".", "..", "all", "default"}:
        raise InvalidArgument(f'invalid bridge name "{name}": 1 to 15 letters, digits or "_.@+-" are allowed, but not all or default')
    return name


def bridge_mac(network: Network) -> str:
    """`02:42:` and the gateway's IPv4 address; without one, the network's id."""
    for pool in network.pools:
        if pool.gateway and ":" not in pool.gateway:
            return "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(pool.gateway).packed)
    return "02:42:" + ":".join(network.id[index : index + 2] for index in range(0, 8, 2))


def mtu(network: Network) -> int:
    """The option's MTU; 0: the kernel's own."""
    text = network.options.get(MTU, "") or "0"
    if not text.isdecimal():
        raise InvalidArgument(f'invalid MTU "{text}": a number from {SMALLEST_MTU} to {LARGEST_MTU} is needed')
    value = int(text)
    if value and not SMALLEST_MTU <= value <= LARGEST_MTU:
        raise InvalidArgument(f"invalid MTU number: {value} is not between {SMALLEST_MTU} and {LARGEST_MTU}")
    return value


def flag(network: Network, option: str) -> bool:
    """A boolean option as Go's strconv.ParseBool reads it; true where it is not given."""
    text = network.options.get(option, "")
    if text in {"", "1", "t", "T", "true", "TRUE", "True"}:
        return True
    if text in {"0", "f", "F", "false", "FALSE", "False"}:
        return False
    raise InvalidArgument(f'invalid value for {option}: "{text}" is neither true nor false')


def _escaped(interface: str) -> str:
    """An interface's name as part of a sysctl key, where `.` and `/` change places (sysctl.d(5))."""
    return interface.replace(".", "/")


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
