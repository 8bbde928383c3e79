"""`netplug capture` as a user runs it, and tshark to read what it has written."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from tests.hosts import command


class Capture:
    """One that runs. `end` stops it; then `lines`, `said` (stderr without its first line) and `code` are known."""

    def __init__(self, *arguments: str, environment: Mapping[str, str], stdin: IO[bytes] | None = None) -> None:
        argv = [sys.executable, "-m", "netplug.cli", "capture", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, env=dict(environment), stdin=stdin, stdout=pipe, stderr=pipe, bufsize=0)
        self.began = self.heard()
        """`capturing on …`: every packet from now on is seen."""
        self.lines: list[str] = []
        self.said: list[str] = []

    def heard(self) -> str:
        """The next line on stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().decode().strip()

    def end(self, number: int | None = signal.SIGINT, timeout: float = 30) -> None:
        """By a signal, or (None) by itself."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=timeout)
        self.lines, self.said = out.decode(errors="replace").splitlines(), err.decode().splitlines()
        self.code = self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def capturing(*arguments: str, environment: Mapping[str, str] = os.environ) -> Iterator[Capture]:
    """Ended by SIGINT at the end of the block, if it was not before."""
    capture = Capture(*arguments, environment=environment)
    try:
        yield capture
        if capture.process.poll() is None and not capture.lines and not capture.said:
            capture.end()
    finally:
        if capture.process.poll() is None:
            capture.kill()


def without_times(lines: list[str]) -> list[str]:
    """With one blank between words."""
    return [" ".join(line.split()[1:]) for line in lines]


def tshark(path: Path, display_filter: str, *fields: str, decode_as: str = "") -> list[tuple[str, ...]]:
    """Those fields of each packet that Wireshark's filter lets through; several values of a field are separated by commas."""
    more = ["-d", decode_as] if decode_as else []
    argv = [
        "tshark",
        "-n",
        "-r",
        str(path),
        "-Y",
        display_filter,
        *more,
        "-T",
        "fields",
        *(part for name in fields for part in ("-e", name)),
    ]
    # As root it says so, which is no failure.
    return [tuple(line.split("\t")) for line in command(*argv).stdout.splitlines()]
