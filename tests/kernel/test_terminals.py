"""Containers at a terminal: its size, ^C, detaching and finding it again, its exit code."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

from tests.hosts import Host
from tests.kernel.daily import IDLE, network, run

DEADLINE = 10.0


class Terminal:
    """The command at a terminal of its own, as a person has it."""

    def __init__(self, host: Host, *arguments: str) -> None:
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        argv = [sys.executable, "-m", "netplug.cli", *arguments]
        self._process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=host.environment, start_new_session=True)
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._mine)

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while text not in self.seen:
            readable, _, _ = select.select([self._mine], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"no {text!r} in {self.seen!r}"
            with contextlib.suppress(OSError):  # EIO: everybody on the other side has gone
                if part := os.read(self._mine, 65536):
                    self.seen += part.decode(errors="replace")
                    continue
            pytest.fail(f"no {text!r} in {self.seen!r}, and it has ended")

    def ended(self) -> int:
        return self._process.wait(DEADLINE)


def test_a_terminal_from_run_to_its_exit_code(host: Host):
    network(host, "demo")
    with Terminal(host, "run", "-it", "--rm", "--network", "demo", "host", "sh") as terminal:
        # It gets its size right after its start, as with Docker.
        terminal.type('until [ "$(stty size)" = "33 101" ]; do sleep 0.02; done; echo sized-$((1 + 1)); tty; echo $TERM\n')
        terminal.expect("sized-2")
        terminal.expect("/dev/pts/0")
        terminal.expect("xterm")
        # The one that says 42 is the one that ^C is for: the shell itself may still be between two commands.
        terminal.type("sh -c 'echo $((40 + 2)); exec sleep 1000'\n")
        terminal.expect("42")
        terminal.type("\x03")
        terminal.expect("^C")
        terminal.type("echo $((50 + 3))\n")
        terminal.expect("53")
        terminal.type("exit 9\n")
        assert terminal.ended() == 9
    assert host.netplug("ps", "-aq").stdout == ""
    without = host.netplug("run", "-it", "--rm", "host", "true")
    assert (without.returncode, without.stderr) == (1, "the input device is not a TTY\n")


def test_a_terminal_is_left_found_again_after_a_restart_and_ended(host: Host):
    with Terminal(host, "run", "-it", "--name", "term", "host", "sh") as terminal:
        terminal.type("word=kept; echo $((40 + 2))\n")
        terminal.expect("42")
        terminal.type("\x10\x11")
        assert terminal.ended() == 0
    host.restart()
    host.kill9()
    host.start()
    with Terminal(host, "attach", "term") as terminal:
        terminal.type("echo $word-$((2 + 3))\n")
        terminal.expect("kept-5")
        terminal.type("exit 8\n")
        assert terminal.ended() == 8
    assert host.container("term")["State"]["ExitCode"] == 8
    assert "kept-5" in host.netplug("logs", "term").stdout
    with Terminal(host, "start", "-ai", "term") as terminal:
        terminal.type("exit 5\n")
        assert terminal.ended() == 5


def test_exec_at_a_terminal(host: Host):
    run(host, "web", *IDLE)
    with Terminal(host, "exec", "-it", "web", "sh") as terminal:
        terminal.type('until [ "$(stty size)" = "33 101" ]; do sleep 0.02; done; echo sized-$((1 + 1))\n')
        terminal.expect("sized-2")
        terminal.type("exit 3\n")
        assert terminal.ended() == 3
