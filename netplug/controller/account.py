"""What has been put back, left alone, or only noticed: counted for whoever asks, and said in log and journal, once for each round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from netplug.controller.backoff import TIMES, WINDOW
from netplug.controller.concern import Subject
from netplug.controller.core import log
from netplug.controller.nouns import shortened
from netplug.kernel.journal import Journal
from netplug.plan import Plan, Step


class Account:
    """Of one round after the other; `say` ends one."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.healed: Counter[str] = Counter()
        """How much has been put back since the start, by kind."""
        self.told: dict[Subject, frozenset[str]] = {}
        """What has been noticed and not been seen right since."""
        self._begin()

    def blame(self, by: Iterable[str]) -> None:
        """Those who seem to have taken it."""
        self._by.update(dict.fromkeys(by))

    def put_back(self, owner: str, kinds: Iterable[str], words: Sequence[str], steps: Plan = ()) -> None:
        """A kind for each thing, and what it is called."""
        self.healed.update(kinds)
        self._steps += steps
        self._put_back.append(f"{owner}: {shortened(words)}")

    def leave_alone(self, thing: str, seconds: float) -> None:
        self._left_alone[thing] = seconds

    def notice(self, subject: Subject, things: Sequence[str]) -> None:
        """All that is wrong with it now: each is said once, and once more when it has been right in between."""
        known = self.told.pop(subject, frozenset())
        self._noticed += [thing for thing in things if thing not in known]
        if things:
            self.told[subject] = frozenset(things)

    def say(self) -> None:
        who = shortened(list(self._by)) or "somebody"
        if self._put_back:
            words = shortened(self._put_back, "; ")
            log.warning("put back what %s took away: %s", who, words)
            self._journal.record("heal", words, self._steps)
        if self._noticed:
            log.warning("%s took away or changed: %s; left as it is (--no-heal)", who, shortened(self._noticed, "; "))
        if self._left_alone:
            log.warning(
                "taken away more than %d times within %d s, so left alone for %d s: %s; a restart of the daemon tries at once, one with"
                " --no-heal never does",
                TIMES,
                WINDOW,
                round(max(self._left_alone.values())),
                shortened(list(self._left_alone), "; "),
            )
        self._begin()

    def _begin(self) -> None:
        self._by: dict[str, None] = {}
        self._put_back: list[str] = []
        self._steps: list[Step] = []
        self._left_alone: dict[str, float] = {}
        self._noticed: list[str] = []
