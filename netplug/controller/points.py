"""Where the packets of a network or of a container can be seen: links, read from the plans of what is there. Nothing is opened here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from netplug.controller.core import Core
from netplug.controller.nouns import noun
from netplug.controller.restore import Restore
from netplug.errors import Conflict
from netplug.model import Network, Sandbox
from netplug.plan import HOST, Adopt, Bridge, LinkOp, Parent, PlacedOp, Step, Veth, Vxlan


class Point(NamedTuple):
    """A link in the namespace at a path, or all links there (`link` is `""` and so is `address`)."""

    namespace: str
    """`HOST`: the daemon's own."""
    link: str
    owner: str
    """The container's name, or the network's; `""`: the host's."""
    about: str
    address: str = ""
    """The link is not known by name: it is the one that has this address."""
    vni: int = 0
    """Only frames that are in a tunnel of that number, in UDP to `port`; 0: all."""
    port: int = 0
    dns: tuple[int, ...] = ()
    """UDP and TCP port of the resolver, as packets in the sandbox carry them: 127.0.0.11:53 leads there."""


def of_sandbox(sandbox: Sandbox) -> list[Point]:
    if sandbox.kind == "host":
        raise Conflict(f"container {sandbox.name} is on the host's own network: capture on host")
    if not sandbox.namespace:
        raise Conflict(f"container {sandbox.name} has no network namespace yet")
    dns = tuple(filter(None, (sandbox.resolver_udp, sandbox.resolver_tcp)))
    return [Point(sandbox.namespace, "", sandbox.name, f"in container {sandbox.name}", dns=dns)]


def of_network(core: Core, restore: Restore, network: Network) -> list[Point]:
    """In the order in which a packet from outside meets them: tunnels and parents, the containers' ends, bridges."""
    if core.place(network) and network.id not in core.joined:
        raise Conflict(f"network {network.name} has no container on this node, so nothing of it is here: ask a node that has one")
    plan = core.network_plan(network)
    found = [point for step in plan if not isinstance(step, Bridge) for point in _of_network(network, step)]
    for endpoint in core.records.of_network(network.id):
        sandbox = core.records.sandboxes[endpoint.sandbox]
        found += [point for step in restore.whole_plan(sandbox, endpoint) for point in _of_endpoint(network, sandbox, step)]
    found += [point for step in plan if isinstance(step, Bridge) for point in _of_network(network, step)]
    # A parent that is made for the network is both a link of its own and what its containers are put on.
    return _once(found)


def _of_network(network: Network, step: Step) -> Iterator[Point]:
    about = f"{noun(step)} of network {network.name}"
    match step:
        case LinkOp(namespace=place, name=name):
            yield Point(place, name, network.name, about)
        case Vxlan(link_namespace=place, name=name, local=local, vni=vni, port=port):
            yield Point(HOST, "", "", f"what nodes send one another for network {network.name}", local, vni, port)
            yield Point(place, name, network.name, f"{about}, frames as they enter and leave the tunnel")
        case Parent(name=name):
            yield Point(HOST, name, network.name, f"what the containers of network {network.name} are put on")


def _of_endpoint(network: Network, sandbox: Sandbox, step: Step) -> Iterator[Point]:
    match step:
        case Veth(namespace=place, name=name):
            yield Point(place, name, sandbox.name, f"where container {sandbox.name} is plugged into network {network.name}")
        case PlacedOp(link_namespace=place, name=name) | Adopt(link_namespace=place, name=name):
            yield Point(place, name, sandbox.name, f"container {sandbox.name} on network {network.name}")


def _once(points: Sequence[Point]) -> list[Point]:
    return list({(point.namespace, point.link, point.address): point for point in reversed(points)}.values())[::-1]
