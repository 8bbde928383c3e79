"""What does the host's own daemon find when it compares its records with the kernel?"""

from __future__ import annotations

import http.client

from netplug.labs import containers
from netplug.labs.checks.base import Check, Find


class DoctorCheck(Check, frozen=True, tag="doctor"):
    """What `netplug doctor` says at the host `at`."""

    finds: str = ""
    """What must stand in one of the differences, letter by letter; empty: there must be none."""

    def look(self, find: Find) -> None:
        try:
            found = containers.differences(self.place(find).run_directory)
        except (OSError, http.client.HTTPException) as error:
            raise self.unmet(f"a netplug daemon on {self.at}", f"none answers ({error})") from None
        if not self.finds and found:
            others = f"; and {len(found) - 1} more" if len(found) > 1 else ""
            raise self.unmet(f"netplug doctor to find nothing on {self.at}", found[0] + others)
        if self.finds and not any(self.finds in difference for difference in found):
            raise self.unmet(f"netplug doctor to find '{self.finds}' on {self.at}", "; ".join(found) or "nothing differs")
