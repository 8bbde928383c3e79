"""Published ports of sandboxes: which endpoints carry them, who holds them, who relays what packets cannot reach."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from itertools import groupby

import msgspec

from netplug.capability import HostBinding, Routed
from netplug.controller import gateway
from netplug.controller.core import Core, log
from netplug.controller.mappings import Carrier, Carriers, Mapping, mapping, overlap, published, relay, remembered
from netplug.errors import NetplugError, PortTaken, Unavailable
from netplug.model import Endpoint, Family, PortBinding, Sandbox

Ports = Dictionary[str, tuple[PortBinding, ...]]
"""By endpoint: what it carries. Those that carry nothing are not in it."""

_FAMILIES: tuple[Family, ...] = (4, 6)


class Publishing:
    """What becomes of a sandbox's ports when its endpoints change."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def hold(self, sandbox: Sandbox, before: Sequence[Endpoint], after: Sequence[Endpoint]) -> tuple[Sandbox, Ports]:
        """Take the host ports that the sandbox needs on the endpoints `after`; all or PortTaken. `keep` lets go of those it needs no more.

        The sandbox remembers the numbers that were chosen for it.
        """
        if not sandbox.ports:
            return sandbox, {}
        carriers = self._carriers(after)
        if carriers == self._carriers(before):
            return sandbox, {endpoint.id: endpoint.ports for endpoint in before if endpoint.ports}
        mappings = [mapping(asked, carriers) for asked in sandbox.ports] if carriers else []
        if clash := overlap(mappings):
            first, second = clash
            raise PortTaken(f"Bind for {_socket(second)} failed: port is already allocated (by {first} of the same container)")
        numbers = self._core.ports.hold(sandbox.id, sandbox.name, mappings)
        return self._published(sandbox, mappings, numbers, carriers)

    def hold_what_is_free(self, sandbox: Sandbox, before: Sequence[Endpoint], after: Sequence[Endpoint]) -> tuple[Sandbox, Ports]:
        """Nothing is refused: a port that moves to where it cannot be had is not published, and the log says so."""
        try:
            return self.hold(sandbox, before, after)
        except NetplugError:
            carriers = self._carriers(after)
        mappings: list[Mapping] = []
        numbers: list[int] = []
        for wanted in (mapping(asked, carriers) for asked in sandbox.ports):
            try:
                numbers += self._core.ports.hold(sandbox.id, sandbox.name, [wanted])
                mappings.append(wanted)
            except NetplugError as error:
                log.warning("port %s of %s is not published any more: %s", wanted.asked, sandbox.name, error)
        return self._published(sandbox, mappings, numbers, carriers)

    def keep(self, sandbox: Sandbox, endpoints: Sequence[Endpoint]) -> None:
        """Let go of host ports that these endpoints do not carry."""
        if sandbox.ports:
            self._core.ports.keep(sandbox.id, (port for endpoint in endpoints for port in endpoint.ports))

    async def settle(self, sandbox: Sandbox, endpoints: Sequence[Endpoint]) -> None:
        """What the sandbox has now: relays first, which use the ports that are let go of then."""
        if sandbox.ports:
            await self.relay(sandbox, endpoints)
            self.keep(sandbox, endpoints)

    async def relay(self, sandbox: Sandbox, endpoints: Sequence[Endpoint]) -> None:
        """A forwarder that cannot be told now is told when it is back; a change of the network does not wait for it."""
        relays = [
            (wanted, self._core.ports.sockets(sandbox.id, port))
            for endpoint in endpoints
            for port in endpoint.ports
            if (wanted := relay(endpoint, port))
        ]
        try:
            await self._core.forwarder.put(sandbox.id, relays)
        except (Unavailable, OSError) as error:
            log.warning("ports of %s on ::1 and the like follow when the forwarder is back: %s", sandbox.name, error)

    async def restore(self) -> None:
        """At start: hold what the records say. Some sockets are still there, with the forwarder."""
        core = self._core
        for found, held in await core.forwarder.resume():
            core.ports.adopt(found.protocol, found.host_ip, found.host_port, held)
        for sandbox in core.records.sandboxes.values():
            for error in await self.hold_again(sandbox):
                log.warning("a port of %s cannot be held (it still leads there): %s", sandbox.name, error)
        core.ports.let_go()
        await core.forwarder.settle()

    def unheld(self, sandbox: Sandbox) -> list[str]:
        """Host ports that lead to the sandbox, and that any program could take."""
        ports = self._core.ports
        mappings = _as_they_are(self._core.records.of_sandbox(sandbox.id))
        wanted = ((one.asked.protocol, address, one.asked.host_port, one.asked.count) for one in mappings for address in one.held)
        held = ports.held_by(sandbox.id)
        return [
            f"{address}:{port}/{protocol}"
            for protocol, address, port, count in wanted
            if not any(block.holds(protocol, address, port, count) for block in held)
        ]

    async def hold_again(self, sandbox: Sandbox) -> list[NetplugError]:
        """Hold what the records say, as far as it can be had; why it cannot."""
        core = self._core
        endpoints = core.records.of_sandbox(sandbox.id)
        errors = []
        for wanted in _as_they_are(endpoints):
            try:
                core.ports.hold(sandbox.id, sandbox.name, [wanted])
            except NetplugError as error:
                errors.append(error)
        await self.relay(sandbox, endpoints)
        return errors

    def _carriers(self, endpoints: Sequence[Endpoint]) -> Carriers:
        """The endpoints that carry the default routes, so that replies leave the way the requests came."""
        found: dict[Family, Carrier] = {}
        for family in _FAMILIES:
            endpoint = gateway.carrier(endpoints, self._core.records.network_name, family)
            if endpoint is not None and (carrier := self._carrier(endpoint, family)):
                found[family] = carrier
        return found

    def _carrier(self, endpoint: Endpoint, family: Family) -> Carrier | None:
        network = self._core.records.networks[endpoint.network]
        driver = self._core.driver(network)
        if not driver.capabilities.ports:
            return None
        return Carrier(
            # Its ports are what this is about.
            endpoint=msgspec.structs.replace(endpoint, ports=()),
            routed=isinstance(driver, Routed) and driver.routed(network, family),
            host_binding=driver.host_binding(network, family) if isinstance(driver, HostBinding) else "",
        )

    def _published(
        self, sandbox: Sandbox, mappings: Sequence[Mapping], numbers: Sequence[int], carriers: Carriers
    ) -> tuple[Sandbox, Ports]:
        ports: dict[str, tuple[PortBinding, ...]] = defaultdict(tuple)
        chosen = dict(zip((wanted.asked for wanted in mappings), numbers, strict=True))
        for wanted, number in zip(mappings, numbers, strict=True):
            for endpoint, binding in published(wanted, number, carriers):
                ports[endpoint] += (binding,)
        asked = tuple(remembered(one, chosen.get(one) or one.preferred) for one in sandbox.ports)
        return msgspec.structs.replace(sandbox, ports=asked), ports


def _as_they_are(endpoints: Sequence[Endpoint]) -> list[Mapping]:
    """The ports that endpoints carry, those that differ in nothing but the host address as one."""
    ports = sorted((port for endpoint in endpoints for port in endpoint.ports if port.host_port), key=_apart)
    groups = (list(group) for _, group in groupby(ports, key=_apart))
    return [Mapping(group[0], tuple(port.host_ip for port in group)) for group in groups]


def _apart(port: PortBinding) -> tuple[str, int, int, int]:
    return port.protocol, port.host_port, port.count, port.port


def _socket(binding: PortBinding) -> str:
    return str(binding).split("->")[0]
