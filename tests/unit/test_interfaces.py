"""Names and sysctls of interfaces in sandboxes, as endpoints ask for them."""

from __future__ import annotations

import msgspec
import pytest

from netplug.controller import interfaces
from netplug.controller.interfaces import NAME, PREFIX, SYSCTLS
from netplug.errors import Forbidden, InvalidArgument
from netplug.plan import LinkUp, Sysctl
from netplug.testing import example_endpoint, example_network, example_sandbox
from netplug_drivers.bridge import Bridge

NETWORK, SANDBOX = example_network("bridge"), example_sandbox()
INSIDE = SANDBOX.namespace


def endpoint(**changes):
    return example_endpoint(NETWORK, SANDBOX, **changes)


def test_the_first_free_number_behind_the_prefix():
    present = [endpoint(interface=name) for name in ("eth0", "lan0", "eth2")]
    assert interfaces.free_name(NETWORK, present, {}) == "eth1"
    assert interfaces.free_name(example_network("bridge", options={PREFIX: "lan"}), present, {}) == "lan1"


def test_the_endpoint_may_name_it():
    assert interfaces.free_name(NETWORK, [endpoint()], {NAME: "uplink.7"}) == "uplink.7"
    with pytest.raises(Forbidden, match='the interface name "eth0" is in use by another network of the container'):
        interfaces.free_name(NETWORK, [endpoint()], {NAME: "eth0"})


@pytest.mark.parametrize("name", ["lo", "all", "default", ".", "a/b", "sixteen-letters!", "sixteenletters-x", "a b"])
def test_names_that_no_interface_can_have(name: str):
    with pytest.raises(InvalidArgument, match=r"invalid com\.docker\.network\.endpoint\.ifname"):
        interfaces.free_name(NETWORK, [], {NAME: name})


def test_settings_come_between_the_link_and_its_addresses():
    asked = endpoint(
        interface="lan.7",
        address6="fd00::2/64",
        options={SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.ifname.ucast_solicit=7"},
    )
    plan = interfaces.configured(Bridge().join(NETWORK, asked, SANDBOX), asked, SANDBOX)
    assert [type(step).__name__ for step in plan][:6] == ["Guard", "Veth", "Sysctl", "Sysctl", "Sysctl", "Sysctl"]
    assert plan[2:6] == (
        Sysctl(namespace=INSIDE, key="net.ipv6.conf.lan/7.accept_ra", value="0"),
        Sysctl(namespace=INSIDE, key="net.ipv6.conf.lan/7.disable_ipv6", value="0"),
        Sysctl(namespace=INSIDE, key="net.ipv4.conf.lan/7.log_martians", value="1"),
        Sysctl(namespace=INSIDE, key="net.ipv6.neigh.lan/7.ucast_solicit", value="7"),
    )
    assert LinkUp(namespace=INSIDE, link="lan.7") in plan[6:]


def test_without_ipv6_there_is_nothing_to_set():
    """A sandbox of ours has said so for all its links; one of somebody else's has not."""
    plan = Bridge().join(NETWORK, endpoint(), SANDBOX)
    assert interfaces.configured(plan, endpoint(), SANDBOX) == plan
    given = msgspec.structs.replace(SANDBOX, kind="given")
    assert list(interfaces.settings(endpoint(), given)) == [Sysctl(namespace=INSIDE, key="net.ipv6.conf.eth0.disable_ipv6", value="1")]


@pytest.mark.parametrize(
    "text",
    [
        "net.ipv4.ip_forward=1",
        "net.ipv4.conf.eth0.forwarding=1",
        "net.ipv4.conf.all.forwarding=1",
        "kernel.conf.IFNAME.hostname=x",
        "net.core.conf.IFNAME.x=1",
        "net.ipv4.conf.IFNAME.forwarding",
        "net.ipv4.conf.IFNAME.forwarding=",
        "net.ipv4.conf.IFNAME./../../ip_forward=1",
        "net.ipv4.conf.IFNAME.a.b=1",
        "net/ipv4/conf/IFNAME/forwarding=1",
    ],
)
def test_only_sysctls_of_the_interface(text: str):
    with pytest.raises(InvalidArgument) as caught:
        interfaces.parse_sysctls({SYSCTLS: text})
    assert str(caught.value) == (
        f"unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V',"
        " 'X' must be 'ipv4', 'ipv6' or 'mpls'"
    )
