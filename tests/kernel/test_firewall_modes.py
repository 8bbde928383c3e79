"""How a network is reached from elsewhere (gateway modes by IP version, trusted interfaces, an accepted mark), and as whom it goes out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netplug.plan import FirewallOp, GatewayMode, Masquerade
from tests.kernel.firewall_lab import ADDRESS, ADDRESS6, ANSWERED_WITHIN, BLOCKED_AFTER, KINDS, SUBNETS, Addresses, Lab
from tests.kernel.firewall_rules import BACKENDS, HostFirewall, direct, isolate, make, masquerade, published

ELSEWHERE: list[FirewallOp] = [isolate("B"), isolate("I", internal=True)]


def in_mode(ip: Addresses, mode: GatewayMode) -> FirewallOp:
    """Network A, by IPv4 or IPv6; the other version is in another mode, which must make no difference."""
    other: GatewayMode = "nat-unprotected" if mode == "nat" else "nat"
    return isolate("A", mode4=mode, mode6=other) if ip is ADDRESS else isolate("A", mode4=other, mode6=mode)


def reached(lab: Lab, *flows: tuple[str, str, int]) -> bool:
    """Whether all of them are answered, by TCP and UDP."""
    return len(lab.answered(*flows, within=ANSWERED_WITHIN)) == len(flows) * len(KINDS)


def test_nat(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(in_mode(ip, "nat"), *ELSEWHERE, *masquerade("A"), *published(8080, "a1", 80))

    assert lab.sources("out", ip["h"], 8080, "a1") == {ip["out"]}
    assert lab.answered(("out", ip["a1"], 80), ("out", ip["a1"], 81), ("b1", ip["a1"], 80)) == []
    assert not lab.pings("out", ip["a1"], BLOCKED_AFTER)
    assert lab.sources("a1", ip["out"], 80, "out") == {ip["h"]}


def test_routed(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """Published ports and ping, by the container's own address, from outside; there is no NAT on the way out either."""
    firewall.apply(in_mode(ip, "routed"), *ELSEWHERE, *direct("a1", 80))

    assert lab.sources("out", ip["a1"], 80, "a1") == {ip["out"]}
    assert lab.pings("out", ip["a1"])
    assert lab.answered(("out", ip["a1"], 81), ("b1", ip["a1"], 80), ("b1", ip["a1"], 81), ("i1", ip["a1"], 80)) == []
    assert not lab.pings("b1", ip["a1"], BLOCKED_AFTER)
    assert lab.sources("a1", ip["out"], 80, "out") == {ip["a1"]}


def test_unprotected(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """Everything, by the container's own address, from outside; published ports too."""
    firewall.apply(in_mode(ip, "nat-unprotected"), *ELSEWHERE, *masquerade("A"), *published(8080, "a1", 80))

    assert lab.sources("out", ip["a1"], 81, "a1", 81) == {ip["out"]}
    assert lab.pings("out", ip["a1"])
    assert lab.sources("out", ip["h"], 8080, "a1") == {ip["out"]}
    assert lab.sources("b1", ip["h"], 8080, "a1") == {ip["b1"]}
    assert lab.answered(("b1", ip["a1"], 80), ("b1", ip["a1"], 81), ("i1", ip["a1"], 80)) == []
    assert not lab.pings("b1", ip["a1"], BLOCKED_AFTER)


@pytest.mark.parametrize("mode", ["nat", "routed", "nat-unprotected"])
def test_control(lab: Lab, firewall: HostFirewall, ip: Addresses, mode: GatewayMode) -> None:
    """Without the firewall the same network is reached by everybody, by every port."""
    firewall.apply(in_mode(ip, mode), *ELSEWHERE)
    firewall.clear()

    assert reached(lab, ("out", ip["a1"], 80), ("out", ip["a1"], 81), ("b1", ip["a1"], 80), ("b1", ip["a1"], 81), ("i1", ip["a1"], 80))
    assert lab.pings("b1", ip["a1"])
    assert lab.pings("out", ip["a1"])


def test_a_mode_ends(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(in_mode(ip, "nat-unprotected"), *ELSEWHERE)
    firewall.remove(in_mode(ip, "nat-unprotected"))
    firewall.apply(in_mode(ip, "nat"))

    assert lab.answered(("out", ip["a1"], 80)) == []


def test_trusted_interface(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """Everybody behind it, by any port; nobody behind another."""
    firewall.apply(isolate("A", trusted=("up1",)), isolate("B"))

    assert lab.sources("vpn", ip["a1"], 81, "a1", 81) == {ip["vpn"]}
    assert lab.answered(("out", ip["a1"], 81), ("vpn", ip["b1"], 81)) == []

    firewall.remove(isolate("A", trusted=("up1",)))
    firewall.apply(isolate("A"))
    assert lab.answered(("vpn", ip["a1"], 81)) == []


def test_trust_is_never_between_networks(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(isolate("A", trusted=("brB", "up1")), isolate("B"), isolate("I", internal=True, trusted=("up1",)))

    assert lab.answered(("b1", ip["a1"], 80), ("vpn", ip["i1"], 80)) == []
    assert reached(lab, ("vpn", ip["a1"], 80))


@pytest.fixture(params=BACKENDS)
def marked(lab: Lab, request: pytest.FixtureRequest) -> Iterator[HostFirewall]:
    """Accepts mark 0x100/0x300, which all that comes from `out` and `b1` carries."""
    firewall = HostFirewall(lab, make(request.param, accept_mark="0x100/0x300"))
    firewall.clear()
    firewall.start()
    lab.nft("""
        table inet marking {
            chain prerouting { type filter hook prerouting priority -200; iifname { "up0", "brB" } meta mark set 0x501; }
        }""")
    try:
        yield firewall
    finally:
        lab.nft("delete table inet marking")
        firewall.clear()


def test_accepted_mark(lab: Lab, marked: HostFirewall, ip: Addresses) -> None:
    """Who carries it comes into every network, internal ones too: as with Docker, an administrator who marks packets knows why."""
    marked.apply(isolate("A"), *ELSEWHERE)
    flows = [("out", ip["a1"], 81), ("out", ip["i1"], 80), ("b1", ip["a1"], 81)]

    assert reached(lab, *flows)
    assert lab.answered(("vpn", ip["a1"], 81), ("i1", ip["out"], 80)) == []

    lab.nft("""
        flush chain inet marking prerouting
        add rule inet marking prerouting iifname { "up0", "brB" } meta mark set 0x301""")
    assert lab.answered(*flows) == []


def test_fixed_source(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """One subnet goes out as one of the host's addresses, whichever the interface has first; the others as ever."""
    fixed = [Masquerade(subnet=subnet, source=known["h2"]) for subnet, known in zip(SUBNETS["A"], (ADDRESS, ADDRESS6), strict=True)]
    firewall.apply(isolate("A"), isolate("B"), *masquerade("B"), *fixed, *published(8080, "a1", 80), *published(8090, "b1", 80))

    assert lab.sources("a1", ip["out"], 80, "out") == {ip["h2"]}
    assert lab.sources("b1", ip["out"], 80, "out") == {ip["h"]}
    assert lab.sources("a1", ip["h"], 8090, "b1") == {ip["a1"]}
    assert lab.sources("a2", ip["h"], 8080, "a1") == {ip["gatewayA"]}

    firewall.remove(*fixed)
    assert lab.sources("a2", ip["out"], 80, "out") == {ip["a2"]}
