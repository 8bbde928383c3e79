"""The daemon's first moments: an engine that asks is answered, and only then the daemon is imported, all rooms of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from netplug.engines.listener import opened
from netplug.engines.reception import Reception
from netplug.errors import NetplugError


@contextlib.contextmanager
def reception(path: object) -> Iterator[Reception | None]:
    """Listens at the plugin's `path`. None without one, and where it cannot: the daemon will say why, once it has looked at the rest."""
    if not isinstance(path, str) or not path:
        yield None
        return
    try:
        early = Reception(opened(path))
    except NetplugError:
        yield None
        return
    try:
        yield early
    finally:
        early.close()
