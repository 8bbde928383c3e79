"""The driver that a plugin is: its plans from stored answers, what it asks, and how it is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from netplug.capability import Effectful, PeerAware
from netplug.driver import Driver
from netplug.errors import NotFound
from netplug.model import Attachment, Endpoint, Network, StaticRoute
from netplug.plan import Address, Adopt, Announce, LinkUp, Remove, Route
from netplug.registry import Drivers
from netplug.testing import DriverConformance
from netplug.testing.conformance import example_endpoint, example_network, example_sandbox
from netplug_drivers.remote import Plugins, Remote
from netplug_drivers.remote_answers import EndpointCreated, Joined, attachment, chosen

SANDBOX = example_sandbox()
NETWORK = example_network("plug")
GIVEN = Attachment(link="pc1", gateway="172.30.0.1", routes=(StaticRoute(destination="10.9.0.0/16", gateway="172.30.0.1"),))
ENDPOINT = example_endpoint(NETWORK, SANDBOX, attachment=GIVEN, ports=())
BARE = msgspec.structs.replace(ENDPOINT, attachment=None, address="", gateway="", mac="")


class TestRemote(DriverConformance):
    def make_driver(self) -> Driver:
        return Remote("plug")

    def make_endpoint(self, network: Network, endpoint: Endpoint) -> Endpoint:
        return msgspec.structs.replace(endpoint, attachment=GIVEN)


def test_the_plan_is_made_of_what_was_answered():
    inside = SANDBOX.namespace
    assert Remote("plug").join(NETWORK, ENDPOINT, SANDBOX) == (
        Adopt(source="pc1", name="eth0", link_namespace=inside),
        Address(namespace=inside, link="eth0", address="172.30.0.2/16"),
        LinkUp(namespace=inside, link="eth0", mac="02:42:ac:1e:00:02"),
        Route(namespace=inside, destination="10.9.0.0/16", gateway="172.30.0.1", link="eth0"),
        Announce(namespace=inside, link="eth0", address="172.30.0.2", mac="02:42:ac:1e:00:02"),
    )
    assert Remote("plug").leave(NETWORK, ENDPOINT, SANDBOX) == (Remove(op=Adopt(source="pc1", name="eth0", link_namespace=inside)),)


def test_a_mac_that_nobody_told_is_left_alone():
    plan = Remote("plug").join(NETWORK, msgspec.structs.replace(ENDPOINT, mac=""), SANDBOX)
    assert LinkUp(namespace=SANDBOX.namespace, link="eth0") in plan
    assert not any(isinstance(step, Announce) for step in plan)


def test_the_move_is_explained_both_ways():
    adopt = Adopt(source="pc1", name="eth0", link_namespace="/run/s")
    assert adopt.explain() == ("ip link set pc1 netns /run/s name eth0",)
    assert adopt.explain_removal() == (
        "nsenter --net=/run/s ip link set eth0 down",
        "nsenter --net=/run/s ip link set eth0 netns $$ name pc1",
    )


def test_it_is_effectful_and_no_peer_aware():
    assert isinstance(Remote("plug"), Effectful)
    assert not isinstance(Remote("plug"), PeerAware)


def given(created: dict[str, Any], joined: dict[str, Any], endpoint: Endpoint = BARE, network: Network = NETWORK) -> Attachment:
    return attachment(network, chosen(endpoint, msgspec.convert(created, EndpointCreated)), msgspec.convert(joined, Joined))


def test_what_the_plugin_chooses():
    found = given(
        {"Interface": {"Address": "10.1.0.2/24", "AddressIPv6": "fd01::2/64", "MacAddress": "02-00-00-00-00-0A"}},
        {"InterfaceName": {"SrcName": "x", "DstPrefix": "net", "DstName": "lan"}, "Gateway": "10.1.0.1", "GatewayIPv6": "fe80::1"},
    )
    assert found == Attachment(
        link="x",
        prefix="net",
        interface="lan",
        mac="02:00:00:00:00:0a",
        address="10.1.0.2/24",
        address6="fd01::2/64",
        gateway="10.1.0.1",
        gateway6="fe80::1",
    )


def test_null_is_nothing():
    members = ("InterfaceName", "Gateway", "GatewayIPv6", "StaticRoutes", "DisableGatewayService")
    assert given({"Interface": None}, dict.fromkeys(members)) == Attachment(exit=True)


def test_what_was_asked_for_may_be_repeated():
    answer = {"Interface": {"Address": ENDPOINT.address, "MacAddress": ENDPOINT.mac}}
    assert given(answer, {}, ENDPOINT) == Attachment(exit=True)


@pytest.mark.parametrize(
    ("joined", "internal", "gateway", "exit"),
    [
        ({}, False, "", True),
        ({}, True, "", False),
        ({"DisableGatewayService": True}, False, "", False),
        ({"Gateway": "10.1.0.1"}, False, "10.1.0.1", False),
        ({"Gateway": "10.1.0.1"}, True, "", False),
        ({"StaticRoutes": [{"Destination": "0.0.0.0/0", "RouteType": 0, "NextHop": "10.1.0.1"}]}, False, "10.1.0.1", False),
        ({"StaticRoutes": [{"Destination": "0.0.0.0/0", "RouteType": 1}]}, False, "", False),
    ],
)
def test_the_way_out(joined: dict[str, Any], internal: bool, gateway: str, exit: bool):
    found = given({}, joined, network=msgspec.structs.replace(NETWORK, internal=internal))
    assert (found.gateway, found.exit) == (gateway, exit)


@pytest.mark.parametrize(
    ("created", "joined", "reason"),
    [
        ({"Address": "10.1.0.2"}, {}, "Address '10.1.0.2' is no IPv4 address with a prefix"),
        ({"Address": "fd01::2/64"}, {}, "Address 'fd01::2/64' is no IPv4 address with a prefix"),
        ({"Address": "x/y"}, {}, "Address 'x/y' is no address with a prefix"),
        ({"MacAddress": "01:00:5e:00:00:01"}, {}, "MacAddress '01:00:5e:00:00:01' is no address of an interface"),
        ({}, {"InterfaceName": {"SrcName": "a b"}}, "InterfaceName.SrcName 'a b' is not the name of a link"),
        ({}, {"InterfaceName": {"SrcName": "x" * 16}}, f"InterfaceName.SrcName '{'x' * 16}' is not the name of a link"),
        ({}, {"InterfaceName": {"DstPrefix": "a;b"}}, "InterfaceName.DstPrefix 'a;b' is not a prefix of up to 12 letters"),
        ({}, {"Gateway": "fd01::1"}, "gateway fd01::1 is no IPv4 address"),
        ({}, {"GatewayIPv6": "fe80::1%eth0"}, "GatewayIPv6 'fe80::1%eth0' is no address of a host"),
        ({}, {"StaticRoutes": [{}]}, "route to '', which is no subnet"),
        ({}, {"StaticRoutes": [{"Destination": "10.0.0.0/8", "RouteType": 5}]}, "route to 10.0.0.0/8 of type 5 without a next hop"),
        (
            {},
            {"StaticRoutes": [{"Destination": "10.0.0.0/8", "NextHop": "::1"}]},
            "route to 10.0.0.0/8 by ::1, which are of two IP versions",
        ),
    ],
)
def test_what_cannot_be_done(created: dict[str, Any], joined: dict[str, Any], reason: str):
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        given({"Interface": created}, joined)
    assert str(raised.value) == reason


def test_plugins_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NETPLUG_PLUGIN_PATH", str(tmp_path))
    drivers = Drivers()
    with pytest.raises(NotFound, match=r'^plugin "far" not found: the drivers here are bridge, .*, overlay$'):
        drivers.named("far")
    (tmp_path / "far.spec").write_text("tcp://192.0.2.1:80")
    (tmp_path / "bridge.spec").write_text("tcp://192.0.2.1:80")
    assert isinstance(drivers.named("far"), Remote)
    assert (drivers.finder("far"), drivers.finder("bridge"), drivers.finder("pigeon")) == ("remote", "", "")
    assert not isinstance(drivers.named("bridge"), Remote)
    assert "far" in drivers.names()
    with pytest.raises(NotFound, match="the plugins here are bridge, far"):
        drivers.named("pigeon")
    (tmp_path / "far.spec").unlink()
    assert isinstance(drivers.get("far", "remote"), Remote), "its networks stay while it is away"
    assert Plugins().names() == ["bridge"]
