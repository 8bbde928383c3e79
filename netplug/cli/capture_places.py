"""Where `netplug capture` looks: asked of daemons, and asked again when the networks there change."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netplug.cli.client import Client, DaemonError, filters_query, segment
from netplug.cli.command import Failure
from netplug.errors import NetplugError

if TYPE_CHECKING:
    from netplug.capture.points import Seat

_AGAIN = 1.0
"""Seconds between attempts to hear of a daemon again that has ended."""
_EVENTS = filters_query({"type": {"network": True}, "event": {"connect": True}})


@dataclass
class Places:
    """The links of a container, a network or the host, on the hosts of all these daemons."""

    daemons: Sequence[Client]
    target: str
    kind: str
    """`container`, `network`, `host`, or `""`: whichever has that name."""
    only: Sequence[str]
    """These interfaces; none: all."""
    several: bool
    """Whether packets of other hosts come in too: then each name begins with its host's."""
    _known: set[tuple[int, int]] = field(default_factory=set, init=False)

    def seats(self) -> list[Seat]:
        """All of them. Failure where there is nothing to see."""
        found = self._look(self.only)
        self._known = {seat.identity for seat in found}
        return found

    def new(self) -> list[Seat]:
        """What has come since; what has gone is noticed elsewhere."""
        with contextlib.suppress(Failure, NetplugError):
            found = [seat for seat in self._look(self.only) if seat.identity not in self._known]
            self._known |= {seat.identity for seat in found}
            return found
        return []

    def follow(self, changed: Callable[[], None]) -> None:
        """Call it, in another thread, whenever an endpoint has come somewhere; daemons may end and come back meanwhile."""
        for client in self.daemons:
            threading.Thread(target=_listen, args=(client, changed), daemon=True).start()

    def _look(self, only: Sequence[str]) -> list[Seat]:
        from netplug.capture import points

        found: list[Seat] = []
        names: list[str] = []
        for client in self.daemons:
            said = _points(client, self.target, self.kind)
            name = str(said["Host"])
            # Hosts that are namespaces of one machine may have its name, all of them.
            names.append(name if name not in names else f"{name}-{len(names) + 1}")
            prefix = names[-1] if self.several or said["Clustered"] else ""
            found += points.seats(said["Points"], client.process(), prefix, only)
        return found


def _points(client: Client, target: str, kind: str) -> Any:
    try:
        return client.call("GET", f"/netplug/points/{segment(target)}", {"type": kind} if kind else None)
    except DaemonError as error:
        raise Failure(f"netplug capture: {error.reason} (asked of {client.host})") from None


def _listen(client: Client, changed: Callable[[], None]) -> None:
    while True:
        with contextlib.suppress(Failure, ValueError):
            answer = client.open("GET", "/events", _EVENTS)
            changed()  # what came before the daemon heard of us, or while it was not there
            for _ in answer.lines():
                changed()
        time.sleep(_AGAIN)
