"""Names that are not ours: asked of upstream servers, the first answer wins.

The servers are asked one after the other, the next one as soon as the one before has failed or been silent for STEP seconds; an earlier
one may still answer. A socket and an id of its own per question and server (RFC 5452): the kernel chooses a random port, and takes
packets from that server only. What is asked over TCP is asked over TCP upstream; a truncated UDP answer is passed on as it is, and the
client comes back by TCP.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from netplug.resolver import wire
from netplug.resolver.loop import READ, WRITE, Loop
from netplug.resolver.upstream import HostServers, Namespaces, usable

STEP = 1.5
TOTAL = 4.5
"""Seconds until SERVFAIL: less than the 5 s after which a stub resolver asks again."""

PENDING = 1024
PENDING_PER_ASKER = 256
"""Questions under way, in all and for one sandbox: a container whose servers are dead must not hold up the others."""

_NO_QUESTION = b"\0\0"
_FAILURES = (wire.SERVFAIL, wire.NOTIMP, wire.REFUSED)


class Asker:
    """One who asks: a sandbox. Without `servers` the host's are asked, from our own namespace."""

    def __init__(self, neighbour: socket.socket) -> None:
        self.neighbour = neighbour
        self.questions: set[Question] = set()
        self._servers: tuple[str, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        return self._servers

    @servers.setter
    def servers(self, servers: tuple[str, ...]) -> None:
        self._servers = usable(servers)


class Forwarder:
    """All questions that are under way."""

    def __init__(self, loop: Loop, host_servers: HostServers) -> None:
        self.loop, self.host_servers, self.namespaces = loop, host_servers, Namespaces()
        self.questions: set[Question] = set()
        loop.clock(self._look)

    def ask(self, asker: Asker, query: wire.Query, packet: bytes, reply: Callable[[bytes], None], *, stream: bool) -> None:
        """Ask upstream, over TCP if `stream`; `reply` gets one answer, at once if too many questions are under way."""
        if len(self.questions) >= PENDING or len(asker.questions) >= PENDING_PER_ASKER:
            reply(wire.respond(query, rcode=wire.SERVFAIL))
            return
        question = Question(self, asker, query, packet, reply, stream)
        self.questions.add(question)
        asker.questions.add(question)
        question.ask_next()

    def forget(self, asker: Asker) -> None:
        """Close what is open for the asker, in its namespace above all; nobody waits for the answers."""
        for question in list(asker.questions):
            question.close()

    def _look(self, now: float) -> bool:
        for question in list(self.questions):
            question.look(now)
        return bool(self.questions)


class Question:
    """One query on its way to up to three servers."""

    def __init__(
        self, forwarder: Forwarder, asker: Asker, query: wire.Query, packet: bytes, reply: Callable[[bytes], None], stream: bool
    ) -> None:
        self.forwarder, self.query, self.packet = forwarder, query, packet
        self._asker, self._reply = asker, reply
        self._kind = StreamAttempt if stream else Attempt
        self._neighbour = asker.neighbour if asker.servers else None
        self._servers = list(asker.servers or forwarder.host_servers())
        self._attempts: set[Attempt] = set()
        self._failure = b""
        self._end = time.monotonic() + TOTAL
        self._next = 0.0

    def ask_next(self) -> None:
        """Ask the next server that can be asked; if there is none, and nobody left to hear from, that is the answer."""
        while self._servers:
            self._next = time.monotonic() + STEP
            try:
                self._attempts.add(self._kind(self, self._servers.pop(0), self._neighbour))
            except OSError:
                continue  # no route, no such family, no descriptor: as good as no answer
            return
        if not self._attempts:
            self._fail()

    def look(self, now: float) -> None:
        """Time has passed."""
        if now >= self._end:
            self._fail()
        elif now >= self._next and self._servers:
            self.ask_next()

    def answered(self, attempt: Attempt, answer: bytes) -> None:
        """A server has answered. That it cannot help is kept for the case that no other can."""
        if answer[3] & 15 in _FAILURES:
            self._failure = answer
            self.failed(attempt)
        else:
            self._finish(answer)

    def failed(self, attempt: Attempt) -> None:
        """Nothing more will come from there."""
        attempt.close()
        self._attempts.discard(attempt)
        self.ask_next()

    def _fail(self) -> None:
        self._finish(self._failure or wire.respond(self.query, rcode=wire.SERVFAIL))

    def _finish(self, answer: bytes) -> None:
        self.close()
        if answer[4:6] == _NO_QUESTION:
            answer = answer[:4] + b"\0\1" + bytes(6) + self.query.question
        self._reply(self.packet[:2] + answer[2:])

    def close(self) -> None:
        for attempt in self._attempts:
            attempt.close()
        self._attempts.clear()
        self.forwarder.questions.discard(self)
        self._asker.questions.discard(self)


class Attempt:
    """The question put to one server, over UDP."""

    kind = socket.SOCK_DGRAM

    def __init__(self, question: Question, server: str, neighbour: socket.socket | None) -> None:
        self._question, self._ident = question, os.urandom(2)
        self._loop = question.forwarder.loop
        self._sock = question.forwarder.namespaces.connect(server, self.kind, neighbour)
        try:
            self._start(self._ident + question.packet[2:])
        except OSError:
            self.close()
            raise

    def _start(self, message: bytes) -> None:
        self._sock.send(message)
        self._loop.add(self._sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        try:
            answer = self._sock.recv(wire.LARGEST)
        except BlockingIOError:
            return
        except OSError:  # the server's host said that nobody listens
            self._question.failed(self)
            return
        if self._answers(answer):
            self._question.answered(self, answer)

    def _answers(self, message: bytes) -> bool:
        """It is the answer to our question, and not somebody's guess."""
        if len(message) < 12 or message[:2] != self._ident or not message[2] & 0x80:
            return False
        if message[4:6] == _NO_QUESTION:
            return bool(message[3] & 15 or message[2] & 2)  # some servers refuse, or truncate, without repeating the question
        asked = self._question.query
        end = 12 + len(asked.question)
        return message[12 : end - 4].lower() == asked.name and message[end - 4 : end] == asked.question[-4:]

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove(self._sock.fileno())
            self._sock.close()


class StreamAttempt(Attempt):
    """The same over a TCP connection of its own."""

    kind = socket.SOCK_STREAM

    def _start(self, message: bytes) -> None:
        self._unsent, self._received = bytearray(wire.frame(message)), bytearray()
        self._loop.add(self._sock.fileno(), self._ready, WRITE)

    def _ready(self, events: int) -> None:
        try:
            if self._unsent:
                self._send()
            else:
                self._receive()
        except BlockingIOError:
            return
        except OSError:
            self._question.failed(self)

    def _send(self) -> None:
        del self._unsent[: self._sock.send(self._unsent)]
        if not self._unsent:
            self._loop.change(self._sock.fileno(), READ)

    def _receive(self) -> None:
        data = self._sock.recv(wire.LARGEST)
        self._received += data
        answer = wire.take_frame(self._received)
        if answer is not None and self._answers(answer):
            self._question.answered(self, answer)
        elif answer is not None or not data:
            self._question.failed(self)
