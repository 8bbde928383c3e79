"""Networks of two hosts that reach one another by their own addresses: here `vpn`, behind the host's link up1, stands for the other one."""

from __future__ import annotations

import socket

import pytest

from netplug.kernel.namespaces import open_socket
from netplug.plan import FirewallOp, GatewayMode, Reach
from tests.kernel.firewall_lab import ADDRESS, ADDRESS6, ANSWERED_WITHIN, BLOCKED_AFTER, KINDS, SUBNETS, Addresses, Lab
from tests.kernel.firewall_rules import HostFirewall, isolate, masquerade

REMOTE = ("10.98.0.0/24", "fd98::/64")
HERE = {4: "10.98.0.1", 6: "fd98::1"}
"""The host's own addresses towards `vpn`."""
NETWORKS: list[FirewallOp] = [isolate("A"), *masquerade("A"), isolate("B"), *masquerade("B"), isolate("I", internal=True)]


def reach(network: str, link: str = "up1") -> list[FirewallOp]:
    pairs = zip(SUBNETS[network], REMOTE, strict=True)
    return [Reach(bridge=f"br{network}", subnet=subnet, remote=remote, link=link) for subnet, remote in pairs]


def spoofed(lab: Lab, ip: Addresses) -> bool:
    """Whether a datagram that `out` sends in the name of a container behind `vpn` comes in."""
    claimed = ip["vpn"].removesuffix("2") + "77"
    family, level, transparent = (socket.AF_INET6, socket.IPPROTO_IPV6, 75) if ":" in claimed else (socket.AF_INET, socket.IPPROTO_IP, 19)
    with open_socket(lab.path("out"), family, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(level, transparent, 1)
        sender.bind((claimed, 0))
        sender.sendto(b"spoofed", (ip["a1"], 81))
    return lab.receives("a1", 81, BLOCKED_AFTER) == b"spoofed"


def test_both_ways_with_their_own_addresses(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*NETWORKS, *reach("A"))

    assert lab.sources("vpn", ip["a1"], 81, "a1", 81) == {ip["vpn"]}
    assert lab.sources("a1", ip["vpn"], 80, "vpn") == {ip["a1"]}
    assert lab.pings("vpn", ip["a1"])
    assert lab.pings("a1", ip["vpn"])


def test_nobody_else(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """Other hosts, other networks, and other ways out are as they were."""
    firewall.apply(*NETWORKS, *reach("A"))

    assert lab.answered(("out", ip["a1"], 81), ("vpn", ip["b1"], 81), ("vpn", ip["i1"], 81), ("b1", ip["a1"], 81)) == []
    assert lab.answered(("i1", ip["vpn"], 80)) == []
    assert lab.sources("a1", ip["out"], 80, "out") == {ip["h"]}
    assert lab.sources("b1", ip["vpn"], 80, "vpn") == {HERE[4 if ip is ADDRESS else 6]}


@pytest.mark.parametrize("mode", ["nat", "routed", "nat-unprotected"])
def test_whatever_the_gateway_mode(lab: Lab, firewall: HostFirewall, ip: Addresses, mode: GatewayMode) -> None:
    firewall.apply(isolate("A", mode4=mode, mode6=mode), *masquerade("A"), *reach("A"))

    assert lab.sources("vpn", ip["a1"], 81, "a1", 81) == {ip["vpn"]}
    assert lab.sources("a1", ip["vpn"], 80, "vpn") == {ip["a1"]}


def test_by_that_link_only(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """Who is behind another one and says that he is from there is not heard; nor is what goes there by another one let out as it is."""
    firewall.apply(*NETWORKS, *reach("A"))
    assert not spoofed(lab, ip)

    firewall.remove(*reach("A"))
    firewall.apply(*reach("A", "up0"))
    assert spoofed(lab, ip), "the control: such a datagram does come"
    assert lab.answered(("vpn", ip["a1"], 81)) == []
    assert lab.sources("a1", ip["vpn"], 80, "vpn") == {HERE[4 if ip is ADDRESS else 6]}


def test_it_ends(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*NETWORKS, *reach("A"), *reach("B"))
    firewall.remove(*reach("A"))

    assert lab.answered(("vpn", ip["a1"], 81)) == []
    assert lab.sources("a1", ip["vpn"], 80, "vpn") == {HERE[4 if ip is ADDRESS else 6]}
    assert lab.sources("vpn", ip["b1"], 81, "b1", 81) == {ip["vpn"]}


def test_it_is_put_back(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*NETWORKS, *reach("A"))
    lab.nft("flush ruleset")
    if firewall.backend.name == "iptables":
        firewall.replace([*NETWORKS, *reach("A")])
    else:
        assert firewall.heal() != []

    assert lab.sources("vpn", ip["a1"], 81, "a1", 81) == {ip["vpn"]}
    assert lab.sources("a1", ip["vpn"], 80, "vpn") == {ip["a1"]}
    assert firewall.heal() == []


def test_asked_again_it_is_no_change(firewall: HostFirewall) -> None:
    assert firewall.apply(*NETWORKS, *reach("A")) == [*NETWORKS, *reach("A")]
    firewall.start()
    assert firewall.apply(*reach("A")) == []
    assert len(firewall.remove(*reach("A"))) == len(REMOTE)
    assert firewall.remove(*reach("A")) == []


def test_control(lab: Lab, firewall: HostFirewall) -> None:
    """It is the firewall that keeps them apart where nothing is said."""
    firewall.apply(*NETWORKS)
    flows = [("vpn", known["a1"], 81) for known in (ADDRESS, ADDRESS6)]
    assert lab.answered(*flows) == []
    firewall.clear()
    assert lab.answered(*flows, within=ANSWERED_WITHIN) == [(protocol, *flow) for flow in flows for protocol in KINDS]
