"""What the firewall does to real packets. Each test names the promise; the last but one shows that it is the firewall that keeps them.

All of it with br_netfilter's bridge-nf-call-iptables off and on: tools around us set it as they like.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from netplug.kernel.firewall import Firewall, backend
from netplug.kernel.namespaces import entered, open_socket
from netplug.plan import HOST, AnyOp, Direct, DnsRedirect, FirewallOp, Guard, Isolate, Masquerade, Publish, Remove
from tests.kernel.firewall_lab import (
    ADDRESS,
    ANSWERED_WITHIN,
    BLOCKED_AFTER,
    KINDS,
    MAC,
    Lab,
    comes_by,
    send_to_host,
    tcp_packet,
    udp_packet,
    wire,
)

HOST_A, HOST_B = "10.99.0.1", "10.99.0.3"
"""The host's two addresses on the LAN."""


def published(host_port: int, container: str, port: int, host_ip: str = "") -> list[FirewallOp]:
    return [
        Publish(protocol=protocol, host_port=host_port, address=ADDRESS.get(container, container), port=port, host_ip=host_ip)
        for protocol in ("tcp", "udp")
    ]


def direct(container: str, port: int) -> list[FirewallOp]:
    return [Direct(protocol=protocol, address=ADDRESS.get(container, container), port=port) for protocol in ("tcp", "udp")]


def removal(ops: list[FirewallOp]) -> list[Remove]:
    return [Remove(op=cast(AnyOp, op)) for op in ops]


BLOCKED_PEERS = [Guard(link=f"v-{name}", bridge="brC", bridge_mac=MAC["C"], icc=False) for name in ("c1", "c2")]
OPS: list[FirewallOp] = [
    Isolate(bridge="brA", subnets=("172.20.0.0/24", "fd20::/64")),
    Masquerade(subnet="172.20.0.0/24"),
    Masquerade(subnet="fd20::/64"),
    Isolate(bridge="brB", subnets=("172.21.0.0/24",)),
    Isolate(bridge="brC", subnets=("172.22.0.0/24",), icc=False),
    Masquerade(subnet="172.22.0.0/24"),
    *BLOCKED_PEERS,
    Isolate(bridge="brI", subnets=("172.23.0.0/24",), internal=True),
    *published(8080, "a1", 80),
    *direct("a1", 80),
    *published(8080, "fd20::2", 80),
    *direct("fd20::2", 80),
    *published(8081, "a1", 81, "127.0.0.1"),
    *published(8082, "a1", 80, HOST_B),
    *published(8082, "fd20::2", 80, "fd99::1"),
    *published(8090, "b1", 80),
    *direct("b1", 80),
    *published(8091, "c2", 80),
]
BLOCKED = {
    "another network, by container address": [("a1", ADDRESS["b1"], 80), ("a1", ADDRESS["b1"], 81), ("b1", ADDRESS["a1"], 80)],
    "icc=false": [("c1", ADDRESS["c2"], 80), ("c2", ADDRESS["c1"], 80), ("c1", ADDRESS["c2"], 81)],
    "internal, out and in": [
        ("i1", ADDRESS["out"], 80),
        ("out", ADDRESS["i1"], 80),
        ("i1", ADDRESS["a1"], 80),
        ("a1", ADDRESS["i1"], 80),
    ],
    "internal, to published ports": [("i1", HOST_A, 8080), ("i1", "172.23.0.1", 8080), ("i1", HOST_B, 8082)],
    "from outside, by container address": [("out", ADDRESS["a1"], 81), ("out", "fd20::2", 81), ("out", ADDRESS["a2"], 80)],
}


@pytest.fixture(scope="module", params=[0, 1], ids=["bridge-nf=0", "bridge-nf=1"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = Lab(bridge_nf=request.param)
    try:
        for name in ADDRESS:
            lab.serve(name, 80, 81)
        lab.serve("out", 8080)
        yield lab
    finally:
        lab.close()


@pytest.fixture
def firewall(lab: Lab) -> Firewall:
    firewall = backend("nftables")
    with entered(lab.path("h")):
        firewall.clear()
        firewall.start()
        firewall.apply(HOST, OPS)
    return firewall


@pytest.fixture(params=["tcp", "udp"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


pytestmark = pytest.mark.usefixtures("firewall")


def test_masquerade_by_subnet(lab: Lab, protocol: str) -> None:
    """A network without masquerade keeps its addresses; the neighbour here has a route back."""
    seen = {client: lab.source(protocol, client, ADDRESS["out"], 80, "out") for client in ("a1", "b1", "c1")}

    assert seen == {"a1": HOST_A, "b1": ADDRESS["b1"], "c1": HOST_A}
    assert lab.source(protocol, "a1", "fd99::2", 80, "out") == "fd99::1"


@pytest.mark.parametrize("promise", BLOCKED)
def test_blocked(lab: Lab, promise: str) -> None:
    assert lab.answered(*BLOCKED[promise]) == []


def test_control(lab: Lab) -> None:
    """The blocks above are ours: without our tables each of these flows is answered."""
    flows = [flow for found in BLOCKED.values() for flow in found]
    lab.nft("flush ruleset")

    assert lab.answered(*flows, within=ANSWERED_WITHIN) == [(protocol, *flow) for flow in flows for protocol in KINDS]


def test_networks_reach_each_other_by_published_ports(lab: Lab, protocol: str) -> None:
    assert lab.source(protocol, "a1", HOST_A, 8090, "b1") == ADDRESS["a1"]
    assert lab.source(protocol, "c1", HOST_A, 8080, "a1") == ADDRESS["c1"]


def test_same_network(lab: Lab, protocol: str) -> None:
    assert lab.source(protocol, "a1", ADDRESS["a2"], 80, "a2") == ADDRESS["a1"]
    assert lab.source(protocol, "i1", ADDRESS["i2"], 80, "i2") == ADDRESS["i1"]


def test_icc_off_leaves_host_and_published_ports(lab: Lab, protocol: str) -> None:
    assert lab.source(protocol, "c1", "172.22.0.1", 80, "h") == ADDRESS["c1"]
    assert lab.source(protocol, "c1", "fd22::1", 80, "h") == "fd22::2"
    assert lab.source(protocol, "c1", HOST_A, 8091, "c2") == "172.22.0.1"


def test_icc_off_cannot_be_gone_round_by_the_host(lab: Lab, firewall: Firewall) -> None:
    """A frame for the gateway's MAC with a neighbour's address in it passes the bridge, and is routed back to the same bridge."""
    lab.ip("c1", f"route replace {ADDRESS['c2']}/32 via 172.22.0.1")
    try:
        with entered(lab.path("h")):
            firewall.apply(HOST, [Remove(op=op) for op in BLOCKED_PEERS if op.link == "v-c2"])  # or its answers would be blocked anyway
        by_the_host = lab.answered(("c1", ADDRESS["c2"], 80))
        lab.nft("flush ruleset")
        unprotected = lab.answered(("c1", ADDRESS["c2"], 80), within=ANSWERED_WITHIN)
    finally:
        lab.ip("c1", f"route del {ADDRESS['c2']}/32 via 172.22.0.1")

    assert by_the_host == []
    assert len(unprotected) == 2


def test_blocked_peers_alone(lab: Lab, firewall: Firewall) -> None:
    """The bridge's side of icc=false does not need the host's, and opens again."""
    with entered(lab.path("h")):
        firewall.apply(HOST, [Isolate(bridge="brC", subnets=("172.22.0.0/24",))])
        blocked = lab.answered(("c1", ADDRESS["c2"], 80))
        firewall.apply(HOST, [Remove(op=op) for op in BLOCKED_PEERS])

    assert blocked == []
    assert len(lab.answered(("c1", ADDRESS["c2"], 80), within=ANSWERED_WITHIN)) == 2


def test_internal(lab: Lab, protocol: str) -> None:
    """Out of reach is what leaves the host; the host itself is not."""
    assert lab.source(protocol, "i1", "172.23.0.1", 80, "h") == ADDRESS["i1"]
    assert lab.source(protocol, "h", ADDRESS["i1"], 80, "i1") == "172.23.0.1"


@pytest.mark.parametrize(
    ("client", "address", "port", "seen"),
    [
        pytest.param("out", HOST_A, 8080, ADDRESS["out"], id="outside"),
        pytest.param("out", "fd99::1", 8080, "fd99::2", id="outside-IPv6"),
        pytest.param("out", HOST_B, 8080, ADDRESS["out"], id="outside-other-address"),
        pytest.param("out", HOST_B, 8082, ADDRESS["out"], id="outside-given-address"),
        pytest.param("out", "fd99::1", 8082, "fd99::2", id="outside-given-address-IPv6"),
        pytest.param("h", HOST_A, 8080, HOST_A, id="host"),
        pytest.param("h", "127.0.0.1", 8080, "172.20.0.1", id="host-by-127.0.0.1"),
        pytest.param("a2", HOST_A, 8080, "172.20.0.1", id="same-network"),
        pytest.param("a2", "172.20.0.1", 8080, "172.20.0.1", id="same-network-by-gateway"),
        pytest.param("a1", HOST_A, 8080, "172.20.0.1", id="itself"),
        pytest.param("a1", "fd99::1", 8080, "fd20::1", id="itself-IPv6"),
        pytest.param("b1", HOST_B, 8082, ADDRESS["b1"], id="other-network-given-address"),
    ],
)
def test_published(lab: Lab, protocol: str, client: str, address: str, port: int, seen: str) -> None:
    assert lab.source(protocol, client, address, port, "a1") == seen


def test_published_on_one_address_only(lab: Lab, protocol: str) -> None:
    assert lab.source(protocol, "h", "127.0.0.1", 8081, "a1", 81) == "172.20.0.1"
    assert lab.refused(protocol, "out", HOST_A, 8082)
    assert lab.refused(protocol, "out", HOST_A, 8081)
    assert lab.refused(protocol, "b1", HOST_A, 8081)


def test_a_published_port_does_not_catch_what_goes_elsewhere(lab: Lab, protocol: str) -> None:
    assert lab.source(protocol, "a2", ADDRESS["out"], 8080, "out", 8080) == HOST_A
    assert lab.source(protocol, "h", ADDRESS["out"], 8080, "out", 8080) == HOST_A


def test_unpublished(lab: Lab, firewall: Firewall, protocol: str) -> None:
    with entered(lab.path("h")):
        firewall.apply(HOST, removal(published(8080, "a1", 80)))

    assert lab.refused(protocol, "out", HOST_A, 8080)


def test_direct(lab: Lab, protocol: str) -> None:
    assert lab.source(protocol, "out", ADDRESS["a1"], 80, "a1") == ADDRESS["out"]
    assert lab.source(protocol, "out", "fd20::2", 80, "a1") == "fd99::2"


def test_direct_no_more(lab: Lab, firewall: Firewall) -> None:
    with entered(lab.path("h")):
        firewall.apply(HOST, removal(direct("a1", 80)))

    assert lab.answered(("out", ADDRESS["a1"], 80)) == []


SYN, RST, SYN_ACK = 0x02, 0x04, 0x12


@pytest.mark.parametrize("attacker", ["out", "a2"])
def test_raw_frames_for_loopback(lab: Lab, attacker: str) -> None:
    """CVE-2020-8558, with DNAT on top: 127.0.0.1:8081 is for the host only."""
    attack = tcp_packet(ADDRESS[attacker], 40000, "127.0.0.1", 8081, SYN)
    answer = tcp_packet("127.0.0.1", 8081, ADDRESS[attacker], 40000, SYN_ACK)
    # The host must know the attacker's MAC: it would ask for it in the name of 127.0.0.1, and get no answer.
    assert lab.source("tcp", attacker, HOST_A, 80, "h") == ADDRESS[attacker]

    with wire(lab, attacker) as listening:
        send_to_host(lab, attacker, attack)
        assert not comes_by(listening, answer, BLOCKED_AFTER)

        lab.nft("flush chain inet netplug raw")
        send_to_host(lab, attacker, attack)
        assert comes_by(listening, answer, ANSWERED_WITHIN)


def test_raw_frames_from_loopback(lab: Lab) -> None:
    """Services of the host trust 127.0.0.1. By itself the kernel takes such a sender from a wire only where accept_local is set."""
    attack = udp_packet("127.0.0.1", 40000, HOST_A, 80, b"trust me")
    lab.set("net/ipv4/conf/brA/accept_local", 1)
    try:
        send_to_host(lab, "a2", attack)
        assert lab.receives("h", 80, BLOCKED_AFTER) == b""

        lab.nft("flush chain inet netplug raw")
        send_to_host(lab, "a2", attack)
        assert lab.receives("h", 80, ANSWERED_WITHIN) == b"trust me"
    finally:
        lab.set("net/ipv4/conf/brA/accept_local", 0)


def test_nothing_leaves_without_masquerade(lab: Lab) -> None:
    """Packets that conntrack makes nothing of have no NAT: a reset of an unknown connection, for example."""
    stray = tcp_packet(ADDRESS["a2"], 40000, ADDRESS["out"], 80, RST)

    with wire(lab, "out") as listening:
        send_to_host(lab, "a2", stray)
        assert not comes_by(listening, stray, BLOCKED_AFTER)

        lab.nft("flush ruleset")
        send_to_host(lab, "a2", stray)
        assert comes_by(listening, stray, ANSWERED_WITHIN)


def test_the_administrators_drop_wins(lab: Lab, firewall: Firewall) -> None:
    """Over what we allow, on live connections too, and after we load our rules again."""
    asking, answering = lab.stream("out", HOST_A, 8080, "a1")
    with asking, answering:
        lab.nft("add rule inet netplug user tcp dport { 80, 81 } drop")
        with entered(lab.path("h")):
            firewall.start()
            firewall.replace(OPS)
        asking.send(b"late")
        with pytest.raises(TimeoutError):
            answering.recv(10)
    assert lab.answered(("out", HOST_A, 8080)) == [("udp", "out", HOST_A, 8080)]


def test_the_administrators_drop_on_a_bridge(lab: Lab) -> None:
    lab.nft("add rule bridge netplug user ether type ip drop")

    assert lab.answered(("a1", ADDRESS["a2"], 80)) == []


def test_allowed_packets_carry_our_mark(lab: Lab) -> None:
    """Another tool that drops by default lets us through by one rule."""
    lab.nft("""
        table inet other {
            chain forward { type filter hook forward priority 0; policy drop; meta mark & 0x1000 == 0x1000 accept; }
        }""")
    try:
        assert lab.source("tcp", "out", HOST_A, 8080, "a1") == ADDRESS["out"]
        assert lab.source("tcp", "a1", ADDRESS["out"], 80, "out") == HOST_A
        lab.nft("flush chain inet other forward")
        assert lab.answered(("out", HOST_A, 8080)) == []
    finally:
        lab.nft("delete table inet other")


def test_replacing_everything_is_not_noticed(lab: Lab, firewall: Firewall) -> None:
    """No connection falls into a gap while all elements are exchanged again and again."""

    def exchange() -> None:
        with entered(lab.path("h")):
            for _ in range(20):
                firewall.replace(OPS)

    connections = 0
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(exchange)
        while not done.done():
            assert lab.source("tcp", "out", HOST_A, 8080, "a1") == ADDRESS["out"]
            connections += 1
        done.result()
    assert connections > 20


def test_resolver_redirect(lab: Lab, firewall: Firewall) -> None:
    """127.0.0.11:53 leads to the resolver's ports, also where the container has a DNS server of its own on all addresses."""
    inside = lab.path("b1")
    lab.serve("b1", 53)
    lab.serve("b1", 40001, 40002, address="127.0.0.11")

    for port in (40001, 40002):
        firewall.apply(inside, [DnsRedirect(udp_port=port, tcp_port=port)])
        assert lab.source("udp", "b1", "127.0.0.11", 53, "b1", port) == "127.0.0.1"
        assert lab.source("tcp", "b1", "127.0.0.11", 53, "b1", port) == "127.0.0.1"
    assert lab.source("udp", "b1", "127.0.0.1", 53, "b1", 53) == "127.0.0.1"

    firewall.apply(inside, [Remove(op=DnsRedirect(udp_port=40002, tcp_port=40002))])
    assert lab.source("tcp", "b1", "127.0.0.11", 53, "b1", 53) == "127.0.0.1"


def test_resolver_redirect_unconnected(lab: Lab, firewall: Firewall) -> None:
    """The answer carries the address that was asked, as resolvers that do not connect(2) require."""
    lab.serve("a2", 40003, address="127.0.0.11")
    firewall.apply(lab.path("a2"), [DnsRedirect(udp_port=40003, tcp_port=40003)])

    with open_socket(lab.path("a2"), socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(ANSWERED_WITHIN)
        asking.sendto(b"question", ("127.0.0.11", 53))
        with lab.servers_answering():
            assert asking.recvfrom(100) == (b"question", ("127.0.0.11", 53))
