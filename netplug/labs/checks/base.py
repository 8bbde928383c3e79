"""What all checks have in common."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable

import msgspec

from netplug.labs.finding import Unmet
from netplug.labs.places import Place

Find = Callable[[str], Place]
"""The place of a name."""


class _Kind(msgspec.StructMeta, ABCMeta):
    """Of structs that leave something to their subclasses."""


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True, metaclass=_Kind):
    """One thing that must hold. `look` returns when it does, else raises Unmet.

    `at`: the place where to look, or to send from. `why`: why it matters, for a learner who has not got there yet.
    """

    at: str
    why: str

    def places(self) -> tuple[str, ...]:
        """The names of all places that it needs."""
        return (self.at,)

    @abstractmethod
    def look(self, find: Find) -> None: ...

    def unmet(self, expected: str, found: str) -> Unmet:
        return Unmet(expected, found, self.why)

    def place(self, find: Find, name: str = "") -> Place:
        """A place that exists; Unmet otherwise."""
        place = find(name or self.at)
        place.require(self.why)
        return place
