"""The resolver process: takes the daemon's messages and keeps sandboxes and names, whether a daemon is there or not.

It ends when it is told to, or when no daemon is connected and no sandbox is left.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from netplug.resolver import channel
from netplug.resolver.forward import Forwarder
from netplug.resolver.loop import READ, WRITE, Loop, log
from netplug.resolver.names import Directory
from netplug.resolver.server import Sandbox, Server
from netplug.resolver.upstream import HostServers

TYPE_CHECKING = False  # typing costs 1.5 MiB; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

LINGER = 2.0
"""Seconds the process stays with no daemon and no sandbox: a daemon that restarts finds it still there."""


class Process:
    """The state, and what each message does to it."""

    def __init__(self, run_dir: str, resolv_conf: str) -> None:
        self.loop = Loop()
        self._host_servers = HostServers(resolv_conf)
        self._server = Server(self.loop, Forwarder(self.loop, self._host_servers))
        self._directory = Directory()
        self._sandboxes: dict[str, Held] = {}
        self._daemon: Connection | None = None
        self._synced: tuple[set[tuple[str, str]], set[str]] = (set(), set())
        self._compared: tuple[set[tuple[str, str]], set[str]] = (set(), set())
        self._operations: dict[str, Callable[[Message], Message]] = {
            "sync": self._sync,
            "compare": self._compare,
            "update": self._update,
            "remove": self._remove,
            "put": self._put,
            "drop": self._drop,
            "change": self._change,
        }
        self._alone_since = time.monotonic()
        self._listener = self._listen(channel.socket_path(run_dir))
        self.loop.clock(self._look)

    def _listen(self, path: str) -> socket.socket:
        """The caller holds the lock of the run directory, so that a socket file found here is a dead process's."""
        listener = channel.unconnected()
        fresh = f"{path}.{os.getpid()}"
        mask = os.umask(0o177)
        try:
            listener.bind(fresh)
        finally:
            os.umask(mask)
        listener.listen(16)
        os.rename(fresh, path)
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

    def run(self) -> None:
        gc.freeze()
        self.loop.run()

    def _look(self, now: float) -> bool:
        if self._daemon or self._sandboxes:
            self._alone_since = now
            return False
        if now - self._alone_since > LINGER:
            log("no daemon and no sandbox: done")
            self.loop.stop()
        return True

    def disconnected(self, connection: Connection) -> None:
        if connection is self._daemon:
            log("the daemon has gone")
            self._daemon = None
            self._alone_since = time.monotonic()

    def handle(self, connection: Connection, message: Message, descriptors: list[int]) -> Message:
        """Do what the message says; what it answers. Descriptors that are taken are removed from the list."""
        operation = message["op"]
        if operation == "hello":
            return self._hello(connection, message)
        if operation == "quit":
            self.loop.stop()
            return {}
        if connection is not self._daemon:
            raise channel.Garbled("no hello has been said, or another daemon has said it since")
        if operation == "add":
            return self._add(message["sandbox"], descriptors)
        return self._operations[operation](message)

    def _hello(self, connection: Connection, message: Message) -> Message:
        if message["protocol"] == channel.PROTOCOL:
            if self._daemon and self._daemon is not connection:
                self._daemon.replaced()
            self._daemon = connection
            self._host_servers.use(message["resolv_conf"])
        return {"protocol": channel.PROTOCOL, "pid": os.getpid(), "cookie": channel.namespace_cookie(self._listener)}

    def _sync(self, message: Message) -> Message:
        """One of several messages; nothing is dropped before the last, so that no known name ever goes unanswered."""
        if message["first"]:
            self._synced = (set(), set())
        endpoints, sandboxes = self._synced
        for endpoint in message["endpoints"]:
            self._put_endpoint(endpoint)
            endpoints.add((endpoint["network"], endpoint["endpoint"]))
        missing = []
        for names in message["sandboxes"]:
            sandboxes.add(names["id"])
            held = self._sandboxes.get(names["id"])
            if held and names["cookie"] in (0, held.cookie):
                held.use(names, self._directory)
            else:
                self._close(names["id"])
                missing.append(names["id"])
        if message["last"]:
            self._directory.keep_only(endpoints)
            for id in self._sandboxes.keys() - sandboxes:
                self._close(id)
            self._synced = (set(), set())
        return {"missing": missing}

    def _compare(self, message: Message) -> Message:
        """One of several messages, as in a sync, and nothing changes. What is not held or known; the last tells what is too much."""
        if message["first"]:
            self._compared = (set(), set())
        endpoints, sandboxes = self._compared
        endpoints |= {(names["network"], names["endpoint"]) for names in message["endpoints"]}
        sandboxes |= {names["id"] for names in message["sandboxes"]}
        answer: Message = {
            "missing": [names["id"] for names in message["sandboxes"] if not self._holds(names)],
            "unknown": [names["endpoint"] for names in message["endpoints"] if not self._knows(names)],
            "surplus": 0,
        }
        if message["last"]:
            answer["surplus"] = len(self._directory.known() - endpoints) + len(self._sandboxes.keys() - sandboxes)
            self._compared = (set(), set())
        return answer

    def _holds(self, names: Message) -> bool:
        held = self._sandboxes.get(names["id"])
        return held is not None and names["cookie"] in (0, held.cookie) and held.uses(names)

    def _knows(self, names: Message) -> bool:
        addresses = (names["address"], names["address6"])
        return self._directory.knows(names["network"], names["endpoint"], names["names"], addresses, names["network_name"])

    def _add(self, names: Message, descriptors: list[int]) -> Message:
        if len(descriptors) != 2:
            raise channel.Garbled(f"{len(descriptors)} descriptors came instead of 2; the process may have too many open")
        udp, tcp = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        descriptors.clear()
        try:
            cookie = channel.namespace_cookie(udp)
            if names["cookie"] and cookie and cookie != names["cookie"]:
                raise channel.Garbled(f"the sockets belong to namespace {cookie}, not to {names['cookie']}")
            self._close(names["id"])
            self._sandboxes[names["id"]] = Held(self._server, self._directory, names, cookie or names["cookie"], udp, tcp)
        except BaseException:
            for sock in (udp, tcp):
                self.loop.remove(sock.fileno())
                sock.close()
            raise
        return {}

    def _update(self, message: Message) -> Message:
        held = self._sandboxes.get(message["sandbox"]["id"])
        if held:
            held.use(message["sandbox"], self._directory)
        return {}

    def _remove(self, message: Message) -> Message:
        self._close(message["id"])
        return {}

    def _put(self, message: Message) -> Message:
        self._put_endpoint(message["endpoint"])
        return self._update(message) if "sandbox" in message else {}

    def _put_endpoint(self, names: Message) -> None:
        addresses = (names["address"], names["address6"])
        unusable = self._directory.put(names["network"], names["endpoint"], names["names"], addresses, names["network_name"])
        if unusable:
            log(f"endpoint {names['endpoint'][:12]}: DNS cannot hold {', '.join(map(repr, unusable))}")

    def _drop(self, message: Message) -> Message:
        self._directory.drop(message["network"], message["endpoint"])
        return self._update(message) if "sandbox" in message else {}

    def _change(self, message: Message) -> Message:
        for network, endpoint in message["drop"]:
            self._directory.drop(network, endpoint)
        for endpoint in message["put"]:
            self._put_endpoint(endpoint)
        return {}

    def _close(self, id: str) -> None:
        held = self._sandboxes.pop(id, None)
        if held:
            held.close(self._directory)


class Held:
    """A sandbox whose sockets we hold, and the view that it uses."""

    def __init__(self, server: Server, directory: Directory, names: Message, cookie: int, udp: socket.socket, tcp: socket.socket) -> None:
        self.cookie = cookie
        self._view_key: tuple[list[str], dict[str, str]] = (names["networks"], names["extra"])
        view = directory.view(*self._view_key)
        try:
            self._sandbox = Sandbox(server, udp, tcp, view)
        except OSError:
            directory.release(*self._view_key)
            raise
        self._choose(names)

    def use(self, names: Message, directory: Directory) -> None:
        """Answer with these names from now on."""
        before, self._view_key = self._view_key, (names["networks"], names["extra"])
        self._sandbox.view = directory.view(*self._view_key)
        directory.release(*before)
        self._choose(names)

    def uses(self, names: Message) -> bool:
        """Whether it answers with these names."""
        asks = self._sandbox.servers, self._sandbox.forward
        return self._view_key == (names["networks"], names["extra"]) and asks == (tuple(names["servers"]), names["forward"])

    def _choose(self, names: Message) -> None:
        self._sandbox.servers, self._sandbox.forward = tuple(names["servers"]), names["forward"]

    def close(self, directory: Directory) -> None:
        self._sandbox.close()
        directory.release(*self._view_key)


class Connection:
    """One daemon's connection. A daemon that does not read its answers gets no more messages taken."""

    def __init__(self, process: Process, sock: socket.socket) -> None:
        self._process, self._sock = process, sock
        self._unsent: deque[bytes] = deque()
        self._events = READ
        sock.setblocking(False)
        process.loop.add(sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        try:
            if not self._unsent:
                self._take()
            self._flush()
        except BlockingIOError:
            return
        except (OSError, channel.Garbled) as error:
            log(f"connection of a daemon: {error}")
            self.close()

    def _take(self) -> None:
        data, descriptors = channel.receive(self._sock)
        if not data:
            self.close()
            return
        try:
            answer = self._process.handle(self, json.loads(data.decode()), descriptors)
        except Exception as error:  # a broken message must not end the names
            log(f"message {data[:200]!r}: {type(error).__name__}: {error}")
            answer = {"error": f"{type(error).__name__}: {error}"}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._unsent.append(json.dumps(answer).encode() if answer else b"{}")

    def _flush(self) -> None:
        """Send what waits. Raises BlockingIOError when there is no room; the loop calls again."""
        if self._sock.fileno() < 0:
            return
        try:
            while self._unsent:
                channel.send(self._sock, self._unsent[0])
                self._unsent.popleft()
        finally:
            self._wait_for(WRITE if self._unsent else READ)

    def _wait_for(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._process.loop.change(self._sock.fileno(), events)

    def replaced(self) -> None:
        """Tell the daemon that another has taken over."""
        with suppress(OSError):
            channel.send(self._sock, json.dumps({"replaced": True}).encode())
        self.close()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._process.loop.remove(self._sock.fileno())
            self._sock.close()
            self._process.disconnected(self)
