"""`netplug demo` as a user sees it: ended in the middle it leaves nothing; kept, it stays until it is stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug.cli.demo_hosts import mounts_below, remove_tree
from tests.hosts import command

NETPLUG = [sys.executable, "-m", "netplug.cli"]
DEMO = [*NETPLUG, "demo"]
SHORT = """\
import sys
from netplug.cli import demo, main
demo.Demo.ways = demo.Demo.isolation = demo.Demo.survival = lambda self: None
sys.exit(main())
"""
"""The command without the chapters that take long: they wait for what does not come."""
KEPT = "kept.json"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short name: paths of unix sockets have 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield path
    remove_tree(path)


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    return dict(os.environ, TMPDIR=str(folder), NETPLUG_DEMO_KEPT=str(folder / KEPT))


def left(folder: Path, demo: int) -> list[str]:
    """Files, mounts and processes in the folder, and namespaces of the demo with that pid."""
    found = [str(path) for path in folder.iterdir()] + mounts_below(folder)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(f"process {path.parent.name}")
    return found + [name for name in os.listdir("/run/netns") if name.startswith(f"netplug-demo-{demo}-")]


def test_a_demo_that_is_ended_leaves_nothing(folder: Path, environment: dict[str, str]):
    """In the middle of it, when a container runs and the next one is on its way."""
    with subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        while "run -d --name client" not in (line := demo.stdout.readline()):
            assert line, "the demo ended too early"
        there = left(folder, demo.pid)
        demo.send_signal(signal.SIGTERM)
        rest = demo.stdout.read()

    assert (demo.returncode, "everything is removed" in rest) == (130, True)
    assert len(there) > 5, "what is looked for is there while it runs"
    assert left(folder, demo.pid) == []


def test_a_demo_that_is_kept_stays_until_it_is_stopped(folder: Path, environment: dict[str, str]):
    """It is there for whoever wants to try something; there is no second one beside it."""
    with subprocess.Popen([sys.executable, "-c", SHORT, "demo", "--keep"], env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        said = demo.stdout.read()
    try:
        assert (demo.returncode, "✘" in said) == (0, False), said
        (host,) = re.findall(r"export NETPLUG_HOST=(\S+)", said)
        running = command(*NETPLUG, "ps", "--format", "{{.Names}}", env={**environment, "NETPLUG_HOST": host}).stdout
        assert sorted(running.split()) == ["client", "db", "web", "worker"]
        second = command(*DEMO, "--keep", check=False, env=environment)
        assert (second.returncode, second.stdout) == (1, "a demo is kept already: `netplug demo --stop` ends it\n")
    finally:
        stopped = command(*DEMO, "--stop", check=False, env=environment)

    assert (stopped.returncode, stopped.stdout) == (0, "the demo is removed\n"), stopped.stderr
    assert left(folder, demo.pid) == []
    nothing = command(*DEMO, "--stop", check=False, env=environment)
    assert (nothing.returncode, nothing.stdout) == (1, "no demo is kept\n")
