"""Run a program to its end without blocking the loop: spawned by vfork, waited for by pidfd, output kept in memory files."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from netplug.runtime.waiting import readable

ENVIRONMENT = {"PATH": os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")}


@dataclass(frozen=True)
class Finished:
    code: int
    """Exit code; negative: the signal that ended it."""
    error: str
    """What it wrote to stderr."""


@contextmanager
def memory_file() -> Iterator[int]:
    """A file in memory for a child's output: unlike a pipe it never fills, and nobody has to read it meanwhile."""
    descriptor = os.memfd_create("netplug", os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def content(descriptor: int) -> str:
    return os.pread(descriptor, 65536, 0).decode(errors="replace").strip()


async def run(argv: Sequence[str], environment: Mapping[str, str] = ENVIRONMENT) -> Finished:
    """Run `argv` with empty stdin; never raises for what the program does."""
    with memory_file() as errors:
        child = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)  # noqa: ASYNC220
        await ended(child)
        return Finished(child.returncode, content(errors))


async def ended(child: subprocess.Popen[bytes]) -> int:
    """Wait for our own child and reap it; a cancelled wait kills it."""
    descriptor = os.pidfd_open(child.pid)
    try:
        await readable(descriptor)
    except asyncio.CancelledError:
        child.kill()
        raise
    finally:
        os.close(descriptor)
        child.wait()
    return child.returncode
