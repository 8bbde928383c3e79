"""Join the containers of several nodes in one network: Ethernet in UDP (VXLAN, RFC 7348).

A node has something of the network only while a container of it is there, all in a namespace of its own, `1-<network id 10>`: a bridge
`br0`, of which the containers are ports, and a VXLAN link `vx-<network id 12>`, whose UDP socket is in the host. Nothing is flooded and
nothing is learned: forwarding entries say which node has a MAC, neighbours say which MAC an address has, so that questions for an
address are answered before they leave the node. Host end of a pair `veth<endpoint id 7>`, in the sandbox `eth<N>`.

The gateway's address is on every node's bridge, as with Docker: it answers, and leads nowhere. The way out is the gateway bridge.
"""

from __future__ import annotations

import ipaddress

from netplug.capability import Underlay
from netplug.driver import Capabilities
from netplug.errors import InvalidArgument, Unavailable
from netplug.model import Endpoint, Family, Network, PoolConfig, Sandbox, usual_mac
from netplug.plan import Address, Announce, Bridge, Fdb, LinkUp, Neighbour, Netns, Plan, Remove, Sysctl, Veth, Vxlan, removal
from netplug_drivers.overlay_options import Options, check_new

BRIDGE = "br0"

_NOWHERE = Underlay()


class Overlay:
    """On the node `here`."""

    capabilities = Capabilities(scope="global", ports=False, exit=False)

    def __init__(self, here: Underlay = _NOWHERE) -> None:
        self.here = here

    def on(self, underlay: Underlay) -> Overlay:
        return Overlay(underlay)

    def validate(self, network: Network) -> None:
        Options.of(network)
        if not network.vni:
            check_new(network)
        if network.ipam_driver == "null":
            raise InvalidArgument("ipv4 pool is empty: an overlay network needs addresses, and the IPAM driver null gives none")
        for family in (4, 6):
            if len(_pools(network, family)) > 1:
                raise InvalidArgument("overlay driver doesn't support multiple subnets")

    def vni_range(self, network: Network) -> tuple[range, ...]:
        return Options.of(network).vnis

    def namespace(self, network: Network) -> str:
        return f"{self.here.folder}/1-{network.id:.10}"

    def create_network(self, network: Network) -> Plan:
        """Nothing before an endpoint joins here."""
        return ()

    def delete_network(self, network: Network) -> Plan:
        """The link by itself: the kernel ends a namespace when it has time, and until then its VNI would be taken."""
        return (
            Remove(op=Vxlan(name=_tunnel(network), link_namespace=self.namespace(network), vni=network.vni, local=self.here.address)),
            Remove(op=Netns(path=self.namespace(network))),
        )

    def underlay(self, network: Network) -> Plan:
        if not self.here.address:
            raise Unavailable(f"network {network.name} is one of a cluster, and this node is in none")
        if not network.vni:
            raise InvalidArgument(f"network {network.name} has no VNI")
        place, mtu = self.namespace(network), self._mtu(network)
        return (
            Netns(path=place),
            Sysctl(namespace=place, key=_QUIET6, value="0") if network.ipv6 else Sysctl(namespace=place, key=_WITHOUT6, value="1"),
            Bridge(namespace=place, name=BRIDGE, mac=_bridge_mac(network), mtu=mtu, alias=f"netplug:{network.id:.12}"),
            *(Address(namespace=place, link=BRIDGE, address=address) for address in _gateways(network)),
            Vxlan(
                name=_tunnel(network),
                link_namespace=place,
                mtu=mtu,
                vni=network.vni,
                local=self.here.address,
                port=Options.of(network).port or self.here.port,
                master=BRIDGE,
            ),
        )

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        inside, link = sandbox.namespace, endpoint.interface
        given = tuple(filter(None, (endpoint.address, endpoint.address6)))
        return (
            Veth(
                namespace=self.namespace(network),
                name=endpoint.host_interface,
                peer=link,
                peer_namespace=inside,
                mac=endpoint.mac,
                mtu=self._mtu(network),
                master=BRIDGE,
                alias=f"netplug:{network.id:.12}/{endpoint.id:.12}",
            ),
            *(Address(namespace=inside, link=link, address=address) for address in given),
            LinkUp(namespace=inside, link=link),
            *(Announce(namespace=inside, link=link, address=_plain(address), mac=endpoint.mac) for address in given),
        )

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        name, place = endpoint.host_interface, self.namespace(network)
        return (Remove(op=Veth(namespace=place, name=name, peer=endpoint.interface, peer_namespace=sandbox.namespace, mac=endpoint.mac)),)

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        """Ports are the gateway bridge's."""
        return ()

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()

    def peer_added(self, network: Network, endpoint: Endpoint) -> Plan:
        entries = self._entries(network, endpoint)
        if not entries or endpoint.mac == usual_mac(endpoint):
            return entries
        # Containers here may know the address by its former owner's MAC: the usual one is every owner's, this one is not.
        place, given = self.namespace(network), filter(None, (endpoint.address, endpoint.address6))
        return (*entries, *(Announce(namespace=place, link=BRIDGE, address=_plain(address), mac=endpoint.mac) for address in given))

    def peer_removed(self, network: Network, endpoint: Endpoint) -> Plan:
        return removal(self._entries(network, endpoint))

    def _entries(self, network: Network, endpoint: Endpoint) -> Plan:
        """Of an endpoint on this very node none."""
        if endpoint.vtep in ("", self.here.address):
            return ()
        place, link = self.namespace(network), _tunnel(network)
        given = filter(None, (endpoint.address, endpoint.address6))
        return (
            Fdb(namespace=place, link=link, mac=endpoint.mac, vtep=endpoint.vtep),
            *(Neighbour(namespace=place, link=link, address=_plain(address), mac=endpoint.mac, vtep=endpoint.vtep) for address in given),
        )

    def _mtu(self, network: Network) -> int:
        return Options.of(network).mtu or self.here.room


_WITHOUT6, _QUIET6 = "net.ipv6.conf.default.disable_ipv6", "net.ipv6.conf.default.accept_ra"
"""The namespace is no member of the network: it has no IPv6 where that has none, and takes no router's advice where it has."""


def _tunnel(network: Network) -> str:
    return f"vx-{network.id:.12}"


def _bridge_mac(network: Network) -> str:
    """As that of a bridge network: of the gateway's IPv4 address; without one, of the network's id."""
    for pool in _pools(network, 4):
        if pool.gateway:
            return "02:42:" + ipaddress.IPv4Address(pool.gateway).packed.hex(":")
    return "02:42:" + bytes.fromhex(network.id[:8]).hex(":")


def _gateways(network: Network) -> tuple[str, ...]:
    return tuple(f"{pool.gateway}/{pool.subnet.rsplit('/', 1)[1]}" for pool in network.pools if pool.gateway)


def _pools(network: Network, family: Family) -> list[PoolConfig]:
    return [pool for pool in network.pools if (6 if ":" in pool.subnet else 4) == family]


def _plain(address: str) -> str:
    """Without its prefix."""
    return address.split("/")[0]
