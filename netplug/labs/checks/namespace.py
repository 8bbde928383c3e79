"""Is there such a network namespace?"""

from __future__ import annotations

from netplug.labs.checks.base import Check, Find


class NamespaceCheck(Check, frozen=True, tag="namespace"):
    def look(self, find: Find) -> None:
        self.place(find)
