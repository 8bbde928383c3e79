"""Compares records, kernel, resolver and store when asked, and puts right what differs.

A look changes nothing and waits for nobody. What it finds is looked at again once all changes have ended that were under way meanwhile:
only what is found both times is a difference. `kernel`: what plans want and the kernel has not; `strays`: what is there without a record;
`books`: names, held ports, the store, what is owed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from netplug.controller.core import Core, log
from netplug.controller.debts import Debts
from netplug.controller.doctor.books import BookCheck
from netplug.controller.doctor.difference import Difference
from netplug.controller.doctor.kernel import KernelCheck
from netplug.controller.doctor.strays import StrayCheck
from netplug.controller.endpoints import Endpoints
from netplug.controller.farewells import Farewells
from netplug.controller.restore import Restore
from netplug.controller.routing import Routing
from netplug.errors import NetplugError
from netplug.kernel.firewall.neighbours import Neighbours
from netplug.plan import Plan

ROUNDS = 3
"""Some losses show when others are put right: a bridge's ports after the bridge."""

__all__ = ["Difference", "Doctor", "Treated"]


@dataclass(frozen=True)
class Treated:
    """A difference, and why it is there still; `""`: it has been put right."""

    difference: Difference
    error: str = ""


class Doctor:
    """Of this host."""

    def __init__(
        self,
        core: Core,
        restore: Restore,
        routing: Routing,
        endpoints: Endpoints,
        debts: Debts,
        farewells: Farewells,
        vanished: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._core = core
        self._kernel = KernelCheck(core, restore, routing)
        self._strays = StrayCheck(core, restore, self._kernel, vanished)
        self._books = BookCheck(core, restore, endpoints, debts, farewells)

    def start(self, base: Plan, neighbours: Neighbours | None) -> None:
        """`base` is what the host needs whatever networks there are; `neighbours`: our rule in other tools' chains."""
        self._kernel.base, self._kernel.neighbours = base, neighbours

    async def examine(self) -> list[Difference]:
        """Every difference, hosts before networks before containers; nothing is changed."""
        seen = {difference.key for difference in await self._look()}
        if not seen:
            return []
        await self._core.quiet()
        return [difference for difference in await self._look() if difference.key in seen]

    async def treat(self) -> list[Treated]:
        """Put all of it right; what there was, and what of it is there still."""
        found: dict[tuple[str, str], Difference] = {}
        errors: dict[str, str] = {}
        for _ in range(ROUNDS):
            if not (differences := await self.examine()):
                break
            found |= {difference.key: difference for difference in differences}
            errors = await self._remedy(differences)
        left = {difference.key for difference in await self.examine()} if found else set()
        return [Treated(one, _reason(one, errors) if key in left else "") for key, one in found.items()]

    async def _look(self) -> list[Difference]:
        found = [*await self._kernel.differences(), *await self._strays.differences(), *await self._books.differences()]
        return list({difference.key: difference for difference in found}.values())

    async def _remedy(self, differences: list[Difference]) -> dict[str, str]:
        """What could not be done, and why, by remedy."""
        errors: dict[str, str] = {}
        for name, remedy in dict(difference.remedy for difference in differences).items():
            try:
                await remedy()
            except NetplugError as error:
                log.error("%s could not be put right: %s", name, error)
                errors[name] = str(error)
        return errors


def _reason(difference: Difference, errors: dict[str, str]) -> str:
    return errors.get(difference.remedy[0], "it is there again, or still: somebody else may be taking it away")
