"""A view and a query in, messages out. Pure."""

from __future__ import annotations

import socket

from netplug.resolver import wire
from netplug.resolver.names import View

ROTATIONS = 16
"""Prebuilt answers differ in which address comes first; with more addresses than this, every n-th gets its turn."""

_FAMILIES = {wire.A: (4,), wire.AAAA: (16,), wire.ANY: (4, 16)}
_PROTOCOLS = ("tcp", "udp", "sctp")


def answer(view: View, query: wire.Query, limit: int = 0) -> list[bytes] | None:
    """Messages to give in turn (ids are the query's), or None: we do not know the name, others may."""
    if query.qclass not in (wire.IN, wire.ANY):
        return None
    if query.qtype in (wire.AXFR, wire.IXFR):
        return [wire.respond(query, rcode=wire.REFUSED)]
    if query.qtype == wire.PTR:
        return _reverse(view, query, limit)
    known = [view.find(query.name, length) for length in _FAMILIES.get(query.qtype, (4,))]
    if all(addresses is None for addresses in known):
        return _service(view, query, limit)
    if query.qtype not in _FAMILIES:
        return [wire.respond(query, limit=limit)]
    records = [wire.address_record(address) for addresses in known for address in addresses or ()]
    return [wire.respond(query, turned, limit=limit) for turned in rotations(records)]


def rotations(records: list[bytes]) -> list[list[bytes]]:
    """The list turned so that each record (or each n-th) is first once."""
    step = max(1, -(-len(records) // ROTATIONS))
    return [records[start:] + records[:start] for start in range(0, len(records) or 1, step)]


def _reverse(view: View, query: wire.Query, limit: int) -> list[bytes] | None:
    address = reverse_address(wire.split_labels(query.name))
    name = view.reverse(address) if address else b""
    if name:
        return [wire.respond(query, [wire.record(wire.PTR, name)], limit=limit)]
    if view.find(query.name, 4) is not None:
        return [wire.respond(query, limit=limit)]
    return None


def reverse_address(labels: list[bytes]) -> bytes:
    """The packed address that an in-addr.arpa or ip6.arpa name stands for, or `b""`."""
    try:
        if labels[-2:] == [b"in-addr", b"arpa"] and len(labels) == 6:
            return socket.inet_pton(socket.AF_INET, b".".join(reversed(labels[:4])).decode())
        if labels[-2:] == [b"ip6", b"arpa"] and len(labels) == 34:
            return bytes.fromhex(b"".join(reversed(labels[:32])).decode())
    except (OSError, ValueError):
        return b""
    return b""


def _service(view: View, query: wire.Query, limit: int) -> list[bytes] | None:
    """`_port._protocol.name`: an SRV record that leads to the name, its addresses beside it."""
    labels = wire.split_labels(query.name)
    if len(labels) < 3 or not labels[0].startswith(b"_") or not labels[1].startswith(b"_"):
        return None
    start = len(labels[0]) + len(labels[1]) + 2
    known = [view.find(query.name[start:], length) for length in (4, 16)]
    if all(addresses is None for addresses in known):
        return None
    port = service_port(labels[0][1:], labels[1][1:])
    if query.qtype not in (wire.SRV, wire.ANY) or not port:
        return [wire.respond(query, limit=limit)]
    target = query.question[start:-4]
    records = [wire.address_record(address, target) for addresses in known for address in addresses or ()]
    srv = [wire.service_record(port, target)]
    return [wire.respond(query, srv, turned, limit=limit) for turned in rotations(records)]


def service_port(port: bytes, protocol: bytes) -> int:
    """The number, given as one or by the name it has in /etc/services; 0 if there is none."""
    text, transport = port.decode(errors="replace"), protocol.decode(errors="replace")
    if transport not in _PROTOCOLS:
        return 0
    if text.isascii() and text.isdigit():
        return int(text) if len(text) < 6 and int(text) < 65536 else 0
    try:
        return socket.getservbyname(text, transport)
    except (OSError, ValueError):
        return 0
