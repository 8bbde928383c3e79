"""Where drivers are found: built-in and third-party ones come through the same doors, two groups of entry points.

`netplug.drivers`: one driver each, by its name. `netplug.finders`: whatever else may be a driver, by names that come and go while the
daemon runs (a plugin that starts); asked where no driver has the name. A network keeps the name of the finder that its driver came
from, so that it is the same driver's for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from netplug.driver import Driver
from netplug.errors import NotFound

GROUP = "netplug.drivers"
FINDERS = "netplug.finders"


class Finder(Protocol):
    """Called without arguments."""

    noun: str
    """What it finds, for people: `plugins`."""

    def names(self) -> Iterable[str]:
        """Of what is there now."""

    def driver(self, name: str) -> Driver:
        """The driver of that name, whether it is there now or not: its networks are there while it is away."""


class Drivers:
    """The registry."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str], Driver] = {}
        self._finders: dict[str, Finder] = {}

    def get(self, name: str, finder: str = "") -> Driver:
        """The driver of that name, from a finder or from none; NotFound names those there are."""
        if (finder, name) not in self._loaded:
            self._loaded[finder, name] = self._found(finder).driver(name) if finder else self._load(name)
        return self._loaded[finder, name]

    def finder(self, name: str) -> str:
        """The name of the finder that finds this driver; `""` where it is found without, or not at all."""
        if ("", name) in self._loaded or name in _points(GROUP):
            return ""
        return next((finder for finder in sorted(_points(FINDERS)) if name in self._found(finder).names()), "")

    def named(self, name: str) -> Driver:
        """The driver that a new network of that driver gets; NotFound names those there are."""
        return self.get(name, self.finder(name))

    def names(self) -> list[str]:
        found = (name for finder in _points(FINDERS) for name in self._found(finder).names())
        return sorted({*_points(GROUP), *found})

    def _load(self, name: str) -> Driver:
        points = _points(GROUP)
        if name not in points:
            raise NotFound(f'plugin "{name}" not found: {self._choice(points)}')
        driver: Driver = points[name].load()()
        return driver

    def _choice(self, drivers: Iterable[str]) -> str:
        words = [f"the drivers here are {', '.join(sorted(drivers))}"]
        for finder in map(self._found, sorted(_points(FINDERS))):
            if there := sorted(finder.names()):
                words.append(f"the {finder.noun} here are {', '.join(there)}")
        return "; ".join(words)

    def _found(self, name: str) -> Finder:
        if name not in self._finders:
            points = _points(FINDERS)
            if name not in points:
                raise NotFound(f"drivers cannot be looked for: no {name} is installed")
            self._finders[name] = points[name].load()()
        return self._finders[name]


def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
