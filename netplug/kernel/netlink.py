"""Raw netlink: messages packed, sent together, answered for one by one.

A batch is not atomic: the kernel goes on past a message that it refuses, so `Socket.send` answers for each one, with the kernel's
own explanation where it gives one (extended acks). It tells each refusal, in order and unasked; so only the last message asks for an
ack, and one before it of which nothing was heard is done. Formats: netlink(7), rtnetlink(7), linux/netlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Self

from netplug import faults

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST, NLM_F_ACK, NLM_F_ECHO = 0x1, 0x4, 0x8
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

NLMSG_ERROR, NLMSG_DONE = 2, 3
_NLM_F_MULTI, _NLM_F_DUMP_INTR = 0x2, 0x10
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12
_SO_RCVBUFFORCE = 33

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_HEADER_SIZE = _HEADER.size
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=HHI")
PADDING = b"", bytes(3), bytes(2), bytes(1)
"""By a length's rest: what makes it a multiple of four."""
_ERROR = struct.Struct("=i")
NESTED, _TYPE_MASK = 0x8000, 0x3FFF

_READ = 1 << 16
_ACKS = 8 << 20
"""Receive buffer: a refusal is charged about 1 KiB, and those of one send lie there together."""
_MOST_BYTES = 1 << 16
_MOST_MESSAGES = 2000
_DUMP_ATTEMPTS = 10


class Refused(OSError):
    """The kernel's answer to one message; `strerror` is its own explanation, or errno's text."""


class Message(NamedTuple):
    """One request: `body` is the family's fixed header and its attributes."""

    kind: int
    body: bytes
    flags: int = 0


class Reply(NamedTuple):
    kind: int
    flags: int
    sequence: int
    body: bytes
    port: int = 0
    """Of a notification: the socket whose message brought it about; 0: the kernel by itself."""


def attribute(kind: int, value: bytes) -> bytes:
    length = len(value)
    return _ATTRIBUTE.pack(4 + length, kind) + value + PADDING[length & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(attributes))


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the host's byte order."""
    return _NUMBER.pack(8, kind, value)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def parse_attributes(data: bytes, offset: int = 0, wanted: Container[int] = range(_TYPE_MASK + 1)) -> dict[int, bytes]:
    """Attributes from `offset` on, by type, only the wanted ones; of one that repeats, the last."""
    found = {}
    last = len(data) - 4
    unpack = _ATTRIBUTE.unpack_from
    while offset <= last:
        length, kind = unpack(data, offset)
        if length < 4:
            break
        kind &= _TYPE_MASK
        if kind in wanted:
            found[kind] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def find_attribute(data: bytes, offset: int, wanted: int) -> bytes:
    """The value of the first attribute of that type from `offset` on; `b""` where there is none."""
    last = len(data) - 4
    while offset <= last:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        if kind & _TYPE_MASK == wanted:
            return data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return b""


def find_nested(data: bytes, offset: int, *path: int) -> bytes:
    """The value to which attributes of these types lead, each in the one before; `b""` where one is missing."""
    for wanted in path:
        data, offset = find_attribute(data, offset, wanted), 0
    return data


def parse_number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def parse_text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def parse(data: bytes) -> list[Reply]:
    """The messages in one datagram from the kernel."""
    found = []
    offset = 0
    last = len(data) - _HEADER_SIZE
    while offset <= last:
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER_SIZE:
            break
        found.append(Reply(kind, flags, sequence, data[offset + _HEADER_SIZE : offset + length], port))
        offset += (length + 3) & ~3
    return found


class Socket:
    """A netlink socket in the namespace where the calling thread is; it stays there.

    The kernel answers while the request is being sent, so an answer that is not there is an error (EAGAIN), never a wait.
    """

    def __init__(self, family: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ACKS)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, messages: Sequence[Message]) -> list[Refused | None]:
        """Send all, in one system call as far as they fit; one answer per message, None for done."""
        results: list[Refused | None] = []
        for batch in _batches(messages):
            results += self._send(batch)
        return results

    def send_batch(self, begin: Message, messages: Sequence[Message], end: Message, conclusion: int) -> bytes | Refused:
        """An nfnetlink batch in one system call: the messages take effect together, or none does, for the first refusal.

        The body of what the kernel says of the whole, a message of that kind; `b""` where it says nothing, as when nothing changed.
        """
        first = self._sequence + 2
        # What others are told of the first message comes to us too then, and so does what concludes the batch.
        packed = self._pack(begin), self._pack(messages[0], NLM_F_ECHO), *map(self._pack, messages[1:]), self._pack(end)
        self._socket.send(b"".join(packed))
        refused: Refused | None = None
        while True:
            try:
                replies = self._read()
            except BlockingIOError:
                break
            for reply in replies:
                if reply.sequence == first and reply.kind == conclusion:
                    return reply.body
                if reply.sequence >= first and reply.kind == NLMSG_ERROR:
                    refused = refused or _refusal(reply)
        return refused or b""

    def request(self, message: Message) -> None:
        """Send one; raises Refused."""
        for refused in self._send([message]):
            if refused is not None:
                raise refused

    def get(self, message: Message) -> bytes:
        """The one object that `message` asks for; raises Refused (ENODEV, ENOENT: there is none)."""
        self._socket.send(self._pack(message))
        while True:
            for reply in self._read():
                if reply.sequence == self._sequence:
                    _raise(reply)
                    return reply.body

    def dump(self, message: Message) -> list[bytes]:
        """All objects that `message` asks for; asked again while they change during the dump."""
        for _ in range(_DUMP_ATTEMPTS):
            self._socket.send(self._pack(message, NLM_F_DUMP))
            bodies, consistent = self._collect()
            if consistent:
                break
        return bodies

    def ask(self, questions: Sequence[Message]) -> list[list[bytes]]:
        """What the kernel tells to each of several, in one system call; raises Refused. Only the last may be a dump (NLM_F_DUMP)."""
        first = self._sequence + 1
        self._socket.send(b"".join(map(self._pack, questions)))
        told: list[list[bytes]] = [[] for _ in questions]
        waiting = set(range(len(questions)))
        while waiting:
            for reply in self._read():
                position = reply.sequence - first
                if position not in waiting:
                    continue
                if reply.flags & _NLM_F_DUMP_INTR:
                    raise Refused(errno.EINTR, "it changes while it is told")
                _raise(reply)
                if reply.kind != NLMSG_DONE:
                    told[position].append(reply.body)
                if reply.kind == NLMSG_DONE or not reply.flags & _NLM_F_MULTI:
                    waiting.discard(position)
        return told

    def _collect(self) -> tuple[list[bytes], bool]:
        bodies: list[bytes] = []
        consistent = True
        while True:
            for reply in self._read():
                if reply.sequence != self._sequence:
                    continue
                consistent = consistent and not reply.flags & _NLM_F_DUMP_INTR
                _raise(reply)
                if reply.kind == NLMSG_DONE:
                    return bodies, consistent
                bodies.append(reply.body)

    def _send(self, messages: Sequence[Message]) -> list[Refused | None]:
        faults.point("netlink.before")
        self._socket.send(b"".join((*map(self._pack, messages[:-1]), self._pack(messages[-1], NLM_F_ACK))))
        faults.point("netlink.after")
        return self._answers(len(messages))

    def _answers(self, count: int) -> list[Refused | None]:
        """To the `count` messages that were sent last."""
        results: list[Refused | None] = [None] * count
        first = self._sequence + 1 - count
        while True:
            for reply in self._read():
                if reply.kind == NLMSG_ERROR and reply.sequence >= first:
                    results[reply.sequence - first] = _refusal(reply)
                    if reply.sequence == self._sequence:
                        return results

    def _pack(self, message: Message, flags: int = 0) -> bytes:
        """Bodies end on a four-byte boundary, as attributes do."""
        self._sequence += 1
        kind, body, own_flags = message
        return _HEADER.pack(_HEADER_SIZE + len(body), kind, NLM_F_REQUEST | flags | own_flags, self._sequence, 0) + body

    def _read(self) -> list[Reply]:
        return parse(self._socket.recv(_READ, socket.MSG_DONTWAIT))


class Kept:
    """A socket that stays open between uses: to open and to close one takes as long as what it carries.

    In the namespace of who uses it first; for one thread, and one use at a time. One that failed is not used again. `with` opens it.
    """

    def __init__(self) -> None:
        self._socket: Socket | None = None

    def at(self, namespace: str) -> AbstractContextManager[Socket]:
        """A socket for the namespace that the calling thread is in: the kept one for the daemon's own (`""`), else a new one."""
        return Socket() if namespace else self

    def __enter__(self) -> Socket:
        if self._socket is None:
            self._socket = Socket()
        return self._socket

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _batches(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Pieces that fit the socket's send buffer and leave room for their acks."""
    start = size = 0
    for position, message in enumerate(messages):
        length = _HEADER_SIZE + len(message.body) + 3
        if position > start and (size + length > _MOST_BYTES or position - start == _MOST_MESSAGES):
            yield messages[start:position]
            start, size = position, 0
        size += length
    if start < len(messages):
        yield messages[start:]


def _raise(reply: Reply) -> None:
    refused = _refusal(reply) if reply.kind in (NLMSG_ERROR, NLMSG_DONE) else None
    if refused is not None:
        raise refused


def _refusal(reply: Reply) -> Refused | None:
    """What an NLMSG_ERROR or NLMSG_DONE says; None for success."""
    if len(reply.body) < _ERROR.size:
        return None
    (code,) = _ERROR.unpack_from(reply.body)
    if code >= 0:
        return None
    explanation = b""
    if reply.flags & _NLM_F_ACK_TLVS:
        # After an error comes the header of the refused message (its body is left out: NETLINK_CAP_ACK); after a dump's end, nothing.
        offset = _ERROR.size + (_HEADER_SIZE if reply.kind == NLMSG_ERROR else 0)
        explanation = parse_attributes(reply.body, offset).get(_NLMSGERR_ATTR_MSG, b"")
    return Refused(-code, parse_text(explanation) or os.strerror(-code))
