"""A packet as one line for people: `12:00:00.123456 web/eth0 > 10.0.0.2 → 10.0.0.3 ICMP echo-request 1`.

What a tunnel carries is said behind what carries it. scapy takes packets apart; it is imported with this module, and this module by who
means to print. Nothing that a packet holds reaches the terminal as anything but printable characters.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from netplug.capture.pcapng import Packet
from netplug.kernel.tap import ETHERNET, RAW_IP

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # it has opinions about the host's routes

from scapy.layers import inet6  # noqa: E402
from scapy.layers.dns import DNS  # noqa: E402
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.l2 import ARP, Dot1Q, Ether  # noqa: E402
from scapy.layers.vxlan import VXLAN  # noqa: E402
from scapy.packet import NoPayload, bind_layers  # noqa: E402

LENGTH = 1500
"""Bytes of a packet that a line is made of, at most."""
_SMALLEST_FRAME = 14
_ARROW = {None: " ", True: ">", False: "<"}
_FIRST_LINES = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"HTTP/1.")


class Lines:
    """Lines with their columns aligned. `tunnels` are UDP ports, beside 4789, that carry VXLAN."""

    def __init__(self, points: Iterable[str], tunnels: Iterable[int] = ()) -> None:
        self._width = max(map(len, points), default=0)
        self._dns: set[int] = set()
        for port in set(tunnels):
            bind_layers(UDP, VXLAN, dport=port)

    def line(self, packet: Packet) -> str:
        """`>`: the interface sends it, `<`: it receives it."""
        seconds, nanoseconds = divmod(packet.time, 1_000_000_000)
        clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{nanoseconds // 1000:06d}"
        interface = packet.interface
        self._width = max(self._width, len(interface.name))
        for port in interface.dns:
            self._learn(port)
        text = f"{clock} {interface.name:<{self._width}} {_ARROW[packet.outgoing]} {described(packet)}"
        return "".join(character if character.isprintable() else "·" for character in text)

    def _learn(self, port: int) -> None:
        """That a resolver answers there."""
        if port not in self._dns:
            self._dns.add(port)
            for layer in (UDP, TCP):
                bind_layers(layer, DNS, sport=port)
                bind_layers(layer, DNS, dport=port)


def described(packet: Packet) -> str:
    data = packet.data[:LENGTH]
    if len(data) < (_SMALLEST_FRAME if packet.interface.linktype == ETHERNET else 1):
        return f"{packet.length} bytes, too few to be read"
    try:
        if packet.interface.linktype == ETHERNET:
            return _frame(Ether(data), packet.length)
        if packet.interface.linktype != RAW_IP:
            return f"{packet.length} bytes of link type {packet.interface.linktype}"
        return _network(IP(data) if data[0] >> 4 == 4 else inet6.IPv6(data), packet.length)
    except Exception as error:  # whatever scapy makes of somebody's bytes, the next packet is to be seen
        return f"{packet.length} bytes that cannot be read ({type(error).__name__})"


def _frame(frame: Any, length: int) -> str:
    inner = frame.payload
    tags = ""
    while isinstance(inner, Dot1Q):
        tags += f"VLAN {inner.vlan} "
        inner = inner.payload
    if isinstance(inner, ARP):
        return tags + _arp(inner)
    if isinstance(inner, IP | inet6.IPv6):
        return tags + _network(inner, length)
    return f"{tags}{frame.src} → {frame.dst} {frame.sprintf('%type%')} {length} bytes"


def _arp(arp: Any) -> str:
    if arp.op == 2:
        return f"ARP {arp.psrc} is at {arp.hwsrc}"
    if arp.psrc == arp.pdst:
        return f"ARP {arp.psrc} is at {arp.hwsrc} (announced)"
    return f"ARP who has {arp.pdst}? tell {arp.psrc}"


def _network(ip: Any, length: int) -> str:
    inner = ip.payload
    while isinstance(inner, inet6._IPv6ExtHdr):
        inner = inner.payload
    if isinstance(ip, IP) and ip.frag:
        return f"{ip.src} → {ip.dst} fragment of {ip.sprintf('%proto%').upper()} from byte {ip.frag * 8}"
    if isinstance(inner, UDP | TCP):
        addresses = f"{_with_port(ip.src, inner.sport)} → {_with_port(ip.dst, inner.dport)}"
        return f"{addresses} {_udp(inner, length) if isinstance(inner, UDP) else _tcp(inner, ip)}"
    return f"{ip.src} → {ip.dst} {_control(inner) or f'{_protocol(ip)} {length} bytes'}"


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _protocol(ip: Any) -> str:
    name = ip.sprintf("%IP.proto%" if isinstance(ip, IP) else "%IPv6.nh%")
    return name.upper() if not name.isdecimal() else f"protocol {name}"


def _udp(udp: Any, length: int) -> str:
    inner = udp.payload
    if isinstance(inner, DNS):
        return _dns(inner)
    if isinstance(inner, VXLAN):
        return f"VXLAN {inner.vni}: {_frame(inner.payload, length)}"
    return f"UDP {max(udp.len - 8, 0)} bytes"


def _tcp(tcp: Any, ip: Any) -> str:
    if isinstance(tcp.payload, DNS):
        return _dns(tcp.payload)
    flags = " ".join(name for sign, name in _FLAGS.items() if sign in str(tcp.flags))
    # What segmentation left to the hardware makes of a packet may be too long for its header to say.
    whole = ip.len - ip.ihl * 4 if isinstance(ip, IP) else ip.plen
    count = whole - tcp.dataofs * 4 if whole else len(tcp.payload)
    text = bytes(tcp.payload)
    first = text.split(b"\r\n", 1)[0].decode(errors="replace") if text.startswith(_FIRST_LINES) else ""
    return f"TCP {flags}" + (f" {count} bytes" if count > 0 else "") + (f" {first}" if first else "")


_FLAGS = {"S": "SYN", "F": "FIN", "R": "RST", "P": "PSH", "A": "ACK", "U": "URG"}


def _control(inner: Any) -> str:
    """ICMP and its IPv6 twin; `""` for anything else."""
    match inner:
        case ICMP():
            kind = inner.sprintf("%ICMP.type%")
            if inner.type in (0, 8):
                return f"ICMP {kind} {inner.seq}"
            return f"ICMP {inner.sprintf('%ICMP.code%')}" if inner.type in (3, 11) else f"ICMP {kind}"
        case inet6.ICMPv6EchoRequest() | inet6.ICMPv6EchoReply():
            return f"ICMPv6 {'echo-request' if inner.type == 128 else 'echo-reply'} {inner.seq}"
        case inet6.ICMPv6ND_NS():
            return f"ICMPv6 who has {inner.tgt}?"
        case inet6.ICMPv6ND_NA():
            target = inner.payload
            return (
                f"ICMPv6 {inner.tgt} is at {target.lladdr}"
                if isinstance(target, inet6.ICMPv6NDOptDstLLAddr)
                else f"ICMPv6 {inner.tgt} is here"
            )
        case inet6._ICMPv6():
            return str(inner.name)
        case NoPayload():
            return ""
    return ""


def _dns(dns: Any) -> str:
    """`A? db.`, and what was answered: `db. A 10.0.0.3`."""
    questions = [(_text(one.qname), one.sprintf("%qtype%")) for one in dns.qd or ()]
    if not dns.qr:
        return "DNS " + (", ".join(f"{kind}? {name}" for name, kind in questions) or "without a question")
    if dns.rcode:
        verdict = _VERDICTS.get(dns.rcode, dns.sprintf("%rcode%"))
        return "DNS " + (", ".join(f"{name} {kind} {verdict}" for name, kind in questions) or verdict)
    answers = [f"{_text(one.rrname)} {_record(one)}" for one in dns.an or ()]
    return "DNS " + (", ".join(answers) or ", ".join(f"{name} {kind} no such record" for name, kind in questions))


_VERDICTS = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def _record(record: Any) -> str:
    kind = record.sprintf("%type%")
    if kind == "SRV":
        return f"SRV {_text(record.target)}:{record.port}"
    data = getattr(record, "rdata", "")
    return f"{kind} {', '.join(map(_text, data)) if isinstance(data, list) else _text(data)}"


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
