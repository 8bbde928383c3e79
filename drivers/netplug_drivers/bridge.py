"""Attach endpoints to a Linux bridge.

Names: bridge `br-<network id 12>` (the default network: `netplug0`), host end of a pair `veth<endpoint id 7>`, in the sandbox `eth<N>`.
The bridge carries the gateways' addresses; its MAC is made from the IPv4 one, so that a bridge that is made again keeps its neighbours'
caches valid. A bridge that the user has made before (`Network.found`) is used as it is: its settings and addresses stay.
"""

from __future__ import annotations

import ipaddress
import socket

from netplug.driver import Capabilities
from netplug.errors import InvalidArgument
from netplug.model import Endpoint, Family, FoundLink, Network, PoolConfig, PortBinding, Sandbox
from netplug.plan import (
    IPV6_FORWARDING,
    Address,
    AllowPeer,
    Announce,
    Direct,
    FlushFlows,
    Guard,
    Isolate,
    LinkUp,
    Masquerade,
    Plan,
    Publish,
    Reach,
    Remove,
    Step,
    Sysctl,
    Veth,
    removal,
)
from netplug.plan import Bridge as BridgeLink
from netplug_drivers.bridge_options import Options, bridge_name

LINK_LOCAL_GATEWAY = "fe80::1/64"
"""Every IPv6 bridge has it beside its own, as with Docker: the source of the host's neighbour solicitations, which is never tentative."""


class Bridge:
    """One bridge per network; containers are ports of it."""

    capabilities = Capabilities()

    def validate(self, network: Network) -> None:
        options, found = Options.of(network), _found(network)
        if found is not None and found.kind != "bridge":
            raise InvalidArgument(f"cannot use {found.name} as bridge: {found.name} is there already, and it is no bridge")
        for family in (4, 6):
            pools = _pools(network, family)
            if len(pools) > 1:
                raise InvalidArgument("bridge driver doesn't support multiple subnets")
            if pools and _has_address(network, options, family):
                _check_gateway(network, pools[0])

    def claims(self, network: Network) -> tuple[str, ...]:
        """No two networks share a bridge."""
        return (f"bridge/{bridge_name(network)}",)

    def adopts(self, network: Network) -> tuple[str, ...]:
        """A name that we choose is nobody's; one that the user chooses may be that of a bridge of his own."""
        return (Options.of(network).name,) if Options.of(network).named else ()

    def gatewayless(self, network: Network, family: Family) -> bool:
        options = Options.of(network)
        return options.isolated(family) or (family == 4 and options.inhibit_ipv4 and network.internal)

    def host_binding(self, network: Network, family: Family) -> str:
        return Options.of(network).binding(family)

    def routed(self, network: Network, family: Family) -> bool:
        return Options.of(network).mode(family) == "routed"

    def reached(self, network: Network) -> bool:
        return Options.of(network).routes

    def reach(self, network: Network, remote: str, link: str) -> Plan:
        options = Options.of(network)
        pools = _pools(network, 6 if ":" in remote else 4)
        return tuple(Reach(bridge=options.name, subnet=pool.subnet, remote=remote, link=link) for pool in pools)

    def create_network(self, network: Network) -> Plan:
        options, found = Options.of(network), _found(network)
        mac = bridge_mac(network)
        bridge = BridgeLink(name=options.name, mac=mac, mtu=options.mtu, alias=f"netplug:{network.id:.12}", given=found is not None)
        return (bridge, *_sysctls(network, options), *_addresses(network, options), *_rules(network, options))

    def delete_network(self, network: Network) -> Plan:
        options, found = Options.of(network), _found(network)
        rules = removal(_rules(network, options))
        if found is None:
            return (*rules, Remove(op=BridgeLink(name=options.name, mac=bridge_mac(network))))
        ours = tuple(op for op in _addresses(network, options) if op.address not in found.addresses)
        return (*rules, *removal(ours))

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        options = Options.of(network)
        inside, link = sandbox.namespace, endpoint.interface
        given = tuple(filter(None, (endpoint.address, endpoint.address6)))
        return (
            *_port_rules(network, options, endpoint),
            Veth(
                name=endpoint.host_interface,
                peer=link,
                peer_namespace=inside,
                mac=endpoint.mac,
                mtu=options.mtu,
                master=options.name,
                alias=f"netplug:{network.id:.12}/{endpoint.id:.12}",
            ),
            *(Address(namespace=inside, link=link, address=address) for address in given),
            LinkUp(namespace=inside, link=link),
            *(Announce(namespace=inside, link=link, address=_plain(address), mac=endpoint.mac) for address in given),
        )

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        veth = Veth(name=endpoint.host_interface, peer=endpoint.interface, peer_namespace=sandbox.namespace, mac=endpoint.mac)
        return (*removal(_port_rules(network, Options.of(network), endpoint)), Remove(op=veth))

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        # A client that sent before the port was there has a tracked flow without NAT, which would go on being used.
        return (*_published(network, endpoint), *_stale(network, endpoint))

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return (*removal(_published(network, endpoint)), *_led(network, endpoint))

    def link(self, network: Network, client: Endpoint, server: Endpoint, ports: tuple[PortBinding, ...]) -> Plan:
        if Options.of(network).icc:
            return ()
        pairs = ((client.address, server.address), (client.address6, server.address6))
        return tuple(
            AllowPeer(client=_plain(source), server=_plain(target), protocol=port.protocol, port=port.port)
            for source, target in pairs
            if source and target
            for port in ports
        )


def bridge_mac(network: Network) -> str:
    """Of the user's bridge its own; else `02:42:` and the gateway's IPv4 address, or without one, the network's id."""
    found = _found(network)
    if found is not None:
        return found.mac
    for pool in _pools(network, 4):
        if pool.gateway:
            return "02:42:" + socket.inet_pton(socket.AF_INET, pool.gateway).hex(":")
    return "02:42:" + bytes.fromhex(network.id[:8]).hex(":")


def _sysctls(network: Network, options: Options) -> Plan:
    link = options.name.replace(".", "/")  # in a sysctl's key `.` and `/` change places (sysctl.d(5))
    steps: list[Step] = []
    if _has_address(network, options, 6):
        if not network.internal:
            steps.append(Sysctl(key=IPV6_FORWARDING, value="1"))
        if _found(network) is None:
            steps.append(Sysctl(key=f"net.ipv6.conf.{link}.accept_ra", value="0"))
        steps.append(Sysctl(key=f"net.ipv6.conf.{link}.disable_ipv6", value="0"))
    elif _found(network) is None:
        steps.append(Sysctl(key=f"net.ipv6.conf.{link}.disable_ipv6", value="1"))
    if network.ipv4:
        # 127.0.0.1:PORT on the host is DNATed to a container: the kernel must not take the reply path for a martian.
        steps.append(Sysctl(key=f"net.ipv4.conf.{link}.route_localnet", value="1"))
    return tuple(steps)


def _addresses(network: Network, options: Options) -> tuple[Address, ...]:
    """What the bridge is to have; an address of the user's bridge as it is there."""
    found = _found(network)
    there = {_plain(address): address for address in found.addresses} if found is not None else {}
    wanted = [
        there.get(pool.gateway, f"{pool.gateway}/{pool.subnet.rsplit('/', 1)[1]}")
        for pool in network.pools
        if pool.gateway and _has_address(network, options, _family(pool))
    ]
    if _has_address(network, options, 6) and LINK_LOCAL_GATEWAY not in wanted:
        wanted.append(LINK_LOCAL_GATEWAY)
    return tuple(Address(link=options.name, address=address) for address in wanted)


def _rules(network: Network, options: Options) -> Plan:
    isolate = Isolate(
        bridge=options.name,
        subnets=tuple(pool.subnet for pool in network.pools),
        mode4=options.firewall_mode(4),
        mode6=options.firewall_mode(6),
        internal=network.internal,
        icc=options.icc,
        trusted=options.trusted,
    )
    if network.internal or not options.masquerade:
        return (isolate,)
    natted = (pool for pool in network.pools if options.mode(_family(pool)) != "routed")
    sources = ((pool.subnet, options.source(_family(pool))) for pool in natted)
    return (isolate, *(Masquerade(subnet=subnet, source=source, bridge=options.name) for subnet, source in sources))


def _port_rules(network: Network, options: Options, endpoint: Endpoint) -> Plan:
    if options.icc and not options.antispoof:
        return ()
    guard = Guard(
        link=endpoint.host_interface,
        bridge=options.name,
        bridge_mac=bridge_mac(network),
        mac=endpoint.mac,
        addresses=tuple(_plain(address) for address in (endpoint.address, endpoint.address6) if address),
        antispoof=options.antispoof,
        icc=options.icc,
    )
    return (guard,)


def _published(network: Network, endpoint: Endpoint) -> Plan:
    """Routed, a port is opened at the container's own address; else a port of the host leads to it."""
    options = Options.of(network)
    steps: list[Step] = []
    for port in endpoint.ports:
        address = _target(endpoint, port)
        if not address:
            continue
        if options.mode(_port_family(port, endpoint)) == "routed":
            steps.append(Direct(protocol=port.protocol, address=address, port=port.port, count=port.count))
        else:
            host_ip = "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip
            steps.append(
                Publish(
                    protocol=port.protocol, host_ip=host_ip, host_port=port.host_port, address=address, port=port.port, count=port.count
                )
            )
    return tuple(steps)


def _led(network: Network, endpoint: Endpoint) -> Plan:
    """Flows that came by ports of the host."""
    options = Options.of(network)
    return tuple(
        FlushFlows(protocol=port.protocol, port=port.host_port, count=port.count, address=address)
        for port in endpoint.ports
        if (address := _target(endpoint, port)) and options.mode(_port_family(port, endpoint)) != "routed"
    )


def _stale(network: Network, endpoint: Endpoint) -> Plan:
    """Flows to ports of the host that went elsewhere, in both IP versions at once."""
    options = Options.of(network)
    ports = {
        (port.protocol, port.host_port, port.count): None
        for port in endpoint.ports
        if port.protocol == "udp" and options.mode(_port_family(port, endpoint)) != "routed"
    }
    return tuple(FlushFlows(protocol=protocol, port=number, count=count) for protocol, number, count in ports)


def _target(endpoint: Endpoint, port: PortBinding) -> str:
    """The address that the port leads to; `""` where rules cannot lead there: `[::1]` and other IP versions are the forwarder's."""
    if port.host_ip == "::1":
        return ""
    return _plain(endpoint.address6 if _port_family(port, endpoint) == 6 else endpoint.address)


def _port_family(port: PortBinding, endpoint: Endpoint) -> Family:
    if not port.host_ip:
        return 4 if endpoint.address else 6
    return 6 if ":" in port.host_ip else 4


def _check_gateway(network: Network, pool: PoolConfig) -> None:
    """The host is the gateway: where the user's bridge has an address in the subnet, that is the one which containers must use."""
    found = _found(network)
    own = [_plain(address) for address in found.addresses] if found is not None else []
    within = [address for address in own if ipaddress.ip_address(address) in ipaddress.ip_network(pool.subnet)]
    if within and pool.gateway not in within:
        raise InvalidArgument(
            f"gateway {pool.gateway} is not an address of bridge {bridge_name(network)}, which has {within[0]} in {pool.subnet}:"
            f" give --gateway {within[0]}"
        )


def _has_address(network: Network, options: Options, family: Family) -> bool:
    """Whether the bridge gets an address of that IP version from us."""
    enabled = network.ipv6 if family == 6 else network.ipv4 and not options.inhibit_ipv4
    return enabled and not options.isolated(family)


def _found(network: Network) -> FoundLink | None:
    """The bridge, where it is the user's."""
    name = bridge_name(network)
    return next((link for link in network.found if link.name == name), None)


def _pools(network: Network, family: Family) -> list[PoolConfig]:
    return [pool for pool in network.pools if _family(pool) == family]


def _family(pool: PoolConfig) -> Family:
    return 6 if ":" in pool.subnet else 4


def _plain(address: str) -> str:
    """Without its prefix."""
    return address.split("/")[0]
