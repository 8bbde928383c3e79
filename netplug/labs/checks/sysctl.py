"""Is a switch of the kernel where it should be?"""

from __future__ import annotations

from netplug.labs.checks.base import Check, Find


class SysctlCheck(Check, frozen=True, tag="sysctl"):
    name: str
    value: str

    def look(self, find: Find) -> None:
        done = self.place(find).run("sysctl", "--values", self.name)
        found = done.stdout.strip()
        if found != self.value:
            raise self.unmet(f"{self.name} = {self.value} on {self.at}", f"it is {found or 'not there'}")
