"""Anti-spoofing: what a container may say that it is, to its neighbours and to the host. Frames forged in c1, with c2 listening."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from netplug.kernel.firewall.elements import link_local
from netplug.plan import FirewallOp
from tests.kernel.firewall_frames import passing
from tests.kernel.firewall_lab import ADDRESS, ADDRESS6, ANSWERED_WITHIN, MAC, Addresses, Lab
from tests.kernel.firewall_rules import HostFirewall, guard, isolate, masquerade, published

OWN, NEIGHBOUR, FOREIGN = Lab.mac("c1"), Lab.mac("c2"), "02:42:66:66:66:66"
EVERYBODY = "ff:ff:ff:ff:ff:ff"
ME, YOU, VICTIM = ADDRESS["c1"], ADDRESS["c2"], ADDRESS["c3"]
ME6, YOU6, VICTIM6 = ADDRESS6["c1"], ADDRESS6["c2"], ADDRESS6["c3"]
LOCAL, VICTIM_LOCAL = link_local(OWN), link_local(Lab.mac("c3"))
GATEWAY, GATEWAY6 = ADDRESS["gatewayC"], ADDRESS6["gatewayC"]
DATA = UDP(sport=1000, dport=2000) / Raw(b"data")

PEERS: list[FirewallOp] = [guard(name, antispoof=True) for name in ("c1", "c2", "c3")]


def ether(source: str = OWN, target: str = NEIGHBOUR) -> Ether:
    return Ether(src=source, dst=target)


def says(source: str, hardware: str = OWN, *, operation: str = "is-at", target: str = YOU, outer: str = OWN) -> Packet:
    return Ether(src=outer, dst=EVERYBODY) / ARP(op=operation, hwsrc=hardware, psrc=source, hwdst=NEIGHBOUR, pdst=target)


def advertises(target: str, source: str = ME6, extension: Packet | None = None) -> Packet:
    head = IPv6(src=source, dst=YOU6, hlim=255)
    return (
        ether()
        / (head / extension if extension is not None else head)
        / ICMPv6ND_NA(tgt=target, R=0, S=1, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=OWN)
    )


def solicits(target: str, source: str, outer: str = OWN) -> Packet:
    return Ether(src=outer, dst="33:33:ff:00:00:03") / IPv6(src=source, dst="ff02::1:ff00:3", hlim=255) / ICMPv6ND_NS(tgt=target)


def joins(source: str, outer: str = OWN) -> Packet:
    """An MLDv2 report (RFC 3810), which has a hop-by-hop header before it."""
    report = ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(dst="ff02::1:ff00:2")])
    head = IPv6(src=source, dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    return Ether(src=outer, dst="33:33:00:00:00:16") / head / report


def framed(packets: Mapping[str, Packet]) -> dict[str, bytes]:
    return {name: bytes(packet) for name, packet in packets.items()}


LAST = bytes(ether() / IP(src=ME, dst=YOU) / UDP(sport=1, dport=2) / Raw(b"last"))
HONEST = framed(
    {
        "IPv4": ether() / IP(src=ME, dst=YOU) / DATA,
        "IPv6": ether() / IPv6(src=ME6, dst=YOU6) / DATA,
        "IPv6, link-local": ether() / IPv6(src=LOCAL, dst=YOU6) / DATA,
        "ARP request": says(ME, operation="who-has"),
        "ARP reply": says(ME),
        "ARP, gratuitous": says(ME, operation="who-has", target=ME),
        "ARP probe": says("0.0.0.0", operation="who-has"),
        "solicitation": solicits(VICTIM6, ME6) / ICMPv6NDOptSrcLLAddr(lladdr=OWN),
        "solicitation, link-local": solicits(VICTIM6, LOCAL) / ICMPv6NDOptSrcLLAddr(lladdr=OWN),
        "duplicate address detection": solicits(ME6, "::"),
        "duplicate address detection, link-local": solicits(LOCAL, "::"),
        "advertisement": advertises(ME6),
        "advertisement, link-local": advertises(LOCAL, LOCAL),
        "advertisement of the one from the other": advertises(ME6, LOCAL),
        "router solicitation": ether(target="33:33:00:00:00:02") / IPv6(src="::", dst="ff02::2", hlim=255) / ICMPv6ND_RS(),
        "MLD report": joins(LOCAL),
        "MLD report before there is an address": joins("::"),
    }
)
FORGED = framed(
    {
        "MAC, IPv4": ether(FOREIGN) / IP(src=ME, dst=YOU) / DATA,
        "MAC, IPv6": ether(FOREIGN) / IPv6(src=ME6, dst=YOU6) / DATA,
        "MAC, ARP": says(ME, outer=FOREIGN),
        "MAC, ARP, both": says(ME, FOREIGN, outer=FOREIGN),
        "MAC, ARP probe": says("0.0.0.0", FOREIGN, operation="who-has", outer=FOREIGN),
        "MAC, duplicate address detection": solicits(ME6, "::", FOREIGN),
        "MAC, MLD report": joins("::", FOREIGN),
        "IPv4": ether() / IP(src=VICTIM, dst=YOU) / DATA,
        "IPv4, TCP": ether() / IP(src=VICTIM, dst=YOU) / TCP(sport=1000, dport=80),
        "IPv4, gateway's": ether() / IP(src=GATEWAY, dst=YOU) / ICMP(),
        "IPv4, from elsewhere": ether() / IP(src="198.51.100.1", dst=YOU) / DATA,
        "DHCP": ether(target=EVERYBODY) / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / Raw(b"discover"),
        "IPv6": ether() / IPv6(src=VICTIM6, dst=YOU6) / DATA,
        "IPv6, link-local": ether() / IPv6(src=VICTIM_LOCAL, dst=YOU6) / DATA,
        "IPv6, from nowhere": ether() / IPv6(src="::", dst=YOU6) / DATA,
        "ARP reply": says(VICTIM),
        "ARP reply, gateway's": says(GATEWAY),
        "ARP request": says(VICTIM, operation="who-has"),
        "ARP, gratuitous": says(VICTIM, operation="who-has", target=VICTIM),
        "ARP, inner hardware address": says(ME, FOREIGN),
        "ARP probe, inner hardware address": says("0.0.0.0", FOREIGN, operation="who-has"),
        "ARP reply from 0.0.0.0": says("0.0.0.0"),
        "advertisement": advertises(VICTIM6),
        "advertisement, gateway's": advertises(GATEWAY6),
        "advertisement, link-local": advertises(VICTIM_LOCAL, LOCAL),
        "advertisement behind an extension": advertises(VICTIM6, extension=IPv6ExtHdrDestOpt()),
        "advertisement in the victim's name": advertises(VICTIM6, VICTIM6),
        "solicitation in the victim's name": solicits(YOU6, VICTIM6) / ICMPv6NDOptSrcLLAddr(lladdr=OWN),
        "duplicate address detection of another's": solicits(VICTIM6, "::"),
        "router advertisement": ether()
        / IPv6(src=LOCAL, dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=0),  # taken for true in the control
        "VLAN tag": ether() / Dot1Q(vlan=0) / IP(src=ME, dst=YOU) / UDP() / Raw(b"tagged"),
        "RARP": Ether(src=OWN, dst=EVERYBODY, type=0x8035) / Raw(b"reverse"),
        "MPLS": Ether(src=OWN, dst=NEIGHBOUR, type=0x8847) / Raw(b"label"),
        "LLDP": Ether(src=OWN, dst=NEIGHBOUR, type=0x88CC) / Raw(b"discovery"),
    }
)


@pytest.fixture(autouse=True)
def network(lab: Lab, firewall: HostFirewall) -> Iterator[None]:
    lab.ip("h", "link set brC type bridge mcast_snooping 0")  # it would keep reports from all but routers
    firewall.apply(isolate("C"), *masquerade("C"), *PEERS, *published(8091, "c2", 80))
    try:
        yield
    finally:
        forget_neighbours(lab)


def forget_neighbours(lab: Lab) -> None:
    for name in ("c1", "c2", "c3"):
        lab.ip(name, "neigh flush dev eth0")
    lab.ip("h", "neigh flush dev brC")


def test_honest_frames_pass(lab: Lab) -> None:
    assert passing(lab, "c1", "c2", HONEST, LAST) == set(HONEST)


def test_forged_frames_are_dropped(lab: Lab) -> None:
    assert passing(lab, "c1", "c2", FORGED, LAST) == set()


def test_control(lab: Lab, firewall: HostFirewall) -> None:
    """Without the guard of its port, and with all else, every forged frame gets through."""
    firewall.remove(guard("c1", antispoof=True))

    assert passing(lab, "c1", "c2", FORGED, LAST) == set(FORGED)


def test_forged_frames_teach_the_bridge_nothing(lab: Lab) -> None:
    """Else a forged source would lead the victim's traffic to the forger's port."""
    victim = {"MAC": bytes(ether(Lab.mac("c3")) / IP(src=ME, dst=YOU) / DATA)}
    lab.source("udp", "c3", YOU, 80, "c2")

    assert passing(lab, "c1", "c2", victim, LAST) == set()
    assert lab.source("udp", "c2", VICTIM, 80, "c3") == YOU


def test_a_guard_is_for_its_own_port(lab: Lab) -> None:
    """The neighbour's frames, sent by the neighbour, are honest; sent here they are not."""
    frames = {"neighbour's": bytes(Ether(src=Lab.mac("c3"), dst=NEIGHBOUR) / IP(src=VICTIM, dst=YOU) / DATA)}
    last = bytes(Ether(src=Lab.mac("c3"), dst=NEIGHBOUR) / IP(src=VICTIM, dst=YOU) / UDP() / Raw(b"last"))

    assert passing(lab, "c1", "c2", frames, LAST) == set()
    assert passing(lab, "c3", "c2", frames, last) == {"neighbour's"}


def test_everything_honest_goes_on(lab: Lab, protocol: str, ip: Addresses) -> None:
    """Also the finding of neighbours, from nothing."""
    forget_neighbours(lab)

    assert lab.source(protocol, "c1", ip["c2"], 80, "c2") == ip["c1"]
    assert lab.source(protocol, "c1", ip["gatewayC"], 80, "h") == ip["c1"]
    assert lab.source(protocol, "h", ip["c1"], 80, "c1") == ip["gatewayC"]
    assert lab.source(protocol, "c1", ip["out"], 80, "out") == ip["h"]
    assert lab.source(protocol, "out", ip["h"], 8091, "c2") == ip["out"]
    assert lab.source(protocol, "c1", ip["h"], 8091, "c2") == ip["gatewayC"]


def test_an_address_of_its_own_making(lab: Lab, firewall: HostFirewall) -> None:
    """By its own means a container gets no further address; without antispoof it does."""
    lab.ip("c1", "addr add 172.22.0.99/24 dev eth0", f"route replace {YOU}/32 dev eth0 src 172.22.0.99")
    try:
        blocked = lab.answered(("c1", YOU, 80))
        firewall.remove(guard("c1", antispoof=True))
        opened = lab.answered(("c1", YOU, 80), within=ANSWERED_WITHIN)
    finally:
        lab.ip("c1", f"route del {YOU}/32 dev eth0", "addr del 172.22.0.99/24 dev eth0")

    assert blocked == []
    assert len(opened) == 2


def test_with_icc_off(lab: Lab, firewall: HostFirewall, protocol: str, ip: Addresses) -> None:
    apart(firewall, antispoof=True)

    assert lab.source(protocol, "c1", ip["out"], 80, "out") == ip["h"]
    assert lab.answered(("c1", ip["c2"], 80)) == []


def test_forged_frames_with_icc_off(lab: Lab, firewall: HostFirewall) -> None:
    """The host hears what is honest, and nothing else; the neighbour hears neither."""
    last = bytes(says(ME))
    to_host = {name: bytes.fromhex(MAC["C"].replace(":", "")) + frame[6:] for name, frame in FORGED.items()}

    apart(firewall, antispoof=True)
    assert passing(lab, "c1", "c2", FORGED, last) == set()
    assert passing(lab, "c1", "c2", {"IPv4": HONEST["IPv4"], "ARP": HONEST["ARP request"]}, last) == {"ARP"}
    assert passing(lab, "c1", "h", to_host, last, "brC") == set()

    apart(firewall, antispoof=False)
    assert passing(lab, "c1", "h", to_host, last, "brC") == set(FORGED)


def apart(firewall: HostFirewall, *, antispoof: bool) -> None:
    guards = [guard(name, antispoof=antispoof, icc=False) for name in ("c1", "c2", "c3")]
    firewall.replace([isolate("C", icc=False), *masquerade("C"), *guards])
    forget_neighbours(firewall.lab)
