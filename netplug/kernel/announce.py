"""Telling neighbours at once that an address has another MAC than they knew.

By gratuitous ARP (RFC 5227 section 3), or by an unsolicited neighbour advertisement to all nodes (RFC 4861 section 7.2.6).
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from netplug.kernel.namespaces import open_socket
from netplug.kernel.syscalls import asked

_ETH_P_ARP, _ETH_P_IP, _ETH_P_IPV6 = 0x0806, 0x0800, 0x86DD
_ETHERNET, _REQUEST = 1, 1
_BROADCAST = b"\xff" * 6

_ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_NEIGHBOR_ADVERT = 136
_OVERRIDE = 0x20000000
"""The flag that says: whoever has another MAC in his cache is to forget it."""
_TARGET_LINK_LAYER_ADDRESS = 2
_HOP_LIMIT = 255
"""What every receiver demands: it proves that no router has forwarded the packet."""


def send(namespace: str, link: str, address: str, mac: str) -> socket.socket:
    """Announce `address` at `mac` from `link`.

    The caller closes the socket, and not on the event loop: the kernel lets a packet socket go only after a grace period (12 ms).
    """
    packet_socket = open_socket(namespace, socket.AF_PACKET, socket.SOCK_RAW)
    try:
        with asked(f"announce {address} on {link}"):
            packet_socket.bind((link, 0))
            packet_socket.send(announcement(address, mac))
    except BaseException:
        packet_socket.close()
        raise
    return packet_socket


def announcement(address: str, mac: str) -> bytes:
    """The Ethernet frame."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    if ":" in address:
        return _ALL_NODES_MAC + hardware + struct.pack("!H", _ETH_P_IPV6) + _advertisement(ipaddress.IPv6Address(address).packed, hardware)
    return _BROADCAST + hardware + struct.pack("!H", _ETH_P_ARP) + _gratuitous_arp(ipaddress.IPv4Address(address).packed, hardware)


def _gratuitous_arp(protocol: bytes, hardware: bytes) -> bytes:
    """A request whose sender and target address are the same."""
    return struct.pack("!HHBBH", _ETHERNET, _ETH_P_IP, 6, 4, _REQUEST) + hardware + protocol + bytes(6) + protocol


def _advertisement(target: bytes, hardware: bytes) -> bytes:
    """The IPv6 packet: unsolicited, overriding, from the address itself."""
    option = struct.pack("!BB", _TARGET_LINK_LAYER_ADDRESS, 1) + hardware
    body = struct.pack("!I", _OVERRIDE) + target + option
    length = 4 + len(body)
    pseudo_header = target + _ALL_NODES + struct.pack("!II", length, socket.IPPROTO_ICMPV6)
    checksum = _checksum(pseudo_header + struct.pack("!BBH", _NEIGHBOR_ADVERT, 0, 0) + body)
    header = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_ICMPV6, _HOP_LIMIT) + target + _ALL_NODES
    return header + struct.pack("!BBH", _NEIGHBOR_ADVERT, 0, checksum) + body


def _checksum(data: bytes) -> int:
    """Of an even number of bytes (RFC 1071)."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
