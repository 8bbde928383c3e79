"""Networks of a lab's host that netplug keeps in a namespace of their own: overlays. Each is `1-` and the beginning of the network's id."""

from __future__ import annotations

import contextlib
import http.client
from pathlib import Path

from netplug.labs import containers

_DIRECTORY = "netplug/netns"
_PREFIX = "1-"
"""As Docker calls them."""


def inside(run_directory: Path) -> dict[str, Path]:
    """The namespace of each by the network's name; by the beginning of its id where no daemon answers who could tell the name."""
    directory = run_directory / _DIRECTORY
    found = sorted(directory.glob(f"{_PREFIX}*")) if directory.is_dir() else []
    names = _names(run_directory) if found else {}
    return {names.get(path.name, path.name): path for path in found}


def _names(run_directory: Path) -> dict[str, str]:
    """The networks' names by those of their namespaces."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        listed = containers.ask(run_directory / containers.NETPLUG, "/networks")
        return {f"{_PREFIX}{network['Id'][:10]}": network["Name"] for network in listed}
    return {}
