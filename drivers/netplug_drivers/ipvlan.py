"""Put endpoints on a link of the host, with its MAC and addresses of their own: for LANs that admit one MAC per port.

Names: in the sandbox `eth<N>`; on the host nothing. Modes (`-o ipvlan_mode=`): `l2`, as members of the LAN; `l3`, the kernel routes
between endpoints and out by the parent, without ARP, so that routers outside need a route to the subnet; `l3s`, as `l3`, with the host's
firewall in between. Flags (`-o ipvlan_flag=`): `bridge`, endpoints of one parent reach one another; `private`, they do not; `vepa`, by
way of the switch outside.
"""

from __future__ import annotations

from typing import TypeVar

from netplug.driver import Capabilities
from netplug.errors import InvalidArgument
from netplug.model import Endpoint, Family, Network, Sandbox
from netplug.plan import Ipvlan as IpvlanLink
from netplug.plan import IpvlanFlag, IpvlanMode, Plan, Remove, Route, Step
from netplug_drivers import parents

MODE, FLAG = "ipvlan_mode", "ipvlan_flag"
PREFIX = "di"
_MODES: dict[str, IpvlanMode] = {"": "l2", "l2": "l2", "l3": "l3", "l3s": "l3s"}
_FLAGS: dict[str, IpvlanFlag] = {"": "bridge", "bridge": "bridge", "private": "private", "vepa": "vepa"}

T = TypeVar("T")


class Ipvlan:
    """An ipvlan per endpoint."""

    capabilities = Capabilities(ports=False, lan=True, macs=False)

    def validate(self, network: Network) -> None:
        mode(network)
        flag(network)
        parents.validate(network, "ipvlan")

    def claims(self, network: Network) -> tuple[str, ...]:
        """The kernel keeps mode and flag for the parent, not for each link on it."""
        return parents.claim(network, f"ipvlan {mode(network)} {flag(network)}")

    def gatewayless(self, network: Network, family: Family) -> bool:
        """On a LAN the first address is its router's, unless the user names another; alone, or without ARP, there is none."""
        return not network.options.get(parents.PARENT, "") or mode(network) != "l2"

    def create_network(self, network: Network) -> Plan:
        return parents.create(network, "ipvlan", PREFIX)

    def delete_network(self, network: Network) -> Plan:
        return parents.delete(network, PREFIX)

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        steps: list[Step] = [_link(network, endpoint, sandbox), *parents.furnish(network, endpoint, sandbox)]
        if mode(network) != "l2" and not network.internal:
            # Without ARP there is no gateway to ask: everything is behind the link.
            inside, link = sandbox.namespace, endpoint.interface
            if endpoint.address and not endpoint.gateway:
                steps.append(Route(namespace=inside, destination="0.0.0.0/0", link=link))
            if endpoint.address6 and not endpoint.gateway6:
                steps.append(Route(namespace=inside, destination="::/0", link=link))
        return tuple(steps)

    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return (Remove(op=_link(network, endpoint, sandbox)),)

    def publish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()

    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()


def mode(network: Network) -> IpvlanMode:
    return _chosen(network, MODE, _MODES, "requested ipvlan mode '{}' is not valid, 'l2' mode is the ipvlan driver default")


def flag(network: Network) -> IpvlanFlag:
    return _chosen(network, FLAG, _FLAGS, "requested ipvlan flag '{}' is not valid, 'bridge' is the ipvlan driver default")


def _chosen(network: Network, option: str, known: dict[str, T], complaint: str) -> T:
    text = network.options.get(option, "")
    if text not in known:
        raise InvalidArgument(complaint.format(text))
    return known[text]


def _link(network: Network, endpoint: Endpoint, sandbox: Sandbox) -> IpvlanLink:
    return IpvlanLink(
        name=endpoint.interface,
        parent=parents.parent(network, PREFIX),
        link_namespace=sandbox.namespace,
        mode=mode(network),
        flag=flag(network),
        mtu=parents.mtu(network),
    )
