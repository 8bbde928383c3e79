"""Which way would the kernel send a packet to this address? It is asked itself: `ip route get`."""

from __future__ import annotations

from netplug.labs.checks.base import Check, Find


class RouteCheck(Check, frozen=True, tag="route"):
    to: str
    via: str = ""
    """The gateway; empty: it is a neighbour."""
    dev: str = ""

    def look(self, find: Find) -> None:
        place = self.place(find)
        routes = place.json("ip", "-j", "route", "get", self.to)
        expected = f"{self.at} to reach {self.to} {_way(self.via, self.dev)}"
        if not routes:
            raise self.unmet(expected, f"{self.at} has no route to {self.to}")
        gateway, dev = routes[0].get("gateway", ""), routes[0].get("dev", "")
        if gateway != self.via or (self.dev and dev != self.dev):
            raise self.unmet(expected, f"its way there goes {_way(gateway, dev)}")


def _way(gateway: str, dev: str) -> str:
    through = f" through {dev}" if dev else ""
    return f"via {gateway}{through}" if gateway else f"directly{through}"
