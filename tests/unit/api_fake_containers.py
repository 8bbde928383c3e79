"""The double of the runtime behind the API: containers whose processes are words in queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from netplug.errors import Conflict, NotFound
from netplug.model import PortBinding, Sandbox, new_id, now
from netplug.runtime.model import Attachment, Container, ContainerConfig, ExecConfig, ExecState, ExitStatus

if TYPE_CHECKING:
    from api_fakes import FakeController, FakeImages


class FakeSession:
    """Says what was put in, echoes its input to standard output, ends when its input does."""

    def __init__(self, *output: tuple[int, bytes], ends: bool = True) -> None:
        self._queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        for item in output:
            self._queue.put_nowait(item)
        if ends:
            self._queue.put_nowait(None)
        self.stdin_closed = False
        self.closed = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        return await self._queue.get()

    def say(self, item: tuple[int, bytes] | None) -> None:
        self._queue.put_nowait(item)

    async def write(self, data: bytes) -> None:
        self._queue.put_nowait((1, data))

    async def close_stdin(self) -> None:
        self.stdin_closed = True
        self._queue.put_nowait(None)

    def close(self) -> None:
        self.closed.set()


class FakeContainerEvents:
    def __init__(self) -> None:
        self._subscribers: list[Callable[[str, Container, Mapping[str, str]], None]] = []

    def subscribe(self, subscriber: Callable[[str, Container, Mapping[str, str]], None]) -> Callable[[], None]:
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def send(self, action: str, container: Container, **attributes: str) -> None:
        for subscriber in self._subscribers:
            subscriber(action, container, attributes)


class FakeContainers:
    def __init__(self, controller: FakeController, images: FakeImages) -> None:
        self.controller, self.images = controller, images
        self.events = FakeContainerEvents()
        self.found: dict[str, Container] = {}
        self.session = FakeSession((1, b"out\n"), (2, b"err\n"))
        self.lines: list[tuple[int, bytes]] = [(1, b"one\n"), (2, b"two\n")]
        self.log_requests: list[dict[str, Any]] = []
        self.execs: dict[str, ExecState] = {}
        self.sizes: list[tuple[str, int, int]] = []
        self.signals: list[str] = []
        self.exits: dict[str, asyncio.Future[ExitStatus]] = {}
        self.waits: list[str] = []
        self.start_delay = 0.0
        self.starting = asyncio.Event()

    def get(self, reference: str) -> Container:
        for container in self.found.values():
            if reference in (container.name, container.id) or container.id.startswith(reference):
                return container
        raise NotFound(f"No such container: {reference}")

    def all(self) -> list[Container]:
        return list(self.found.values())

    def change(self, container: Container, **fields: Any) -> Container:
        changed = msgspec.structs.replace(container, **fields)
        self.found[container.id] = changed
        return changed

    async def create(self, name: str, config: ContainerConfig) -> Container:
        if any(container.name == name for container in self.found.values()):
            raise Conflict(f'Conflict. The container name "/{name}" is already in use')
        container = Container(
            id=new_id(), name=name or "happy_name", created=now(), config=config, image_id=self.images.get(config.image).id
        )
        self.found[container.id] = container
        self.events.send("create", container)
        return container

    async def plan_start(self, config: ContainerConfig, name: str) -> list[str]:
        if any(container.name == name and container.config != config for container in self.found.values()):
            raise Conflict(f'Conflict. The container name "/{name}" is already in use')
        return [f"start {name} on {','.join(one.network for one in config.attachments) or config.network_mode}"]

    async def start(self, reference: str) -> None:
        self.starting.set()
        await asyncio.sleep(self.start_delay)
        container = self.change(self.get(reference), status="running", pid=4242, started=now())
        ports = tuple(
            PortBinding(protocol=p.protocol, port=p.port, host_ip=p.host_ip, host_port=p.host_port or 49153) for p in container.config.ports
        )
        box = Sandbox(
            id=container.id,
            created=now(),
            name=container.name,
            namespace=f"/run/n/{container.id[:12]}",
            cookie=1,
            incarnation="i",
            ports=ports,
        )
        self.controller.boxes[container.id] = box
        for attachment in container.config.attachments:
            self.controller.plug(self.controller.network(attachment.network), container, attachment)
        self.events.send("start", container)

    async def stop(self, reference: str, timeout: int | None = None) -> None:
        await self._end(reference, 0)

    async def kill(self, reference: str, signal: str = "SIGKILL") -> None:
        container = self.get(reference)
        if container.status != "running":
            raise Conflict(f"Cannot kill container: {reference}: Container {container.id} is not running")
        self.signals.append(signal)
        await self._end(reference, 137)

    async def _end(self, reference: str, code: int) -> None:
        container = self.change(self.get(reference), status="exited", pid=0, exit_code=code, finished=now())
        self.controller.boxes.pop(container.id, None)
        for endpoint in self.controller.endpoints(sandbox=container.id):
            self.controller.unplug(self.controller.found[endpoint.network], container)
        if container.id in self.exits and not self.exits[container.id].done():
            self.exits[container.id].set_result(ExitStatus(code))
        self.events.send("die", container, exitCode=str(code))

    async def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        container = self.get(reference)
        if container.status == "running":
            if not force:
                raise Conflict(f"cannot remove container {reference}: container is running")
            await self._end(reference, 137)
        del self.found[container.id]
        self.events.send("destroy", container)

    def wait(self, reference: str, condition: str = "not-running") -> Awaitable[ExitStatus]:
        container = self.get(reference)
        self.waits.append(condition)
        if condition == "not-running" and container.status == "exited":
            ended = asyncio.get_running_loop().create_future()
            ended.set_result(ExitStatus(container.exit_code))
            return ended
        return asyncio.shield(self.exits.setdefault(container.id, asyncio.get_running_loop().create_future()))

    async def connect(self, network: str, reference: str, attachment: Attachment) -> None:
        container, found = self.get(reference), self.controller.network(network)
        if container.status == "running":
            self.controller.plug(found, container, attachment)
            return
        config = msgspec.structs.replace(container.config, attachments=(*container.config.attachments, attachment))
        self.change(container, config=config)

    async def disconnect(self, network: str, reference: str, force: bool = False) -> None:
        self.controller.unplug(self.controller.network(network), self.get(reference))

    async def attach(self, reference: str) -> FakeSession:
        return self.session

    async def resize(self, reference: str, height: int, width: int) -> None:
        self.sizes.append((reference, height, width))

    async def logs(self, reference: str, **wanted: Any) -> AsyncIterator[tuple[int, bytes]]:
        self.log_requests.append(wanted)
        for line in self.lines:
            yield line
        if wanted.get("follow"):
            await asyncio.Event().wait()

    async def exec_create(self, reference: str, config: ExecConfig) -> str:
        state = ExecState(id=new_id(), container=self.get(reference).id, config=config)
        self.execs[state.id] = state
        return state.id

    async def exec_start(self, id: str, *, tty: bool = False, detach: bool = False) -> FakeSession | None:
        return None if detach else self.session

    def exec_inspect(self, id: str) -> ExecState:
        if id not in self.execs:
            raise NotFound(f"No such exec instance: {id}")
        return self.execs[id]

    async def exec_resize(self, id: str, height: int, width: int) -> None:
        self.sizes.append((id, height, width))
