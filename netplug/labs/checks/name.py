"""Whose addresses does a name have, as a container sees it?"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Literal

from dnslib import QTYPE, RCODE, DNSError, DNSRecord

from netplug.kernel import namespaces
from netplug.labs.checks.base import Check, Find
from netplug.labs.places import Place

_RESOLVER = ("127.0.0.11", 53)
_PATIENCE = 3.0
_LEARNING = 1.0
"""So long may it take until a resolver has heard of a container that was started a moment ago by another engine, or on another host."""


class NameCheck(Check, frozen=True, tag="name"):
    """A question to 127.0.0.11 from the container's network, or a look into its hosts file, must give exactly these addresses."""

    name: str
    of: list[str]
    """Each PLACE:INTERFACE whose first IPv4 address it must be."""
    told_by: Literal["resolver", "hosts file"] = "resolver"

    def places(self) -> tuple[str, ...]:
        return (self.at, *(end.rpartition(":")[0] for end in self.of))

    def look(self, find: Find) -> None:
        place = self.place(find)
        wanted = {end: self._address(find, end) for end in self.of}
        deadline = time.monotonic() + _LEARNING
        found, problem = self._told(place)
        while set(found) != set(wanted.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
            found, problem = self._told(place)
        if set(found) != set(wanted.values()):
            whose = " and ".join(f"{address} ({end})" for end, address in wanted.items())
            raise self.unmet(f"the {self.told_by} to tell {self.at} that {self.name} is {whose}", ", ".join(sorted(found)) or problem)

    def _told(self, place: Place) -> tuple[list[str], str]:
        return asked(place.path, self.name) if self.told_by == "resolver" else listed(place, self.name)

    def _address(self, find: Find, end: str) -> str:
        name, _, dev = end.rpartition(":")
        link = self.place(find, name).link(dev, self.why)
        addresses = [str(one["local"]) for one in link["addr_info"] if one["family"] == "inet"]
        if not addresses:
            raise self.unmet(f"{dev} in {name} with an address", "it has none")
        return addresses[0]


def asked(path: str, name: str) -> tuple[list[str], str]:
    """IPv4 addresses that the resolver of the namespace at `path` answers with; without any, why."""
    with namespaces.open_socket(path, socket.AF_INET, socket.SOCK_DGRAM) as question:
        question.settimeout(_PATIENCE)
        try:
            question.connect(_RESOLVER)
            question.send(DNSRecord.question(name, "A").pack())
            answer = DNSRecord.parse(question.recv(4096))
        except (OSError, DNSError) as error:
            return [], f"no answer ({error})"
    found = [str(record.rdata) for record in answer.rr if record.rtype == QTYPE.A]
    return found, f"no such name ({RCODE.get(answer.header.rcode)})"


def listed(place: Place, name: str) -> tuple[list[str], str]:
    """IPv4 addresses of a name in the container's /etc/hosts."""
    lines = [line.split() for line in Path(place.container_root, "etc/hosts").read_text().splitlines()]
    return [words[0] for words in lines if name in words[1:] and ":" not in words[0]], "no such name"
