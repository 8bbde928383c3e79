"""New IPv6 addresses that packets are taken in for at once, instead of a moment later.

The kernel answers that a link has the address, and a worker of its own then joins the group that neighbours ask in and makes the
address's local route (`addrconf_dad_work`, also without duplicate-address detection). A container that speaks meanwhile is not answered: a
neighbour's advertisement to it is dropped, and so is a question for it, which is asked again only after a second. On a busy machine the
worker is some milliseconds late.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from netplug.errors import KernelError
from netplug.kernel import routes
from netplug.kernel.namespaces import MISSING, entered
from netplug.kernel.netlink import Kept
from netplug.kernel.syscalls import asked
from netplug.plan import Address

_PATIENCE = 0.2
"""Seconds in all: a link that stays down has no such route."""
_PAUSE = 0.0002
_log = logging.getLogger(__name__)


async def settle(kept: Kept, given: Iterable[Address]) -> None:
    """Wait until the kernel takes in what comes for these addresses; for IPv4's it does by then. `kept`: a socket of the host."""
    deadline = time.monotonic() + _PATIENCE
    for op in given:
        while ":" in op.address and not _taken_in(kept, op):
            if time.monotonic() > deadline:
                _log.warning("%s on %s: the kernel has no local route for it yet", op.address, op.link)
                return
            await asyncio.sleep(_PAUSE)


def _taken_in(kept: Kept, op: Address) -> bool:
    """Also where there is nothing left to take in anything. The route comes last."""
    try:
        with entered(op.namespace), asked(f"look whether {op.address} is in use"), kept.at(op.namespace) as netlink:
            return routes.local(netlink, op.address.partition("/")[0])
    except KernelError as error:
        if error.errno not in MISSING:
            raise
        return True
