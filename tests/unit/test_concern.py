"""Whom a loss concerns, by the records: everybody else's, and our own deletions, concern nobody."""

from __future__ import annotations

import pytest

from netplug.controller import EndpointRequest
from netplug.controller.concern import Concern, Subject
from netplug.kernel.losses import UNKNOWN, Loss
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import HOST
from tests.unit import test_controller
from tests.unit.test_controller import Lab

lab = test_controller.lab


class Host:
    """A lab with a network and a sandbox on it."""

    def __init__(self, lab: Lab, network: Network, sandbox: Sandbox, endpoint: Endpoint, concern: Concern) -> None:
        self.lab, self.network, self.sandbox, self.endpoint, self.concern = lab, network, sandbox, endpoint, concern
        self.bridge = f"br-{network.id[:12]}"

    def concerned(self, *losses: Loss) -> list[tuple[str, str]]:
        names = {self.network.id: "network", self.sandbox.id: "sandbox", "": ""}
        return [(subject.kind, names[subject.id]) for subject in self.concern.subjects(losses)]


@pytest.fixture
async def host(lab: Lab) -> Host:
    concern = Concern(lab.core)
    lab.core.events.subscribe(concern.follow)
    network, sandbox = await lab.network(), await lab.sandbox()
    endpoint = await lab.controller.connect("demo", sandbox.id, EndpointRequest())
    return Host(lab, network, sandbox, endpoint, concern)


async def test_the_host_s_losses(host: Host):
    interface = host.endpoint.host_interface
    assert host.concerned(Loss(HOST, "link", host.bridge)) == [("network", "network")]
    assert host.concerned(Loss(HOST, "address", "10.50.0.1")) == [("network", "network")]
    assert host.concerned(Loss(HOST, "route", "10.50.0.0/24")) == [("network", "network")]
    assert host.concerned(Loss(HOST, "link", interface)) == [("sandbox", "sandbox")]
    assert host.concerned(Loss(HOST, "port", interface)) == [("port", "sandbox")]
    assert host.concerned(Loss(HOST, "sysctl", "net.ipv4.ip_forward")) == [("host", "")]
    assert host.concerned(Loss(HOST, "table", "inet netplug")) == [("firewall", "")]
    assert host.concerned(Loss(HOST, "table", "ip filter")) == [("neighbours", "")]


async def test_a_port_that_is_leaving_concerns_nobody(host: Host):
    """Its link goes before anybody has been told that it has left."""
    host.lab.core.records.drop_endpoint(host.endpoint)
    assert host.concerned(Loss(HOST, "link", host.endpoint.host_interface), Loss(HOST, "port", host.endpoint.host_interface)) == []


async def test_a_sandbox_s_losses(host: Host):
    path = host.sandbox.namespace
    assert host.concerned(Loss(path, "link", "eth0")) == [("network", "network"), ("sandbox", "sandbox")]
    for kind, name in (("address", "10.50.0.2"), ("route", "10.50.0.1"), ("route", "10.50.0.0/24")):
        assert host.concerned(Loss(path, kind, name)) == [("sandbox", "sandbox")]
    assert host.concerned(Loss(path, "table", "ip netplug")) == [("names", "sandbox")]


@pytest.mark.parametrize("namespace", [HOST, "sandbox", "/another"])
@pytest.mark.parametrize(("kind", "name"), [("link", "other0"), ("port", "other0"), ("address", "192.0.2.1"), ("route", "192.0.2.0/24")])
async def test_what_is_not_ours_concerns_nobody(host: Host, namespace: str, kind: str, name: str):
    assert host.concerned(Loss(host.sandbox.namespace if namespace == "sandbox" else namespace, kind, name)) == []


async def test_with_iptables_every_change_there_may_be_a_loss(host: Host):
    host.lab.core.firewall.name = "iptables"
    assert host.concerned(Loss(HOST, "table", "ip nat")) == [("firewall", ""), ("neighbours", "")]
    assert host.concerned(Loss(HOST, "table", "inet other")) == [("neighbours", "")]


async def test_rules_come_before_links_and_networks_before_sandboxes(host: Host):
    losses = (
        Loss(host.sandbox.namespace, "link", "eth0"),
        Loss(HOST, "link", host.bridge, "ip (pid 1)"),
        Loss(HOST, "table", "inet netplug", "nft (pid 2)"),
        Loss(HOST, "address", "10.50.0.1", "ip (pid 3)"),
    )
    assert list(host.concern.subjects(losses).items()) == [
        (Subject("firewall"), ["nft (pid 2)"]),
        (Subject("network", host.network.id), ["ip (pid 1)", "ip (pid 3)"]),
        (Subject("sandbox", host.sandbox.id), []),
    ]


async def test_after_an_overrun_everything_is_looked_at(host: Host):
    assert {kind for kind, _ in host.concerned(UNKNOWN)} == {"firewall", "neighbours", "host", "network", "sandbox", "names"}


async def test_what_we_have_taken_away_concerns_nobody(host: Host):
    interface, path = host.endpoint.host_interface, host.sandbox.namespace
    await host.lab.controller.disconnect("demo", host.sandbox.id)
    await host.lab.controller.remove_network("demo")
    losses = [Loss(HOST, "link", host.bridge), Loss(HOST, "link", interface), Loss(HOST, "port", interface)]
    losses += [Loss(HOST, "address", "10.50.0.1"), Loss(path, "link", "eth0"), Loss(path, "address", "10.50.0.2")]
    assert host.concerned(*losses) == []
    await host.lab.controller.remove_sandbox(host.sandbox.id)
    assert host.concerned(Loss(path, "table", "ip netplug")) == []
