"""Links (`--link`): what one container may reach of another although their network keeps its containers apart (`icc=false`).

A link names a sandbox, which may come, go and come again with another address: its rules are there while both ends are on the network.
"""

from __future__ import annotations

from collections.abc import Iterator

from netplug.capability import Linking
from netplug.controller.core import Core
from netplug.model import Endpoint, Network, PortBinding, Sandbox
from netplug.plan import Plan, Step


def rules(core: Core, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
    """Between `endpoint` and those that it links to, or that link to it.

    To be applied before anything else can happen: an end that leaves meanwhile would leave them behind, for the next owner of its address.
    """
    return (*as_client(core, network, endpoint), *as_server(core, network, endpoint, sandbox))


def as_client(core: Core, network: Network, client: Endpoint) -> Plan:
    steps: list[Step] = []
    for identity in client.links:
        sandbox = core.records.sandboxes.get(identity)
        for server in core.records.of_sandbox(identity):
            if sandbox is not None and server.network == network.id:
                steps += _rules(core, network, client, server, sandbox)
    return tuple(steps)


def as_server(core: Core, network: Network, server: Endpoint, sandbox: Sandbox) -> Plan:
    steps: list[Step] = []
    for client in core.records.linking_to(network.id, sandbox.id):
        steps += _rules(core, network, client, server, sandbox)
    return tuple(steps)


def _rules(core: Core, network: Network, client: Endpoint, server: Endpoint, sandbox: Sandbox) -> Plan:
    driver = core.driver(network)
    if client.sandbox == server.sandbox or not isinstance(driver, Linking):
        return ()
    return driver.link(network, client, server, tuple(dict.fromkeys(_served(sandbox))))


def _served(sandbox: Sandbox) -> Iterator[PortBinding]:
    """What it exposes, and what it publishes: protocol and container port of each."""
    for text in sandbox.exposed:
        port, _, protocol = text.partition("/")
        for known in ("tcp", "udp", "sctp"):
            if port.isdecimal() and known == (protocol or "tcp"):
                yield PortBinding(protocol=known, port=int(port))
    for binding in sandbox.ports:
        for number in range(binding.count):
            yield PortBinding(protocol=binding.protocol, port=binding.port + number)
