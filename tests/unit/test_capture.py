"""What `netplug capture` is made of: pcapng files, filters moved into a tunnel, lines about packets of all sorts, files put in order."""

from __future__ import annotations

import functools
import ipaddress
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cli_fixtures import Cli
from cli_server import Daemon
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRRSRV
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN

from netplug.capture import filters
from netplug.capture.lines import Lines, described
from netplug.capture.merging import recorded
from netplug.capture.output import Output
from netplug.capture.pcapng import Interface, Losses, NoCapture, Packet, Reader, Writer
from netplug.capture.stream import Stream
from netplug.errors import InvalidArgument

ether = functools.partial(Ether, src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
"""Hardware addresses that are not given scapy asks the machine's own network for, and waits for seconds."""

ETH = Interface("web/eth0", "in container web", 1, 96, filter="icmp")
RAW = Interface("tun0", "", 101)
TIME = 1_764_358_000_123_456_789


def packet(layers: object, interface: Interface = ETH, outgoing: bool | None = True) -> Packet:
    data = bytes(layers)  # type: ignore[call-overload]
    return Packet(TIME, interface, data, len(data), outgoing)


def facts(item: Interface | Packet | Losses) -> tuple[object, ...]:
    """Interfaces are known by identity: one that was read is another."""
    match item:
        case Interface():
            return item.name, item.about, item.linktype, item.snaplen, item.filter
        case Losses():
            return item.interface.name, item.received, item.dropped
    return item.time, item.interface.name, item.data, item.length, item.outgoing


def block(order: str, kind: int, body: bytes) -> bytes:
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


# Files


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_is_written_is_read_whatever_the_pieces(size: int):
    writer = Writer("test")
    items = [
        ETH,
        RAW,
        Packet(TIME, ETH, b"abc", 1500, True),
        Packet(TIME + 1, RAW, b"defgh", 5, False),
        Packet(TIME - 1, ETH, b"", 0, None),
        Losses(ETH, 7, 4),
    ]
    blocks = [writer.header, writer.interface(ETH), writer.interface(RAW), writer.interface(ETH)]
    data = b"".join([*blocks, *map(writer.packet, items[2:5]), writer.losses(items[5], TIME)])  # type: ignore[arg-type]
    reader = Reader("x")

    found = [item for at in range(0, len(data), size) for item in reader.feed(data[at : at + size])]

    assert [facts(item) for item in found] == [facts(item) for item in items]
    assert not reader.interrupted


@pytest.mark.parametrize("order", "<>")
def test_what_others_write(order: str):
    """Microseconds, no name, unknown blocks and options, several sections, both byte orders."""
    interface = block(order, 1, struct.pack(f"{order}HHI", 1, 0, 0))
    comment = struct.pack(f"{order}HH4s", 1, 2, b"hi") + struct.pack(f"{order}HHI", 2, 4, 2) + bytes(4)
    high, low = divmod(TIME // 1000, 1 << 32)
    frame = block(order, 6, struct.pack(f"{order}IIIII", 0, high, low, 3, 3) + b"abc\0" + comment)
    unknown = block(order, 0x0BAD, b"whatever")

    found = list(Reader("x").feed((section(order) + unknown + interface + frame) * 2))

    expected = [("if0", "", 1, 0, ""), (TIME // 1000 * 1000, "if0", b"abc", 3, True)]
    assert [facts(item) for item in found] == expected * 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xd4\xc3\xb2\xa1" + bytes(20), "x is no pcapng file (of an older pcap file, editcap(1) makes one)"),
        (b"GET / HTTP/1.1\r\n", "x is no pcapng file (of an older pcap file, editcap(1) makes one)"),
        (section("<") + struct.pack("<II", 6, 1 << 30) + bytes(8), "x: a block of 1073741824 bytes makes no sense"),
        (section("<") + block("<", 6, bytes(20)), "x: block of type 6 makes no sense"),
        (section("<") + block("<", 1, b""), "x: block of type 1 makes no sense"),
    ],
)
def test_what_is_no_capture(data: bytes, reason: str):
    with pytest.raises(NoCapture) as caught:
        list(Reader("x").feed(data))
    assert str(caught.value) == reason


def test_a_file_that_ends_too_early(cli_daemon: Daemon, cli: Cli, tmp_path: Path):
    path = tmp_path / "cut.pcapng"
    output = Output(str(path), [ETH])
    output.packets([packet(ether() / ARP()), packet(ether() / ARP())])
    output.close([])
    path.write_bytes(path.read_bytes()[:-3])

    done = cli("capture", "-r", str(path))

    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert done.err == f"1 packet captured, 0 dropped by the kernel\n{path} ends in the middle of a packet\n"


def test_files_are_put_in_the_order_of_times(tmp_path: Path):
    paths = [tmp_path / name for name in ("one", "two")]
    for number, path in enumerate(paths):
        interface = Interface(path.name)
        output = Output(str(path), [interface])
        output.packets([Packet(TIME + at, interface, bytes([at]), 1) for at in range(number, 6, 2)])
        output.close([Losses(interface, 9, number)])

    found = list(recorded([Stream(str(path)) for path in paths]))

    assert [item.data[0] for item in found if isinstance(item, Packet)] == [0, 1, 2, 3, 4, 5]
    assert [facts(item) for item in found if isinstance(item, Losses)] == [("one", 9, 0), ("two", 9, 1)]


# Filters

TUNNELS = {
    "IPv4": ether() / IP(src="203.0.113.11", dst="203.0.113.12") / UDP(sport=40000, dport=4789) / VXLAN(vni=256),
    "IPv6": ether() / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=40000, dport=4789) / VXLAN(vni=256),
}
INNER = {
    "icmp": ether() / IP() / ICMP(),
    "udp port 53": ether() / IP(options=b"\x01\x01\x01\x01") / UDP(sport=7, dport=53),
    "tcp[tcpflags] & tcp-syn != 0": ether() / IP() / TCP(flags="S"),
    "arp": ether() / ARP(),
    "ip6": ether() / IPv6(),
    "": ether(type=0x88B5) / b"anything",
}


def kept(program: bytes, data: bytes) -> bool:
    """What libpcap's own machine makes of the program; the kernel's is another implementation of the same."""
    import ctypes

    library = ctypes.CDLL("libpcap.so.0.8")
    compiled = filters._Program(len(program) // 8, ctypes.cast(ctypes.create_string_buffer(program), ctypes.c_void_p))
    return bool(library.pcap_offline_filter(ctypes.byref(compiled), ctypes.byref(filters._Header(0, 0, len(data), len(data))), data))


@pytest.mark.parametrize("expression", INNER)
@pytest.mark.parametrize("tunnel", TUNNELS)
def test_a_filter_is_asked_of_what_the_tunnel_carries(tunnel: str, expression: str):
    underlay = str(ipaddress.ip_address(TUNNELS[tunnel].getlayer(1).src))
    program = filters.tunnelled(filters.program(expression), underlay, 256, 4789)

    found = {inner: kept(program, bytes(TUNNELS[tunnel] / INNER[inner])) for inner in INNER}

    assert found == {inner: not expression or inner == expression for inner in INNER}
    assert filters.content(bytes(TUNNELS[tunnel] / INNER["arp"])) == bytes(INNER["arp"])


@pytest.mark.parametrize(
    "frame",
    [
        ether() / IP() / UDP(dport=4789) / VXLAN(vni=257) / INNER["icmp"],
        ether() / IP() / UDP(dport=4790) / VXLAN(vni=256) / INNER["icmp"],
        ether() / IP() / UDP(dport=4789) / VXLAN(vni=256, flags=0) / INNER["icmp"],
        ether() / IP(frag=100) / UDP(dport=4789) / VXLAN(vni=256) / INNER["icmp"],
        ether() / IP() / TCP(dport=4789) / bytes(40),
        INNER["icmp"],
        TUNNELS["IPv6"] / INNER["icmp"],
    ],
)
def test_frames_of_other_tunnels_or_of_none(frame: Ether):
    assert not kept(filters.tunnelled(filters.program("icmp"), "203.0.113.11", 256, 4789), bytes(frame))


def test_a_filter_that_is_none():
    with pytest.raises(InvalidArgument, match=r"filter \"tcp prt 80\": can't parse filter expression: syntax error"):
        filters.program("tcp prt 80")


# Lines

LINES = [
    (ether() / ARP(op=1, psrc="10.0.0.2", pdst="10.0.0.3"), "ARP who has 10.0.0.3? tell 10.0.0.2"),
    (ether() / ARP(op=2, psrc="10.0.0.3", hwsrc="02:42:0a:00:00:03"), "ARP 10.0.0.3 is at 02:42:0a:00:00:03"),
    (ether() / ARP(op=1, psrc="10.0.0.2", pdst="10.0.0.2", hwsrc="02:42:0a:00:00:02"), "ARP 10.0.0.2 is at 02:42:0a:00:00:02 (announced)"),
    (ether() / IP(src="10.0.0.2", dst="10.0.0.3") / ICMP(type=3, code=1), "10.0.0.2 → 10.0.0.3 ICMP host-unreachable"),
    (ether() / IP(src="10.0.0.2", dst="10.0.0.3") / UDP(sport=7, dport=9) / b"abc", "10.0.0.2:7 → 10.0.0.3:9 UDP 3 bytes"),
    (ether() / IPv6(src="fd00::2", dst="fd00::3") / TCP(sport=7, dport=80, flags="PA") / b"GET /x HTTP/1.1\r\nA: b\r\n",
     "[fd00::2]:7 → [fd00::3]:80 TCP PSH ACK 23 bytes GET /x HTTP/1.1"),
    (ether() / IPv6(src="fe80::2", dst="ff02::1") / ICMPv6ND_NS(tgt="fd00::3"), "fe80::2 → ff02::1 ICMPv6 who has fd00::3?"),
    (ether() / IP(src="10.0.0.2", dst="10.0.0.3", proto=17, frag=185) / b"rest", "10.0.0.2 → 10.0.0.3 fragment of UDP from byte 1480"),
    (ether() / IP(src="10.0.0.2", dst="10.0.0.3", proto=47) / b"abc", "10.0.0.2 → 10.0.0.3 GRE 37 bytes"),
    (ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88B5) / b"ab", "02:00:00:00:00:01 → 02:00:00:00:00:02 0x88b5 16 bytes"),
    (ether() / Dot1Q(vlan=10) / IP(src="10.0.0.2", dst="10.0.0.3") / ICMP(seq=4), "VLAN 10 10.0.0.2 → 10.0.0.3 ICMP echo-request 4"),
    (b"", "0 bytes, too few to be read"),
    (b"\x02\x42", "2 bytes, too few to be read"),
]  # fmt: skip
TO, FROM = (IP(src="10.0.0.2", dst="10.0.0.53") / UDP(sport=7, dport=53), IP(src="10.0.0.53", dst="10.0.0.2") / UDP(sport=53, dport=7))
QUESTION = DNSQR(qname="db.", qtype="AAAA")
NAMES = [
    (TO / DNS(qd=QUESTION), "A? db."),
    (FROM / DNS(qr=1, qd=QUESTION, an=[DNSRR(rrname="db.", type="AAAA", rdata="fd00::3"), DNSRR(rrname="db.", rdata="10.0.0.3")]),
     "db. AAAA fd00::3, db. A 10.0.0.3"),
    (FROM / DNS(qr=1, qd=QUESTION), "db. AAAA no such record"),
    (FROM / DNS(qr=1, rcode=3, qd=QUESTION), "db. AAAA NXDOMAIN"),
    (FROM / DNS(qr=1, qd=QUESTION, an=DNSRR(rrname="x.", type="PTR", rdata="web.demo.")), "x. PTR web.demo."),
    (FROM / DNS(qr=1, qd=QUESTION, an=DNSRR(rrname="x.", type="TXT", rdata=[b"a", b"b"])), "x. TXT a, b"),
    (FROM / DNS(qr=1, qd=QUESTION, an=DNSRRSRV(rrname="x.", port=80, target="web.")), "x. SRV web.:80"),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "expected"), LINES, ids=[expected for _, expected in LINES])
def test_what_a_packet_is(layers: object, expected: str):
    assert described(packet(layers)) == expected


@pytest.mark.parametrize(("layers", "expected"), NAMES, ids=[expected for _, expected in NAMES])
def test_names(layers: object, expected: str):
    assert described(packet(ether() / layers)).partition(" DNS ")[2].endswith(expected)


def test_tunnels_in_tunnels():
    ping = ether() / IP(src="10.0.0.2", dst="10.0.0.3") / ICMP(seq=1)
    outer = ether() / IP(src="203.0.113.1", dst="203.0.113.2") / UDP(sport=5, dport=4789) / VXLAN(vni=256)
    assert described(packet(outer / ping)) == "203.0.113.1:5 → 203.0.113.2:4789 VXLAN 256: 10.0.0.2 → 10.0.0.3 ICMP echo-request 1"


def test_other_links():
    assert described(packet(IP(src="10.0.0.2", dst="10.0.0.3") / ICMP(), RAW)) == "10.0.0.2 → 10.0.0.3 ICMP echo-request 0"
    assert described(packet(b"abc", Interface("x", linktype=228))) == "3 bytes of link type 228"


def test_lines_are_aligned_and_harmless(monkeypatch: pytest.MonkeyPatch):
    """A name from the network must not reach the terminal as a command to it."""
    lines = Lines(["demo/br-0123456789ab"])
    evil = ether() / IP(src="10.0.0.2", dst="10.0.0.53") / UDP(dport=40053) / DNS(qd=DNSQR(qname="\x1b[2Jdb.", qtype="A"))

    line = lines.line(packet(evil, Interface("web/lo", dns=(40053, 40054)), outgoing=False))

    assert line.split(maxsplit=1)[1] == "web/lo               < 10.0.0.2:53 → 10.0.0.53:40053 DNS A? ·[2Jdb."
    assert line.split()[0].endswith(".123456")


def test_only_lines_need_scapy():
    """Its import takes longer than all the rest, and a file is written without it."""
    rooms = "netplug.cli.capture, netplug.capture.merging, netplug.capture.output, netplug.capture.points, netplug.capture.stream"
    script = f"import sys, {rooms}; print('scapy' in sys.modules); import netplug.capture.lines; print('scapy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == ["False", "True"]


def test_a_source_that_is_no_capture_ends_it(tmp_path: Path):
    path = tmp_path / "x"
    path.write_text("<html>not what was asked for</html>")

    with pytest.raises(NoCapture, match="is no pcapng file"):
        list(recorded([Stream(str(path))]))
