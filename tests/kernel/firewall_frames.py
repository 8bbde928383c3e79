"""Frames on the lab's wires, made and seen by hand: what no honest sender would send."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from netplug.kernel.namespaces import open_socket
from tests.kernel.firewall_lab import ANSWERED_WITHIN, CONTAINERS, MAC, UPLINK_MAC, Lab

ETH_P_ALL, ETH_P_IP, ETH_P_8021Q = 0x0003, 0x0800, 0x8100
"""linux/if_ether.h; in the socket module from Python 3.12."""


@contextmanager
def wire(lab: Lab, name: str, ethertype: int = ETH_P_IP, link: str = "eth0") -> Iterator[socket.socket]:
    """A packet socket (packet(7)) on a link of `name`: frames as they come and go."""
    with open_socket(lab.path(name), socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ethertype)) as found:
        found.bind((link, ethertype))
        yield found


def passing(lab: Lab, sender: str, receiver: str, frames: Mapping[str, bytes], last: bytes, link: str = "eth0") -> set[str]:
    """The names of those frames that get through. All have come when `last` has, which must get through: a bridge keeps their order."""
    names = {_untagged(frame): name for name, frame in frames.items()}
    assert len(names) == len(frames)
    passed = set()
    with wire(lab, sender) as sending, wire(lab, receiver, ETH_P_ALL, link) as receiving:
        receiving.settimeout(ANSWERED_WITHIN)
        for frame in (*frames.values(), last):
            sending.send(frame)
        while (frame := receiving.recv(2000)) != last:
            passed.add(names.get(frame, ""))
    return passed - {""}


def _untagged(frame: bytes) -> bytes:
    """As packet sockets see it: without its VLAN tag."""
    return frame[:12] + frame[16:] if frame[12:14] == ETH_P_8021Q.to_bytes(2, "big") else frame


def send_to_host(lab: Lab, attacker: str, packet: bytes) -> None:
    """Put an IPv4 packet on the wire by hand, in a frame for the host's MAC."""
    target = bytes.fromhex((UPLINK_MAC if attacker == "out" else MAC[CONTAINERS[attacker]]).replace(":", ""))
    with wire(lab, attacker) as sender:
        sender.send(target + sender.getsockname()[4] + struct.pack("!H", ETH_P_IP) + packet)


def comes_by(wire: socket.socket, packet: bytes, within: float) -> bool:
    """Whether a TCP packet with the addresses, ports and flags of `packet` is seen."""
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            seen = wire.recv(2000)[14:]
        except TimeoutError:
            return False
        if (seen[9], seen[12:24], seen[33]) == (socket.IPPROTO_TCP, packet[12:24], packet[33]):
            return True
    return False


def tcp_packet(source: str, source_port: int, target: str, port: int, flags: int) -> bytes:
    """An IPv4 packet with a TCP header (RFC 791, RFC 9293)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, flags, 1000, 0, 0)
    tcp = tcp[:16] + _checksum(addresses + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp)) + tcp) + tcp[18:]
    return _ip_header(addresses, socket.IPPROTO_TCP, len(tcp)) + tcp


def udp_packet(source: str, source_port: int, target: str, port: int, data: bytes) -> bytes:
    """An IPv4 packet with a datagram, without its checksum (RFC 768 allows that)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    udp = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    return _ip_header(addresses, socket.IPPROTO_UDP, len(udp)) + udp


def _ip_header(addresses: bytes, protocol: int, length: int) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, protocol, 0) + addresses
    return header[:10] + _checksum(header) + header[12:]


def _checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
