"""Which networks of other nodes this host may have a route to; and the op that a bridge network makes of it."""

from __future__ import annotations

import ipaddress

import pytest

from netplug.controller.ways import Surroundings, Way, clash, readable, ways
from netplug.errors import InvalidArgument
from netplug.kernel.lan import Known, Neighbour
from netplug.model import Network, PoolConfig, Reachable
from netplug.plan import Reach, Route
from netplug.testing import example_network
from netplug_drivers.bridge import Bridge
from netplug_drivers.bridge_options import ROUTES

TWO = Reachable(node="two", network="demo", created="2026-02", subnets=("10.72.0.0/24", "fd72::/64"), via=("192.0.2.2", "2001:db8::2"))
OPTION = {ROUTES: "cluster"}


def here(
    *networks: Network, others: tuple[Known, ...] = (), versions: tuple[int, ...] = (4, 6), reason: str = "", link: str = "eth0"
) -> Surroundings:
    neighbour = Neighbour("", reason) if reason else Neighbour(link)
    return Surroundings(networks, frozenset(versions), others, lambda address: neighbour)


def known(subnet: str, gateway: str = "") -> Known:
    return Known(ipaddress.ip_network(subnet), gateway)


def local(subnet: str, name: str = "local") -> Network:
    return example_network("bridge", name=name, pools=(PoolConfig(subnet=subnet),))


def reasons(found: list[Way]) -> dict[str, str]:
    return {f"{way.subnet} {way.node}": way.reason for way in found}


def test_a_neighbour_is_the_way_to_his_subnets():
    found = ways([TWO], here(local("10.71.0.0/24")))
    assert [step for way in found for step in way.route] == [
        Route(destination="10.72.0.0/24", link="eth0", gateway="192.0.2.2"),
        Route(destination="fd72::/64", link="eth0", gateway="2001:db8::2"),
    ]
    assert [way.status for way in found] == ["installed", "installed"]


def test_without_a_network_that_would_use_it_there_is_none():
    found = ways([TWO], here(versions=(4,)))
    assert [way.status for way in found] == ["installed", "not needed: no network of this host with netplug.routes=cluster has IPv6"]
    assert not found[1].needed


@pytest.mark.parametrize(
    ("surroundings", "reason"),
    [
        (here(local("10.72.0.0/16")), "it overlaps 10.72.0.0/16 of network local of this host"),
        (here(local("10.72.0.64/26")), "it overlaps 10.72.0.64/26 of network local of this host"),
        (here(others=(known("10.72.0.0/24"),)), "this host has a way to 10.72.0.0/24 already"),
        (here(others=(known("10.0.0.0/8", "192.0.2.9"),)), "this host has a way to 10.0.0.0/8 through 192.0.2.9 already"),
        (here(others=(known("10.72.0.128/25"),)), "this host has a way to 10.72.0.128/25 already"),
        (here(others=(known("10.72.0.0/24", "192.0.2.9"),)), "this host has a way to 10.72.0.0/24 through 192.0.2.9 already"),
        (here(reason="this host has no way to 192.0.2.2"), "this host has no way to 192.0.2.2"),
        (here(local("10.73.0.0/24"), others=(known("192.0.2.0/24"), known("fd72::/64"))), ""),
    ],
)
def test_what_is_in_the_way(surroundings: Surroundings, reason: str):
    way = ways([TWO], surroundings)[0]
    assert way.reason == reason
    assert bool(way.route) == (not reason)


def test_the_same_route_of_somebody_else_is_kept():
    way = ways([TWO], here(others=(known("10.72.0.0/24", "192.0.2.2"),)))[0]
    assert (way.route, way.link, way.status) == ((), "eth0", "installed by somebody else")


def test_of_two_that_overlap_the_older_one_is_reached():
    young = Reachable(node="a", network="late", created="2026-03", subnets=("10.72.0.0/16",), via=("192.0.2.3",))
    expected = {
        "10.72.0.0/24 two": "",
        "fd72::/64 two": "",
        "10.72.0.0/16 a": "it overlaps 10.72.0.0/24 of network demo on node two",
    }
    assert reasons(ways([young, TWO], here())) == expected


def test_a_subnet_needs_an_address_of_its_ip_version():
    four = Reachable(node="two", network="demo", created="", subnets=TWO.subnets, via=("192.0.2.2",))
    expected = {"10.72.0.0/24 two": "", "fd72::/64 two": "node two has no IPv6 address beside the one that it advertises"}
    assert reasons(ways([four], here())) == expected


def test_clashes():
    assert clash(["10.71.0.0/24", "fd71::/64"], {"two/1": TWO}) is None
    assert clash(["10.71.0.0/24", "fd72::/48"], {"two/1": TWO}) == ("fd72::/48", "fd72::/64", TWO)


@pytest.mark.parametrize(
    ("subnets", "via", "fine"),
    [
        (("10.72.0.0/24",), ("192.0.2.2",), True),
        ((), (), True),
        (("10.72.0.1/24",), ("192.0.2.2",), False),
        (("everywhere",), (), False),
        (("10.72.0.0/24",), ("two.example",), False),
    ],
)
def test_what_can_be_read(subnets: tuple[str, ...], via: tuple[str, ...], fine: bool):
    assert readable(Reachable(node="two", network="demo", created="", subnets=subnets, via=via)) == fine


def test_a_bridge_network_lets_it_pass():
    pools = (PoolConfig(subnet="10.71.0.0/24", gateway="10.71.0.1"), PoolConfig(subnet="fd71::/64", gateway="fd71::1"))
    network = example_network("bridge", ipv6=True, pools=pools, options=OPTION)
    driver = Bridge()
    assert driver.reached(network)
    assert driver.reach(network, "10.72.0.0/24", "eth0") == (
        Reach(bridge="br-4e4e4e4e4e4e", subnet="10.71.0.0/24", remote="10.72.0.0/24", link="eth0"),
    )
    assert driver.reach(network, "fd72::/64", "eth0") == (
        Reach(bridge="br-4e4e4e4e4e4e", subnet="fd71::/64", remote="fd72::/64", link="eth0"),
    )
    assert driver.reach(example_network("bridge", options=OPTION), "fd72::/64", "eth0") == ()
    assert not driver.reached(example_network("bridge"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"options": {ROUTES: "all"}}, 'invalid value for netplug.routes: "all" is not known \\(there is cluster\\)'),
        ({"options": OPTION, "internal": True}, "an internal network cannot have netplug.routes: nothing is routed in or out of it"),
    ],
)
def test_what_the_option_may_be(changes: dict[str, object], sentence: str):
    with pytest.raises(InvalidArgument, match=sentence):
        Bridge().validate(example_network("bridge", **changes))
