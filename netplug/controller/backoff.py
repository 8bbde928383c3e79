"""Whether to put a thing back once more: what is taken away again and again is taken away on purpose, and nobody wins that fight."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

TIMES = 3
WINDOW = 60.0
"""Put back so many times within so many seconds, a thing that is missing again is left alone for a while."""
LONGEST = 3600.0


class Verdict(enum.Enum):
    PUT_BACK = enum.auto()
    PAUSE = enum.auto()
    """Leave it alone, from now on for a while."""
    PAUSED = enum.auto()
    """Leave it alone, as before."""


@dataclass
class _History:
    put_back: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES))
    pause: float = 0.0
    until: float = 0.0

    def forgotten(self, now: float) -> bool:
        """It has stayed as long as it was last left alone, and a window more."""
        return now - max([self.until, *self.put_back]) > self.pause + WINDOW


class Backoff:
    """By thing, a text of the caller's. Each pause is twice as long as the one before it, until the thing has stayed for as long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._things: dict[str, _History] = {}

    def judge(self, thing: str) -> Verdict:
        """Asked each time when the thing is missing; PUT_BACK counts as done."""
        now = self._clock()
        history = self._things.setdefault(thing, _History())
        if history.forgotten(now):
            history = self._things[thing] = _History()
        if now < history.until:
            return Verdict.PAUSED
        if len(history.put_back) == TIMES and now - history.put_back[0] < WINDOW:
            history.put_back.clear()
            history.pause = min(2 * history.pause or WINDOW, LONGEST)
            history.until = now + history.pause
            return Verdict.PAUSE
        history.put_back.append(now)
        return Verdict.PUT_BACK

    def left(self, thing: str) -> float:
        """Seconds for which it is still left alone."""
        history = self._things.get(thing)
        return max(0.0, history.until - self._clock()) if history is not None else 0.0

    def paused(self) -> list[str]:
        """What is left alone at present. Also lets go of what needs no memory any more."""
        now = self._clock()
        self._things = {thing: history for thing, history in self._things.items() if not history.forgotten(now)}
        return sorted(thing for thing, history in self._things.items() if now < history.until)
