"""Gratuitous ARP (RFC 5227 section 3): neighbours that knew an address under another MAC learn the new one at once."""

from __future__ import annotations

import ipaddress
import socket
import struct

from netplug.kernel.namespaces import open_socket
from netplug.kernel.syscalls import asked

_ETH_P_ARP, _ETH_P_IP = 0x0806, 0x0800
_ETHERNET, _REQUEST = 1, 1
_BROADCAST = b"\xff" * 6


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
    """The Ethernet frame: an ARP request whose sender and target address are the same."""
    hardware, protocol = bytes.fromhex(mac.replace(":", "")), ipaddress.IPv4Address(address).packed
    arp = struct.pack("!HHBBH", _ETHERNET, _ETH_P_IP, 6, 4, _REQUEST) + hardware + protocol + bytes(6) + protocol
    return _BROADCAST + hardware + struct.pack("!H", _ETH_P_ARP) + arp
