"""Traffic for demos and tests: a server that says who called, and streams of pings and DNS questions whose losses are counted.

`demo_ends` has the programs at the other end.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Self

from netplug.cli.demo_ends import program
from netplug.cli.demo_hosts import Namespace


@contextlib.contextmanager
def serving(namespace: Namespace, port: int, address: str = "0.0.0.0") -> Iterator[None]:
    """A TCP and UDP server in `namespace` that answers with the caller's address, then echoes."""
    argv = namespace.argv(*program("serve", address, str(port)))
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        if server.stdout.readline() != b"ready\n":
            raise RuntimeError(f"no server on port {port} in {namespace.name}")
        yield
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


class Flood:
    """A stream of pings. After the block: `sent`, and `lost`: numbers without an answer (the last may have been on its way)."""

    def __init__(self, target: str, namespace: str, interval: float = 0.01) -> None:
        # Every answer is a line of its own; -O says what had none when the next is sent.
        self._argv = ["nsenter", f"--net={namespace}", "ping", "-n", "-O", "-i", str(interval), target]
        self.sent = 0
        self.lost: list[int] = []

    def __enter__(self) -> Self:
        self._ping = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._ping.stdout is not None
        self._output = ""
        while "bytes from" not in self._output:  # the first answer: there is something to lose
            line = self._ping.stdout.readline()
            self._output += line
            if not line or "no answer" in line or "nreachable" in line:
                self._end()
                raise RuntimeError(f"nothing to flood: {self._output}")
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        summary = re.search(r"(\d+) packets transmitted", self._output)
        self.sent = int(summary[1]) if summary else 0
        answered = {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+)", self._output)}
        self.lost = sorted(set(range(1, self.sent)) - answered)

    def _end(self) -> None:
        self._ping.send_signal(signal.SIGINT)
        assert self._ping.stdout is not None
        with self._ping.stdout:  # not communicate(): it would lose what readline() has read ahead
            self._output += self._ping.stdout.read()
        self._ping.wait(10)


class Lookups:
    """A stream of DNS questions for one name. After the block: `asked` and `answered`."""

    def __init__(self, name: str, namespace: str) -> None:
        self._argv = ["nsenter", f"--net={namespace}", *program("lookups", name)]
        self.asked = self.answered = 0

    def __enter__(self) -> Self:
        self._client = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._client.stdout is not None
        if self._client.stdout.readline() != "ready\n":
            self._client.stdout.close()
            self._client.wait()
            raise RuntimeError("no stream of DNS questions")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.terminate()
        assert self._client.stdout is not None
        with self._client.stdout:
            said = self._client.stdout.read()
        self._client.wait(10)
        counts = json.loads(said)
        self.asked, self.answered = counts["asked"], counts["answered"]
