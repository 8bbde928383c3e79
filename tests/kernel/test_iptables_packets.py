"""What only iptables has, with real packets; all else is in the packet tests of every backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from netplug.kernel.namespaces import entered
from netplug.plan import FirewallOp
from tests.kernel.firewall_frames import comes_by, send_to_host, tcp_packet, wire
from tests.kernel.firewall_lab import ADDRESS, ANSWERED_WITHIN, Lab
from tests.kernel.firewall_rules import HostFirewall, direct, isolate, masquerade, published
from tests.kernel.test_iptables import run

pytestmark = pytest.mark.parametrize("firewall", ["iptables-nft", "iptables-legacy"], indirect=True)

OPS: list[FirewallOp] = [isolate("A"), *masquerade("A"), isolate("B"), *published(8080, "a1", 80), *direct("a1", 80)]
LOOPBACK = published(8081, ADDRESS["a1"], 81, "127.0.0.1")
SYN, SYN_ACK = 0x02, 0x12


@pytest.fixture
def program(request: pytest.FixtureRequest, firewall: HostFirewall) -> str:
    """`iptables-nft` or `iptables-legacy`; there are networks."""
    firewall.apply(*OPS)
    return str(request.node.callspec.params["firewall"])


def test_the_administrators_drop_wins_in_iptables(lab: Lab, firewall: HostFirewall, program: str) -> None:
    """Over what we allow, on live connections too, and after we load our rules again."""
    asking, answering = lab.stream("out", ADDRESS["h"], 8080, "a1")
    with asking, answering:
        with entered(lab.path("h")):
            run(program, "-A", "NETPLUG-USER", "-p", "tcp", "--dport", "80", "-j", "DROP")
        firewall.start()
        firewall.replace([*OPS, *LOOPBACK])
        asking.send(b"late")
        with pytest.raises(TimeoutError):
            answering.recv(10)
    assert lab.answered(("out", ADDRESS["h"], 8080)) == [("udp", "out", ADDRESS["h"], 8080)]


def test_packets_allowed_by_iptables_carry_our_mark(lab: Lab, program: str) -> None:
    """Another tool that drops by default, after iptables, lets us through by one rule."""
    lab.nft("""
        table inet other {
            chain forward { type filter hook forward priority 10; policy drop; meta mark & 0x1000 == 0x1000 accept; }
        }""")
    try:
        assert lab.source("tcp", "out", ADDRESS["h"], 8080, "a1") == ADDRESS["out"]
        assert lab.source("tcp", "a1", ADDRESS["out"], 80, "out") == ADDRESS["h"]
        lab.nft("flush chain inet other forward")
        assert lab.answered(("out", ADDRESS["h"], 8080)) == []
    finally:
        lab.nft("delete table inet other")


def test_policy_drop_of_iptables_is_for_others(lab: Lab, firewall: HostFirewall, program: str) -> None:
    with entered(lab.path("h")):
        run(program, "-P", "FORWARD", "DROP")
    try:
        assert lab.source("tcp", "out", ADDRESS["h"], 8080, "a1") == ADDRESS["out"]
        assert lab.source("tcp", "a1", ADDRESS["out"], 80, "out") == ADDRESS["h"]
        firewall.clear()
        assert lab.answered(("out", ADDRESS["a1"], 80)) == []
    finally:
        with entered(lab.path("h")):
            run(program, "-P", "FORWARD", "ACCEPT")


def test_loopback_without_the_raw_rules_of_iptables(lab: Lab, firewall: HostFirewall, program: str) -> None:
    """The control of the tests with raw frames: it is these rules that keep them out."""
    firewall.apply(*LOOPBACK)
    assert lab.source("tcp", "out", ADDRESS["h"], 80, "h") == ADDRESS["out"]
    with entered(lab.path("h")):
        run(program, "-t", "raw", "-F", "NETPLUG-PREROUTING")

    with wire(lab, "out") as listening:
        send_to_host(lab, "out", tcp_packet(ADDRESS["out"], 40000, "127.0.0.1", 8081, SYN))
        assert comes_by(listening, tcp_packet("127.0.0.1", 8081, ADDRESS["out"], 40000, SYN_ACK), ANSWERED_WITHIN)


def test_exchanging_iptables_rules_is_not_noticed(lab: Lab, firewall: HostFirewall, program: str) -> None:
    """No connection falls into a gap while chains are written anew again and again."""

    def exchange() -> None:
        for number in range(20):
            others = [isolate("C"), *masquerade("C")] if number % 2 else []
            firewall.replace([*others, *OPS, *(LOOPBACK if number % 2 else [])])

    connections = 0
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(exchange)
        while not done.done():
            assert lab.source("tcp", "out", ADDRESS["h"], 8080, "a1") == ADDRESS["out"]
            assert lab.answered(("b1", ADDRESS["a1"], 80), within=0.05) == []
            connections += 1
        done.result()
    assert connections > 1
