"""The built-in drivers keep to the published kit, and the bridge driver's plans are what they should be."""

from __future__ import annotations

import msgspec
import pytest

from netplug.driver import Driver, Drivers
from netplug.errors import InvalidArgument, NotFound
from netplug.model import PortBinding
from netplug.plan import (
    Address,
    Announce,
    FlushFlows,
    Guard,
    Isolate,
    LinkUp,
    Masquerade,
    Publish,
    Remove,
    Sysctl,
    Veth,
)
from netplug.plan import Bridge as BridgeLink
from netplug.testing import DriverConformance, FakeDriver, example_endpoint, example_network, example_sandbox
from netplug_drivers.bridge import HOST_BINDING, ICC, MASQUERADE, MTU, NAME, Bridge
from netplug_drivers.host import Host
from netplug_drivers.none import Null


class TestBridgeConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Bridge()


class TestHostConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Host()


class TestNoneConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Null()


class TestFakeConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return FakeDriver()


def test_a_network_is_a_bridge_with_its_gateway_and_its_rules():
    assert Bridge().create_network(example_network("bridge")) == (
        BridgeLink(name="br-4e4e4e4e4e4e", mac="02:42:ac:1e:00:01", alias="netplug:4e4e4e4e4e4e"),
        Sysctl(key="net.ipv6.conf.br-4e4e4e4e4e4e.disable_ipv6", value="1"),
        Sysctl(key="net.ipv4.conf.br-4e4e4e4e4e4e.route_localnet", value="1"),
        Address(link="br-4e4e4e4e4e4e", address="172.30.0.1/16"),
        Isolate(bridge="br-4e4e4e4e4e4e", subnets=("172.30.0.0/16",)),
        Masquerade(subnet="172.30.0.0/16"),
    )


def test_an_endpoint_is_a_pair_born_in_the_sandbox():
    network, sandbox = example_network("bridge", options={MTU: "1400"}), example_sandbox()
    endpoint = example_endpoint(network, sandbox)
    assert Bridge().join(network, endpoint, sandbox) == (
        Veth(
            name="vethe0e0e0e",
            peer="eth0",
            peer_namespace=sandbox.namespace,
            mac="02:42:ac:1e:00:02",
            mtu=1400,
            master="br-4e4e4e4e4e4e",
            alias="netplug:4e4e4e4e4e4e/e0e0e0e0e0e0",
        ),
        Address(namespace=sandbox.namespace, link="eth0", address="172.30.0.2/16"),
        LinkUp(namespace=sandbox.namespace, link="eth0"),
        Announce(namespace=sandbox.namespace, link="eth0", address="172.30.0.2", mac="02:42:ac:1e:00:02"),
    )


def test_an_internal_network_is_not_masqueraded():
    plan = Bridge().create_network(example_network("bridge", internal=True))
    assert Isolate(bridge="br-4e4e4e4e4e4e", subnets=("172.30.0.0/16",), internal=True) in plan
    assert not [op for op in plan if isinstance(op, Masquerade)]


def test_masquerade_can_be_switched_off():
    plan = Bridge().create_network(example_network("bridge", options={MASQUERADE: "false"}))
    assert not [op for op in plan if isinstance(op, Masquerade)]


def test_without_icc_the_port_is_blocked_before_it_is_born():
    network, sandbox = example_network("bridge", options={ICC: "false"}), example_sandbox()
    plan = Bridge().join(network, example_endpoint(network, sandbox), sandbox)
    assert plan[0] == Guard(link="vethe0e0e0e", bridge="br-4e4e4e4e4e4e", bridge_mac="02:42:ac:1e:00:01", icc=False)


def test_publishing_udp_forgets_flows_from_before():
    network, sandbox = example_network("bridge"), example_sandbox()
    ports = (PortBinding(protocol="udp", port=53, host_port=5353, host_ip="0.0.0.0"),)
    plan = Bridge().publish(network, example_endpoint(network, sandbox, ports=ports))
    assert plan == (
        Publish(protocol="udp", host_ip="", host_port=5353, address="172.30.0.2", port=53),
        FlushFlows(protocol="udp", port=5353),
    )


def test_unpublishing_forgets_flows_of_both_protocols():
    network, sandbox = example_network("bridge"), example_sandbox()
    plan = Bridge().unpublish(network, example_endpoint(network, sandbox))
    assert plan == (
        Remove(op=Publish(protocol="tcp", host_port=8080, address="172.30.0.2", port=80)),
        FlushFlows(protocol="tcp", port=8080),
    )


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        (MTU, "67", "invalid MTU number: 67 is not between 68 and 65535"),
        (MTU, "65536", "invalid MTU number"),
        (MTU, "much", 'invalid MTU "much"'),
        (MTU, "-1", 'invalid MTU "-1"'),
        (NAME, "far-too-long-for-a-link", "invalid bridge name"),
        (NAME, "a/b", "invalid bridge name"),
        (NAME, "..", "invalid bridge name"),
        (ICC, "perhaps", "neither true nor false"),
        (MASQUERADE, "2", "neither true nor false"),
        (HOST_BINDING, "localhost", "is no IPv4 address"),
    ],
)
def test_bad_options_are_refused(option: str, value: str, sentence: str):
    with pytest.raises(InvalidArgument, match=sentence):
        Bridge().validate(example_network("bridge", options={option: value}))


def test_two_networks_cannot_share_a_bridge():
    one = example_network("bridge", options={NAME: "shared0"})
    assert Bridge().claims(one) == Bridge().claims(msgspec.structs.replace(one, id="aa" * 32, name="other")) == ("bridge/shared0",)


def test_an_unknown_driver_is_named_with_those_there_are():
    with pytest.raises(NotFound, match='plugin "carrier-pigeon" not found: the drivers here are bridge, host, none, null'):
        Drivers().get("carrier-pigeon")
