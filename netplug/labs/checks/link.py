"""Is an interface there, and as it should be?"""

from __future__ import annotations

from typing import Any

from netplug.labs.checks.base import Check, Find


class LinkCheck(Check, frozen=True, tag="link"):
    """Only what is given is looked at. `up`: set up by its owner; `carrier`: the other side is up as well."""

    dev: str
    type: str = ""
    up: bool | None = None
    carrier: bool | None = None
    master: str | None = None
    """The bridge whose port it is; empty: of none."""
    mtu: int = 0
    vni: int = 0
    learning: bool | None = None
    """Of a VXLAN interface: whether it learns from packets which MAC is behind which host."""
    owner: str | None = None
    """Who has marked it as his own, by the first word of its alias: `netplug`; empty: nobody."""
    absent: bool = False

    def look(self, find: Find) -> None:
        place = self.place(find)
        if self.absent:
            if self.dev in place.links():
                raise self.unmet(f"no interface {self.dev} in {self.at}", "it is there")
            return
        link = place.link(self.dev, self.why)
        for name, expected, found in self._properties(link):
            if expected != found:
                raise self.unmet(f"{self.dev} in {self.at} with {name} {_said(expected)}", f"{name} {_said(found)}")

    def _properties(self, link: dict[str, Any]) -> list[tuple[str, Any, Any]]:
        """(name, expected, found) of all that is asked for."""
        info = link.get("linkinfo", {})
        data = info.get("info_data", {})
        flags = link["flags"]
        known = [
            ("type", self.type or None, info.get("info_kind", "none")),
            ("state", None if self.up is None else _state(self.up), _state("UP" in flags)),
            ("carrier", self.carrier, "LOWER_UP" in flags),
            ("master", self.master, link.get("master", "")),
            ("MTU", self.mtu or None, link["mtu"]),
            ("VNI", self.vni or None, data.get("id", 0)),
            ("learning", self.learning, bool(data.get("learning", False))),
            ("owner", self.owner, link.get("ifalias", "").partition(":")[0]),
        ]
        return [(name, expected, found) for name, expected, found in known if expected is not None]


def _state(up: bool) -> str:
    return "UP" if up else "DOWN"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) or "none"
