"""Whose doing a change of the firewall was: our programs' for a while, and then whoever has their number."""

from __future__ import annotations

import subprocess
import sys

import pytest

from netplug.kernel.firewall import processes


def test_a_number_is_ours_while_the_program_runs_and_a_moment_longer(monkeypatch: pytest.MonkeyPatch):
    told = processes.run([sys.executable, "-c", "import os; print(os.getpid())"])
    pid = int(told.stdout)
    assert processes.is_ours(pid)
    monkeypatch.setattr(processes, "KNOWN_SECONDS", 0.0)
    assert not processes.is_ours(pid)
    other = int(processes.run([sys.executable, "-c", "import os; print(os.getpid())"]).stdout)
    assert set(processes._ended) == {other}, "those of long ago are forgotten"


def test_a_program_that_takes_too_long_is_ended_and_was_ours():
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["sleep", "10"], timeout=0.05)
    assert processes._running == set()
