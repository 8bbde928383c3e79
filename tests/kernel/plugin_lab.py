"""A host whose daemon finds the plugin of `bridge_plugin.py`, which runs on the same host, is killed, hangs and comes back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hosts import Host
from tests.kernel.test_faults import do

PROGRAM = Path(__file__).with_name("bridge_plugin.py")
SECONDS = 1.0
"""That the daemon waits for an answer."""
BEFORE = {"create": (), "connect": ("create",), "disconnect": ("create", "connect"), "remove": ("create",)}
"""By change, what has to be done first."""


class Plugin:
    """The process, and what it was told."""

    def __init__(self, host: Host, folder: Path, name: str = "plug", program: Path = PROGRAM) -> None:
        self.program = program
        self.host, self.folder, self.name = host, folder, name
        self.socket = folder / "sockets" / f"{name}.sock"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.mood()
        argv = self.host.argv(sys.executable, str(self.program), str(self.socket), str(self.folder))
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """Its socket file stays, as after any such death."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def mood(self, **methods: Any) -> None:
        """What goes wrong from now on, by method; nothing: all is well."""
        new = self.folder / "mood.new"
        new.write_text(json.dumps(methods))
        new.rename(self.folder / "mood.json")

    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """Since the last time."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [(method, body) for method, body in map(json.loads, lines)]

    def knows(self) -> tuple[int, int]:
        """How many networks and endpoints."""
        path = self.folder / "state.json"
        networks, endpoints = json.loads(path.read_text()) if path.exists() else ({}, {})
        return len(networks), len(endpoints)

    def forgotten(self, patience: float = 20) -> bool:
        """Whether it comes to know nothing any more."""
        deadline = time.monotonic() + patience
        while self.knows() != (0, 0) and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.knows() == (0, 0)


@contextlib.contextmanager
def plugged(hosts: Callable[..., Host], folder: Path, *, program: Path = PROGRAM, **environment: str) -> Iterator[tuple[Host, Plugin]]:
    """Both run."""
    (folder / "sockets").mkdir()
    path = {"NETPLUG_PLUGIN_PATH": str(folder / "sockets"), "NETPLUG_PLUGIN_TIMEOUT": str(SECONDS), **environment}
    host = hosts(environment=path)
    plugin = Plugin(host, folder, program=program)
    try:
        plugin.start()
        yield host, plugin
    finally:
        plugin.kill()


def steps(**network: Any) -> dict[str, tuple[str, str, Any]]:
    """Calls that make, use and remove the network `demo`."""
    return {
        "create": ("POST", "/networks/create", {"Name": "demo", **network}),
        "connect": ("POST", "/networks/demo/connect", {"Container": "aa"}),
        "disconnect": ("POST", "/networks/demo/disconnect", {"Container": "aa"}),
        "remove": ("DELETE", "/networks/demo", None),
    }


def changed(host: Host, calls: dict[str, tuple[str, str, Any]], change: str, number: int) -> bool:
    """Make it, with all that comes before it; at that fault point of it the daemon dies (0: at none). False if it did."""
    for step in BEFORE[change]:
        assert do(host, *calls[step])
    host.api("POST", f"/netplug/faults?at={number}")
    return do(host, *calls[change])
