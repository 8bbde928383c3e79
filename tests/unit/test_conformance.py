"""The conformance kit: every shipped driver keeps all rules, and a driver that breaks one is told which, and how."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from cli_fixtures import Cli

from netplug.capability import Underlay
from netplug.driver import Capabilities
from netplug.errors import InvalidArgument, NotFound
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import Address, Bridge, Fdb, LinkUp, Masquerade, Netns, Plan, Publish, Remove, removal
from netplug.registry import Drivers
from netplug.testing import DriverConformance, FakeDriver
from netplug.testing.checking import Checked, Installed, check
from netplug_drivers.remote import Remote

SHIPPED = ["bridge", "host", "ipvlan", "macvlan", "none", "null", "overlay"]


class Kit(DriverConformance):
    """Not called Test…: it is no test by itself."""

    __test__ = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make_driver = make  # type: ignore[method-assign]


def broken(kit: DriverConformance) -> list[Checked]:
    return [one for one in check(kit) if one.reason]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_driver_keeps_all_rules(name: str):
    assert name in Drivers().names()
    assert broken(Installed(name, {})) == []


def test_so_does_the_driver_of_any_plugin():
    assert broken(Kit(lambda: Remote("plug"))) == []


def test_options_are_those_of_the_network():
    assert broken(Installed("macvlan", {"parent": "eth0.10"})) == []
    (found,) = broken(Installed("bridge", {"com.docker.network.driver.mtu": "big"}))[:1]
    assert found.rule == "it accepts a network without options"
    assert "validate() refuses the network example: " in found.reason


def test_all_rules_are_looked_at():
    rules = [one.rule for one in check(Kit(FakeDriver))]
    assert len(rules) == len(set(rules)) == 13
    assert "a driver is pure" in rules


class SaysNothing(FakeDriver):
    capabilities = None  # type: ignore[assignment]


class RefusesAll(FakeDriver):
    def validate(self, network: Network) -> None:
        raise InvalidArgument("not today")


class ReturnsALink(FakeDriver):
    def create_network(self, network: Network) -> Plan:
        return ("ip link add br0 type bridge",)  # type: ignore[arg-type]


class RollsDice(FakeDriver):
    def create_network(self, network: Network) -> Plan:
        return (Masquerade(subnet=f"10.{random.randrange(256)}.{random.getrandbits(64)}.0/24"),)

    def delete_network(self, network: Network) -> Plan:
        return (Remove(op=Masquerade(subnet="10.0.0.0/24")),)


class Mute(LinkUp, frozen=True, kw_only=True):
    """An op that nobody has explained."""

    def explain(self) -> tuple[str, ...]:
        return ("",)


class ExplainsNothing(FakeDriver):
    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return (*super().join(network, endpoint, sandbox), Mute(link="eth0", namespace=sandbox.namespace))  # type: ignore[arg-type]


class ForgetsTheAddress(FakeDriver):
    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return tuple(step for step in super().join(network, endpoint, sandbox) if not isinstance(step, Address))


class LeavesInTheSandbox(FakeDriver):
    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        down = Remove(op=LinkUp(namespace=sandbox.namespace, link=endpoint.interface), namespace=sandbox.namespace)
        return (down, *super().leave(network, endpoint, sandbox))


class ForgetsTheCable(FakeDriver):
    def leave(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return ()


class ForgetsItsBridge(FakeDriver):
    def create_network(self, network: Network) -> Plan:
        return (Bridge(name=f"br-{network.id:.12}", mac="02:42:ac:1e:00:01"),)


class ForgetsPorts(FakeDriver):
    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()


class TakesPortsOfOthers(FakeDriver):
    def unpublish(self, network: Network, endpoint: Endpoint) -> Plan:
        return (*super().unpublish(network, endpoint), Remove(op=Publish(protocol="tcp", host_port=1, address="10.0.0.1", port=1)))


class ForgetsPeers(FakeDriver):
    capabilities = Capabilities(scope="global")

    def on(self, underlay: Underlay) -> ForgetsPeers:
        return self

    def vni_range(self, network: Network) -> tuple[range, ...]:
        return (range(4096, 8192),)

    def namespace(self, network: Network) -> str:
        return ""

    def underlay(self, network: Network) -> Plan:
        return ()

    def peer_added(self, network: Network, endpoint: Endpoint) -> Plan:
        return (Fdb(link="vx0", mac=endpoint.mac, vtep=endpoint.vtep),)

    def peer_removed(self, network: Network, endpoint: Endpoint) -> Plan:
        return ()


class LongNames(FakeDriver):
    def create_network(self, network: Network) -> Plan:
        return (Bridge(name=f"bridge-{network.id:.12}", mac="02:42:ac:1e:00:01"),)

    def delete_network(self, network: Network) -> Plan:
        return removal(self.create_network(network))


class MakesSandboxes(FakeDriver):
    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Plan:
        return (Netns(path=sandbox.namespace), *super().join(network, endpoint, sandbox))


class Falls(FakeDriver):
    def validate(self, network: Network) -> None:
        raise KeyError("colour")


WRONG: list[tuple[type[FakeDriver], str, str]] = [
    (SaysNothing, "it says what it can", "its capabilities are None, and not a netplug.driver.Capabilities"),
    (RefusesAll, "it accepts a network without options", "validate() refuses the network example: not today"),
    (Falls, "it accepts a network without options", "KeyError: 'colour'"),
    (ReturnsALink, "plans are data that survives storage", "create_network() returns 'ip link add br0 type bridge', which is no op"),
    (RollsDice, "a driver is pure", "create_network() returns another plan when it is asked again"),
    (ExplainsNothing, "links are explained by commands", "a step of join() is not explained: Mute("),
    (ForgetsTheAddress, "joining gives the sandbox its address", "join() gives the sandbox no address, and not its own, 172.30.0.2"),
    (LeavesInTheSandbox, "leaving needs no sandbox", "leave() acts in the sandbox, which may be gone: LinkUp("),
    (ForgetsTheCable, "what join makes on the host leave takes away", "leave() does not take away what join() makes: Veth("),
    (ForgetsItsBridge, "what a network makes its deletion takes away", "delete_network() does not take away what create_network() makes:"),
    (ForgetsPorts, "what publish makes unpublish takes away", "unpublish() does not take away what publish() makes: Publish("),
    (TakesPortsOfOthers, "what publish makes unpublish takes away", "unpublish() takes away what publish() has not made: Publish("),
    (ForgetsPeers, "what adding a peer makes removing takes away", "peer_removed() is not the opposite of peer_added()"),
    (LongNames, "names of links fit", "create_network() names a link 'bridge-4e4e4e4e4e4e': it has 19 characters, and may have 1 to 15"),
    (MakesSandboxes, "drivers do not make sandboxes", "join() makes the sandbox's namespace, which is the controller's"),
]


@pytest.mark.parametrize(("driver", "rule", "reason"), WRONG, ids=lambda value: value.__name__ if isinstance(value, type) else "")
def test_who_breaks_a_rule_is_told(driver: type[FakeDriver], rule: str, reason: str):
    found = {one.rule: one.reason for one in broken(Kit(driver))}
    assert reason in found[rule]


def test_each_rule_can_be_broken():
    assert {rule for _, rule, _ in WRONG} == {one.rule for one in check(Kit(FakeDriver))}


def test_a_driver_that_is_not_there():
    with pytest.raises(NotFound, match='plugin "nothing" not found: the drivers here are bridge'):
        Installed("nothing", {})


def test_the_command(cli: Cli):
    done = cli("driver", "check", "bridge")
    assert (done.code, done.out.splitlines()[-1]) == (0, "driver bridge keeps all 13 rules")
    assert done.out.splitlines()[0] == "kept    it says what it can"
