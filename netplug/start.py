"""The daemon's first moments: an engine that asks is answered, and only then the daemon is imported, all rooms of it."""

from __future__ import annotations

from typing import Any

from netplug.engines.listener import opened
from netplug.engines.reception import Reception
from netplug.errors import NetplugError


def run(values: dict[str, Any]) -> int:
    """Run the daemon until told to end; the exit code. `values` are settings by name."""
    reception = _reception(values.get("docker_plugin"))
    try:
        from netplug import daemon

        return daemon.run(values, reception)
    finally:
        if reception is not None:
            reception.close()


def _reception(path: object) -> Reception | None:
    """None without a plugin, and where it cannot listen: the daemon will say why, once it has looked at everything else."""
    if not isinstance(path, str) or not path:
        return None
    try:
        return Reception(opened(path))
    except NetplugError:
        return None
