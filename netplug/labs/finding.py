"""What a check has to say where a step is not done."""

from __future__ import annotations


class Unmet(Exception):
    """Not as it should be: what was expected, what was found, and why it matters."""

    def __init__(self, expected: str, found: str, why: str = "") -> None:
        self.expected, self.found, self.why = expected, found, why
        super().__init__(f"expected {expected}; found {found}")
