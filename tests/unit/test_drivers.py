"""The built-in drivers keep to the published kit, and the bridge driver's plans are what they should be."""

from __future__ import annotations

from itertools import groupby

import msgspec
import pytest

from netplug.driver import Driver
from netplug.errors import InvalidArgument, NotFound
from netplug.model import FoundLink, Network, PoolConfig, PortBinding
from netplug.plan import (
    Address,
    Announce,
    Direct,
    FlushFlows,
    Guard,
    Isolate,
    LinkUp,
    Masquerade,
    Op,
    Plan,
    Publish,
    Remove,
    Sysctl,
    Veth,
    removal,
)
from netplug.plan import Bridge as BridgeLink
from netplug.registry import Drivers
from netplug.testing import DriverConformance, FakeDriver, example_endpoint, example_network, example_sandbox
from netplug_drivers.bridge import Bridge
from netplug_drivers.bridge_options import (
    ANTISPOOF,
    HOST_BINDING,
    HOST_BINDING6,
    ICC,
    INHIBIT_IPV4,
    MASQUERADE,
    MODE4,
    MODE6,
    MTU,
    NAME,
    SOURCE4,
    SOURCE6,
    TRUSTED,
)
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
        Masquerade(subnet="172.30.0.0/16", bridge="br-4e4e4e4e4e4e"),
    )


GUARD = Guard(
    link="vethe0e0e0e",
    bridge="br-4e4e4e4e4e4e",
    bridge_mac="02:42:ac:1e:00:01",
    mac="02:42:ac:1e:00:02",
    addresses=("172.30.0.2",),
    antispoof=True,
)
POOL6 = PoolConfig(subnet="fd00:1::/64", gateway="fd00:1::1")


def dual(**changes: object) -> Network:
    """172.30.0.0/16 and fd00:1::/64."""
    network = example_network("bridge")
    return msgspec.structs.replace(network, ipv6=True, pools=(*network.pools, POOL6), **changes)


def ipv6_only(**changes: object) -> Network:
    return example_network("bridge", **{"ipv4": False, "ipv6": True, "pools": (POOL6,), **changes})


def of_kind(plan: Plan, *kinds: type[Op]) -> list[Op]:
    return [step for step in plan if isinstance(step, kinds)]


def test_an_endpoint_is_a_pair_born_in_the_sandbox():
    network, sandbox = example_network("bridge", options={MTU: "1400"}), example_sandbox()
    endpoint = example_endpoint(network, sandbox)
    assert Bridge().join(network, endpoint, sandbox) == (
        GUARD,
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


def test_a_dual_stack_network_has_both_gateways_and_a_link_local_one():
    plan = Bridge().create_network(dual())
    assert plan == (
        BridgeLink(name="br-4e4e4e4e4e4e", mac="02:42:ac:1e:00:01", alias="netplug:4e4e4e4e4e4e"),
        Sysctl(key="net.ipv6.conf.all.forwarding", value="1"),
        Sysctl(key="net.ipv6.conf.br-4e4e4e4e4e4e.accept_ra", value="0"),
        Sysctl(key="net.ipv6.conf.br-4e4e4e4e4e4e.disable_ipv6", value="0"),
        Sysctl(key="net.ipv4.conf.br-4e4e4e4e4e4e.route_localnet", value="1"),
        Address(link="br-4e4e4e4e4e4e", address="172.30.0.1/16"),
        Address(link="br-4e4e4e4e4e4e", address="fd00:1::1/64"),
        Address(link="br-4e4e4e4e4e4e", address="fe80::1/64"),
        Isolate(bridge="br-4e4e4e4e4e4e", subnets=("172.30.0.0/16", "fd00:1::/64")),
        Masquerade(subnet="172.30.0.0/16", bridge="br-4e4e4e4e4e4e"),
        Masquerade(subnet="fd00:1::/64", bridge="br-4e4e4e4e4e4e"),
    )


def test_without_ipv4_nothing_of_it_is_made():
    plan = Bridge().create_network(ipv6_only())
    assert of_kind(plan, Address) == [
        Address(link="br-4e4e4e4e4e4e", address="fd00:1::1/64"),
        Address(link="br-4e4e4e4e4e4e", address="fe80::1/64"),
    ]
    assert not [step for step in plan if isinstance(step, Sysctl) and "ipv4" in step.key]


def test_an_internal_network_needs_no_forwarding():
    assert Sysctl(key="net.ipv6.conf.all.forwarding", value="1") not in Bridge().create_network(dual(internal=True))


def test_an_endpoint_has_both_addresses_and_no_others():
    network, sandbox = dual(), example_sandbox()
    plan = Bridge().join(network, example_endpoint(network, sandbox, address6="fd00:1::2/64"), sandbox)
    assert plan[0] == msgspec.structs.replace(GUARD, addresses=("172.30.0.2", "fd00:1::2"))
    assert [step.address for step in plan if isinstance(step, Address)] == ["172.30.0.2/16", "fd00:1::2/64"]
    assert [step.address for step in plan if isinstance(step, Announce)] == ["172.30.0.2", "fd00:1::2"]


def test_steps_of_one_kind_and_place_lie_together():
    """Each change of kind or namespace is a trip of its own to the kernel."""
    network, sandbox = dual(options={ICC: "false"}), example_sandbox()
    plan = Bridge().join(network, example_endpoint(network, sandbox, address6="fd00:1::2/64"), sandbox)
    assert [kind.__name__ for kind, _ in groupby(plan, key=type)] == ["Guard", "Veth", "Address", "LinkUp", "Announce"]


def test_an_internal_network_is_not_masqueraded():
    plan = Bridge().create_network(example_network("bridge", internal=True))
    assert Isolate(bridge="br-4e4e4e4e4e4e", subnets=("172.30.0.0/16",), internal=True) in plan
    assert not of_kind(plan, Masquerade)


def test_masquerade_can_be_switched_off():
    assert not of_kind(Bridge().create_network(dual(options={MASQUERADE: "false"})), Masquerade)


def test_masquerade_may_have_a_source_of_its_own():
    plan = Bridge().create_network(dual(options={SOURCE4: "203.0.113.9", SOURCE6: "2001:DB8::9"}))
    assert of_kind(plan, Masquerade) == [
        Masquerade(subnet="172.30.0.0/16", source="203.0.113.9", bridge="br-4e4e4e4e4e4e"),
        Masquerade(subnet="fd00:1::/64", source="2001:db8::9", bridge="br-4e4e4e4e4e4e"),
    ]


@pytest.mark.parametrize(
    ("options", "modes", "masqueraded"),
    [
        ({}, ("nat", "nat"), ["172.30.0.0/16", "fd00:1::/64"]),
        ({MODE6: "routed"}, ("nat", "routed"), ["172.30.0.0/16"]),
        ({MODE4: "routed", MODE6: "nat"}, ("routed", "nat"), ["fd00:1::/64"]),
        ({MODE4: "nat-unprotected", MODE6: "routed"}, ("nat-unprotected", "routed"), ["172.30.0.0/16"]),
        ({MODE4: "routed", MODE6: "routed"}, ("routed", "routed"), []),
    ],
)
def test_each_ip_version_has_its_gateway_mode(options: dict[str, str], modes: tuple[str, str], masqueraded: list[str]):
    plan = Bridge().create_network(dual(options=options))
    (isolate,) = of_kind(plan, Isolate)
    assert isinstance(isolate, Isolate)
    assert (isolate.mode4, isolate.mode6) == modes
    assert [step.subnet for step in plan if isinstance(step, Masquerade)] == masqueraded


def test_routed_ports_are_opened_where_they_are():
    network, sandbox = dual(options={MODE6: "routed"}), example_sandbox()
    ports = (
        PortBinding(protocol="tcp", port=80, host_port=8080, host_ip="0.0.0.0", count=3),
        PortBinding(protocol="tcp", port=80, host_ip="::", count=3),
        PortBinding(protocol="udp", port=53, host_ip="::"),
    )
    endpoint = example_endpoint(network, sandbox, address6="fd00:1::2/64", ports=ports)
    made = (
        Publish(protocol="tcp", host_port=8080, address="172.30.0.2", port=80, count=3),
        Direct(protocol="tcp", address="fd00:1::2", port=80, count=3),
        Direct(protocol="udp", address="fd00:1::2", port=53),
    )
    assert Bridge().publish(network, endpoint) == made
    assert Bridge().unpublish(network, endpoint) == (*removal(made), FlushFlows(protocol="tcp", port=8080, count=3, address="172.30.0.2"))
    assert [Bridge().routed(network, family) for family in (4, 6)] == [False, True]


def test_a_port_of_both_ip_versions_leads_to_both_addresses():
    """`[::1]`, and the other IP version, are for the forwarder."""
    network, sandbox = dual(), example_sandbox()
    ports = tuple(
        PortBinding(protocol="udp", port=53, host_port=53, host_ip=host_ip) for host_ip in ("0.0.0.0", "::", "2001:db8::5", "::1")
    )
    endpoint = example_endpoint(network, sandbox, address6="fd00:1::2/64", ports=ports)
    assert Bridge().publish(network, endpoint) == (
        Publish(protocol="udp", host_port=53, address="172.30.0.2", port=53),
        Publish(protocol="udp", host_port=53, address="fd00:1::2", port=53),
        Publish(protocol="udp", host_ip="2001:db8::5", host_port=53, address="fd00:1::2", port=53),
        FlushFlows(protocol="udp", port=53),
    )
    ipv4_only = example_endpoint(example_network("bridge"), sandbox, ports=ports[1:3])
    assert of_kind(Bridge().publish(example_network("bridge"), ipv4_only), Publish) == []


def test_an_isolated_network_has_no_gateway():
    """Nothing of the host is on the bridge, so that it has no address to keep."""
    options = {MODE4: "isolated", MODE6: "isolated"}
    pools = (PoolConfig(subnet="172.30.0.0/16"), PoolConfig(subnet="fd00:1::/64"))
    network = msgspec.structs.replace(dual(internal=True, options=options), pools=pools)
    assert of_kind(Bridge().create_network(network), Address) == []
    assert Sysctl(key="net.ipv6.conf.br-4e4e4e4e4e4e.disable_ipv6", value="1") in Bridge().create_network(network)
    assert [Bridge().gatewayless(network, family) for family in (4, 6)] == [True, True]
    half = dual(internal=True, options={MODE4: "isolated"})
    assert [Bridge().gatewayless(half, family) for family in (4, 6)] == [True, False]


def test_ipv4_can_be_inhibited():
    """The gateway's address stays somebody else's; internal, there is none."""
    network = dual(options={INHIBIT_IPV4: "true"})
    assert [step.address for step in of_kind(Bridge().create_network(network), Address)] == ["fd00:1::1/64", "fe80::1/64"]
    assert not Bridge().gatewayless(network, 4)
    assert Bridge().gatewayless(dual(options={INHIBIT_IPV4: "true"}, internal=True), 4)


def test_trusted_interfaces_are_told_to_the_firewall():
    (isolate,) = of_kind(Bridge().create_network(dual(options={TRUSTED: "wg0:eth1:"})), Isolate)
    assert isinstance(isolate, Isolate)
    assert isolate.trusted == ("wg0", "eth1")


def test_a_host_binding_of_one_ip_version():
    assert [Bridge().host_binding(dual(options={HOST_BINDING: "127.0.0.1"}), family) for family in (4, 6)] == ["127.0.0.1", "127.0.0.1"]
    both = dual(options={HOST_BINDING: "127.0.0.1", HOST_BINDING6: "::1"})
    assert [Bridge().host_binding(both, family) for family in (4, 6)] == ["127.0.0.1", "::1"]


class TestUsersBridge:
    """A bridge that was there before the network."""

    FOUND = FoundLink(name="lab0", mac="0a:00:00:00:00:07", addresses=("172.30.0.1/16", "fd00:9::1/64", "fe80::7/64"))
    NETWORK = dual(options={NAME: "lab0", ICC: "false"}, found=(FOUND,))

    def test_its_settings_stay(self):
        assert Bridge().create_network(self.NETWORK) == (
            BridgeLink(name="lab0", mac="0a:00:00:00:00:07", alias="netplug:4e4e4e4e4e4e", given=True),
            Sysctl(key="net.ipv6.conf.all.forwarding", value="1"),
            Sysctl(key="net.ipv6.conf.lab0.disable_ipv6", value="0"),
            Sysctl(key="net.ipv4.conf.lab0.route_localnet", value="1"),
            Address(link="lab0", address="172.30.0.1/16"),
            Address(link="lab0", address="fd00:1::1/64"),
            Address(link="lab0", address="fe80::1/64"),
            Isolate(bridge="lab0", subnets=("172.30.0.0/16", "fd00:1::/64"), icc=False),
            Masquerade(subnet="172.30.0.0/16", bridge="lab0"),
            Masquerade(subnet="fd00:1::/64", bridge="lab0"),
        )

    def test_without_ipv6_in_the_network_its_own_stays(self):
        network = example_network("bridge", options={NAME: "lab0"}, found=(self.FOUND,))
        assert not [step for step in Bridge().create_network(network) if isinstance(step, Sysctl) and "ipv6" in step.key]

    def test_it_stays_and_so_do_its_addresses(self):
        plan = Bridge().delete_network(self.NETWORK)
        assert [step.op for step in plan if isinstance(step, Remove) and isinstance(step.op, Address | BridgeLink)] == [
            Address(link="lab0", address="fe80::1/64"),
            Address(link="lab0", address="fd00:1::1/64"),
        ]

    def test_ports_know_its_mac(self):
        sandbox = example_sandbox()
        guard = Bridge().join(self.NETWORK, example_endpoint(self.NETWORK, sandbox), sandbox)[0]
        assert isinstance(guard, Guard)
        assert guard.bridge_mac == "0a:00:00:00:00:07"

    def test_only_a_name_that_the_user_chose_can_be_his(self):
        assert Bridge().adopts(self.NETWORK) == ("lab0",)
        assert Bridge().adopts(dual()) == ()

    def test_its_address_is_the_gateway(self):
        found = FoundLink(name="lab0", mac="0a:00:00:00:00:07", addresses=("172.30.0.9/16",))
        network = example_network("bridge", options={NAME: "lab0"}, found=(found,))
        with pytest.raises(InvalidArgument) as caught:
            Bridge().validate(network)
        assert str(caught.value) == (
            "gateway 172.30.0.1 is not an address of bridge lab0, which has 172.30.0.9 in 172.30.0.0/16: give --gateway 172.30.0.9"
        )
        Bridge().validate(msgspec.structs.replace(network, options={NAME: "lab0", INHIBIT_IPV4: "1"}))


def test_without_icc_the_port_is_blocked_before_it_is_born():
    network, sandbox = example_network("bridge", options={ICC: "false"}), example_sandbox()
    plan = Bridge().join(network, example_endpoint(network, sandbox), sandbox)
    assert plan[0] == msgspec.structs.replace(GUARD, icc=False)


def test_the_guard_can_be_switched_off():
    network, sandbox = example_network("bridge", options={ANTISPOOF: "false"}), example_sandbox()
    assert of_kind(Bridge().join(network, example_endpoint(network, sandbox), sandbox), Guard) == []
    assert not [step for step in Bridge().leave(network, example_endpoint(network, sandbox), sandbox) if isinstance(step.op, Guard)]
    blocked = example_network("bridge", options={ANTISPOOF: "false", ICC: "false"})
    assert Bridge().join(blocked, example_endpoint(blocked, sandbox), sandbox)[0] == msgspec.structs.replace(
        GUARD, antispoof=False, icc=False
    )


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
        FlushFlows(protocol="tcp", port=8080, address="172.30.0.2"),
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
        (HOST_BINDING, "::1", "is no IPv4 address"),
        (HOST_BINDING6, "127.0.0.1", "is no IPv6 address"),
        (SOURCE4, "fd00::1", "is no IPv4 address"),
        (SOURCE6, "fe80::1%eth0", "is no IPv6 address"),
        (MODE4, "bridged", 'unknown gateway mode "bridged"'),
        (MODE6, "NAT", 'unknown gateway mode "NAT"'),
        (MODE4, "isolated", "gateway mode 'isolated' can only be used for an internal network"),
        (INHIBIT_IPV4, "yes", "neither true nor false"),
        (ANTISPOOF, "off", "neither true nor false"),
        (TRUSTED, "eth0:a/b", '"a/b" is no name of an interface'),
        (TRUSTED, "eth0,eth1,eth2,eth3", "is no name of an interface"),
    ],
)
def test_bad_options_are_refused(option: str, value: str, sentence: str):
    with pytest.raises(InvalidArgument, match=sentence):
        Bridge().validate(example_network("bridge", options={option: value}))


def test_ipv6_needs_its_least_mtu():
    Bridge().validate(example_network("bridge", options={MTU: "1279"}))
    Bridge().validate(dual(options={MTU: "1280"}))
    with pytest.raises(InvalidArgument, match="invalid MTU number: 1279 is too small for IPv6, which needs 1280"):
        Bridge().validate(dual(options={MTU: "1279"}))


def test_one_subnet_of_each_ip_version():
    Bridge().validate(dual())
    with pytest.raises(InvalidArgument, match="bridge driver doesn't support multiple subnets"):
        Bridge().validate(ipv6_only(pools=(POOL6, PoolConfig(subnet="fd00:2::/64"))))


def test_what_is_not_known_has_no_meaning():
    network = example_network("bridge", options={"com.docker.network.bridge.colour": "blue"})
    assert Bridge().create_network(network) == Bridge().create_network(example_network("bridge"))


def test_two_networks_cannot_share_a_bridge():
    one = example_network("bridge", options={NAME: "shared0"})
    assert Bridge().claims(one) == Bridge().claims(msgspec.structs.replace(one, id="aa" * 32, name="other")) == ("bridge/shared0",)


def test_an_unknown_driver_is_named_with_those_there_are():
    with pytest.raises(NotFound, match='plugin "carrier-pigeon" not found: the drivers here are bridge, host, ipvlan, macvlan, none, null'):
        Drivers().get("carrier-pigeon")
