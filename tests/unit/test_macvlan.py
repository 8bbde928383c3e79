"""The macvlan and ipvlan drivers: the published kit, their plans, and the bytes of links that not every kernel can make."""

from __future__ import annotations

import struct

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netplug.driver import Driver
from netplug.errors import InvalidArgument
from netplug.kernel import stacked
from netplug.kernel.netlink import Message
from netplug.model import Network
from netplug.plan import Address, Announce, Dummy, LinkUp, Parent, Remove, Route, Vlan
from netplug.plan import Ipvlan as IpvlanLink
from netplug.plan import Macvlan as MacvlanLink
from netplug.testing import DriverConformance, example_endpoint, example_network, example_sandbox
from netplug_drivers.ipvlan import Ipvlan
from netplug_drivers.macvlan import Macvlan
from netplug_drivers.parents import MTU

SANDBOX = example_sandbox()


class TestMacvlanConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Macvlan()


class TestMacvlanOnAVlanConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Macvlan()

    def make_network(self) -> Network:
        return example_network("macvlan", options={"parent": "eth0.10"})


class TestIpvlanConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Ipvlan()


class TestIpvlanWithoutArpConforms(DriverConformance):
    def make_driver(self) -> Driver:
        return Ipvlan()

    def make_network(self) -> Network:
        return example_network("ipvlan", options={"parent": "eth0", "ipvlan_mode": "l3"})


def on(driver: str, **options: str) -> Network:
    return example_network(driver, options=options)


def test_a_network_on_a_parent_only_looks_at_it():
    network = on("macvlan", parent="eth1")
    assert Macvlan().create_network(network) == (Parent(name="eth1", carries="macvlan"),)
    assert Macvlan().delete_network(network) == ()
    wide = on("macvlan", parent="eth1", **{MTU: "9000"})
    assert Macvlan().create_network(wide) == (Parent(name="eth1", carries="macvlan", mtu=9000),)


def test_a_network_without_a_parent_has_a_link_of_its_own():
    made = Dummy(name="dm-4e4e4e4e4e4e", alias="netplug:4e4e4e4e4e4e")
    assert Macvlan().create_network(on("macvlan")) == (made, Parent(name="dm-4e4e4e4e4e4e", carries="macvlan"))
    assert Macvlan().delete_network(on("macvlan")) == (Remove(op=made),)
    assert Ipvlan().create_network(on("ipvlan"))[0] == Dummy(name="di-4e4e4e4e4e4e", alias="netplug:4e4e4e4e4e4e")


@pytest.mark.parametrize(("name", "tag"), [("eth0.1", 1), ("eth0.4094", 4094), ("br.lan.7", 7)])
def test_a_vlan_goes_with_its_network(name: str, tag: int):
    made = Vlan(name=name, parent=name.rpartition(".")[0], tag=tag, alias="netplug:4e4e4e4e4e4e")
    assert Macvlan().create_network(on("macvlan", parent=name)) == (made, Parent(name=name, carries="macvlan"))
    assert Macvlan().delete_network(on("macvlan", parent=name)) == (Remove(op=made),)


@pytest.mark.parametrize("name", ["eth0.0", "eth0.4095", "eth0.x", ".5", "eth0."])
def test_what_is_no_vlan_is_the_name_of_a_link(name: str):
    assert Macvlan().create_network(on("macvlan", parent=name)) == (Parent(name=name, carries="macvlan"),)


def test_an_endpoint_is_a_link_in_the_sandbox():
    network = on("macvlan", parent="eth1", macvlan_mode="vepa", **{MTU: "1400"})
    endpoint = example_endpoint(network, SANDBOX, address6="fd00::2/64")
    inside = SANDBOX.namespace
    link = MacvlanLink(name="eth0", parent="eth1", link_namespace=inside, mac=endpoint.mac, mode="vepa", mtu=1400)
    assert Macvlan().join(network, endpoint, SANDBOX) == (
        link,
        Address(namespace=inside, link="eth0", address="172.30.0.2/16"),
        Address(namespace=inside, link="eth0", address="fd00::2/64"),
        LinkUp(namespace=inside, link="eth0", alias="netplug:4e4e4e4e4e4e/e0e0e0e0e0e0"),
        Announce(namespace=inside, link="eth0", address="172.30.0.2", mac=endpoint.mac),
        Announce(namespace=inside, link="eth0", address="fd00::2", mac=endpoint.mac),
    )
    assert Macvlan().leave(network, endpoint, SANDBOX) == (Remove(op=link),)


def test_without_arp_everything_is_behind_the_link():
    network = on("ipvlan", parent="eth1", ipvlan_mode="l3", ipvlan_flag="private")
    endpoint = example_endpoint(network, SANDBOX, gateway="", mac="", address6="fd00::2/64")
    plan = Ipvlan().join(network, endpoint, SANDBOX)
    assert plan[0] == IpvlanLink(name="eth0", parent="eth1", link_namespace=SANDBOX.namespace, mode="l3", flag="private")
    assert [step.destination for step in plan if isinstance(step, Route)] == ["0.0.0.0/0", "::/0"]
    assert not [step for step in plan if isinstance(step, Announce)], "the MAC is the parent's, which we do not know"


@pytest.mark.parametrize(
    ("driver", "options", "complaint"),
    [
        (
            Macvlan(),
            {"macvlan_mode": "bridged"},
            "requested macvlan mode 'bridged' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (Macvlan(), {"parent": "lo"}, "loopback interface is not a valid macvlan parent link"),
        (Macvlan(), {"parent": "a-name-much-too-long"}, 'invalid parent "a-name-much-too-long"'),
        (Macvlan(), {"parent": "eth 0"}, 'invalid parent "eth 0"'),
        (Macvlan(), {MTU: "12"}, 'invalid MTU "12"'),
        (Ipvlan(), {"ipvlan_mode": "l4"}, "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default"),
        (Ipvlan(), {"ipvlan_flag": "x"}, "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default"),
        (Ipvlan(), {"parent": "lo"}, "loopback interface is not a valid ipvlan parent link"),
    ],
)
def test_bad_options_are_refused(driver: Driver, options: dict[str, str], complaint: str):
    with pytest.raises(InvalidArgument) as refused:
        driver.validate(example_network("x", options=options))
    assert str(refused.value).startswith(complaint)


def test_who_may_share_a_parent():
    """Macvlans in any mode but passthru; ipvlans of one mode; nobody a VLAN that goes with its network."""
    bridge, private = (Macvlan().claims(on("macvlan", parent="eth0", macvlan_mode=mode)) for mode in ("bridge", "private"))
    assert bridge == private == ("parent interface/eth0=macvlan",)
    assert Macvlan().claims(on("macvlan", parent="eth0", macvlan_mode="passthru")) == ("parent interface/eth0",)
    assert Macvlan().claims(on("macvlan", parent="eth0.10")) == ("parent interface/eth0.10",)
    assert Macvlan().claims(on("macvlan")) == ()
    assert Ipvlan().claims(on("ipvlan", parent="eth0")) == ("parent interface/eth0=ipvlan l2 bridge",)


def decoded(message: Message) -> tuple[int, dict[str, object], str, dict[str, object]]:
    """As pyroute2 reads it: index, attributes, kind, and the kind's own attributes."""
    header = struct.pack("=IHHII", 16 + len(message.body), message.kind, message.flags, 1, 0)
    parsed = ifinfmsg(header + message.body)
    parsed.decode()
    info = parsed.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA")
    return parsed["index"], dict(parsed["attrs"]), info.get_attr("IFLA_INFO_KIND"), dict(data["attrs"]) if data else {}


def test_messages_say_what_was_asked():
    """Through other eyes than ours: of ipvlan and VLAN this is all that can be seen where the kernel has none."""
    index, attributes, kind, data = decoded(stacked.new_vlan(Vlan(name="eth0.10", parent="eth0", tag=10), 77, 3)[0])
    assert (index, kind, data) == (77, "vlan", {"IFLA_VLAN_ID": 10})
    assert (attributes["IFLA_IFNAME"], attributes["IFLA_LINK"], attributes["IFLA_GROUP"]) == ("eth0.10", 3, 28783)

    ipvlan = IpvlanLink(name="eth0", parent="eth1", link_namespace="/x", mode="l3s", flag="vepa", mtu=1300)
    message = stacked.new(ipvlan, 78, 4, 9)
    index, attributes, kind, data = decoded(message)
    assert (index, kind, data["IFLA_IPVLAN_MODE"]) == (78, "ipvlan", 2)
    assert struct.pack("=HHHxx", 6, 2, 2) in message.body, "IFLA_IPVLAN_FLAGS, which pyroute2 does not know"
    assert (attributes["IFLA_LINK"], attributes["IFLA_MTU"], attributes["IFLA_NET_NS_FD"]) == (4, 1300, 9)

    macvlan = MacvlanLink(name="eth0", parent="eth1", link_namespace="/x", mac="02:42:0a:00:00:02", mode="passthru")
    index, attributes, kind, data = decoded(stacked.new(macvlan, 79, 4, 9))
    assert (index, kind, data["IFLA_MACVLAN_MODE"]) == (79, "macvlan", "passthru")
    assert attributes["IFLA_ADDRESS"] == "02:42:0a:00:00:02"
