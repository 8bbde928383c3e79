"""Links: with icc=false one container reaches one port of another on its bridge, and nobody else does."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether

from netplug.plan import AllowPeer, FirewallOp
from tests.kernel.firewall_frames import passing, send_to_host, udp_packet
from tests.kernel.firewall_lab import ADDRESS, ADDRESS6, ANSWERED_WITHIN, BLOCKED_AFTER, KINDS, Addresses, Lab
from tests.kernel.firewall_rules import HostFirewall, guard, isolate, masquerade, published

PEERS = ("c1", "c2", "c3")
LINK: list[FirewallOp] = [
    AllowPeer(client=known["c1"], server=known["c2"], protocol=protocol, port=80) for known in (ADDRESS, ADDRESS6) for protocol in KINDS
]


def refused(ip: Addresses) -> list[tuple[str, str, int]]:
    """Another port, the other way, to another, from another."""
    return [("c1", ip["c2"], 81), ("c2", ip["c1"], 80), ("c1", ip["c3"], 80), ("c3", ip["c2"], 80)]


@pytest.fixture(autouse=True, params=[False, True], ids=["", "antispoof"])
def network(lab: Lab, firewall: HostFirewall, request: pytest.FixtureRequest) -> None:
    """Nobody knows a neighbour's MAC yet."""
    guards = [guard(name, antispoof=request.param, icc=False) for name in PEERS]
    firewall.apply(isolate("C", icc=False), *masquerade("C"), *guards, *published(8091, "c2", 80))
    for name in PEERS:
        lab.ip(name, "neigh flush dev eth0")


def test_a_link_opens_one_port_one_way(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*LINK)

    assert lab.sources("c1", ip["c2"], 80, "c2") == {ip["c1"]}
    assert lab.answered(*refused(ip)) == []


def test_a_link_is_of_one_protocol(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(AllowPeer(client=ip["c1"], server=ip["c2"], protocol="tcp", port=80))

    assert lab.source("tcp", "c1", ip["c2"], 80, "c2") == ip["c1"]
    assert ("udp", "c1", ip["c2"], 80) not in lab.answered(("c1", ip["c2"], 80))


def test_a_removed_link_closes(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*LINK)
    assert len(lab.answered(("c1", ip["c2"], 80), within=ANSWERED_WITHIN)) == 2

    firewall.remove(*LINK)
    assert lab.answered(("c1", ip["c2"], 80)) == []


def test_control(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.clear()

    assert len(lab.answered(*refused(ip), within=ANSWERED_WITHIN)) == len(refused(ip)) * len(KINDS)


def test_the_rest_of_the_network_stays_as_it_is(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*LINK)

    assert lab.sources("c1", ip["out"], 80, "out") == {ip["h"]}
    assert lab.sources("c3", ip["h"], 8091, "c2") == {ip["gatewayC"]}
    assert lab.sources("c1", ip["gatewayC"], 80, "h") == {ip["c1"]}


def test_in_an_internal_network(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.remove(isolate("C", icc=False))
    firewall.apply(isolate("C", icc=False, internal=True), *LINK)

    assert lab.sources("c1", ip["c2"], 80, "c2") == {ip["c1"]}
    assert lab.answered(*refused(ip), ("c1", ip["out"], 80)) == []


def test_a_server_opens_no_connection_from_its_port(lab: Lab, firewall: HostFirewall) -> None:
    """There is no conntrack in a bridge, so answers are known by their port: an opening segment is none."""
    firewall.apply(*LINK)
    head = Ether(src=Lab.mac("c2"), dst=Lab.mac("c1")) / IP(src=ADDRESS["c2"], dst=ADDRESS["c1"])
    opening = {"SYN": bytes(head / TCP(sport=80, dport=81, flags="S"))}
    last = bytes(Ether(src=Lab.mac("c2"), dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=Lab.mac("c2"), psrc=ADDRESS["c2"], pdst=ADDRESS["c1"]))

    assert passing(lab, "c2", "c1", opening, last) == set()
    firewall.clear()
    assert passing(lab, "c2", "c1", opening, last) == {"SYN"}


def test_a_stranger_in_the_clients_name(lab: Lab, firewall: HostFirewall) -> None:
    """From another network and from outside: the addresses are a link's, the way is not."""
    firewall.apply(isolate("B"), *LINK)
    forged = udp_packet(ADDRESS["c1"], 1000, ADDRESS["c2"], 80, b"forged")
    for link in ("all", "brB", "up0"):
        lab.set(f"net/ipv4/conf/{link}/rp_filter", 0)

    for stranger in ("b1", "out"):
        send_to_host(lab, stranger, forged)
    assert lab.receives("c2", 80, BLOCKED_AFTER) == b""

    firewall.clear()
    for stranger in ("b1", "out"):
        send_to_host(lab, stranger, forged)
        assert lab.receives("c2", 80, ANSWERED_WITHIN) == b"forged"
