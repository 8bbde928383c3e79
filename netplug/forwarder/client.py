"""`Forwarder`: the daemon's side of the forwarder process. Starts it when there is something to relay, hands it sockets, brings it back."""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import netplug
from netplug.errors import Unavailable
from netplug.forwarder import channel
from netplug.forwarder.model import Relay
from netplug.kernel.descriptors import lifted

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds for a process to come up, and to answer."""
_RETRY = 1.0

Sockets = Sequence[_socket.socket]


class _Lost(Exception):
    """The process ended before the answer came."""


class Forwarder:
    """The forwarder process of a run directory. What it is to do is remembered here, and said again to a process that comes after it.

    Errors: Unavailable if no process can be started or reached, or if it refuses (its log says why).
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir.absolute()
        self._wanted: dict[str, dict[str, tuple[Relay, Sockets]]] = {}
        """By owner and relay id."""
        self._present: dict[str, Relay] = {}
        """What the process relays, by relay id."""
        self._sock: socket.socket | None = None
        self._turn = asyncio.Lock()
        self._recovery: asyncio.Task[None] | None = None
        self._stopped = False
        self.pid = 0
        """Of the process we are connected to."""

    async def resume(self) -> list[tuple[Relay, list[_socket.socket]]]:
        """What a process that outlived another daemon relays, with its sockets, which are the caller's; [] without such a process."""
        self._stopped = False
        async with self._turn:
            try:
                return await self._resume() if await self._connect() else []
            except _Lost:
                return []

    async def put(self, owner: str, relays: Sequence[tuple[Relay, Sockets]]) -> None:
        """Relay these and nothing else for that owner; sockets go on being the caller's, and stay open until they are in no `put` any more.

        When this returns what is not relayed any more is closed in the process, connections included.
        """
        if not relays and owner not in self._wanted:
            return
        self._wanted.pop(owner, None)
        if relays:
            self._wanted[owner] = {f"{owner}/{relay.key}": (relay, sockets) for relay, sockets in relays}
        async with self._turn:
            await self._agree(owner)

    async def settle(self) -> None:
        """Drop what the process relays for nobody: left by a daemon that is gone."""
        async with self._turn:
            await self._agree("")

    async def stop(self) -> None:
        """Disconnect. The process goes on."""
        self._stopped = True
        if self._recovery:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        self._disconnect()

    async def _agree(self, owner: str) -> None:
        """Make the process relay what is wanted of it, for one owner or (`""`) for all; a process that is not needed is not started."""
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    with contextlib.suppress(_Lost):
                        if self._sock is None:
                            if not self._wanted:
                                return
                            if self._stopped:
                                raise Unavailable("another daemon has taken the forwarder process over")
                            await self._start()
                            owner = ""
                        await self._say_what_differs(owner)
                        return
        except TimeoutError:
            self._disconnect()
            raise Unavailable(f"the forwarder process does not answer; see {self._run_dir}/forwarder.log") from None

    async def _say_what_differs(self, owner: str) -> None:
        owners = (owner,) if owner else (*self._wanted,)
        wanted = {identity: found for one in owners for identity, found in self._wanted.get(one, {}).items()}
        known = [identity for identity in self._present if not owner or identity.startswith(f"{owner}/")]
        for identity in known:
            if identity not in wanted:
                del self._present[identity]
                await self._ask({"op": "remove", "id": identity})
        for identity, (relay, sockets) in wanted.items():
            if self._present.get(identity) != relay:
                await self._add(identity, relay, sockets)

    async def _add(self, identity: str, relay: Relay, sockets: Sockets) -> None:
        descriptors = [found.fileno() for found in sockets]
        for first in range(0, len(descriptors), channel.MAX_DESCRIPTORS):
            message = {"op": "add", "id": identity, "relay": relay, "first": first}
            await self._ask(message, descriptors[first : first + channel.MAX_DESCRIPTORS])
        self._present[identity] = relay

    async def _resume(self) -> list[tuple[Relay, list[_socket.socket]]]:
        found: dict[str, tuple[Relay, list[_socket.socket]]] = {}
        message: dict[str, Any] = {"op": "show", "id": "", "first": 0}
        while True:
            answer, descriptors = await self._ask(message)
            if not answer:
                break
            identity = answer["id"]
            relay, sockets = found.setdefault(identity, (msgspec.convert(answer["relay"], Relay), []))
            sockets += [_socket.socket(fileno=lifted(descriptor)) for descriptor in descriptors]
            message = {"op": "show", "id": identity, "first": answer["first"] + len(descriptors)}
        for identity, (relay, sockets) in list(found.items()):
            if len(sockets) == relay.count:
                self._present[identity] = relay
                continue
            # The daemon ended while it handed them over.
            for opened in found.pop(identity)[1]:
                opened.close()
            await self._ask({"op": "remove", "id": identity})
        return list(found.values())

    async def _start(self) -> None:
        while not await self._connect():
            await self._spawn()

    async def _connect(self) -> bool:
        """True: connected, and the process speaks our protocol in our namespace. One that does not is told to end."""
        self._disconnect()
        sock = channel.unconnected()
        try:
            sock.connect(channel.socket_path(self._run_dir))
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            sock.close()
            return False
        self._sock = sock
        answer, _ = await self._ask({"op": "hello", "protocol": channel.PROTOCOL})
        if (answer["protocol"], answer["cookie"]) != (channel.PROTOCOL, channel.namespace_cookie(sock)):
            log.warning("the forwarder process %s is of another version or network namespace and is replaced", answer["pid"])
            await self._ask({"op": "quit"})
            await _readable(sock)
            self._disconnect()
            return False
        self.pid = answer["pid"]
        asyncio.get_running_loop().add_reader(sock, self._unasked)
        return True

    async def _spawn(self) -> None:
        """Start a process and wait until it is there (ours, or that of somebody who was quicker)."""
        package_root = str(Path(netplug.__file__).parent.parent)
        search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
        errors = os.open(self._run_dir / "forwarder.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "netplug.forwarder", str(self._run_dir)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": search},
                start_new_session=True,
            )
            failed = await child.wait()
        finally:
            os.close(errors)
        if failed:
            raise Unavailable(f"the forwarder process did not start; see {self._run_dir}/forwarder.log")

    async def _ask(self, content: dict[str, Any], descriptors: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
        """The answer, with the descriptors that came with it. One question at a time."""
        sock, loop = self._sock, asyncio.get_running_loop()
        if sock is None:
            raise _Lost
        loop.remove_reader(sock)
        try:
            channel.send(sock, msgspec.json.encode(content), list(descriptors))
            await _readable(sock)
            data, found = channel.receive(sock)
        except (OSError, channel.Garbled) as error:
            log.debug("forwarder connection: %s", error)
            data, found = b"", []
        answer = msgspec.json.decode(data) if data else {"replaced": True}
        if "replaced" in answer:
            self._stopped |= bool(data)
            self._disconnect()
            raise _Lost
        loop.add_reader(sock, self._unasked)
        if "error" in answer:
            raise Unavailable(f"the forwarder process refused: {answer['error']}")
        return answer, found

    def _unasked(self) -> None:
        """The process has ended, or another daemon has taken it over."""
        assert self._sock is not None
        with contextlib.suppress(OSError, channel.Garbled):
            self._stopped |= bool(channel.receive(self._sock)[0])
        self._disconnect()
        if self._wanted and not self._stopped and (self._recovery is None or self._recovery.done()):
            log.warning("the forwarder process has ended; starting another")
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        while self._wanted and not self._stopped:
            try:
                await self.settle()
                return
            except (Unavailable, OSError):
                log.exception("the forwarder process could not be brought back; trying again")
            await asyncio.sleep(_RETRY)

    def _disconnect(self) -> None:
        self._present = {}
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
