"""`netplug demo --docker` as a user sees it: all its checks hold, and ended in the middle it leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "netplug.cli", "demo", "--docker"]


def test_every_check_of_the_docker_demo_holds() -> None:
    shown = subprocess.run(DEMO, capture_output=True, text=True, timeout=240)

    assert (shown.returncode, "✘" in shown.stdout) == (0, False), shown.stdout + shown.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short name: paths of dockerd's sockets have 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        yield Path(path)


def test_a_demo_that_is_ended_leaves_nothing(folder: Path) -> None:
    """In the middle of it, when both daemons and a container run."""
    environment = dict(os.environ, TMPDIR=str(folder))
    with subprocess.Popen(DEMO, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        while "docker exec web" not in (line := demo.stdout.readline()):
            assert line, "the demo ended too early"
        demo.send_signal(signal.SIGTERM)
        rest = demo.stdout.read()

    assert (demo.returncode, "everything is removed" in rest) == (130, True)
    assert list(folder.iterdir()) == []
    assert [name for name in os.listdir("/run/netns") if name.startswith(f"netplug-demo-{demo.pid}-")] == []
    assert list(Path("/sys/fs/cgroup").glob(f"**/np-docker-{demo.pid}-*")) == []
