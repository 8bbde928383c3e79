"""What the firewall does to real packets: networks and published ports. Each test names the promise; the control shows that it is the
firewall that keeps them."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from netplug.kernel.namespaces import open_socket
from netplug.plan import DnsRedirect, FirewallOp
from tests.kernel.firewall_frames import comes_by, send_to_host, tcp_packet, udp_packet, wire
from tests.kernel.firewall_lab import ADDRESS, ADDRESS6, ANSWERED_WITHIN, BLOCKED_AFTER, KINDS, Addresses, Lab
from tests.kernel.firewall_rules import HostFirewall, direct, guard, isolate, masquerade, nftables_only, published

BLOCKED_PEERS = [guard(name, icc=False) for name in ("c1", "c2", "c3")]
OPS: list[FirewallOp] = [
    isolate("A"),
    *masquerade("A"),
    isolate("B"),
    isolate("C", icc=False),
    *masquerade("C"),
    *BLOCKED_PEERS,
    isolate("I", internal=True),
    *published(8080, "a1", 80),
    *direct("a1", 80),
    *published(8081, ADDRESS["a1"], 81, "127.0.0.1"),
    *published(8082, "a1", 80, "h2"),
    *published(8090, "b1", 80),
    *direct("b1", 80),
    *published(8091, "c2", 80),
]


def by_both(client: str, server: str, port: int) -> list[tuple[str, str, int]]:
    """A flow by IPv4 and by IPv6."""
    return [(client, known[server], port) for known in (ADDRESS, ADDRESS6)]


BLOCKED = {
    "another network, by container address": [*by_both("a1", "b1", 80), *by_both("a1", "b1", 81), *by_both("b1", "a1", 80)],
    "icc=false": [*by_both("c1", "c2", 80), *by_both("c2", "c1", 80), *by_both("c1", "c2", 81)],
    "internal, out and in": [*by_both("i1", "out", 80), *by_both("out", "i1", 80), *by_both("i1", "a1", 80), *by_both("a1", "i1", 80)],
    "internal, to published ports": [*by_both("i1", "h", 8080), *by_both("i1", "gatewayI", 8080), *by_both("i1", "h2", 8082)],
    "from outside, by container address": [*by_both("out", "a1", 81), *by_both("out", "a2", 80)],
}


@pytest.fixture(autouse=True)
def networks(firewall: HostFirewall) -> None:
    firewall.apply(*OPS)


def test_masquerade_by_subnet(lab: Lab, protocol: str, ip: Addresses) -> None:
    """A network without masquerade keeps its addresses; the neighbour here has a route back."""
    seen = {client: lab.source(protocol, client, ip["out"], 80, "out") for client in ("a1", "b1", "c1")}

    assert seen == {"a1": ip["h"], "b1": ip["b1"], "c1": ip["h"]}


@pytest.mark.parametrize("promise", BLOCKED)
def test_blocked(lab: Lab, promise: str) -> None:
    assert lab.answered(*BLOCKED[promise]) == []


def test_control(lab: Lab, firewall: HostFirewall) -> None:
    """The blocks above are ours: without our rules each of these flows is answered."""
    flows = [flow for found in BLOCKED.values() for flow in found]
    firewall.clear()

    assert lab.answered(*flows, within=ANSWERED_WITHIN) == [(protocol, *flow) for flow in flows for protocol in KINDS]


def test_networks_reach_each_other_by_published_ports(lab: Lab, protocol: str, ip: Addresses) -> None:
    assert lab.source(protocol, "a1", ip["h"], 8090, "b1") == ip["a1"]
    assert lab.source(protocol, "c1", ip["h"], 8080, "a1") == ip["c1"]


def test_same_network(lab: Lab, protocol: str, ip: Addresses) -> None:
    assert lab.source(protocol, "a1", ip["a2"], 80, "a2") == ip["a1"]
    assert lab.source(protocol, "i1", ip["i2"], 80, "i2") == ip["i1"]


def test_icc_off_leaves_host_and_published_ports(lab: Lab, protocol: str, ip: Addresses) -> None:
    assert lab.source(protocol, "c1", ip["gatewayC"], 80, "h") == ip["c1"]
    assert lab.source(protocol, "c1", ip["h"], 8091, "c2") == ip["gatewayC"]


def test_what_icc_off_drops_is_counted_and_counts_are_no_damage(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """Of UDP the last rule drops what it counts, of TCP the one for whoever opens a connection."""

    def counted() -> list[int]:
        return [int(number) for number in re.findall(r"counter packets (\d+) bytes \d+ drop", lab.nft("list chain bridge netplug icc"))]

    before = counted()
    assert firewall.heal() == []
    assert lab.answered(("c1", ip["c2"], 80)) == []
    assert all(later > earlier for later, earlier in zip(counted(), before, strict=True))
    assert len(before) == 2

    lab.nft("add table inet other; delete table inet other")  # else there is no reason to look
    assert firewall.heal() == []
    assert counted() != [0, 0], "nothing was loaded anew"


def test_icc_off_cannot_be_gone_round_by_the_host(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """A frame for the gateway's MAC with a neighbour's address in it passes the bridge, and is routed back to the same bridge."""
    lab.ip("c1", f"route replace {ip['c2']} via {ip['gatewayC']}")
    try:
        firewall.remove(guard("c2", icc=False))  # or its answers would be blocked anyway
        by_the_host = lab.answered(("c1", ip["c2"], 80))
        firewall.clear()
        unprotected = lab.answered(("c1", ip["c2"], 80), within=ANSWERED_WITHIN)
    finally:
        lab.ip("c1", f"route del {ip['c2']} via {ip['gatewayC']}")

    assert by_the_host == []
    assert len(unprotected) == 2


def test_blocked_peers_alone(lab: Lab, firewall: HostFirewall) -> None:
    """The bridge's side of icc=false does not need the host's, and opens again."""
    firewall.remove(isolate("C", icc=False))
    firewall.apply(isolate("C"))
    blocked = lab.answered(*by_both("c1", "c2", 80))
    firewall.remove(*BLOCKED_PEERS)

    assert blocked == []
    assert len(lab.answered(*by_both("c1", "c2", 80), within=ANSWERED_WITHIN)) == 4


def test_internal(lab: Lab, protocol: str, ip: Addresses) -> None:
    """Out of reach is what leaves the host; the host itself is not."""
    assert lab.source(protocol, "i1", ip["gatewayI"], 80, "h") == ip["i1"]
    assert lab.source(protocol, "h", ip["i1"], 80, "i1") == ip["gatewayI"]


@pytest.mark.parametrize(
    ("client", "address", "port", "seen"),
    [
        pytest.param("out", "h", 8080, "out", id="outside"),
        pytest.param("out", "h2", 8080, "out", id="outside-other-address"),
        pytest.param("out", "h2", 8082, "out", id="outside-given-address"),
        pytest.param("h", "h", 8080, "h", id="host"),
        pytest.param("a2", "h", 8080, "gatewayA", id="same-network"),
        pytest.param("a2", "gatewayA", 8080, "gatewayA", id="same-network-by-gateway"),
        pytest.param("a1", "h", 8080, "gatewayA", id="itself"),
        pytest.param("b1", "h2", 8082, "b1", id="other-network-given-address"),
    ],
)
def test_published(lab: Lab, protocol: str, ip: Addresses, client: str, address: str, port: int, seen: str) -> None:
    assert lab.source(protocol, client, ip[address], port, "a1") == ip[seen]


def test_published_for_the_host_by_loopback(lab: Lab, protocol: str) -> None:
    assert lab.source(protocol, "h", "127.0.0.1", 8080, "a1") == ADDRESS["gatewayA"]
    assert lab.source(protocol, "h", "127.0.0.1", 8081, "a1", 81) == ADDRESS["gatewayA"]


def test_ipv6_loopback_is_left_alone(lab: Lab, protocol: str) -> None:
    """The kernel sends nothing with source ::1 anywhere else, so a port there is a forwarder's: DNAT must not take it away."""
    lab.serve("h", 8080, address="::1")

    assert lab.source(protocol, "h", "::1", 8080, "h", 8080) == "::1"


def test_published_on_one_address_only(lab: Lab, protocol: str, ip: Addresses) -> None:
    assert lab.refused(protocol, "out", ip["h"], 8082)
    assert lab.refused(protocol, "out", ip["h"], 8081)
    assert lab.refused(protocol, "b1", ip["h"], 8081)


def test_a_published_port_does_not_catch_what_goes_elsewhere(lab: Lab, protocol: str, ip: Addresses) -> None:
    assert lab.source(protocol, "a2", ip["out"], 8080, "out", 8080) == ip["h"]
    assert lab.source(protocol, "h", ip["out"], 8080, "out", 8080) == ip["h"]


def test_unpublished(lab: Lab, firewall: HostFirewall, protocol: str, ip: Addresses) -> None:
    firewall.remove(*published(8080, "a1", 80))

    assert lab.refused(protocol, "out", ip["h"], 8080)


def test_direct(lab: Lab, protocol: str, ip: Addresses) -> None:
    assert lab.source(protocol, "out", ip["a1"], 80, "a1") == ip["out"]


def test_direct_no_more(lab: Lab, firewall: HostFirewall) -> None:
    firewall.remove(*direct("a1", 80))

    assert lab.answered(*by_both("out", "a1", 80)) == []


SYN, RST, SYN_ACK = 0x02, 0x04, 0x12


@pytest.mark.parametrize("attacker", ["out", "a2"])
def test_raw_frames_for_loopback(lab: Lab, attacker: str) -> None:
    """CVE-2020-8558, with DNAT on top: 127.0.0.1:8081 is for the host only."""
    attack, answer = loopback_attack(lab, attacker)

    with wire(lab, attacker) as listening:
        send_to_host(lab, attacker, attack)
        assert not comes_by(listening, answer, BLOCKED_AFTER)


@nftables_only
@pytest.mark.parametrize("attacker", ["out", "a2"])
def test_raw_frames_for_loopback_control(lab: Lab, attacker: str) -> None:
    attack, answer = loopback_attack(lab, attacker)
    lab.nft("flush chain inet netplug raw")

    with wire(lab, attacker) as listening:
        send_to_host(lab, attacker, attack)
        assert comes_by(listening, answer, ANSWERED_WITHIN)


def loopback_attack(lab: Lab, attacker: str) -> tuple[bytes, bytes]:
    """A packet, and the answer that there must not be."""
    # The host must know the attacker's MAC: it would ask for it in the name of 127.0.0.1, and get no answer.
    assert lab.source("tcp", attacker, ADDRESS["h"], 80, "h") == ADDRESS[attacker]
    return (
        tcp_packet(ADDRESS[attacker], 40000, "127.0.0.1", 8081, SYN),
        tcp_packet("127.0.0.1", 8081, ADDRESS[attacker], 40000, SYN_ACK),
    )


def test_raw_frames_from_loopback(lab: Lab, firewall: HostFirewall) -> None:
    """Services of the host trust 127.0.0.1. By itself the kernel takes such a sender from a wire only where accept_local is set."""
    attack = udp_packet("127.0.0.1", 40000, ADDRESS["h"], 80, b"trust me")
    lab.set("net/ipv4/conf/brA/accept_local", 1)
    try:
        send_to_host(lab, "a2", attack)
        assert lab.receives("h", 80, BLOCKED_AFTER) == b""

        firewall.clear()
        send_to_host(lab, "a2", attack)
        assert lab.receives("h", 80, ANSWERED_WITHIN) == b"trust me"
    finally:
        lab.set("net/ipv4/conf/brA/accept_local", 0)


def test_nothing_leaves_without_masquerade(lab: Lab, firewall: HostFirewall) -> None:
    """Packets that conntrack makes nothing of have no NAT: a reset of an unknown connection, for example."""
    stray = tcp_packet(ADDRESS["a2"], 40000, ADDRESS["out"], 80, RST)

    with wire(lab, "out") as listening:
        send_to_host(lab, "a2", stray)
        assert not comes_by(listening, stray, BLOCKED_AFTER)

        firewall.clear()
        send_to_host(lab, "a2", stray)
        assert comes_by(listening, stray, ANSWERED_WITHIN)


def test_replacing_everything_is_not_noticed(lab: Lab, firewall: HostFirewall) -> None:
    """No connection falls into a gap while all rules are exchanged again and again."""

    def exchange() -> None:
        for _ in range(20):
            firewall.replace(OPS)

    connections = 0
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(exchange)
        while not done.done():
            assert lab.source("tcp", "out", ADDRESS["h"], 8080, "a1") == ADDRESS["out"]
            connections += 1
        done.result()
    assert connections > 20


@nftables_only
def test_the_administrators_drop_wins(lab: Lab, firewall: HostFirewall) -> None:
    """Over what we allow, on live connections too, and after we load our rules again."""
    asking, answering = lab.stream("out", ADDRESS["h"], 8080, "a1")
    with asking, answering:
        lab.nft("add rule inet netplug user tcp dport { 80, 81 } drop")
        firewall.start()
        firewall.replace(OPS)
        asking.send(b"late")
        with pytest.raises(TimeoutError):
            answering.recv(10)
    assert lab.answered(("out", ADDRESS["h"], 8080)) == [("udp", "out", ADDRESS["h"], 8080)]


@nftables_only
def test_the_administrators_drop_on_a_bridge(lab: Lab) -> None:
    lab.nft("add rule bridge netplug user ether type ip drop")

    assert lab.answered(("a1", ADDRESS["a2"], 80)) == []


@nftables_only
def test_allowed_packets_carry_our_mark(lab: Lab) -> None:
    """Another tool that drops by default lets us through by one rule."""
    lab.nft("""
        table inet other {
            chain forward { type filter hook forward priority 0; policy drop; meta mark & 0x1000 == 0x1000 accept; }
        }""")
    try:
        assert lab.source("tcp", "out", ADDRESS["h"], 8080, "a1") == ADDRESS["out"]
        assert lab.source("tcp", "a1", ADDRESS["out"], 80, "out") == ADDRESS["h"]
        lab.nft("flush chain inet other forward")
        assert lab.answered(("out", ADDRESS["h"], 8080)) == []
    finally:
        lab.nft("delete table inet other")


def test_resolver_redirect(lab: Lab, firewall: HostFirewall) -> None:
    """127.0.0.11:53 leads to the resolver's ports, also where the container has a DNS server of its own on all addresses."""
    inside = lab.path("b1")
    lab.serve("b1", 53)
    lab.serve("b1", 40001, 40002, address="127.0.0.11")

    for port in (40001, 40002):
        firewall.apply(DnsRedirect(udp_port=port, tcp_port=port), namespace=inside)
        assert lab.source("udp", "b1", "127.0.0.11", 53, "b1", port) == "127.0.0.1"
        assert lab.source("tcp", "b1", "127.0.0.11", 53, "b1", port) == "127.0.0.1"
    assert lab.source("udp", "b1", "127.0.0.1", 53, "b1", 53) == "127.0.0.1"

    firewall.remove(DnsRedirect(udp_port=40002, tcp_port=40002), namespace=inside)
    assert lab.source("tcp", "b1", "127.0.0.11", 53, "b1", 53) == "127.0.0.1"


def test_resolver_redirect_where_nobody_listens(lab: Lab, firewall: HostFirewall) -> None:
    """A question fails at once, as it does where port 53 itself is closed: no resolver library waits for its time limit."""
    firewall.apply(DnsRedirect(udp_port=40011, tcp_port=40012), namespace=lab.path("b1"))

    assert lab.refused("udp", "b1", "127.0.0.11", 53)
    assert lab.refused("tcp", "b1", "127.0.0.11", 53)


OWN_RULES = """
table inet own {
	chain input {
		type filter hook input priority 0; policy drop;
		ct state established,related accept
		udp dport 40021 accept
		tcp dport 40022 accept
	}
}
"""


def test_resolver_redirect_under_a_containers_own_rules(lab: Lab, firewall: HostFirewall) -> None:
    """Question and answer are of one connection to whatever tracks them."""
    lab.serve("c1", 40021, 40022, address="127.0.0.11")
    firewall.apply(DnsRedirect(udp_port=40021, tcp_port=40022), namespace=lab.path("c1"))
    lab.nft(OWN_RULES, "c1")
    try:
        assert lab.source("udp", "c1", "127.0.0.11", 53, "c1", 40021) == "127.0.0.1"
        assert lab.source("tcp", "c1", "127.0.0.11", 53, "c1", 40022) == "127.0.0.1"
    finally:
        lab.nft("delete table inet own", "c1")


def test_resolver_redirect_unconnected(lab: Lab, firewall: HostFirewall) -> None:
    """The answer carries the address that was asked, as resolvers that do not connect(2) require."""
    lab.serve("a2", 40003, address="127.0.0.11")
    firewall.apply(DnsRedirect(udp_port=40003, tcp_port=40003), namespace=lab.path("a2"))

    with open_socket(lab.path("a2"), socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(ANSWERED_WITHIN)
        asking.sendto(b"question", ("127.0.0.11", 53))
        with lab.servers_answering():
            assert asking.recvfrom(100) == (b"question", ("127.0.0.11", 53))
