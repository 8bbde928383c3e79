"""Further processes in running containers, each under a conmon of its own: made, started, asked for, forgotten.

A session's folder is `<bundle>/exec-<id12>`, or `detached-<id12>`. The processes outlive the daemon; but nobody can attach to them
again, so `kill_strays` ends those that had a client when the next daemon starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from netplug import faults
from netplug.errors import Conflict, NetplugError, NotFound
from netplug.model import new_id
from netplug.runtime import bundle, capabilities, cgroups, conmon
from netplug.runtime.attach import AttachSession
from netplug.runtime.bundle import Json
from netplug.runtime.conmon import Conmon, Prepared
from netplug.runtime.model import Container, ExecConfig, ExecState
from netplug.runtime.oci import RuntimeFailed
from netplug.runtime.paths import Paths
from netplug.runtime.trees import remove_plain_tree
from netplug.runtime.users import User
from netplug.runtime.waiting import Tasks, open_pid

_KEEP = 300
"""Seconds for which the exit code of an ended session can be asked."""
_LOST = 137


class ExecSession:
    """The ends of one process: an attach session that also knows how the process ended."""

    def __init__(self, ends: AttachSession, *, terminal: bool) -> None:
        self._ends, self._terminal = ends, terminal
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._failure: RuntimeFailed | None = None

    def connect(self, folder: Path) -> None:
        self._ends.connect(folder)

    async def started(self) -> None:
        """Returns when the process runs; RuntimeFailed if it cannot."""
        await asyncio.shield(self._started)
        if self._failure is not None:
            raise self._failure

    async def wait(self) -> int:
        """The exit code."""
        return await asyncio.shield(self._ended)

    async def read(self) -> tuple[int, bytes] | None:
        """(1 stdout | 2 stderr, bytes), or None at the end. A process that cannot run says why on stderr."""
        piece = await self._ends.read()
        if piece is None and not self._ended.done():
            await self.wait()
        if piece is None and self._failure is not None:
            failure, self._failure = self._failure, None
            return (1 if self._terminal else 2), f"{failure}\r\n".encode()
        return piece

    async def write(self, data: bytes) -> None:
        await self._ends.write(data)

    async def close_stdin(self) -> None:
        await self._ends.close_stdin()

    def close(self) -> None:
        """The client has gone. The process goes on, as with Docker; what it still writes is thrown away."""
        self._ends.close()

    def running(self) -> None:
        self._started.set_result(None)

    def failed(self, failure: RuntimeFailed) -> None:
        self._failure = failure
        self._started.set_result(None)
        self.ended(failure.exit_code)

    def ended(self, code: int) -> None:
        self._ended.set_result(code)


class _Exec:
    """What is known of one session."""

    def __init__(self, container: str, config: ExecConfig) -> None:
        self.id, self.container, self.config = new_id(), container, config
        self.session: ExecSession | None = None
        self.exit_code: int | None = None
        self.ended = 0.0
        self.size: tuple[int, int] | None = None
        self.pid = 0

    @property
    def running(self) -> bool:
        return self.session is not None and self.exit_code is None

    @property
    def terminal(self) -> bool:
        return self.config.tty and not self.config.detach


class Execs:
    def __init__(self, paths: Paths, keeper: Conmon, tasks: Tasks) -> None:
        self._paths, self._conmon, self._tasks = paths, keeper, tasks
        self._execs: dict[str, _Exec] = {}
        self.ended: Callable[[str, str, int], None] = lambda container, identity, code: None
        """Called with container, id and exit code when a process has ended."""

    def create(self, container: Container, config: ExecConfig) -> str:
        deadline = time.monotonic() - _KEEP
        for old in [one.id for one in self._execs.values() if one.ended and one.ended < deadline]:
            del self._execs[old]
        made = _Exec(container.id, config)
        self._execs[made.id] = made
        return made.id

    def inspect(self, identity: str) -> ExecState:
        found = self._get(identity)
        return ExecState(
            id=found.id, container=found.container, config=found.config, running=found.running, exit_code=found.exit_code, pid=found.pid
        )

    def of(self, container: str) -> list[str]:
        """Ids of a container's sessions that are running."""
        return [one.id for one in self._execs.values() if one.container == container and one.running]

    async def start(
        self,
        identity: str,
        container: Container,
        lookup: Callable[[Container, str], User],
        *,
        detach: bool | None = None,
        tty: bool | None = None,
    ) -> ExecSession:
        """Start the process; `lookup` finds its user. The session is the caller's until it closes it.

        RuntimeFailed if a detached one cannot be started; an attached one says so on its stderr and by its exit code.
        """
        one = self._get(identity)
        if one.session is not None:
            raise Conflict(
                f"Error: Exec command {identity} is already running" if one.running else f"Error: Exec command {identity} has ended"
            )
        config = one.config
        one.config = msgspec.structs.replace(
            config, detach=config.detach if detach is None else detach, tty=config.tty if tty is None else tty
        )
        user = lookup(container, config.user or container.config.user)
        session = one.session = ExecSession(AttachSession(terminal=one.terminal, stdin=config.stdin), terminal=one.terminal)
        try:
            await self._launch(one, session, user)
        except BaseException:
            one.session = None
            session.close()
            raise
        return session

    async def resize(self, identity: str, height: int, width: int) -> None:
        """Before the start it is remembered."""
        found = self._get(identity)
        found.size = height, width
        if found.running and found.terminal:
            with contextlib.suppress(OSError):
                await conmon.resize(self._folder(found), height, width)

    def forget(self, container: str) -> None:
        """The container is removed: nobody can ask any more."""
        for gone in [one.id for one in self._execs.values() if one.container == container]:
            del self._execs[gone]

    def _get(self, identity: str) -> _Exec:
        found = [one for key, one in self._execs.items() if identity and key.startswith(identity)]
        if len(found) != 1:
            raise NotFound(f"No such exec instance: {identity}")
        return found[0]

    def _folder(self, one: _Exec) -> Path:
        return self._paths.bundle(one.container) / f"{'detached' if one.config.detach else 'exec'}-{one.id[:12]}"

    async def _launch(self, one: _Exec, session: ExecSession, user: User) -> None:
        warming = asyncio.get_running_loop().run_in_executor(None, cgroups.warm_up)
        folder = self._folder(one)
        folder.mkdir()
        try:
            (folder / "process.json").write_bytes(msgspec.json.encode(self._process(one, user)))
            faults.point("process.before")
            prepared = await self._conmon.prepare(
                one.container, folder, terminal=one.terminal, stdin=one.config.stdin and not one.config.detach
            )
            faults.point("process.after")
        except BaseException:
            remove_plain_tree(folder)
            raise
        if one.config.detach:
            session.close()
        else:
            session.connect(folder)
        self._tasks.spawn(self._watch(one, session, prepared, folder))
        await warming
        if one.config.detach:
            await session.started()

    async def _watch(self, one: _Exec, session: ExecSession, prepared: Prepared, folder: Path) -> None:
        """From start to end, whatever becomes of the client."""
        try:
            one.pid = await prepared.go()
            session.running()
            if one.terminal and one.size:
                await self.resize(one.id, *one.size)
            code = await prepared.exit_code()
            one.exit_code = _LOST if code is None else code
            session.ended(one.exit_code)
        except RuntimeFailed as failure:
            # Where Docker ends a container with 128, it ends an exec with 126.
            one.exit_code = 126 if failure.exit_code == 128 else failure.exit_code
            session.failed(failure)
        finally:
            prepared.close()
        one.ended, one.pid = time.monotonic(), 0
        self.ended(one.container, one.id, one.exit_code)
        with contextlib.suppress(NetplugError, OSError):
            remove_plain_tree(folder)

    def _process(self, one: _Exec, user: User) -> Json:
        """The container's own process, with what is different for this one."""
        config = one.config
        process: Json = msgspec.json.decode((self._paths.bundle(one.container) / "config.json").read_bytes())["process"]
        term = ("TERM=xterm",) if one.terminal else ()
        process["env"] = bundle.environment(process["env"], term, [f"HOME={user.home}"] if config.user else [], config.environment)
        process["args"] = list(config.command)
        process["terminal"] = one.terminal
        if config.user:
            process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
        if config.privileged:
            process["capabilities"] = bundle.capability_sets(capabilities.chosen((), (), privileged=True))
        if config.working_directory:
            process["cwd"] = config.working_directory
        return process


def kill_strays(folder: Path, container_pid: int) -> None:
    """End the processes in a container whose clients have gone with an earlier daemon. `folder` is its bundle."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if name.startswith("exec-"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                _kill_inside(int((folder / name / "pid").read_text()), container_pid)


def _kill_inside(pid: int, container_pid: int) -> None:
    """The pid may have gone to somebody else: only a process of the container is ours to kill."""
    descriptor = open_pid(pid)
    if descriptor is None:
        return
    try:
        if _pid_namespace(pid) == _pid_namespace(container_pid):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return f"none of {pid}"
