"""The Docker Engine API on a unix socket, and netplug's own routes below `/netplug/`.

One way through the room: `application` finds the route and turns errors into answers; a `Call` is one request; `networks`, `containers`,
`streams`, `execs`, `images`, `system`, `nodes` and `extensions` hold the handlers. `shapes` are the bodies that clients send, `decode*`
makes requests of them, `*views` turn records into what clients read. Nothing here decides anything about networks or containers.
"""

from __future__ import annotations

from netplug.api.application import Application, application
from netplug.api.services import Services

__all__ = ["Application", "Services", "application"]
