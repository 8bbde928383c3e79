"""Containers that run on a lab's host: its netplug daemon is asked, through the host's own /run."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

SOCKET = "netplug/netplug.sock"
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
    """The first process of each running container by the container's name, numbered as on the host; none where no daemon answers."""
    path = run_directory / SOCKET
    if not path.exists():
        return {}
    try:
        listed = [_get(path, f"/containers/{each['Id']}/json") for each in _get(path, "/containers/json")]
    except (OSError, http.client.HTTPException):
        return {}
    return {each["Name"].lstrip("/"): each["State"]["Pid"] for each in listed if each.get("State", {}).get("Pid")}


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
