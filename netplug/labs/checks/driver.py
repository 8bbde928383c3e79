"""Does a driver that the learner has written keep to the rules of drivers? The kit looks at the plans that it really returns."""

from __future__ import annotations

import json
import sys

from netplug.labs.checks.base import Check, Find


class DriverCheck(Check, frozen=True, tag="driver"):
    """`netplug driver check`, as on the host `at`."""

    name: str
    path: str
    """The directory on the host in which its package lies."""
    rule: str = ""
    """Only this one; empty: all."""

    def look(self, find: Find) -> None:
        command = [sys.executable, "-P", "-m", "netplug.cli", "driver", "check", self.name, "--format", "json"]
        done = self.place(find).run("env", f"PYTHONPATH={self.path}", *command)
        if not done.stdout:
            raise self.unmet(f"a driver {self.name} that can be loaded from {self.path} on {self.at}", _first(done.stderr))
        found = {each["Rule"]: each["Broken"] for each in map(json.loads, done.stdout.splitlines())}
        for rule, reason in found.items():
            if reason and self.rule in ("", rule):
                raise self.unmet(f"driver {self.name} to keep the rule '{rule}'", reason)


def _first(said: str) -> str:
    return said.strip().partition("\n")[0].removeprefix("netplug driver: ")
