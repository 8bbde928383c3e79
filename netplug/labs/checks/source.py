"""Whom does the receiver see? A ping is sent, and caught on the receiver's interface."""

from __future__ import annotations

import socket
import struct
import time

from netplug.kernel import namespaces
from netplug.labs.checks.base import Check, Find
from netplug.labs.checks.ping import ping

_ETH_P_IP = 0x0800
_ICMP, _ECHO_REQUEST = 1, 8


class SourceCheck(Check, frozen=True, tag="source"):
    """A ping from `at` to `to` must be seen at the place `seen_at`, on its interface `dev`, with this source address."""

    to: str
    seen_at: str
    dev: str
    source: str

    def places(self) -> tuple[str, ...]:
        return (self.at, self.seen_at)

    def look(self, find: Find) -> None:
        place, receiver = self.place(find), self.place(find, self.seen_at)
        receiver.link(self.dev, self.why)
        with namespaces.open_socket(receiver.path, socket.AF_PACKET, socket.SOCK_DGRAM) as wire:
            wire.bind((self.dev, _ETH_P_IP))
            said = ping(place, self.to)
            seen = _sources(wire, self.to)
        expected = f"a ping from {self.at} to {self.to} to arrive at {self.seen_at} from {self.source}"
        if not seen:
            raise self.unmet(expected, f"it did not arrive at {self.seen_at} ({said or 'though an answer came'})")
        if seen[0] != self.source:
            raise self.unmet(expected, f"it arrives from {seen[0]}" + (f", and {self.at} gets {said}" if said else ""))


def _sources(wire: socket.socket, to: str) -> list[str]:
    """Source addresses of the echo requests to `to` that the wire has seen."""
    found = []
    deadline = time.monotonic() + 0.2
    target = socket.inet_aton(to)
    while (left := deadline - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            packet = wire.recv(2048)
        except TimeoutError:
            break
        length = (packet[0] & 15) * 4
        protocol, source, destination = struct.unpack_from("!9xB2x4s4s", packet)
        if protocol == _ICMP and destination == target and packet[length] == _ECHO_REQUEST:
            found.append(socket.inet_ntoa(source))
            break
    return found
