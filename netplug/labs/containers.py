"""Containers that run on a lab's host: its engines are asked (netplug, Docker), through the host's own /run.

Containers outlive their engine's daemon, and labs kill daemons: where netplug's does not answer, the command lines of the containers'
supervisors (conmon) tell which is whose.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOCKET, DOCKER_SOCKET = "netplug/netplug.sock", "docker.sock"
"""Below /run."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def running(run_directory: Path) -> dict[str, int]:
    """The first process of each running container by the container's name, numbered as on the host; none where no daemon ever was."""
    found: dict[str, int] = {}
    for engine in (DOCKER_SOCKET, SOCKET):
        if (run_directory / engine).exists():
            try:
                found |= _told(run_directory / engine)
            except (OSError, http.client.HTTPException):
                found |= _supervised(run_directory) if engine == SOCKET else {}
    return found


def _told(path: Path) -> dict[str, int]:
    listed = [_get(path, f"/containers/{each['Id']}/json") for each in _get(path, "/containers/json")]
    return {each["Name"].lstrip("/"): each["State"]["Pid"] for each in listed if each.get("State", {}).get("Pid")}


def _supervised(run_directory: Path) -> dict[str, int]:
    host = run_directory.parent
    found = {}
    for words in _command_lines(host / "proc"):
        options = dict(itertools.pairwise(words))
        if {"--name", "--container-pidfile"} <= options.keys():
            with contextlib.suppress(OSError, ValueError):  # not yet written, or gone with the container
                found[options["--name"]] = int((host / options["--container-pidfile"].lstrip("/")).read_text())
    return found


def _command_lines(processes: Path) -> Iterator[list[str]]:
    for process in processes.iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                yield (process / "cmdline").read_text(errors="replace").split("\0")


def network_names(run_directory: Path) -> dict[str, str]:
    """Names of netplug's networks by their ids; none where no daemon answers."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return {network["Id"]: network["Name"] for network in _get(run_directory / SOCKET, "/networks")}
    return {}


def differences(run_directory: Path) -> list[str]:
    """What doctor finds, as `SUBJECT: WORDS`. OSError or HTTPException where no daemon answers."""
    return [f"{each['Subject']}: {each['Found']}" for each in _get(run_directory / SOCKET, "/netplug/doctor")]


def _get(path: Path, what: str) -> Any:
    connection = _Connection(path)
    try:
        connection.request("GET", what)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
