"""The conformance kit without pytest, on a driver that is installed: what `netplug driver check` says.

A rule's name is the kit's method, `test_a_driver_is_pure`, as words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from netplug.driver import Driver
from netplug.model import Network
from netplug.registry import Drivers
from netplug.testing.conformance import DriverConformance

_PREFIX = "test_"


class Checked(NamedTuple):
    """A rule; `reason` says how the driver breaks it, `""`: it keeps to it."""

    rule: str
    reason: str = ""


class Installed(DriverConformance):
    """The kit over the driver of that name; `options` are those of a network that it accepts."""

    def __init__(self, name: str, options: Mapping[str, str]) -> None:
        """NotFound where no driver has the name; whatever its module raises when it is loaded."""
        self._name, self._options = name, dict(options)
        self.make_driver()

    def make_driver(self) -> Driver:
        return Drivers().named(self._name)  # a new registry: a new driver

    def make_network(self) -> Network:
        return msgspec.structs.replace(super().make_network(), driver=self._name, options=self._options)


def check(kit: DriverConformance) -> Iterator[Checked]:
    """Each rule, in the kit's order. What else a driver raises breaks the rule, too."""
    for name in vars(DriverConformance):
        if name.startswith(_PREFIX):
            rule = name.removeprefix(_PREFIX).replace("_", " ")
            try:
                getattr(kit, name)()
            except AssertionError as error:
                yield Checked(rule, str(error))
            except Exception as error:  # the driver is somebody else's code
                yield Checked(rule, f"{type(error).__name__}: {error}")
            else:
                yield Checked(rule)
