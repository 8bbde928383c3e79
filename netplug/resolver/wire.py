"""DNS messages (RFC 1035, EDNS: RFC 6891): what a query asks, and how an answer is laid out.

`parse` reads what every stub resolver sends: one question, a plain name, at most an OPT record. Anything odder goes through dnslib,
which is imported when the first such packet arrives. Names are kept in wire form and lower case: `b"\\x03web\\x00"`.
"""

from __future__ import annotations

import struct

A, PTR, AAAA, SRV, OPT, IXFR, AXFR, ANY = 1, 12, 28, 33, 41, 251, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NOTIMP, REFUSED = 0, 1, 2, 4, 5
BADVERS = 16

QR, OPCODE, TC, RD, RA, CD = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080, 0x0010

TTL = 10
"""Seconds. Docker says 600, and clients that honour it (the JVM, nscd, systemd-resolved) then talk to a dead container's address for
ten minutes. Asking again costs microseconds over loopback, so a short time loses nothing; 0 would make some clients ask per packet."""

PLAIN_LIMIT = 512
"""What a client without EDNS takes over UDP."""

LARGEST_UDP = 4096
"""What we take and send over UDP at most; announced in our OPT."""

LARGEST = 65535
"""What a message over TCP holds."""

NAME_LIMIT = 255
"""Bytes of a name in wire form, root label included."""

_HEADER = struct.Struct("!6H")
_QUESTION_END = struct.Struct("!2H")
_OPT = struct.Struct("!xHHBBHH")
_RECORD = struct.Struct("!2HIH")
_POINTER_TO_QUESTION = b"\xc0\x0c"


class Ignored(Exception):
    """A packet that gets no answer: it is no query, or too short to hold an id."""


class Refused(Exception):
    """A packet that gets nothing but a response code; `answer` is the whole message."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        super().__init__(f"response code {answer[3] & 15}")


class Query:
    """One understood query. `question` is as it was sent (its case is echoed), `name` in lower case.

    `limit` is the longest answer that the client takes over UDP; `edns` says whether it sent an OPT record, `dnssec` its DO flag.
    `cacheable`: nothing but the id sets the same question of another client apart.
    """

    __slots__ = ("cacheable", "dnssec", "edns", "flags", "ident", "limit", "name", "qclass", "qtype", "question", "version")

    def __init__(self, ident: int, flags: int, name: bytes, qtype: int, qclass: int) -> None:
        self.ident, self.flags = ident, flags
        self.question = name + _QUESTION_END.pack(qtype, qclass)
        self.name, self.qtype, self.qclass = name.lower(), qtype, qclass
        self.limit, self.edns, self.version, self.dnssec, self.cacheable = PLAIN_LIMIT, False, 0, False, True

    def announce(self, size: int, version: int, flags: int) -> None:
        """Take what the OPT record says (RFC 6891, 6.1.3)."""
        self.edns, self.version, self.dnssec = True, version, bool(flags & 0x8000)
        self.limit = min(max(size, PLAIN_LIMIT), LARGEST_UDP)


def parse(packet: bytes) -> Query:
    """What is asked. Raises Ignored, or Refused with the answer to send."""
    if len(packet) < 12:
        raise Ignored
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if flags & QR:
        raise Ignored
    if flags & OPCODE:
        raise Refused(refusal(packet, NOTIMP))
    query = None
    if questions == 1 and not answers and not authorities and additional <= 1:
        query = _parse_plain(packet, ident, flags, additional)
    if query is None:
        query = _parse_odd(packet, ident, flags)
    if query.version:
        raise Refused(respond(query, rcode=BADVERS))
    return query


def _parse_plain(packet: bytes, ident: int, flags: int, additional: int) -> Query | None:
    """The usual shape, or None."""
    end = _name_end(packet)
    if not end or len(packet) < end + 4:
        return None
    query = Query(ident, flags, packet[12:end], *_QUESTION_END.unpack_from(packet, end))
    end += 4
    if not additional:
        return query if len(packet) == end else None
    if len(packet) < end + 11 or packet[end : end + 3] != b"\x00\x00\x29":
        return None
    _, size, _, version, opt_flags, length = _OPT.unpack_from(packet, end)
    if len(packet) != end + 11 + length:
        return None
    query.announce(size, version, opt_flags)
    query.cacheable = not length  # options such as a cookie make every packet a different one
    return query


def _name_end(packet: bytes) -> int:
    """Where the question's name ends (past its root label); 0 if it is compressed, too long or cut off."""
    position, size = 12, len(packet)
    while position < size:
        length = packet[position]
        position += 1
        if not length:
            return position if position - 12 <= NAME_LIMIT else 0
        if length > 63:
            return 0
        position += length
    return 0


def _parse_odd(packet: bytes, ident: int, flags: int) -> Query:
    """Compressed names, TSIG, trailing bytes: rare and legal, or else FORMERR."""
    import dnslib

    try:
        record = dnslib.DNSRecord.parse(packet)
        (question,) = record.questions
        query = Query(ident, flags, join_labels(question.qname.label), question.qtype, question.qclass)
        for extra in record.ar:
            if extra.rtype == OPT:
                query.announce(extra.rclass, extra.ttl >> 16 & 255, extra.ttl & 0xFFFF)
    except Exception as error:  # dnslib lets IndexError, UnicodeError and others out besides its own
        raise Refused(refusal(packet, FORMERR)) from error
    query.cacheable = False
    return query


def join_labels(labels: tuple[bytes, ...] | list[bytes]) -> bytes:
    """Labels in wire form. ValueError where DNS cannot hold them."""
    if any(not 0 < len(label) < 64 for label in labels):
        raise ValueError(f"not a name that DNS can hold: {labels}")
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(name) > NAME_LIMIT:
        raise ValueError(f"a name of {len(name)} bytes, DNS holds {NAME_LIMIT}")
    return name


def encode_name(name: str) -> bytes:
    """`web.demo` or `web.demo.` in wire form, its case kept. ValueError where DNS cannot hold it."""
    return join_labels([label.encode() for label in name.removesuffix(".").split(".")])


def split_labels(name: bytes) -> list[bytes]:
    """The labels of a name in wire form, without the root."""
    labels = []
    position = 0
    while length := name[position]:
        labels.append(name[position + 1 : position + 1 + length])
        position += 1 + length
    return labels


def record(rtype: int, data: bytes, owner: bytes = _POINTER_TO_QUESTION) -> bytes:
    """A resource record; its owner is the question's name unless given."""
    return owner + _RECORD.pack(rtype, IN, TTL, len(data)) + data


def address_record(address: bytes, owner: bytes = _POINTER_TO_QUESTION) -> bytes:
    """A or AAAA, by the length of the packed address."""
    return record(A if len(address) == 4 else AAAA, address, owner)


def service_record(port: int, target: bytes) -> bytes:
    """SRV with priority and weight 0; the target must not be compressed (RFC 2782)."""
    return record(SRV, struct.pack("!3H", 0, 0, port) + target)


def respond(
    query: Query, answers: list[bytes] | None = None, additional: list[bytes] | None = None, *, limit: int = 0, rcode: int = NOERROR
) -> bytes:
    """The whole answer in at most `limit` bytes (0: the client's UDP limit): as many records as fit, TC if answers were left out."""
    options = _OPT.pack(OPT, LARGEST_UDP, rcode >> 4, 0, query.dnssec << 15, 0) if query.edns else b""
    room = (limit or query.limit) - 12 - len(query.question) - len(options)
    kept, room = _fitting(answers or [], room)
    truncated = len(kept) < len(answers or ())
    extra, _ = _fitting(additional or [], 0 if truncated else room)
    flags = QR | query.flags & (RD | CD) | RA | (TC if truncated else 0) | rcode & 15
    header = _HEADER.pack(query.ident, flags, 1, len(kept), 0, len(extra) + query.edns)
    return b"".join((header, query.question, *kept, *extra, options))


def _fitting(records: list[bytes], room: int) -> tuple[list[bytes], int]:
    """As many records from the first on as have room, and what room is left."""
    for count, item in enumerate(records):
        if len(item) > room:
            return records[:count], room
        room -= len(item)
    return records, room


def refusal(packet: bytes, rcode: int) -> bytes:
    """A bare header with a response code, for what was not understood."""
    ident, flags = _HEADER.unpack_from(packet)[:2]
    return _HEADER.pack(ident, QR | flags & (OPCODE | RD) | RA | rcode, 0, 0, 0, 0)


def frame(message: bytes) -> bytes:
    """The message as TCP carries it: after its length."""
    return len(message).to_bytes(2, "big") + message


def take_frame(buffer: bytearray) -> bytes | None:
    """Take the first whole message out of what TCP has brought so far; None: more must come."""
    end = 2 + int.from_bytes(buffer[:2], "big")
    if len(buffer) < 2 or len(buffer) < end:
        return None
    message = bytes(buffer[2:end])
    del buffer[:end]
    return message
