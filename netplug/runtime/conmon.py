"""conmon, the keeper of a process: it holds its terminal or pipes, writes its log, serves attachers, and tells its exit code.

It has the runtime create the container, or run a further process in one; it double-forks and outlives us. What it tells us comes as JSON
lines on a pipe: the process's pid, or -1 and the runtime's message; for a further process later also the exit code. In its folder it
makes `attach` (a socket), `winsz` and `ctl` (FIFOs).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from netplug import faults
from netplug.runtime.oci import Oci, RuntimeFailed, clean, find
from netplug.runtime.paths import Paths
from netplug.runtime.programs import ENVIRONMENT, content, memory_file
from netplug.runtime.waiting import readable, start_time


@dataclass(frozen=True)
class Created:
    """A container whose process waits for `start`."""

    pid: int
    conmon_pid: int
    conmon_started: int


class Answer(msgspec.Struct):
    """One line from conmon."""

    data: int
    message: str = ""


class Lines:
    """The pipe on which conmon tells us things. `write` is conmon's end."""

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)
        self._received = b""

    async def next(self) -> Answer | None:
        """None once conmon has closed its end."""
        while b"\n" not in self._received:
            await readable(self._read)
            with contextlib.suppress(BlockingIOError):
                part = os.read(self._read, 65536)
                if not part:
                    return None
                self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return msgspec.json.decode(line, type=Answer)

    def close(self) -> None:
        os.close(self._read)


class Conmon:
    def __init__(self, paths: Paths, oci: Oci) -> None:
        self._paths, self._oci = paths, oci
        self._program = find("conmon")

    async def create(self, container: str, name: str, *, terminal: bool, stdin: bool, stdin_once: bool) -> Created:
        """RuntimeFailed with the runtime's own words; then nothing of it is left but files in the bundle."""
        bundle = self._paths.bundle(container)
        argv = self._arguments(bundle, container, name, f"k8s-file:{self._paths.log(container)}")
        argv += ["--exit-dir", str(self._paths.exits), *_stdio(terminal=terminal, stdin=stdin, stdin_once=stdin_once)]
        faults.point("process.before")
        with contextlib.closing(Lines()) as lines, memory_file() as errors:
            with _spawned(argv, errors, sync=lines) as child:
                answer = await lines.next()
            faults.point("process.after")
            answer = answer or Answer(-1, _last_words(errors, child))
        if answer.data <= 0:
            raise RuntimeFailed("create", clean(answer.message))
        conmon = int((bundle / "conmon.pid").read_text())
        return Created(answer.data, conmon, start_time(conmon))

    async def prepare(self, container: str, folder: Path, *, terminal: bool, stdin: bool) -> Prepared:
        """Get ready to run `folder`/process.json in the container; attachers can connect before `go`."""
        argv = self._arguments(folder, container, folder.name, "none")
        argv += ["--exec", "--exec-attach", "--exec-process-spec", str(folder / "process.json")]
        argv += _stdio(terminal=terminal, stdin=stdin, stdin_once=True)
        start_read, start_write = os.pipe()
        with contextlib.ExitStack() as undo:
            sync = undo.enter_context(contextlib.closing(Lines()))
            undo.callback(os.close, start_write)
            with contextlib.closing(Lines()) as attach, memory_file() as errors:
                with _spawned(argv, errors, sync=sync, attach=attach, start=start_read) as child:
                    # The first byte lets conmon make its socket, the second one lets it run the process.
                    os.write(start_write, b"\0")
                    ready = await attach.next()
                if ready is None:
                    raise RuntimeFailed("exec", _last_words(errors, child))
            undo.pop_all()
        return Prepared(sync, start_write)

    def _arguments(self, folder: Path, container: str, name: str, log: str) -> list[str]:
        options = {
            "--api-version": "1",
            "--cid": container,
            "--cuuid": container,
            "--name": name,
            "--runtime": self._oci.program,
            "--bundle": folder,
            "--container-pidfile": folder / "pid",
            "--conmon-pidfile": folder / "conmon.pid",
            "--log-path": log,
            "--log-level": "warning",
        }
        # The runtime's own log file keeps log formatting out of its stderr, which then is the plain message.
        runtime = ("--root", self._paths.runtime, "--log", folder / "runtime.log")
        words = [self._program, "--no-sync-log", "--full-attach", *(word for pair in options.items() for word in pair)]
        return [str(word) for word in (*words, *(word for one in runtime for word in ("--runtime-arg", one)))]


class Prepared:
    """A further process that waits for `go`."""

    def __init__(self, lines: Lines, start: int) -> None:
        self._lines, self._start = lines, start

    async def go(self) -> int:
        """Run it: its pid. RuntimeFailed if there is no such program, or the like."""
        os.write(self._start, b"\0")
        os.close(self._start)
        self._start = -1
        answer = await self._lines.next()
        if answer is None or answer.data <= 0:
            raise RuntimeFailed("exec", clean(answer.message if answer else "conmon has ended"))
        return answer.data

    async def exit_code(self) -> int | None:
        """Wait for its end; None if conmon was killed and nobody knows."""
        answer = await self._lines.next()
        return None if answer is None else answer.data

    def close(self) -> None:
        self._lines.close()
        if self._start >= 0:
            os.close(self._start)


def _stdio(*, terminal: bool, stdin: bool, stdin_once: bool) -> list[str]:
    # Without the last flag the first attacher that goes away closes the process's stdin for good.
    return ["-t"] * terminal + ["-i"] * stdin + ["--leave-stdin-open"] * (terminal or not stdin_once)


@contextlib.contextmanager
def _spawned(
    argv: Sequence[str], errors: int, *, sync: Lines, attach: Lines | None = None, start: int = -1
) -> Iterator[subprocess.Popen[bytes]]:
    """A conmon that has got its ends of the pipes (ours of them are closed). Afterwards the first of its two forks is reaped."""
    environment = {**ENVIRONMENT, "_OCI_SYNCPIPE": str(sync.write)}
    theirs = [sync.write]
    if attach is not None:
        environment |= {"_OCI_ATTACHPIPE": str(attach.write), "_OCI_STARTPIPE": str(start)}
        theirs += [attach.write, start]
    null = subprocess.DEVNULL
    try:
        child = subprocess.Popen(argv, env=environment, pass_fds=theirs, stdin=null, stdout=null, stderr=errors)
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    try:
        yield child
    finally:
        child.wait()


def _last_words(errors: int, child: subprocess.Popen[bytes]) -> str:
    """Why a conmon ended that told us nothing."""
    return clean(f"conmon: {content(errors) or f'exit code {child.returncode}'}")


def exit_status(paths: Paths, container: str) -> int | None:
    """What conmon wrote when the container ended; None if it has not."""
    try:
        return int(paths.exit_file(container).read_text())
    except (FileNotFoundError, ValueError):
        return None


async def resize(folder: Path, height: int, width: int) -> None:
    """Tell conmon the size of the terminal that it holds."""
    await asyncio.to_thread(_write_size, folder / "winsz", f"{height} {width}\n".encode())


def _write_size(fifo: Path, size: bytes) -> None:
    descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(descriptor, size)
    finally:
        os.close(descriptor)
