"""Containers, as the API speaks of them: every operation takes a name, an id, or a unique prefix of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec

from netplug.errors import Conflict, Forbidden, InvalidArgument
from netplug.model import new_id, now
from netplug.runtime import configure, conmon, execs, logs, names, signals
from netplug.runtime.attach import AttachSession
from netplug.runtime.conmon import Conmon
from netplug.runtime.events import ContainerEvents
from netplug.runtime.execs import Execs, ExecSession
from netplug.runtime.images import Images
from netplug.runtime.keeper import Keeper
from netplug.runtime.life import Life
from netplug.runtime.model import Attachment, Container, ContainerConfig, ExecConfig, ExecState, ExitStatus
from netplug.runtime.network_files import NetworkFiles
from netplug.runtime.networking import Controller, Networking, attachments, shares, wanted_attachments
from netplug.runtime.oci import Oci
from netplug.runtime.paths import Paths
from netplug.runtime.records import Records
from netplug.runtime.recovery import Recovery
from netplug.runtime.settings import RuntimeSettings
from netplug.runtime.upkeep import Upkeep
from netplug.runtime.waiting import Tasks, open_pid
from netplug.runtime.watcher import FileWatcher
from netplug.store import Store

Condition = Literal["not-running", "next-exit", "removed"]


class Containers:
    """All containers of this daemon. `restore` comes first, `close` last; containers go on after it."""

    def __init__(
        self,
        controller: Controller,
        store: Store,
        images: Images,
        run_dir: Path,
        state_dir: Path,
        settings: RuntimeSettings,
    ) -> None:
        self.events = ContainerEvents()
        self._controller, self._images = controller, images
        self._paths = Paths(run_dir, state_dir)
        self._tasks = Tasks()
        self._records = Records(store)
        oci = Oci(self._paths, settings.runtime)
        supervisor = Conmon(self._paths, oci)
        self._execs = Execs(self._paths, supervisor, self._tasks)
        self._execs.ended = self._exec_ended
        self._networking = Networking(controller, self._records.get)
        self._files = NetworkFiles(controller, self._paths, settings, self._records.get)
        self._keeper = Keeper(
            self._records, self._paths, oci, supervisor, self._networking, self._files, self.events, self._tasks, self._execs
        )
        self._upkeep = Upkeep(self._records, self._files, self._tasks)
        self._host_resolv_conf = FileWatcher(Path(settings.resolv_conf), self._upkeep.all_files)
        self._unsubscribe: Callable[[], None] = lambda: None
        images.users = lambda image: (container for container in self.all() if container.image_id == image)

    async def restore(self) -> None:
        """Read the records and make them and reality agree. The controller has been restored before."""
        self._paths.create()
        await self._images.load()
        await self._records.load()
        await Recovery(self._records, self._paths, self._keeper, self._networking).run()
        self._upkeep.all_files()
        self._unsubscribe = self._controller.events.subscribe(self._upkeep.network_changed)
        self._tasks.spawn(self._host_resolv_conf.run())

    async def close(self) -> None:
        """Let go of everything. Containers and detached exec sessions go on; attached exec sessions end, their clients are gone."""
        self._unsubscribe()
        await self._upkeep.close()
        for container in self._records.running():
            execs.kill_strays(self._paths.bundle(container.id), container.pid)
        await self._tasks.close()
        for life in self._keeper.lives():
            life.release()

    def get(self, reference: str) -> Container:
        return self._records.get(reference)

    def all(self) -> list[Container]:
        """Newest first."""
        return self._records.all()

    def draft(self, name: str, config: ContainerConfig) -> Container:
        """The container that `create` would make; nothing is changed."""
        name = names.check(name) if name else names.generate(self._records.names())
        image = self._images.get(config.image)
        config = configure.merged(config, image)
        configure.check(config)
        config = self._checked_networks(config)
        container = Container(id=new_id(), name=name, created=now(), config=config, image_id=image.id)
        self._records.check_free(name)
        for attachment in config.attachments:
            self._networking.check(container, attachment)
        return container

    async def plan_start(self, config: ContainerConfig, name: str) -> list[str]:
        """The commands that do by hand what a start does to the network: of the container of that name and config, or of a new one."""
        known = next((one for one in self.all() if one.name == name and one.config == config), None)
        container = known or self.draft(name, config)
        if shares(container):
            return []
        request, endpoints = self._networking.requests(container, self._files.hostname(container), self._files.dns(container))
        return self._controller.explain(await self._controller.plan_sandbox(request, endpoints))

    async def create(self, name: str, config: ContainerConfig) -> Container:
        """`name` `""`: one is made up. NotFound for its image, networks, or the container whose network it shares."""
        container = self.draft(name, config)
        await self._tasks.finish(self._create(container))
        return container

    async def start(self, reference: str) -> None:
        """Fine if it runs already."""
        await self._tasks.finish(self._start(self.get(reference).id))

    async def stop(self, reference: str, timeout: int | None = None) -> None:
        """Its stop signal, and SIGKILL after `timeout` seconds (None: the container's own; -1: never). Fine if it does not run."""
        container = self.get(reference)
        if container.status != "running":
            return
        patience = container.config.stop_timeout if timeout is None else timeout
        await self._end(container, signals.parse(container.config.stop_signal), patience)
        self.events.send("stop", self._records.find(container.id) or container)

    async def kill(self, reference: str, signal: str = "SIGKILL") -> None:
        """SIGKILL waits until it has ended; other signals are only sent."""
        number = signals.parse(signal or "SIGKILL")
        container = self.get(reference)
        if container.status != "running":
            raise Conflict(f"Cannot kill container: {reference}: Container {container.id} is not running")
        self.events.send("kill", container, signal=str(number))
        if number == signals.KILL:
            await self._end(container, number, -1)
        else:
            self._life(container).signal(number)

    async def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        """With its writable layer and its log. There are no volumes of our own, so `volumes` changes nothing."""
        container = self.get(reference)
        if container.status == "running" and not force:
            raise Conflict(
                f"You cannot remove a running container {container.id}. Stop the container before attempting removal or force remove"
            )
        await self._tasks.finish(self._remove(container))

    def wait(self, reference: str, condition: Condition = "not-running") -> Awaitable[ExitStatus]:
        """The container's exit; `next-exit` counts from this call, not from when the result is awaited."""
        container = self.get(reference)
        future: asyncio.Future[ExitStatus]
        if condition == "removed":
            future = self._life(container).removal()
        elif condition == "next-exit" or container.status == "running":
            future = self._life(container).next_exit()
        else:
            future = asyncio.get_running_loop().create_future()
            future.set_result(ExitStatus(container.exit_code))
        return _await(future)

    async def connect(self, network: str, reference: str, attachment: Attachment) -> None:
        """Onto one more network: at once if it runs, else when it starts."""
        attachment = msgspec.structs.replace(attachment, network=self._controller.network(network).name)
        await self._tasks.finish(self._connect(self.get(reference).id, attachment))

    async def disconnect(self, network: str, reference: str, force: bool = False) -> None:
        """Off a network, now and for its next starts. `force`: also from a network that is gone."""
        await self._tasks.finish(self._disconnect(self.get(reference).id, network, force))

    async def attach(self, reference: str) -> AttachSession:
        """To a running container, or to one that will be started: then the session misses nothing."""
        container = self.get(reference)
        session = AttachSession(terminal=container.config.tty, stdin=container.config.stdin)
        if container.status != "running":
            self._life(container).wait_for_start(session)
            return session
        try:
            session.connect(self._paths.bundle(container.id))
        except OSError as error:
            raise Conflict(f"cannot attach to container {container.id}: {error.strerror}") from error
        return session

    async def resize(self, reference: str, height: int, width: int) -> None:
        await conmon.resize(self._paths.bundle(self._running(reference).id), height, width)

    def logs(
        self,
        reference: str,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        since: float = 0,
        until: float = 0,
        tail: int | None = None,
        timestamps: bool = False,
    ) -> AsyncIterator[tuple[int, bytes]]:
        """(1 stdout | 2 stderr, bytes) in pieces of any size; NotFound is raised at once."""
        container = self.get(reference)
        wanted = logs.Wanted(stdout, stderr, since, until, tail, timestamps, follow)
        path = self._paths.log(container.id)

        def growth() -> logs.Growth:
            return logs.Growth(path, open_pid(container.conmon_pid, container.conmon_started) if follow else None)

        return logs.stream(path, wanted, growth)

    async def exec_create(self, reference: str, config: ExecConfig) -> str:
        container = self._running(reference)
        if not config.command:
            raise InvalidArgument("No exec command specified")
        identity = self._execs.create(container, config)
        self.events.send("exec_create", container, execID=identity)
        return identity

    async def exec_start(self, identity: str, *, detach: bool | None = None, tty: bool | None = None) -> ExecSession:
        """None: as `exec_create` was told."""
        container = self._running(self._execs.inspect(identity).container)
        self._upkeep.show(container)
        session = await self._execs.start(identity, container, self._keeper.launcher.user, detach=detach, tty=tty)
        self.events.send("exec_start", container, execID=identity)
        return session

    def exec_inspect(self, identity: str) -> ExecState:
        return self._execs.inspect(identity)

    def execs_of(self, reference: str) -> list[str]:
        """Ids of a container's exec sessions that run."""
        return self._execs.of(self.get(reference).id)

    async def exec_resize(self, identity: str, height: int, width: int) -> None:
        await self._execs.resize(identity, height, width)

    # What is done with the lock held

    async def _create(self, container: Container) -> None:
        await self._records.add(container)
        self._paths.record(container.id).mkdir(mode=0o710)
        self.events.send("create", container)

    async def _start(self, identity: str) -> None:
        async with self._keeper.life(identity).lock:
            container = self.get(identity)
            if container.status != "running":
                await self._keeper.start(container)

    async def _end(self, container: Container, number: int, patience: float) -> None:
        """Signal, wait for the end, and after `patience` seconds (negative: for ever) kill."""
        life = self._life(container)
        ended = life.next_exit()
        life.signal(number)
        try:
            async with asyncio.timeout(patience if patience >= 0 else None):
                await asyncio.shield(ended)
        except TimeoutError:
            life.signal(signals.KILL)
            await ended

    async def _remove(self, container: Container) -> None:
        life = self._life(container)
        life.removing = True
        try:
            while current := self._records.find(container.id):
                if current.status == "running":
                    await self._end(current, signals.KILL, -1)
                async with life.lock:
                    dead = self._records.find(container.id)
                    if dead and dead.status != "running":
                        await self._keeper.discard(dead)
        finally:
            life.removing = False

    async def _connect(self, identity: str, attachment: Attachment) -> None:
        async with self._keeper.life(identity).lock:
            container = self.get(identity)
            self._networking.check(container, attachment)
            network = self._networking.network_id(attachment.network)
            present = attachments(container)
            if network in {self._networking.network_id(one.network) for one in present}:
                raise Forbidden(f"endpoint with name {container.name} already exists in network {attachment.network}")
            if container.status == "running":
                await self._networking.connect(container, attachment)
            await self._attach_record(container, (*present, attachment))

    async def _disconnect(self, identity: str, reference: str, force: bool) -> None:
        async with self._keeper.life(identity).lock:
            container = self.get(identity)
            if container.config.network_mode == "host":
                raise Forbidden("container cannot be disconnected from host network - container was created in host network mode")
            if container.config.network_mode == "none" and self._controller.network(reference).name == "none":
                await self._leave_none(container)
                return
            network = self._networking.network_id(reference) if force else self._controller.network(reference).id
            present = attachments(container)
            kept = tuple(one for one in present if self._networking.network_id(one.network) != network)
            connected = network in self._networking.connected(container.id)
            if not connected and len(kept) == len(present):
                raise Forbidden(f"container {container.id} is not connected to network {reference}")
            if connected:
                await self._controller.disconnect(network, container.id)
            await self._attach_record(container, kept)

    async def _leave_none(self, container: Container) -> None:
        """It is on no network as before, but from here on it may be connected to any."""
        config = msgspec.structs.replace(container.config, network_mode="default")
        await self._records.put(msgspec.structs.replace(container, config=config))

    async def _attach_record(self, container: Container, wanted: tuple[Attachment, ...]) -> None:
        config = msgspec.structs.replace(container.config, attachments=wanted, ports=self._networking.ports(container))
        changed = msgspec.structs.replace(container, config=config)
        if container.status != "running":
            await self._records.put(changed)
            return
        # The endpoint is the record that counts while it runs (see Networking.agreed): nobody need wait for this one.
        self._upkeep.record(changed)

    # Smaller things

    def _checked_networks(self, config: ContainerConfig) -> ContainerConfig:
        """Names instead of ids for networks, so that they can be made again; an id instead of a name for a container."""
        mode = config.network_mode
        if mode.startswith("container:"):
            mode = f"container:{self.get(mode.removeprefix('container:')).id}"
        wanted = wanted_attachments(config)
        named = tuple(msgspec.structs.replace(one, network=self._controller.network(one.network).name) for one in wanted)
        return msgspec.structs.replace(config, network_mode=mode, attachments=named)

    def _running(self, reference: str) -> Container:
        container = self.get(reference)
        if container.status != "running":
            raise Conflict(f"Container {container.id} is not running")
        return container

    def _life(self, container: Container) -> Life:
        return self._keeper.life(container.id)

    def _exec_ended(self, container: str, identity: str, code: int) -> None:
        found = self._records.find(container)
        if found:
            self.events.send("exec_die", found, execID=identity, exitCode=str(code))


async def _await(future: asyncio.Future[ExitStatus]) -> ExitStatus:
    return await future
