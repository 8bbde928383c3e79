"""The link of the host that a network's endpoints are put on: what macvlan and ipvlan have in common.

`-o parent=eth1` is a link that is there. `parent=eth1.10` is VLAN 10 of it: made if it is missing, and removed with its network if we made
it. No parent: a link of the network's own that leads nowhere, `dm-<network id 12>` (`di-…` for ipvlan). Nothing is put on a parent: no
address, no rule; the host's own traffic goes on as before.
"""

from __future__ import annotations

import re
from typing import Literal

from netplug.errors import InvalidArgument
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import Address, Dummy, LinkUp, Parent, Plan, Remove, Vlan

PARENT = "parent"
MTU = "com.docker.network.driver.mtu"
SMALLEST_MTU, LARGEST_MTU = 68, 65535
VLAN_IDS = range(1, 4095)

Kind = Literal["macvlan", "ipvlan"]


def validate(network: Network, kind: Kind) -> None:
    mtu(network)
    name = network.options.get(PARENT, "")
    if name == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {kind} parent link")
    if name and not re.fullmatch(r"[^\s/]{1,15}", name):
        raise InvalidArgument(f'invalid parent "{name}": the name of a link of this host is needed, at most 15 characters')


def claim(network: Network, share: str) -> tuple[str, ...]:
    """Networks that say the same `share` (`""`: none) have the parent together; a VLAN goes with its network, so that has it alone."""
    if not network.options.get(PARENT, ""):
        return ()
    together = f"={share}" if share and _vlan(network) is None else ""
    return (f"parent interface/{network.options[PARENT]}{together}",)


def parent(network: Network, prefix: str) -> str:
    return network.options.get(PARENT, "") or f"{prefix}-{network.id:.12}"


def create(network: Network, kind: Kind, prefix: str) -> Plan:
    made = _made(network, prefix)
    needed = mtu(network) if kind == "macvlan" else 0  # the kernel gives an ipvlan any
    return (*([made] if made else []), Parent(name=parent(network, prefix), carries=kind, mtu=needed))


def delete(network: Network, prefix: str) -> Plan:
    made = _made(network, prefix)
    return (Remove(op=made),) if made else ()


def furnish(network: Network, endpoint: Endpoint, sandbox: Sandbox, mac: str = "") -> Plan:
    """Addresses of a new link in the sandbox, and up."""
    inside, link = sandbox.namespace, endpoint.interface
    given = filter(None, (endpoint.address, endpoint.address6))
    addresses = (Address(namespace=inside, link=link, address=address) for address in given)
    return (*addresses, LinkUp(namespace=inside, link=link, mac=mac, alias=f"netplug:{network.id:.12}/{endpoint.id:.12}"))


def mtu(network: Network) -> int:
    """The option's MTU; 0: the parent's."""
    text = network.options.get(MTU, "") or "0"
    value = int(text) if text.isdecimal() else -1
    if value and not SMALLEST_MTU <= value <= LARGEST_MTU:
        raise InvalidArgument(f'invalid MTU "{text}": a number from {SMALLEST_MTU} to {LARGEST_MTU} is needed, not more than the parent\'s')
    return value


def _made(network: Network, prefix: str) -> Dummy | Vlan | None:
    """What we make to have a parent."""
    alias = f"netplug:{network.id:.12}"
    if not network.options.get(PARENT, ""):
        return Dummy(name=parent(network, prefix), mtu=mtu(network), alias=alias)
    vlan = _vlan(network)
    return Vlan(name=parent(network, prefix), parent=vlan[0], tag=vlan[1], alias=alias) if vlan else None


def _vlan(network: Network) -> tuple[str, int] | None:
    """`eth0.10` as ("eth0", 10)."""
    link, dot, tag = network.options.get(PARENT, "").rpartition(".")
    if link and dot and tag.isdecimal() and int(tag) in VLAN_IDS:
        return link, int(tag)
    return None
