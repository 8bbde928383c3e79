"""What the tests of the command share: a daemon that answers as told, and the command called in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from cli_server import Daemon, serving

from netplug.cli import execute


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli_daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with serving() as daemon:
        monkeypatch.setenv("NETPLUG_HOST", daemon.host)
        monkeypatch.setenv("TZ", "UTC")
        yield daemon


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line; gives its exit code and what it said."""

    def run(*args: str) -> Result:
        capsys.readouterr()
        code = execute(args)
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return run
