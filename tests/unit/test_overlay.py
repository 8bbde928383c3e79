"""The overlay driver keeps to the kit, and its plans are what they should be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from netplug.capability import PeerAware, Underlay
from netplug.driver import Driver
from netplug.errors import InvalidArgument, Unavailable
from netplug.model import Endpoint, Network, PoolConfig
from netplug.plan import Address, Announce, Bridge, Fdb, LinkUp, Neighbour, Netns, Plan, Remove, Sysctl, Veth, Vxlan, removal
from netplug.registry import Drivers
from netplug.testing import DriverConformance, example_endpoint, example_network, example_sandbox
from netplug_drivers.overlay import Overlay
from netplug_drivers.overlay_options import ANTISPOOF, ENCRYPTED, MTU, PORT, ROUTES, VNIS

HERE = Underlay(address="192.0.2.1", mtu=1500, folder="/run/np/netns")
DRIVER = Overlay().on(HERE)
PLACE = "/run/np/netns/1-4e4e4e4e4e"
LINK = "vx-4e4e4e4e4e4e"
MAC, GATEWAY_MAC = "02:42:ac:1e:00:02", "02:42:ac:1e:00:01"


class TestOverlayConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Overlay()

    def make_network(self) -> Network:
        return span()


class TestOverlayOnANodeConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Overlay().on(Underlay(address="2001:db8::1"))

    def make_network(self) -> Network:
        return dual(options={MTU: "1400"})


def span(**changes: object) -> Network:
    return example_network("overlay", **{"scope": "global", "vni": 4097, **changes})


def dual(**changes: object) -> Network:
    pools = (*span().pools, PoolConfig(subnet="fd00:1::/64", gateway="fd00:1::1"))
    return span(**{"ipv6": True, "pools": pools, **changes})


def peer(**changes: object) -> Endpoint:
    return example_endpoint(span(), example_sandbox(), **{"node": "b", "vtep": "192.0.2.2", "ports": (), **changes})


def test_it_comes_in_as_every_driver_does():
    driver = Drivers().get("overlay")
    assert isinstance(driver, PeerAware)
    assert (driver.capabilities.scope, driver.capabilities.exit, driver.capabilities.ports) == ("global", False, False)
    assert Drivers().get("bridge").capabilities.exit


def test_nothing_of_it_is_there_before_a_container_is():
    assert DRIVER.create_network(span()) == ()


def test_a_node_with_a_container_has_a_namespace_with_a_bridge_and_a_tunnel():
    assert DRIVER.namespace(span()) == PLACE
    assert DRIVER.underlay(span()) == (
        Netns(path=PLACE),
        Sysctl(namespace=PLACE, key="net.ipv6.conf.default.disable_ipv6", value="1"),
        Bridge(namespace=PLACE, name="br0", mac=GATEWAY_MAC, mtu=1450, alias="netplug:4e4e4e4e4e4e"),
        Address(namespace=PLACE, link="br0", address="172.30.0.1/16"),
        Vxlan(name=LINK, link_namespace=PLACE, mtu=1450, vni=4097, local="192.0.2.1", port=4789, master="br0"),
    )


def test_with_ipv6_inside_the_tunnel_answers_for_it_too():
    plan = DRIVER.underlay(dual())
    assert plan[1] == Sysctl(namespace=PLACE, key="net.ipv6.conf.default.accept_ra", value="0")
    assert [step.address for step in plan if isinstance(step, Address)] == ["172.30.0.1/16", "fd00:1::1/64"]


def test_the_tunnel_goes_before_its_namespace():
    """The kernel takes its time with a namespace, and the VNI would be taken until then."""
    removed = [step.op for step in DRIVER.delete_network(span()) if isinstance(step, Remove)]
    assert [(type(op), op.link_namespace if isinstance(op, Vxlan) else op.path) for op in removed] == [(Vxlan, PLACE), (Netns, PLACE)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("address", "underlay_mtu", "options", "mtu"),
    [
        ("192.0.2.1", 1500, {}, 1450),
        ("2001:db8::1", 1500, {}, 1430),
        ("192.0.2.1", 9000, {}, 8950),
        ("192.0.2.1", 1500, {MTU: "1300"}, 1300),
    ],
)
def test_the_tunnel_takes_its_part_of_the_mtu(address: str, underlay_mtu: int, options: dict[str, str], mtu: int):
    driver = Overlay().on(Underlay(address=address, mtu=underlay_mtu))
    network, sandbox = span(options=options), example_sandbox()
    plan = (*driver.underlay(network), *driver.join(network, example_endpoint(network, sandbox), sandbox))
    assert {step.mtu for step in plan if isinstance(step, Bridge | Vxlan | Veth)} == {mtu}


def test_the_networks_port_comes_before_the_nodes():
    def port(network: Network, underlay: Underlay) -> list[int]:
        return [step.port for step in Overlay().on(underlay).underlay(network) if isinstance(step, Vxlan)]

    other = msgspec.structs.replace(HERE, port=7789)
    assert port(span(), HERE) == [4789]
    assert port(span(), other) == [7789]
    assert port(span(options={PORT: "8472"}), other) == [8472]


def test_an_endpoint_is_a_pair_between_sandbox_and_namespace():
    network, sandbox = dual(), example_sandbox()
    endpoint = example_endpoint(network, sandbox, address6="fd00:1::2/64")
    assert DRIVER.join(network, endpoint, sandbox) == (
        Veth(
            namespace=PLACE,
            name="vethe0e0e0e",
            peer="eth0",
            peer_namespace=sandbox.namespace,
            mac=MAC,
            mtu=1450,
            master="br0",
            alias="netplug:4e4e4e4e4e4e/e0e0e0e0e0e0",
        ),
        Address(namespace=sandbox.namespace, link="eth0", address="172.30.0.2/16"),
        Address(namespace=sandbox.namespace, link="eth0", address="fd00:1::2/64"),
        LinkUp(namespace=sandbox.namespace, link="eth0"),
        Announce(namespace=sandbox.namespace, link="eth0", address="172.30.0.2", mac=MAC),
        Announce(namespace=sandbox.namespace, link="eth0", address="fd00:1::2", mac=MAC),
    )
    assert [(step.namespace, step.op.name) for step in DRIVER.leave(network, endpoint, sandbox)] == [("", "vethe0e0e0e")]
    assert DRIVER.leave(network, endpoint, sandbox)[0].op.namespace == PLACE


def entries(mac: str = MAC, vtep: str = "192.0.2.2") -> Plan:
    return (
        Fdb(namespace=PLACE, link=LINK, mac=mac, vtep=vtep),
        Neighbour(namespace=PLACE, link=LINK, address="172.30.0.2", mac=mac, vtep=vtep),
        Neighbour(namespace=PLACE, link=LINK, address="fd00:1::2", mac=mac, vtep=vtep),
    )


def test_a_peer_is_a_way_and_its_addresses():
    remote = peer(address6="fd00:1::2/64")
    assert DRIVER.peer_added(dual(), remote) == entries()
    assert DRIVER.peer_removed(dual(), remote) == removal(entries())


def test_a_peer_with_a_mac_of_its_own_is_announced_here():
    remote = peer(address6="fd00:1::2/64", mac="02:00:00:00:00:aa")
    assert DRIVER.peer_added(dual(), remote) == (
        *entries("02:00:00:00:00:aa"),
        Announce(namespace=PLACE, link="br0", address="172.30.0.2", mac="02:00:00:00:00:aa"),
        Announce(namespace=PLACE, link="br0", address="fd00:1::2", mac="02:00:00:00:00:aa"),
    )


@pytest.mark.parametrize("vtep", ["", "192.0.2.1"])
def test_who_lives_here_is_no_peer(vtep: str):
    assert DRIVER.peer_added(span(), peer(vtep=vtep)) == DRIVER.peer_removed(span(), peer(vtep=vtep)) == ()


def test_a_tunnel_needs_a_cluster_and_a_number():
    with pytest.raises(Unavailable, match="network example is one of a cluster, and this node is in none"):
        Overlay().underlay(span())
    with pytest.raises(InvalidArgument, match="network example has no VNI"):
        DRIVER.underlay(span(vni=0))


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", (range(4096, 1 << 24),)),
        ("257", (range(257, 258),)),
        ("5000-5002, 42", (range(5000, 5003), range(42, 43))),
    ],
)
def test_numbers_to_choose_from(text: str, ranges: tuple[range, ...]):
    assert DRIVER.vni_range(span(options={VNIS: text})) == ranges


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({VNIS: "0"}, 'invalid value for com.docker.network.driver.overlay.vxlanid_list: "0" is neither a number from 1 to 16777215'),
        ({VNIS: "16777216"}, '"16777216" is neither'),
        ({VNIS: "7-3"}, '"7-3" is neither'),
        ({VNIS: "5,,6"}, '"" is neither'),
        ({MTU: "67"}, 'invalid value for com.docker.network.driver.mtu: "67" is no number from 68 to 65535'),
        ({PORT: "http"}, 'invalid value for netplug.vxlan.port: "http" is no number from 1 to 65535'),
        ({ENCRYPTED: ""}, "overlay networks cannot be encrypted yet: their traffic would be plain between the nodes"),
        ({ENCRYPTED: "false"}, "overlay networks cannot be encrypted yet"),
    ],
)
def test_what_cannot_be_read_is_refused(options: dict[str, str], reason: str):
    with pytest.raises(InvalidArgument) as caught:
        DRIVER.validate(span(options=options))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({ANTISPOOF: "true"}, "an overlay network cannot have netplug.antispoof: the rules for it belong to bridges of the host, and its"),
        ({ROUTES: "cluster"}, "an overlay network cannot have netplug.routes: all nodes are on it, and need no routes to it"),
        ({PORT: "0"}, 'invalid value for netplug.vxlan.port: "0" is no number from 1 to 65535'),
        ({PORT: "00"}, 'invalid value for netplug.vxlan.port: "00" is no number from 1 to 65535'),
        ({VNIS: ""}, "invalid value for com.docker.network.driver.overlay.vxlanid_list: there is no number in it; leave it out"),
    ],
)
def test_what_would_have_no_effect_is_refused(options: dict[str, str], reason: str):
    """A network that is there already goes on: it was made by an older netplug perhaps."""
    with pytest.raises(InvalidArgument) as caught:
        DRIVER.validate(span(vni=0, options=options))
    assert str(caught.value).startswith(reason)
    DRIVER.validate(span(options=options))


def test_what_is_so_anyway_is_no_wish():
    DRIVER.validate(span(vni=0, options={ANTISPOOF: "false", ROUTES: ""}))


def test_small_packets_and_ipv6_do_not_go_together():
    DRIVER.validate(span(options={MTU: "1000"}))
    with pytest.raises(InvalidArgument, match="too small for IPv6, which needs 1280"):
        DRIVER.validate(dual(options={MTU: "1000"}))


def test_one_subnet_of_each_ip_version():
    with pytest.raises(InvalidArgument, match="overlay driver doesn't support multiple subnets"):
        DRIVER.validate(span(pools=(*span().pools, PoolConfig(subnet="172.31.0.0/16"))))


def test_addresses_are_needed():
    with pytest.raises(InvalidArgument, match=r"ipv4 pool is empty.*null gives none"):
        DRIVER.validate(span(pools=(), ipam_driver="null"))


def test_ports_are_not_published_here():
    assert DRIVER.publish(span(), peer()) == DRIVER.unpublish(span(), peer()) == ()


def test_the_words_for_it():
    plan = DRIVER.underlay(span())
    inside = f"nsenter --net={PLACE}"
    assert [line for step in plan for line in step.explain()] == [
        f"mkdir -p /run/np/netns && touch {PLACE} && unshare --net={PLACE} true",
        f"{inside} ip link set lo up",
        f"{inside} sysctl -qw net.ipv6.conf.default.disable_ipv6=1",
        f"{inside} ip link add br0 group 28783 address {GATEWAY_MAC} mtu 1450 type bridge",
        f"{inside} ip link set br0 alias netplug:4e4e4e4e4e4e up",
        f"{inside} ip addr add 172.30.0.1/16 brd + dev br0",
        f"ip link add {LINK} netns {PLACE} group 28783 mtu 1450 up type vxlan id 4097 local 192.0.2.1 dstport 4789 nolearning proxy",
        f"{inside} ip link set {LINK} master br0",
    ]
    added = DRIVER.peer_added(span(), peer())
    assert [line for step in added for line in step.explain()] == [
        f"{inside} bridge fdb replace {MAC} dev {LINK} dst 192.0.2.2 self master static",
        f"{inside} ip neigh replace 172.30.0.2 lladdr {MAC} dev {LINK} nud permanent protocol 112",
    ]
    assert [line for step in removal(added) for line in step.explain()] == [
        f"{inside} ip neigh del 172.30.0.2 dev {LINK}",
        f"{inside} bridge fdb del {MAC} dev {LINK} dst 192.0.2.2 self master",
    ]


def test_the_page_shows_these_commands():
    network = span(pools=(PoolConfig(subnet="10.7.0.0/24", gateway="10.7.0.1"),))
    driver, sandbox = Overlay().on(Underlay(address="192.0.2.1")), example_sandbox()
    endpoint = peer(address="10.7.0.2/24", mac="02:42:0a:07:00:02")
    remote = peer(address="10.7.0.4/24", mac="02:42:0a:07:00:04")
    joined = (step for step in driver.join(network, endpoint, sandbox) if not isinstance(step, Announce))
    plan = (*driver.underlay(network), *joined, *driver.peer_added(network, remote))
    page = (Path(__file__).parents[2] / "docs/overlay.md").read_text()
    shown = [line for block in page.split("```sh\n")[1:] for line in block.split("```")[0].splitlines()]
    assert shown == [line for step in plan for line in step.explain()]
