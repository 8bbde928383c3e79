"""The forwarder process: takes the daemon's messages and relays, whether a daemon is there or not.

It ends when it has had nothing to relay for a while, or when its socket in the run directory is gone and no daemon is connected.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import struct
import time
from contextlib import suppress

from netplug.forwarder import channel
from netplug.forwarder.tcp import Door
from netplug.forwarder.udp import Port
from netplug.resolver.loop import Loop, log

TYPE_CHECKING = False  # typing costs 1.5 MiB; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
    Answer = tuple[Message, list[int]]

LINGER = 2.0
"""Seconds the process stays without anything to relay: ports often come back, with a container that starts anew."""


class Relay:
    """A row of ports that lead to a row of ports. Sockets may come in several messages."""

    def __init__(self, content: Message) -> None:
        self.content = content
        self.ports: list[Door | Port] = []

    def take(self, loop: Loop, sock: socket.socket) -> None:
        kind = Door if self.content["protocol"] == "tcp" else Port
        target = (self.content["address"], self.content["port"] + len(self.ports))
        self.ports.append(kind(loop, sock, target, self.content.get("loopback", False)))

    def close(self) -> None:
        for port in self.ports:
            port.close()

    def expire(self, now: float) -> bool:
        return sum(port.expire(now) for port in self.ports if isinstance(port, Port)) > 0


class Process:
    """The state, and what each message does to it."""

    def __init__(self, run_dir: str) -> None:
        self.loop = Loop()
        self._relays: dict[str, Relay] = {}
        self._daemon: Connection | None = None
        self._needed = time.monotonic()
        self._path = channel.socket_path(run_dir)
        self._listener = self._listen()
        self.loop.clock(self._look)

    def run(self) -> None:
        gc.freeze()
        self.loop.run()

    def _listen(self) -> socket.socket:
        """The caller holds the lock of the run directory, so that a socket file found here is a dead process's."""
        listener = channel.unconnected()
        fresh = f"{self._path}.{os.getpid()}"
        mask = os.umask(0o177)
        try:
            listener.bind(fresh)
        finally:
            os.umask(mask)
        listener.listen(16)
        os.rename(fresh, self._path)
        self.loop.add(listener.fileno(), self._accept)
        return listener

    def _accept(self, events: int) -> None:
        try:
            sock = self._listener.accept()[0]
        except BlockingIOError:
            return
        uid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if uid not in (0, os.geteuid()):
            log(f"uid {uid} was refused")
            sock.close()
            return
        Connection(self, sock)

    def _look(self, now: float) -> bool:
        flows = sum(relay.expire(now) for relay in self._relays.values()) > 0
        if self._relays:
            self._needed = now
        if now - self._needed > LINGER or not (self._daemon or os.path.exists(self._path)):
            log("nothing to relay: done")
            self.loop.stop()
        return flows or not self._relays or self._daemon is None

    def disconnected(self, connection: Connection) -> None:
        if connection is self._daemon:
            log("the daemon has gone")
            self._daemon = None

    def handle(self, connection: Connection, message: Message, descriptors: list[int]) -> Answer:
        """Do what the message says; what it answers. Descriptors that are taken are removed from the list."""
        operation = message["op"]
        if operation == "hello":
            return self._hello(connection, message), []
        if operation == "quit":
            self.loop.stop()
            return {}, []
        if connection is not self._daemon:
            raise channel.Garbled("no hello has been said, or another daemon has said it since")
        if operation == "show":
            return self._show(message["id"], message["first"])
        if operation == "add":
            self._add(message, descriptors)
        elif operation == "remove":
            self._remove(message["id"])
        else:
            raise channel.Garbled(f"no such operation: {operation}")
        return {}, []

    def _hello(self, connection: Connection, message: Message) -> Message:
        if message["protocol"] == channel.PROTOCOL:
            if self._daemon and self._daemon is not connection:
                self._daemon.replaced()
            self._daemon = connection
        return {"protocol": channel.PROTOCOL, "pid": os.getpid(), "cookie": channel.namespace_cookie(self._listener)}

    def _add(self, message: Message, descriptors: list[int]) -> None:
        """`first` 0 begins a relay anew, with all that went through one of the same id ended."""
        identity = message["id"]
        if message["first"] == 0:
            self._remove(identity)
            self._relays[identity] = Relay(message["relay"])
        relay = self._relays.get(identity)
        if relay is None or len(relay.ports) != message["first"] or relay.content != message["relay"]:
            raise channel.Garbled(f"relay {identity}: its sockets come out of turn")
        while descriptors:
            sock = socket.socket(fileno=descriptors.pop(0))
            try:
                relay.take(self.loop, sock)
            except BaseException:
                self.loop.remove(sock.fileno())
                sock.close()
                self._remove(identity)
                raise

    def _remove(self, identity: str) -> None:
        relay = self._relays.pop(identity, None)
        if relay is not None:
            relay.close()

    def _show(self, identity: str, first: int) -> Answer:
        """The sockets from one on, of that relay or the next one."""
        names = list(self._relays)
        if identity and (identity not in self._relays or first >= len(self._relays[identity].ports)):
            position = names.index(identity) + 1 if identity in names else len(names)
            identity, first = (names[position] if position < len(names) else ""), 0
        elif not identity and names:
            identity = names[0]
        if not identity:
            return {}, []
        relay = self._relays[identity]
        ports = relay.ports[first : first + channel.MAX_DESCRIPTORS]
        return {"id": identity, "relay": relay.content, "first": first}, [port.sock.fileno() for port in ports]


class Connection:
    """One daemon's connection. The daemon waits for each answer, so that there is always room for it."""

    def __init__(self, process: Process, sock: socket.socket) -> None:
        self._process, self._sock = process, sock
        sock.setblocking(False)
        process.loop.add(sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        try:
            data, descriptors = channel.receive(self._sock)
            if not data:
                self.close()
                return
            try:
                answer, found = self._process.handle(self, json.loads(data), descriptors)
            except Exception as error:  # a broken message must not end what is relayed
                log(f"message {data[:200]!r}: {type(error).__name__}: {error}")
                answer, found = {"error": f"{type(error).__name__}: {error}"}, []
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            channel.send(self._sock, json.dumps(answer).encode(), found)
        except BlockingIOError:
            return
        except (OSError, channel.Garbled) as error:
            log(f"connection of a daemon: {error}")
            self.close()

    def replaced(self) -> None:
        """Tell the daemon that another has taken over."""
        with suppress(OSError):
            channel.send(self._sock, json.dumps({"replaced": True}).encode(), [])
        self.close()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._process.loop.remove(self._sock.fileno())
            self._sock.close()
            self._process.disconnected(self)
