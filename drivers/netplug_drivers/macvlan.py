"""Put endpoints on a link of the host, each with a MAC of its own: members of the LAN beside the host, without NAT and without the host.

Names: in the sandbox `eth<N>`; on the host nothing. Modes (`-o macvlan_mode=`): `bridge`, endpoints of one parent reach one another;
`private`, they do not; `vepa`, by way of the switch outside, if that sends frames back where they came from; `passthru`, the parent is one
container's alone. Published ports are ignored, as with Docker: an endpoint's own address is reached.
"""

from __future__ import annotations

from netplug.driver import Capabilities
from netplug.errors import InvalidArgument
from netplug.model import Endpoint, Family, Network, Sandbox
from netplug.plan import Announce, MacvlanMode, Plan, Remove
from netplug.plan import Macvlan as MacvlanLink
from netplug_drivers import parents

MODE = "macvlan_mode"
PREFIX = "dm"
_MODES: dict[str, MacvlanMode] = {"": "bridge", "bridge": "bridge", "private": "private", "vepa": "vepa", "passthru": "passthru"}


class Macvlan:
    """A macvlan per endpoint."""

    capabilities = Capabilities(ports=False, lan=True)

    def validate(self, network: Network) -> None:
        mode(network)
        parents.validate(network, "macvlan")

    def claims(self, network: Network) -> tuple[str, ...]:
        return parents.claim(network, "" if mode(network) == "passthru" else "macvlan")

    def gatewayless(self, network: Network, family: Family) -> bool:
        """On a LAN the first address is its router's, unless the user names another; alone there is none."""
        return not network.options.get(parents.PARENT, "")

    def create_network(self, network: Network) -> Plan:
        return parents.create(network, "macvlan", PREFIX)

    def delete_network(self, network: Network) -> Plan:
        return parents.delete(network, PREFIX)

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        # In mode passthru the link is born with its parent's MAC.
        mac = endpoint.mac if mode(network) == "passthru" else ""
        heard = tuple(address.split("/")[0] for address in (endpoint.address, endpoint.address6) if address)
        return (
            _link(network, endpoint, sandbox),
            *parents.furnish(network, endpoint, sandbox, mac),
            *(Announce(namespace=sandbox.namespace, link=endpoint.interface, address=address, mac=endpoint.mac) for address in heard),
        )

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return (Remove(op=_link(network, endpoint, sandbox)),)

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()


def mode(network: Network) -> MacvlanMode:
    text = network.options.get(MODE, "")
    if text not in _MODES:
        raise InvalidArgument(f"requested macvlan mode '{text}' is not valid, 'bridge' mode is the macvlan driver default")
    return _MODES[text]


def _link(network: Network, endpoint: Endpoint, sandbox: Sandbox) -> MacvlanLink:
    return MacvlanLink(
        name=endpoint.interface,
        parent=parents.parent(network, PREFIX),
        link_namespace=sandbox.namespace,
        mac=endpoint.mac,
        mode=mode(network),
        mtu=parents.mtu(network),
    )
