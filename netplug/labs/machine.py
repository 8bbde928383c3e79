"""A lab on real machines, one for each of its hosts, such as the Vagrantfile's: seen from the one that we are on.

Nothing is built or ended here, and nothing is recorded: what a learner does on a machine, its next start takes away.
"""

from __future__ import annotations

from typing import NamedTuple

from netplug.errors import InvalidArgument, Unavailable
from netplug.labs.course import Lab
from netplug.labs.finding import Unmet
from netplug.labs.places import Place

_INIT = 1
"""The machine's first process has the machine's own namespaces."""


class Seen(NamedTuple):
    """Of one step, from one machine; `unmet` is None where all is done that can be seen from here."""

    unmet: Unmet | None
    elsewhere: list[str]
    """Hosts that the step is to be looked at from, too."""


def look(lab: Lab, host: str, number: int) -> Seen:
    """Look whether a step is done on this machine, which is the lab's `host`.

    InvalidArgument where the lab is not for that; Unavailable where all that there is to see needs the eyes of several hosts at once.
    """
    if not lab.machines:
        raise InvalidArgument(f"lab {lab.name} is for one machine: start it with 'netplug lab start {lab.name}'")
    lab.typed(host)  # whether there is such a host
    checks = [(check, {place.partition("/")[0] for place in check.places()}) for check in lab.step(number).checks]
    elsewhere = sorted({name for _, names in checks for name in names} - {host})
    if not any(names == {host} for _, names in checks):
        raise Unavailable(f'whether step {number} is done cannot be seen from {host} alone: try what its text says under "Look"')
    for check, names in checks:
        if names == {host}:
            try:
                check.look(lambda name: Place(name, _INIT))
            except Unmet as unmet:
                return Seen(unmet, elsewhere)
    return Seen(None, elsewhere)
