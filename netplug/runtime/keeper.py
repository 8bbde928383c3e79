"""Start a container, see it end, and leave nothing behind: the one place where a container's steps are ordered.

Start: sandbox and endpoints, files, root file system, bundle, `create` under conmon, attachers, `start`, record. Whatever fails, and
however a container ends, `tear_down` is the one way back. The end is seen by the pidfd of the container's conmon, which writes the exit
code to a file before it goes. That file is deleted only after the code is in the record: a daemon that dies in between finds it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable

import msgspec

from netplug.errors import NetplugError
from netplug.model import now
from netplug.runtime import cgroups, mounts, processes
from netplug.runtime.conmon import Conmon, Created, exit_status
from netplug.runtime.events import ContainerEvents
from netplug.runtime.execs import Execs
from netplug.runtime.launch import Launcher
from netplug.runtime.life import Life
from netplug.runtime.model import Container, ExitStatus
from netplug.runtime.network_files import NetworkFiles
from netplug.runtime.networking import Networking
from netplug.runtime.oci import Oci, RuntimeFailed
from netplug.runtime.paths import Paths
from netplug.runtime.records import Records
from netplug.runtime.trees import remove_tree
from netplug.runtime.waiting import Tasks, open_pid, readable

log = logging.getLogger(__name__)

LOST = 137
"""The exit code of a container whose conmon was killed: nobody knows the real one."""
_CONMON_PATIENCE = 5.0
"""Seconds for conmon to notice the end of the container's process."""


class Keeper:
    """Its methods are called with the container's lock held, except `watch`."""

    def __init__(
        self,
        records: Records,
        paths: Paths,
        oci: Oci,
        conmon: Conmon,
        networking: Networking,
        files: NetworkFiles,
        events: ContainerEvents,
        tasks: Tasks,
        execs: Execs,
    ) -> None:
        self._records, self._paths, self._oci, self._conmon, self._networking = records, paths, oci, conmon, networking
        self._files, self._events, self._tasks, self._execs = files, events, tasks, execs
        self.launcher = Launcher(paths, files)
        self._lives: dict[str, Life] = {}

    def life(self, container: str) -> Life:
        found = self._lives.get(container)
        if found is None:
            found = self._lives[container] = Life()
        return found

    def lives(self) -> list[Life]:
        return list(self._lives.values())

    async def start(self, container: Container) -> Container:
        """Returns the running container; or raises with everything undone and the reason in the record."""
        warming = asyncio.get_running_loop().run_in_executor(None, cgroups.warm_up)
        try:
            created = await self._create(container)
            self.life(container.id).connect_sessions(self._paths, container.id)
            await self._oci.start(container.id)
        except BaseException as error:
            await self._failed(container, error)
            raise
        finally:
            await warming
        return await self.started(container, created)

    async def started(self, container: Container, created: Created) -> Container:
        """Its process runs: write it down, and watch it."""
        running = msgspec.structs.replace(
            container,
            config=msgspec.structs.replace(container.config, ports=self._networking.ports(container)),
            status="running",
            pid=created.pid,
            conmon_pid=created.conmon_pid,
            conmon_started=created.conmon_started,
            exit_code=0,
            error="",
            started=now(),
            finished="",
        )
        await self._records.put(running)
        self.watch(running, open_pid(running.conmon_pid, running.conmon_started))
        self._events.send("start", running)
        return running

    def watch(self, container: Container, conmon: int | None) -> None:
        """Hold its process, and act when its conmon ends; `conmon` is a pidfd that is closed then, None for one that has ended."""
        self.life(container.id).hold(processes.child_of(container.pid, container.conmon_pid))
        self._tasks.spawn(self._watch(container, conmon))

    async def discard(self, container: Container) -> None:
        """Delete the record and the files of a container that does not run."""
        await self._records.remove(container)
        life = self._lives.pop(container.id, None)
        try:
            await asyncio.to_thread(remove_tree, self._paths.record(container.id))
        finally:
            self._execs.forget(container.id)
            self._files.forget(container.id)
            self._events.send("destroy", container)
            if life is not None:
                life.fail_sessions()
                life.removed(ExitStatus(container.exit_code))

    async def ended(self, container: Container, code: int) -> None:
        """Its process is gone: give everything back, write it down, tell everybody."""
        life = self.life(container.id)
        life.release()
        await self.tear_down(container.id)
        changes = {"status": "exited", "pid": 0, "conmon_pid": 0, "conmon_started": 0, "exit_code": code, "finished": now()}
        dead = msgspec.structs.replace(container, **changes)
        await self._records.put(dead)
        self._paths.exit_file(container.id).unlink(missing_ok=True)
        self._events.send("die", dead, exitCode=str(code))
        life.exited(ExitStatus(code))
        if container.config.auto_remove and not life.removing:
            await self.discard(dead)

    async def tear_down(self, container: str) -> None:
        """End what runs of it and give back all it has, but its files. Every step is tried; what fails is logged.

        At the next start of the daemon it is tried again.
        """
        steps: list[Awaitable[None]] = [
            self._end_processes(container),
            self._networking.down(container),
            asyncio.to_thread(mounts.unmount, self._paths.mount(container)),
        ]
        results = await asyncio.gather(*steps, return_exceptions=True)
        try:
            self.launcher.clear(container)
        except (NetplugError, OSError) as error:
            results.append(error)
        for result in results:
            if isinstance(result, BaseException):
                log.error("clearing away container %.12s: %s", container, result)

    async def _create(self, container: Container) -> Created:
        joined = await self._networking.up(container, self._files.hostname(container), self._files.dns(container))
        self._files.write_files(container)
        self.launcher.prepare(container, joined)
        config = container.config
        return await self._conmon.create(
            container.id, container.name, terminal=config.tty, stdin=config.stdin, stdin_once=config.stdin_once
        )

    async def _failed(self, container: Container, error: BaseException) -> None:
        life = self.life(container.id)
        life.fail_sessions()
        await self.tear_down(container.id)
        code = error.exit_code if isinstance(error, RuntimeFailed) else 128
        failed = msgspec.structs.replace(container, exit_code=code, error=str(error) or type(error).__name__)
        await self._records.put(failed)
        self._paths.exit_file(container.id).unlink(missing_ok=True)
        life.exited(ExitStatus(code, failed.error))
        if container.config.auto_remove:
            await self.discard(failed)

    async def _watch(self, container: Container, conmon: int | None) -> None:
        if conmon is not None:
            try:
                await readable(conmon)
            finally:
                os.close(conmon)
        if container.id not in self._records:
            return
        async with self.life(container.id).lock:
            current = self._records.find(container.id)
            if current and current.status == "running" and current.conmon_pid == container.conmon_pid:
                code = exit_status(self._paths, container.id)
                await self.ended(current, LOST if code is None else code)

    async def _end_processes(self, container: str) -> None:
        """The runtime kills what runs of the container; then its conmon goes by itself, and is waited for."""
        conmon = processes.conmon_of(self._paths.bundle(container), container)
        try:
            await self._oci.delete(container)
            if conmon is not None:
                async with asyncio.timeout(_CONMON_PATIENCE):
                    await readable(conmon)
        finally:
            if conmon is not None:
                os.close(conmon)
