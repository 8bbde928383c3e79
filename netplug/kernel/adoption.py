"""Links that somebody else has made, moved into a sandbox and back (`Adopt`): never made, marked or deleted by us."""

from __future__ import annotations

import errno
import os

from netplug.errors import KernelError
from netplug.kernel import links
from netplug.kernel.links import Link
from netplug.kernel.namespaces import MISSING, entered, open_descriptor
from netplug.kernel.netlink import Message, Refused, Socket
from netplug.plan import Adopt


def adopt(op: Adopt, source: Link | None, namespace: int) -> Message | None:
    """What moves `source` into the namespace of that descriptor; None where it is there already. Refused says why it cannot be."""
    with entered(op.link_namespace), Socket() as there:
        taken = links.find(there, op.name)
    if source is None and taken is None:
        raise Refused(errno.ENODEV, f"there is no link {op.source} to move")
    if source is None:
        return None
    if taken is not None:
        # The kernel would move the link first, and only then find that it cannot have that name.
        raise Refused(errno.EEXIST, f"a link {op.name} is there already")
    if source.ours or source.loopback:
        raise Refused(errno.EPERM, f"{op.source} is {'the loopback' if source.loopback else 'a link of netplug itself'}")
    return links.move(source.index, namespace, op.name)


def give_back(op: Adopt) -> bool:
    """Whether it was there to be given back. It gets its old name before it goes: its present one may be another link's where it goes."""
    try:
        with entered(op.namespace), Socket() as here:
            taken = links.find(here, op.source) is not None
            home = open_descriptor("")
        try:
            return _move_back(op, home, taken)
        finally:
            os.close(home)
    except KernelError as error:
        if error.errno in MISSING:
            return False
        raise


def _move_back(op: Adopt, home: int, taken: bool) -> bool:
    with entered(op.link_namespace), Socket() as there:
        link = links.find(there, op.name)
        if link is None:
            return False
        if taken:
            raise Refused(errno.EEXIST, f"a link {op.source} is there already")
        there.request(links.set_down(link.index))
        there.request(links.rename(link.index, op.source))
        there.request(links.move(link.index, home, op.source))
    return True
