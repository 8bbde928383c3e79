"""Does an interface know the MAC of a neighbour, and who has told it?"""

from __future__ import annotations

from netplug.labs.checks.base import Check, Find


class NeighbourCheck(Check, frozen=True, tag="neighbour"):
    dev: str
    address: str
    mac_of: str = ""
    """HOST[/NAME]:INTERFACE whose MAC it must be."""
    permanent: bool | None = None

    def places(self) -> tuple[str, ...]:
        return (self.at, *([self.mac_of.rpartition(":")[0]] if self.mac_of else []))

    def look(self, find: Find) -> None:
        place = self.place(find)
        dev = place.link(self.dev, self.why)["ifname"]
        entries = {entry["dst"]: entry for entry in place.json("ip", "-j", "neighbour", "show", "dev", dev)}
        entry = entries.get(self.address, {})
        mac, states = entry.get("lladdr", ""), entry.get("state", [])
        expected = f"a neighbour entry for {self.address} on {self.dev} in {self.at}"
        if not mac:
            raise self.unmet(expected, f"entries for {', '.join(sorted(entries)) or 'nobody'}")
        if self.mac_of and mac != (right := mac_of(self, find, self.mac_of)):
            raise self.unmet(f"{expected} with the MAC of {self.mac_of}, {right}", f"the MAC {mac}")
        if self.permanent is not None and ("PERMANENT" in states) != self.permanent:
            raise self.unmet(f"{expected}, {'permanent' if self.permanent else 'learned'}", f"its state is {' '.join(states)}")


def mac_of(check: Check, find: Find, end: str) -> str:
    """The MAC of HOST[/NAME]:INTERFACE."""
    name, _, dev = end.rpartition(":")
    return str(check.place(find, name).link(dev, check.why)["address"])
