"""`Resolver`: the daemon's side of the resolver process. Starts it, tells it names, hands it sockets, and brings it back if it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

import netplug
from netplug.errors import InvalidArgument, Unavailable
from netplug.resolver import channel
from netplug.resolver.model import EndpointNames, SandboxNames

log = logging.getLogger(__name__)

START_TIMEOUT = 10.0
CALL_TIMEOUT = 5.0
"""Seconds. A request that meets a dying process waits for the next one; beyond this it fails with Unavailable."""

_PER_MESSAGE = 48 * 1024
_ENVELOPE = 1024
"""Together well below channel.MAX_MESSAGE."""
_RETRY = 1.0
_GRACE = 0.02
"""Seconds before a process that has died is replaced: whoever ends all of a host's processes has us as the next."""


class _Lost(Exception):
    """The connection ended before the answer came."""


class _Message:
    """One request: bytes, descriptors to go with it, and where the answer goes."""

    def __init__(self, content: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        self.data, self.descriptors = msgspec.json.encode(content), descriptors
        if len(self.data) > _PER_MESSAGE + _ENVELOPE:
            raise InvalidArgument(f"too many names for one endpoint or sandbox: {len(self.data)} bytes, at most {_PER_MESSAGE}")


_Answer: TypeAlias = asyncio.Future[dict[str, Any]]


class _Connection:
    """A connected socket on the running loop. Requests go out in order, answers come in order."""

    def __init__(self, sock: socket.socket, lost: Callable[[], None]) -> None:
        self._sock, self._lost = sock, lost
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[_Message, _Answer]] = deque()
        self._waiting: deque[_Answer] = deque()
        self._blocked = False
        """The process does not take more just now."""
        self.replaced = False
        self.closed = asyncio.Event()
        self._loop.add_reader(sock, self._readable)

    def request(self, message: _Message) -> _Answer:
        """Queue it; the answer comes to the future."""
        future: _Answer = self._loop.create_future()
        if self.closed.is_set():
            future.set_exception(_Lost())
            return future
        self._unsent.append((message, future))
        if len(self._unsent) == 1:
            self._flush()
        return future

    def _flush(self) -> None:
        try:
            while self._unsent:
                message, future = self._unsent[0]
                if not future.cancelled():  # else its descriptors may be closed, and their numbers somebody else's
                    channel.send(self._sock, message.data, message.descriptors)
                    self._waiting.append(future)
                self._unsent.popleft()
            if self._blocked:
                self._blocked = False
                self._loop.remove_writer(self._sock)
        except BlockingIOError:
            self._blocked = True
            self._loop.add_writer(self._sock, self._flush)
        except OSError as error:
            log.debug("resolver connection: %s", error)
            self.close()

    def look(self) -> None:
        """Take the answers that are there by now, which the loop would bring in its next turn."""
        while self._waiting and self._readable():
            pass

    def _readable(self) -> bool:
        """False: nothing was there, or will be."""
        try:
            data = self._sock.recv(channel.MAX_MESSAGE)
        except BlockingIOError:
            return False
        except OSError as error:
            log.debug("resolver connection: %s", error)
            data = b""
        if not data:
            self.close()
            return False
        answer = msgspec.json.decode(data)
        if "replaced" in answer:
            self.replaced = True
        elif not (future := self._waiting.popleft()).done():
            future.set_result(answer)
        return True

    def close(self) -> None:
        """Who waits gets _Lost."""
        if self.closed.is_set():
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self.closed.set()
        for future in [*self._waiting, *(future for _, future in self._unsent)]:
            if not future.done():
                future.set_exception(_Lost())
        self._lost()


class Compared(NamedTuple):
    """What differs in the process."""

    missing: set[str]
    """Sandboxes whose sockets it does not hold, or that it answers otherwise."""
    unknown: set[str]
    """Endpoints that it does not know, or knows by other names or addresses."""
    surplus: int
    """How many of both it has beside these."""


class Resolver:
    """The resolver process of a run directory, as the daemon uses it. All methods may be repeated without harm.

    Errors: Unavailable if no process can be started or reached, or if it refuses (its log says why).
    """

    def __init__(self, run_dir: Path, *, host_resolv_conf: str = "/etc/resolv.conf") -> None:
        self._run_dir, self._resolv_conf = run_dir.absolute(), os.path.abspath(host_resolv_conf)
        self._connection: _Connection | None = None
        self._ready = asyncio.Event()
        self._recovery: asyncio.Task[None] | None = None
        self._stopped = True
        self.recovers = True
        """Whether a process that dies is replaced at once. A daemon that ends leaves that to the next one."""
        self.pid = 0
        """Of the process we are connected to."""
        self.on_lost: Callable[[], Awaitable[None]] | None = None
        """Called when the process has died and a new, empty one is there: `sync`, and `add_sandbox` for all."""

    async def start(self) -> None:
        """Connect to the process that lives, or start one."""
        self._stopped = False
        if self._connected:
            return
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._connect():
                    await self._spawn()
        except TimeoutError:
            if self._connection:
                self._connection.close()
            raise Unavailable(f"the resolver process does not answer; see {self._run_dir}/resolver.log") from None

    async def sync(self, endpoints: Iterable[EndpointNames], sandboxes: Iterable[SandboxNames]) -> set[str]:
        """Make the process's state exactly this. Returns the sandboxes whose sockets it does not hold: they need `add_sandbox`."""
        answers = await self._call(list(_sync_messages(list(endpoints), list(sandboxes))))
        return {id for answer in answers for id in answer["missing"]}

    async def compare(self, endpoints: Iterable[EndpointNames], sandboxes: Iterable[SandboxNames]) -> Compared:
        """How the process's state differs from this. Nothing changes."""
        answers = await self._call(list(_sync_messages(list(endpoints), list(sandboxes), "compare")))
        return Compared(
            missing={id for answer in answers for id in answer["missing"]},
            unknown={id for answer in answers for id in answer["unknown"]},
            surplus=sum(answer["surplus"] for answer in answers),
        )

    async def add_sandbox(self, names: SandboxNames, udp: socket.socket, tcp: socket.socket) -> None:
        """Hand over the sockets (`tcp` listens) that were made in the sandbox. Ours are closed whatever happens."""
        with udp, tcp:
            await self._call([_Message({"op": "add", "sandbox": names}, (udp.fileno(), tcp.fileno()))])

    def update_sandbox(self, names: SandboxNames) -> Awaitable[None]:
        """The sandbox sees other networks or links now. Nothing happens if its sockets are not there: add_sandbox will say it all."""
        return self._tell([_Message({"op": "update", "sandbox": names})])

    async def remove_sandbox(self, id: str) -> None:
        """When this returns the process has closed the sandbox's sockets."""
        await self._call([_Message({"op": "remove", "id": id})])

    def put(self, endpoint: EndpointNames, sandbox: SandboxNames | None = None) -> Awaitable[None]:
        """Answer with these names, from now on and in every sandbox of the network; with `sandbox`, `update_sandbox` on the way."""
        return self._tell(_with_update({"op": "put", "endpoint": endpoint}, sandbox))

    def drop(self, network: str, endpoint: str, sandbox: SandboxNames | None = None) -> Awaitable[None]:
        """The opposite of `put`."""
        return self._tell(_with_update({"op": "drop", "network": network, "endpoint": endpoint}, sandbox))

    async def change(self, put: Iterable[EndpointNames], drop: Iterable[tuple[str, str]]) -> None:
        """Many of both, in few messages; `drop` is of networks and endpoints, and comes first."""
        await self._call(list(_change_messages(list(put), list(drop))))

    async def stop(self) -> None:
        """Disconnect. The process goes on."""
        self._stopped = True
        if self._recovery:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        if self._connection:
            self._connection.close()

    async def shutdown(self) -> None:
        """End the process, if there is one."""
        self._stopped = True
        if not self._connected:
            await self._connect()
        if self._connection and self._connected:
            connection = self._connection
            with contextlib.suppress(_Lost):
                await connection.request(_Message({"op": "quit"}))
            async with asyncio.timeout(CALL_TIMEOUT):
                await connection.closed.wait()
        await self.stop()

    @property
    def _connected(self) -> bool:
        return self._ready.is_set() and self._connection is not None and not self._connection.closed.is_set()

    def _tell(self, messages: Sequence[_Message]) -> Awaitable[None]:
        """They have gone out when this returns, if there is a process; it answers while others work."""
        answers = self._sent(messages) if self._connected else []

        async def answered() -> None:
            if answers and self._connection is not None:
                self._connection.look()  # it has had time
            if not answers or not all(map(_is_good, answers)):
                await self._call(messages, answers)

        return answered()

    async def _call(self, messages: Sequence[_Message], answers: Sequence[_Answer] = ()) -> list[dict[str, Any]]:
        """The answers, to come where the messages have gone out. They go out together; if the process dies, all go to the next one."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                while not self._stopped:
                    await self._ready.wait()
                    with contextlib.suppress(_Lost):
                        awaited, answers = answers or self._sent(messages), ()
                        return [_checked(answer) for answer in await _all(awaited)]
                    if self._connection is not None and self._connection.replaced:
                        break
        except TimeoutError:
            pass
        why = "another daemon has taken it over" if self._connection and self._connection.replaced else "it does not answer"
        raise Unavailable(f"the resolver process cannot be told: {why}; see {self._run_dir}/resolver.log")

    def _sent(self, messages: Sequence[_Message]) -> list[_Answer]:
        assert self._connection is not None
        return [self._connection.request(message) for message in messages]

    async def _connect(self) -> bool:
        """True: connected, and the process speaks our protocol in our namespace. One that does not is told to end."""
        sock = channel.unconnected()
        try:
            sock.connect(channel.socket_path(self._run_dir))
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            sock.close()
            return False
        self._connection = connection = _Connection(sock, self._disconnected)
        try:
            hello = {"op": "hello", "protocol": channel.PROTOCOL, "resolv_conf": self._resolv_conf}
            answer = _checked(await connection.request(_Message(hello)))
            if (answer["protocol"], answer["cookie"]) != (channel.PROTOCOL, channel.namespace_cookie(sock)):
                log.warning("the resolver process %s is of another version or network namespace and is replaced", answer["pid"])
                await connection.request(_Message({"op": "quit"}))
                await connection.closed.wait()
                return False
        except _Lost:
            return False
        self.pid = answer["pid"]
        self._ready.set()
        return True

    async def _spawn(self) -> None:
        """Start a process and wait until it is there (ours, or that of somebody who was quicker)."""
        self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        package_root = str(Path(netplug.__file__).parent.parent)
        search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
        errors = os.open(self._run_dir / "resolver.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "netplug.resolver", str(self._run_dir), self._resolv_conf),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": search},
                start_new_session=True,
            )
        finally:
            os.close(errors)
        if status := await child.wait():
            raise Unavailable(f"the resolver process did not start (status {status}); see {self._run_dir}/resolver.log")

    def _disconnected(self) -> None:
        """The connection has ended; unless we ended it, find or start another process."""
        was_ready = self._ready.is_set()
        self._ready.clear()
        if self._stopped or not was_ready or not self.recovers:
            return
        if self._connection and self._connection.replaced:
            log.error("another daemon has taken over the resolver of %s", self._run_dir)
            self._ready.set()  # so that calls fail at once, and say why
            return
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        """Until there is a process that knows everything again, or another daemon has taken it."""
        await asyncio.sleep(_GRACE)
        if not self.recovers:
            return
        log.warning("the resolver process of %s has died; starting another", self._run_dir)
        while not (self._connection and self._connection.replaced):
            try:
                await self.start()
                pid = self.pid
                if self.on_lost:
                    await self.on_lost()
                if self._connected and self.pid == pid:
                    return
            except Exception:
                log.exception("the resolver process could not be brought back; trying again")
            await asyncio.sleep(_RETRY)


def _with_update(content: dict[str, Any], sandbox: SandboxNames | None) -> list[_Message]:
    """One message, unless there are links: many of them fill one by themselves."""
    if sandbox is None:
        return [_Message(content)]
    if sandbox.extra:
        return [_Message(content), _Message({"op": "update", "sandbox": sandbox})]
    return [_Message(content | {"sandbox": sandbox})]


async def _all(answers: Sequence[_Answer]) -> list[dict[str, Any]]:
    if len(answers) == 1:
        return [await answers[0]]
    results = await asyncio.gather(*answers, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def _is_good(answer: _Answer) -> bool:
    """It has come, and is no refusal."""
    return answer.done() and not answer.cancelled() and answer.exception() is None and "error" not in answer.result()


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise Unavailable(f"the resolver process refused: {answer['error']}")
    return answer


def _sync_messages(endpoints: list[EndpointNames], sandboxes: list[SandboxNames], op: str = "sync") -> Iterator[_Message]:
    """The state in messages of a size that the socket takes."""
    chunks = [("endpoints", chunk) for chunk in _chunks(endpoints)] + [("sandboxes", chunk) for chunk in _chunks(sandboxes)]
    chunks = chunks or [("endpoints", [])]
    for position, (kind, chunk) in enumerate(chunks):
        content: dict[str, Any] = {"endpoints": [], "sandboxes": [], kind: [msgspec.Raw(item) for item in chunk]}
        yield _Message({"op": op, "first": position == 0, "last": position == len(chunks) - 1, **content})


def _change_messages(put: list[EndpointNames], drop: list[tuple[str, str]]) -> Iterator[_Message]:
    for kind, chunk in [("drop", chunk) for chunk in _chunks(drop)] + [("put", chunk) for chunk in _chunks(put)]:
        yield _Message({"op": "change", "drop": [], "put": []} | {kind: [msgspec.Raw(item) for item in chunk]})


def _chunks(items: Sequence[msgspec.Struct | tuple[str, str]]) -> list[list[bytes]]:
    """Items as JSON, as many together as one message holds."""
    chunks: list[list[bytes]] = []
    room = 0
    for item in map(msgspec.json.encode, items):
        if len(item) > _PER_MESSAGE:
            log.error("too many names for one endpoint or sandbox, it goes without: %s", item[:200])
            continue
        if len(item) > room or not chunks:
            chunks.append([])
            room = _PER_MESSAGE
        chunks[-1].append(item)
        room -= len(item) + 1
    return chunks
