"""What a driver may offer beside the driver interface, each a protocol, mostly of one method: a driver has it by having the methods.

Pure, as the interface is, but for `Effectful`. The controller asks `isinstance(driver, HostBinding)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import msgspec

from netplug.model import Attachment, Endpoint, Family, Network, PortBinding, Sandbox
from netplug.plan import Plan

if TYPE_CHECKING:
    _ProtocolMeta = type
else:
    _ProtocolMeta = type(Protocol)


class _ByClass(_ProtocolMeta):
    """`isinstance` by the object's class, which is remembered (0.4 us). A protocol's own looks for each method at each call: 35 us."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return issubclass(type(instance), cls)


@runtime_checkable
class HostBinding(Protocol, metaclass=_ByClass):
    """Ports published without a host address go to this one; one of the other IP version: in this one to none."""

    def host_binding(self, network: Network, family: Family) -> str: ...


@runtime_checkable
class Routed(Protocol, metaclass=_ByClass):
    """Whether ports of that IP version are reached by the containers' own addresses, so that none is taken on the host."""

    def routed(self, network: Network, family: Family) -> bool: ...


@runtime_checkable
class Claims(Protocol, metaclass=_ByClass):
    """What only one network may have on this host, as words: `bridge/lab0`; networks that say the same behind `=` share it."""

    def claims(self, network: Network) -> tuple[str, ...]: ...


@runtime_checkable
class Adopts(Protocol, metaclass=_ByClass):
    """Links that a network takes as they are, addresses and all, where the user has made them before.

    Subnet and gateway are the link's own unless the user says otherwise; `Network.found` says what was there.
    """

    def adopts(self, network: Network) -> tuple[str, ...]: ...


@runtime_checkable
class Gatewayless(Protocol, metaclass=_ByClass):
    """Whether the network goes without a gateway in that IP version, so that no address is kept for one."""

    def gatewayless(self, network: Network, family: Family) -> bool: ...


@runtime_checkable
class Linking(Protocol, metaclass=_ByClass):
    """Lets `client` reach `ports` (protocol and port count) of `server` where the network keeps its containers apart."""

    def link(self, network: Network, client: Endpoint, server: Endpoint, ports: tuple[PortBinding, ...]) -> Plan: ...


@runtime_checkable
class Reaching(Protocol, metaclass=_ByClass):
    """Networks of one host each, whose containers those of other nodes of a cluster may reach by their own addresses."""

    def reached(self, network: Network) -> bool:
        """Whether the user wants that of the network."""

    def reach(self, network: Network, remote: str, link: str) -> Plan:
        """What lets it be: `remote` is the subnet of another node, which `link` of this host leads to."""


class Underlay(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's tunnels run through, and where their ends lie."""

    address: str = ""
    """This node's, by which the others reach it: IPv4 or IPv6, without a prefix. `""`: it is in no cluster."""
    mtu: int = 1500
    """Of the link that has the address."""
    port: int = 4789
    """UDP port, the same on all nodes (IANA's for VXLAN)."""
    folder: str = "/run/netplug/netns"
    """Where this daemon's network namespaces are."""

    @property
    def room(self) -> int:
        """The largest packet that goes through a tunnel whole: of the MTU, VXLAN takes 50 bytes over IPv4 and 70 over IPv6.

        Ethernet 14, VXLAN 8, UDP 8, IPv4 20 or IPv6 40.
        """
        return self.mtu - (70 if ":" in self.address else 50)


@runtime_checkable
class PeerAware(Protocol, metaclass=_ByClass):
    """Networks that several nodes have in common. On a node there is something of one only while an endpoint of it is there."""

    def on(self, underlay: Underlay) -> Self:
        """The same driver for a node with that underlay: all its plans, `join` and `leave` too, are that node's."""

    def vni_range(self, network: Network) -> tuple[range, ...]:
        """The numbers that its VNI may be chosen from, in that order."""

    def namespace(self, network: Network) -> str:
        """The path of the namespace in which this node keeps what the network is made of."""

    def underlay(self, network: Network) -> Plan:
        """What the network is made of here, before the first endpoint joins; `delete_network` takes it away after the last one left."""

    def peer_added(self, network: Network, endpoint: Endpoint) -> Plan:
        """Reach an endpoint that lives on another node. What was known of its addresses gives way."""

    def peer_removed(self, network: Network, endpoint: Endpoint) -> Plan:
        """Forget it, but not who has its address or MAC by now on another node."""


@runtime_checkable
class Effectful(Protocol, metaclass=_ByClass):
    """Acts outside the kernel as well, by asking another process. Networks of such a driver are of scope `local`.

    Each call comes before the plan that needs it, or after the plan that ends it, with no lock held; it ends within a time limit of the
    driver's own, and is safe to repeat for the same id. Unavailable: nobody could be asked, or did not answer, and it may have been done
    or not. Any other NetplugError: it was refused. What was begun in vain is ended by the opposite call, again and again while that is
    Unavailable.
    """

    async def make(self, network: Network) -> None:
        """Before its record and its plan."""

    async def unmake(self, network: str) -> None:
        """By id; fine if it is unknown."""

    async def attach(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        """Before the endpoint's record and its plan. Its MAC is `""` unless the user has chosen one; it has no name in the sandbox yet."""

    async def detach(self, network: str, endpoint: str) -> None:
        """By ids, once nothing of it is in the sandbox; fine if it is unknown."""
