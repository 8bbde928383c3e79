"""Our tables in the host: what we made them hold, and how that comes back when somebody else was at them.

What belongs there is known three times over: the elements are those that we were asked for (`_elements`); our rules are as nft lists them
after loading (`_whole`); the `user` chains are the administrator's, of which there is a copy as of the last look (`_users`).
Whether a look is needed is told by nftables' generation: each transaction raises it by one, so where it is what our own account for,
nobody else has changed anything.
"""

from __future__ import annotations

import errno
import logging
import shlex
from collections import Counter
from functools import cached_property
from typing import Any, NamedTuple

from netplug.errors import KernelError
from netplug.kernel.firewall import Gaps, Surplus, ruleset
from netplug.kernel.firewall.batch import Batch, fits, with_intervals
from netplug.kernel.firewall.elements import Change, Elements, Place, additions, deletions, judge
from netplug.kernel.firewall.generation import Generation
from netplug.kernel.firewall.libnftables import Context
from netplug.kernel.firewall.listing import Listing
from netplug.plan import Plan, Step

_MOST_NAMED = 10
"""Missing elements of one set that are named one by one."""

log = logging.getLogger(__name__)


class _User(NamedTuple):
    """The rules of one chain `user`: as JSON, to compare, and as text, to load."""

    rules: list[Any]
    text: str


class Tables:
    """In the namespace of the thread that uses it first."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._elements: Elements = {}
        self._whole: Listing | None = None
        """None where we have loaded nothing."""
        self._outdated = False
        """The tables there are another version's; they protect what they know until everything is loaded."""
        self._users: dict[str, _User] = {}
        self._seen: int | None = None
        """The generation in which all was as it should be, and nothing but ours since."""

    def start(self) -> None:
        """Load the rules that never change, keeping the elements."""
        found = self._look(terse=True)
        self._remember(found)
        self._outdated = _of_another_version(found)
        if not self._outdated:
            try:
                self._transact(self._base)
            except KernelError:
                if not found.sets:
                    raise
                self._outdated = True
        if self._outdated:
            log.info("the firewall tables here are another version's: they stay until all networks are known")
        else:
            self._take_stock()

    def change(self, steps: Plan) -> list[Step]:
        """Make the steps true in one transaction; those that changed something. KernelError where one cannot be done; then none is."""
        if self._outdated:
            self.load({})
        try:
            return self._change(steps)
        except KernelError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                raise
            self._look_again()
            return self._change(steps)

    def load(self, elements: Elements) -> None:
        """Rules and elements, in one transaction: packets meet the old ones or the new ones."""
        if self._outdated:
            self._load_afresh(elements)
        else:
            self._transact("\n".join((self._base, ruleset.EMPTY, *additions(elements))))
        self._elements = dict(elements)
        if self._whole is None:
            self._take_stock()

    def heal(self) -> list[str]:
        """Put back what is missing; words for each such thing. Cheap where nobody has changed anything."""
        generation = self._generation.read()
        if self._whole is None or self._outdated or generation == self._seen:
            return []
        found = self._look()
        self._remember(found)
        words = self._damage(found)
        if words:
            self._repair(found)
        else:
            self._seen = generation if generation == self._generation.read() else None
        return words

    def damage(self) -> list[str]:
        """What `heal` would put back."""
        if self._whole is None or self._outdated or self._generation.read() == self._seen:
            return []
        return self._damage(self._look())

    def survey(self, steps: Plan) -> Gaps:
        """What of these does not hold, and what else is not as we made it."""
        found = self._look()
        lacking = judge(found.elements, steps, overwrite=True).steps
        if not found.tables:
            return Gaps(lacking, ["our firewall tables"])
        rules = found.damage(self._whole) if self._whole is not None else []
        surplus = [Surplus(_words(place), command(deletions([place])[0])) for place in self._surplus(found)]
        return Gaps(lacking, rules, surplus)

    def mend(self) -> None:
        """Put back what is missing, take out what we were not asked for."""
        self.heal()
        if surplus := self._surplus(self._look()):
            self._transact("\n".join(deletions(surplus)))

    def clear(self) -> None:
        """Nothing of ours is there, and nothing comes back."""
        self._transact(ruleset.CLEAR)
        self._elements, self._users, self._whole, self._outdated = {}, {}, None, False

    @cached_property
    def _context(self) -> Context:
        return Context()

    @cached_property
    def _batch(self) -> Batch:
        return Batch()

    @cached_property
    def _generation(self) -> Generation:
        return Generation()

    def _change(self, steps: Plan) -> list[Step]:
        change = judge(self._elements, steps)
        if change.delete or change.add:
            self._count(self._transact_elements(change))
        change.update(self._elements)
        return change.steps

    def _transact_elements(self, change: Change) -> int | None:
        """The generation that it has made, where that is told."""
        if fits(change.delete, change.add):
            try:
                return self._batch.transact(change.delete, change.add)
            except KernelError:
                if not with_intervals(change.add):
                    raise
        self._context.transact(change.text())  # it says of intervals what is wrong with them
        return None

    def _transact(self, text: str) -> None:
        self._context.transact(text)
        self._count()

    def _count(self, generation: int | None = None) -> None:
        """A transaction of ours, with the generation that it has made where that is known."""
        if self._seen is not None:
            if generation is None:
                generation = self._generation.read()
            self._seen = generation if generation == (self._seen + 1) % (1 << 32) else None

    def _look(self, *, terse: bool = False) -> Listing:
        found = Listing()
        for table in ruleset.TABLES:
            self._context.list(table, found, terse=terse)
        return found

    def _take_stock(self) -> None:
        """What is there now is as it should be."""
        generation = self._generation.read()
        self._whole = self._look()
        self._elements = _ours(self._whole)
        self._whole.elements.clear()
        self._seen = generation if generation == self._generation.read() else None

    def _look_again(self) -> None:
        """The kernel did not hold what we thought."""
        found = self._look()
        if found.sets.keys() >= ruleset.SETS:
            self._elements = _ours(found)
        else:
            log.warning("somebody has deleted our firewall tables: putting them back, with %d elements", len(self._elements))
            self._repair(found)

    def _surplus(self, found: Listing) -> list[Place]:
        return [place for place in _ours(found) if place not in self._elements]

    def _damage(self, found: Listing) -> list[str]:
        assert self._whole is not None
        if not found.tables:
            return ["our firewall tables"]
        words = found.damage(self._whole)
        missing: dict[str, list[Place]] = {}
        for place, value in self._elements.items():
            if place.set in found.sets and found.elements.get(place) != value:
                missing.setdefault(place.set, []).append(place)
        for name, places in missing.items():
            words += [_words(place) for place in places] if len(places) <= _MOST_NAMED else [f"{len(places)} elements of {name}"]
        return words

    def _repair(self, found: Listing) -> None:
        """All in one transaction. What stands in its way (a set of ours declared otherwise, say) goes with the whole of our tables."""
        users = (user.text for table, user in self._users.items() if _emptied(found, table))
        stray = [place for place, value in self._elements.items() if found.elements.get(place, value) != value]
        missing = {place: value for place, value in self._elements.items() if found.elements.get(place) != value}
        try:
            self._transact("\n".join((self._base, *users, *deletions(stray), *additions(missing))))
        except KernelError as error:
            log.warning("our firewall tables cannot be mended (%s): loading them afresh", error)
            self._load_afresh(self._elements)
        if self._whole is None:
            self._take_stock()

    def _load_afresh(self, elements: Elements) -> None:
        """The tables made anew, with the administrator's rules if they can be loaded without what they knew."""
        text = "\n".join((ruleset.CLEAR, self._base, *additions(elements)))
        users = "\n".join(user.text for user in self._users.values())
        try:
            self._transact(f"{text}\n{users}")
        except KernelError as error:
            if not users:
                raise
            self._transact(text)
            log.error("the rules of chain user could not be put back (%s):\n%s", error, users)
        self._outdated = False

    def _remember(self, found: Listing) -> None:
        """Keep a copy of the administrator's rules, and an older one of what went with all of a table."""
        for table, rules in found.users.items():
            if not _emptied(found, table) and (table not in self._users or self._users[table].rules != rules):
                self._users[table] = _User(rules, self._context.text(f"{table} {ruleset.USER}") if rules else "")


def _emptied(found: Listing, table: str) -> bool:
    """Whether a table is gone, or has no rules at all. An administrator who empties chain `user` alone means it."""
    return not found.users.get(table) and all(len(rules) == 1 for (owner, _), rules in found.chains.items() if owner == table)


def _of_another_version(found: Listing) -> bool:
    """Whether the tables that are there lack sets that ours have."""
    tables = Counter(name.rsplit(" ", 1)[0] for name in ruleset.SETS)
    present = Counter(name.rsplit(" ", 1)[0] for name in found.sets)
    return any(present[table] < tables[table] for table in present)


def command(text: str) -> str:
    """`nft add element inet netplug bridges '{ "br0" }'`."""
    words, braces, content = text.partition("{")
    return f"nft {words}{shlex.quote(braces + content)}"


def _words(place: Place) -> str:
    return f"{place.key} in {place.set}"


def _ours(found: Listing) -> Elements:
    return {place: value for place, value in found.elements.items() if place.set in ruleset.SETS}
