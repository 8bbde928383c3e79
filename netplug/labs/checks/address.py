"""Has an interface this address?"""

from __future__ import annotations

from netplug.labs.checks.base import Check, Find


class AddressCheck(Check, frozen=True, tag="address"):
    dev: str
    address: str
    """With the length of its prefix: 10.0.0.1/24."""
    absent: bool = False

    def look(self, find: Find) -> None:
        link = self.place(find).link(self.dev, self.why)
        found = [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one.get("scope") != "link"]
        if (self.address in found) == self.absent:
            expected = f"{self.dev} in {self.at} {'without' if self.absent else 'with'} address {self.address}"
            raise self.unmet(expected, f"{self.dev} has {', '.join(found) or 'no address'}")
