"""Does a bridge or a VXLAN interface know where a MAC is?"""

from __future__ import annotations

from typing import Any

from netplug.labs.checks.base import Check, Find
from netplug.labs.checks.neighbour import mac_of


class FdbCheck(Check, frozen=True, tag="fdb"):
    """An entry of `dev` (a bridge's port, or a VXLAN interface) in the forwarding table."""

    dev: str
    mac: str = ""
    mac_of: str = ""
    """HOST[/NAME]:INTERFACE whose MAC it must be, instead of `mac`."""
    dst: str = ""
    """Of a VXLAN interface: the host to which such frames go."""

    def places(self) -> tuple[str, ...]:
        return (self.at, *([self.mac_of.rpartition(":")[0]] if self.mac_of else []))

    def look(self, find: Find) -> None:
        place = self.place(find)
        dev = place.link(self.dev, self.why)["ifname"]
        mac = self.mac or mac_of(self, find, self.mac_of)
        whose = f"{mac} ({self.mac_of})" if self.mac_of else mac
        entries = place.json("bridge", "-j", "fdb", "show", "dev", dev)
        found = [entry for entry in entries if entry["mac"] == mac and _is_remote(entry, bool(self.dst))]
        expected = f"a forwarding entry for {whose} at {self.dev} in {self.at}" + (f" that leads to {self.dst}" if self.dst else "")
        if not found:
            raise self.unmet(expected, "none")
        leads = sorted(str(entry.get("dst", "")) for entry in found)
        if self.dst and self.dst not in leads:
            raise self.unmet(expected, f"it leads to {', '.join(leads)}")


def _is_remote(entry: dict[str, Any], remote: bool) -> bool:
    """Of a VXLAN interface that is a bridge's port, the bridge has an entry and the tunnel has one: only the latter has `dst`."""
    return ("dst" in entry) == remote
