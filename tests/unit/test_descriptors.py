"""Closing off the loop, whoever asks for it."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from netplug.kernel import descriptors

COLLECTING = """
import gc, threading, weakref
from netplug.kernel import descriptors

class Owner:
    def __init__(self):
        self.itself = self
        weakref.finalize(self, descriptors.close_later, int)

gc.set_threshold(1)
for _ in range(2000):
    Owner()
    descriptors.close_later(int)
closed = threading.Event()
descriptors.close_later(closed.set)
assert closed.wait(5)
"""
"""Each allocation collects garbage, and its finalizers ask for more to be closed."""


def test_what_fails_to_close_holds_up_no_other(caplog: pytest.LogCaptureFixture):
    closed = threading.Event()

    descriptors.close_later(lambda: [][0])
    descriptors.close_later(closed.set)

    assert closed.wait(5)
    assert "closing" in caplog.text


def test_a_finalizer_may_ask_while_another_is_asking():
    assert subprocess.run([sys.executable, "-c", COLLECTING], timeout=60, check=False).returncode == 0
