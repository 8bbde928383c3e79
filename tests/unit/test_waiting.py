"""What /proc tells of processes, and descriptors that are theirs for good."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from netplug.runtime.processes import child_of
from netplug.runtime.waiting import open_pid, parent, start_time


def test_a_process_that_runs(tmp_path: Path):
    """Its name may hold what looks like the fields behind it."""
    odd = tmp_path / "a) Z 1 ("
    odd.symlink_to("/bin/cat")
    with subprocess.Popen([odd], stdin=subprocess.PIPE) as process:
        assert parent(process.pid) == os.getpid()
        started = start_time(process.pid)
        assert started >= start_time(os.getpid()) > 0
        for descriptor in (open_pid(process.pid, started), child_of(process.pid, os.getpid())):
            assert descriptor is not None
            os.close(descriptor)
        assert open_pid(process.pid, started + 1) is None
        assert child_of(process.pid, os.getppid()) is None


def test_one_that_has_ended_is_gone_though_nobody_has_asked_how():
    with subprocess.Popen(["true"]) as process:
        started = start_time(process.pid)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert (parent(process.pid), start_time(process.pid)) == (0, 0)
        assert open_pid(process.pid, started or 1) is None
        assert child_of(process.pid, os.getpid()) is None


@pytest.mark.parametrize("pid", [0, -1, 1 << 30])
def test_one_that_never_was(pid: int):
    assert open_pid(pid, 1) is None
    assert (parent(1 << 30), start_time(1 << 30)) == (0, 0)
