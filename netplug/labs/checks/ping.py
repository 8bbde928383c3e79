"""Does an answer come to a ping?"""

from __future__ import annotations

import re

from netplug.labs.checks.base import Check, Find
from netplug.labs.places import Place

_SAID = re.compile(
    r"^(?:From \S+.*?(Destination .*|Time to live .*|Frag .*)|ping: .*?((?:Network|No route|local error|sendmsg).*))$", re.MULTILINE
)


class PingCheck(Check, frozen=True, tag="ping"):
    """ICMP echo requests, for real, until one is answered.

    Where an answer is due, for four seconds: for three does the kernel ask for a neighbour before it believes that there is none, and that
    may have begun before the learner did what was missing.
    """

    to: str
    reply: bool = True
    size: int = 0
    """Bytes of the whole IPv4 packet, which must not be broken into fragments; 0: a small one."""

    def look(self, find: Find) -> None:
        place = self.place(find)
        said = ping(place, self.to, self.size, patience=4 if self.reply else 1)
        answered = said == ""
        large = f" of {self.size} bytes" if self.size else ""
        if answered != self.reply:
            expected = f"{'an' if self.reply else 'no'} answer to a ping{large} from {self.at} to {self.to}"
            raise self.unmet(expected, "an answer" if answered else said)


def ping(place: Place, to: str, size: int = 0, patience: int = 1) -> str:
    """Empty if an answer came within so many seconds, else what happened instead."""
    length = ["-s", str(size - 28), "-M", "do"] if size else []  # 20 bytes of IPv4 header, 8 of ICMP
    done = place.run("ping", "-n", "-c", "1", "-i", "0.3", "-w", str(patience), *length, to)
    if done.returncode == 0:
        return ""
    heard = _SAID.search(done.stdout + done.stderr)
    return next(filter(None, heard.groups()), "no answer").strip() if heard else "no answer"
