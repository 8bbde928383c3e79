"""Whom a loss concerns: which network or sandbox has to be looked at. What concerns nobody was somebody else's, or ours to take away."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from netplug.controller.core import Core
from netplug.controller.requests import ControllerEvent
from netplug.kernel.losses import OUR_TABLE, Loss
from netplug.model import Endpoint, Network
from netplug.plan import HOST, Address, LinkOp, PlacedOp, Plan, Route, Sysctl

Kind: TypeAlias = Literal["firewall", "neighbours", "host", "network", "sandbox", "port", "names"]
ORDER: tuple[Kind, ...] = ("firewall", "neighbours", "host", "network", "sandbox", "port", "names")
"""Rules before what they protect, networks before who is on them."""


class Subject(NamedTuple):
    """What to look at; `port`: what of a sandbox is in the host."""

    kind: Kind
    id: str = ""


class Concern:
    """Of what is in the records. Our own changes cause losses too: those must cost little, however many endpoints there are."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._networks: dict[str, tuple[Network, frozenset[str]]] = {}
        self._ports: dict[str, str] = {}
        """By host interface: its endpoint."""
        self._sandboxes: dict[str, str] = {}
        self._places: dict[str, tuple[str, frozenset[str]]] = {}
        """By namespace that a global network has here: the network, and what its links and addresses there are called."""

    def moved(self, network: Network, joined: bool) -> None:
        """This host is on that global network now, or is no more."""
        place = self._core.place(network)
        if joined:
            self._places[place] = network.id, frozenset(_of_plan(self._core.network_plan(network, peers=())))
        else:
            self._places.pop(place, None)

    def follow(self, event: ControllerEvent) -> None:
        """Keep in mind whose a host interface is, and a namespace."""
        endpoint, sandbox = event.endpoint, event.sandbox
        if event.kind == "endpoint" and endpoint is not None and endpoint.host_interface:
            if event.action in ("connect", "update"):
                self._ports[endpoint.host_interface] = endpoint.id
            elif event.action == "disconnect":
                self._ports.pop(endpoint.host_interface, None)
        if event.kind == "sandbox" and sandbox is not None and sandbox.kind != "host":
            if event.action in ("create", "update"):
                self._sandboxes[sandbox.namespace] = sandbox.id
            elif event.action == "remove":
                self._sandboxes.pop(sandbox.namespace, None)

    def subjects(self, losses: Iterable[Loss]) -> dict[Subject, list[str]]:
        """What to look at, in order, each with those who seem to have taken something."""
        found: dict[Subject, dict[str, None]] = {}
        for loss in losses:
            for subject in self._concerned(loss):
                found.setdefault(subject, {}).update({loss.by: None} if loss.by else {})
        return {subject: list(found[subject]) for subject in sorted(found, key=lambda subject: ORDER.index(subject.kind))}

    def any(self, loss: Loss) -> bool:
        """Whether it concerns anybody, by the records as they are now."""
        return next(self._concerned(loss), None) is not None

    def _concerned(self, loss: Loss) -> Iterator[Subject]:
        if loss.kind == "unknown":
            yield from self._everything()
        elif loss.kind == "table":
            yield from self._by_table(loss)
        elif loss.namespace in self._places:
            yield from self._in_place(loss)
        elif loss.namespace != HOST:
            yield from self._in_sandbox(loss)
        else:
            yield from self._in_host(loss)

    def _everything(self) -> Iterator[Subject]:
        records = self._core.records
        yield from (Subject("firewall"), Subject("neighbours"), Subject("host"))
        yield from (Subject("network", network) for network in records.networks)
        yield from (Subject("sandbox", sandbox) for sandbox in records.sandboxes)
        yield from (Subject("names", sandbox) for sandbox in records.sandboxes)

    def _by_table(self, loss: Loss) -> Iterator[Subject]:
        if loss.namespace != HOST:
            if loss.namespace in self._sandboxes:
                yield Subject("names", self._sandboxes[loss.namespace])
            return
        family, _, table = loss.name.partition(" ")
        if table == OUR_TABLE or (self._core.firewall.name == "iptables" and family in ("ip", "ip6")):
            yield Subject("firewall")
        if table != OUR_TABLE:
            yield Subject("neighbours")

    def _in_host(self, loss: Loss) -> Iterator[Subject]:
        if loss.kind == "sysctl" or (loss.kind == "route" and loss.name in _of_plan(self._core.routes)):
            yield Subject("host")
        for network in self._core.records.networks.values():
            if loss.name in self._words(network):
                yield Subject("network", network.id)
        yield from self._by_port(loss)

    def _in_place(self, loss: Loss) -> Iterator[Subject]:
        network, words = self._places[loss.namespace]
        if loss.name in words:
            yield Subject("network", network)
        yield from self._by_port(loss)

    def _by_port(self, loss: Loss) -> Iterator[Subject]:
        # One that is leaving is in the records no more.
        if loss.kind in ("link", "port") and (endpoint := self._core.records.endpoints.get(self._ports.get(loss.name, ""))):
            yield Subject("port" if loss.kind == "port" else "sandbox", endpoint.sandbox)

    def _in_sandbox(self, loss: Loss) -> Iterator[Subject]:
        identity = self._sandboxes.get(loss.namespace, "")
        lost = [endpoint for endpoint in self._core.records.of_sandbox(identity) if loss.name in _of_endpoint(endpoint)]
        # A link may have gone with the namespace or the bridge at its other end: that must be there before the link can be.
        yield from (Subject("network", endpoint.network) for endpoint in lost if loss.kind == "link")
        if lost:
            yield Subject("sandbox", identity)

    def _words(self, network: Network) -> frozenset[str]:
        """What its links, addresses, routes and sysctls in the host are called in a loss."""
        known = self._networks.get(network.id)
        if known is None or known[0] is not network:
            self._networks = {identity: words for identity, words in self._networks.items() if identity in self._core.records.networks}
            plan = () if self._core.place(network) else self._core.network_plan(network)
            known = self._networks[network.id] = network, frozenset(_of_plan(plan))
        return known[1]


def _of_plan(plan: Plan) -> Iterator[str]:
    for step in plan:
        match step:
            case LinkOp(name=name) | PlacedOp(name=name):
                yield name
            case Address(address=address):
                yield from _of_address(address)
            case Route(destination=destination, gateway=gateway):
                yield gateway or destination
            case Sysctl(key=key):
                yield key


def _of_endpoint(endpoint: Endpoint) -> set[str]:
    found = {endpoint.interface, endpoint.gateway, endpoint.gateway6}
    for address in (endpoint.address, endpoint.address6):
        found.update(_of_address(address) if address else ())
    if endpoint.attachment is not None:
        found.update(route.gateway or route.destination for route in endpoint.attachment.routes)
    return found - {""}


@lru_cache(maxsize=4096)
def _of_address(address: str) -> tuple[str, str]:
    """The address, and the subnet that the kernel has a route to on its account."""
    interface = ipaddress.ip_interface(address)
    return str(interface.ip), str(interface.network)
