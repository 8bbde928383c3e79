"""What the API calls: the rooms behind it, each as the few methods that are used here.

The daemon fills a `Services` with the real ones, the tests with doubles.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from netplug.controller.requests import ControllerEvent, EndpointRequest, NetworkRequest, PoolUsage, SandboxRequest
from netplug.model import Endpoint, Network, Sandbox
from netplug.plan import Plan, Step
from netplug.runtime.images import Removed
from netplug.runtime.model import Attachment, Container, ContainerConfig, ExecConfig, ExecState, ExitStatus, Image

Unsubscribe: TypeAlias = Callable[[], None]
WaitCondition: TypeAlias = Literal["not-running", "next-exit", "removed"]


class ControllerEvents(Protocol):
    def subscribe(self, callback: Callable[[ControllerEvent], None], /) -> Unsubscribe: ...


class ContainerEvents(Protocol):
    def subscribe(self, subscriber: Callable[[str, Container, Mapping[str, str]], None], /) -> Unsubscribe: ...


class Controller(Protocol):
    """Networks, endpoints and sandboxes."""

    @property
    def events(self) -> ControllerEvents: ...

    def network(self, reference: str) -> Network: ...

    def networks(self) -> list[Network]: ...

    def endpoints(self, *, network: str = "", sandbox: str = "") -> list[Endpoint]: ...

    def sandbox(self, id: str, /) -> Sandbox | None: ...

    def pool_usage(self, network: Network) -> list[PoolUsage]: ...

    def healing(self) -> tuple[Mapping[str, int], list[str]]: ...

    async def create_network(self, request: NetworkRequest) -> Network: ...

    async def remove_network(self, reference: str) -> Network: ...

    async def plan_network(self, request: NetworkRequest) -> Plan: ...

    async def plan_network_removal(self, reference: str) -> Plan: ...

    async def plan_connect(self, reference: str, sandbox: str, request: EndpointRequest) -> Plan: ...

    async def plan_disconnect(self, reference: str, sandbox: str) -> Plan: ...

    async def plan_sandbox(self, request: SandboxRequest, attachments: Sequence[tuple[str, EndpointRequest]] = ()) -> list[Plan]: ...

    async def plan_sandbox_removal(self, identity: str, /) -> Plan: ...

    def recording(self) -> AbstractContextManager[list[Plan]]: ...

    def explain(self, plans: Sequence[Plan]) -> list[str]: ...


class Session(Protocol):
    """The streams of a container or of an exec; `read` gives None when there will be no more."""

    async def read(self) -> tuple[int, bytes] | None: ...

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    def close(self) -> None: ...


class Containers(Protocol):
    """The life of containers."""

    @property
    def events(self) -> ContainerEvents: ...

    def get(self, reference: str) -> Container: ...

    def all(self) -> list[Container]: ...

    async def create(self, name: str, config: ContainerConfig) -> Container: ...

    async def start(self, reference: str) -> None: ...

    async def plan_start(self, config: ContainerConfig, name: str) -> list[str]: ...

    async def stop(self, reference: str, timeout: int | None = None) -> None: ...

    async def kill(self, reference: str, signal: str = "SIGKILL") -> None: ...

    async def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None: ...

    def wait(self, reference: str, condition: WaitCondition = "not-running") -> Awaitable[ExitStatus]:
        """Counts from the call, not from when the result is awaited."""

    async def connect(self, network: str, reference: str, attachment: Attachment) -> None: ...

    async def disconnect(self, network: str, reference: str, force: bool = False) -> None: ...

    async def attach(self, reference: str) -> Session: ...

    async def resize(self, reference: str, height: int, width: int) -> None: ...

    def logs(
        self,
        reference: str,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        since: float = 0.0,
        until: float = 0.0,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> AsyncIterator[tuple[int, bytes]]: ...

    async def exec_create(self, reference: str, config: ExecConfig) -> str: ...

    async def exec_start(self, id: str, /, *, tty: bool = False, detach: bool = False) -> Session | None: ...

    def exec_inspect(self, id: str, /) -> ExecState: ...

    async def exec_resize(self, id: str, /, height: int, width: int) -> None: ...


class Images(Protocol):
    def get(self, reference: str) -> Image: ...

    def all(self) -> list[Image]: ...

    async def import_(self, stream: AsyncIterator[bytes], repository: str, changes: Sequence[str] = ()) -> Image: ...

    def explain_import(self, digest: str, source: str) -> list[str]: ...

    async def remove(self, reference: str, *, force: bool = False) -> Removed: ...

    def explain_removal(self, reference: str, *, force: bool = False) -> list[str]: ...


class JournalEntry(Protocol):
    @property
    def time(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def by(self) -> str: ...
    @property
    def steps(self) -> tuple[Step, ...]: ...
    @property
    def error(self) -> str: ...


class Journal(Protocol):
    def entries(self, limit: int = ...) -> Sequence[JournalEntry]: ...

    def subscribe(self, listener: Callable[[JournalEntry], None], /) -> Unsubscribe: ...


class Settings(Protocol):
    @property
    def state_dir(self) -> str | os.PathLike[str]: ...

    @property
    def default_network_options(self) -> Mapping[str, Mapping[str, str]]:
        """By driver: options of new networks that say nothing else."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a request may need."""

    controller: Controller
    containers: Containers
    images: Images
    journal: Journal
    settings: Settings
    version: str
    advise: Callable[[Network], Sequence[str]] = lambda network: ()
    """What a network that was just made may run into on this host."""
