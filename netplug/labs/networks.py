"""Networks of a lab's host that netplug keeps in a namespace of their own: overlays. Each is `1-` and the beginning of the network's id."""

from __future__ import annotations

from pathlib import Path

from netplug.labs import containers

_DIRECTORY = "netplug/netns"
_PREFIX = "1-"
"""As Docker calls them."""


def inside(run_directory: Path) -> dict[str, Path]:
    """The namespace of each by the network's name; by its own name where no daemon answers who could tell the network's."""
    directory = run_directory / _DIRECTORY
    found = sorted(directory.glob(f"{_PREFIX}*")) if directory.is_dir() else []
    known = containers.network_names(run_directory) if found else {}
    names = {f"{_PREFIX}{identity[:10]}": name for identity, name in known.items()}
    return {names.get(path.name, path.name): path for path in found}
