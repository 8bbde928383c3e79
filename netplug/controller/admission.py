"""Whether this node may act in the cluster by its name: once it is registered, and not while another node has that name.

All that the cluster has by the name would be taken for this node's otherwise, and what it does not know of as its own to clear away.
"""

from __future__ import annotations

import asyncio

from netplug.errors import Conflict, Unavailable

PATIENCE = 1.9
"""Seconds that a change waits for the first registration to be decided: a start's."""


class Admission:
    """Of this node. Granted at once where nobody registers it."""

    def __init__(self, *, granted: bool = True) -> None:
        self._decided = asyncio.Event()
        self._refusal = ""
        self.trouble = "this node is not registered in the cluster yet"
        """Why nothing is decided, while nothing is."""
        if granted:
            self.grant()

    @property
    def granted(self) -> bool:
        return self._decided.is_set() and not self._refusal

    def grant(self) -> None:
        """Until it is refused; a cluster that is away changes nothing about it."""
        self._refusal = ""
        self._decided.set()

    def refuse(self, why: str) -> None:
        self._refusal = why
        self._decided.set()

    async def wait(self) -> None:
        """Conflict says why it is refused; Unavailable: nobody knows yet."""
        if not self._decided.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._decided.wait()
            except TimeoutError:
                raise Unavailable(self.trouble) from None
        if self._refusal:
            raise Conflict(self._refusal)
