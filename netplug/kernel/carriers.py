"""Pairs that carry packets at once after an end of theirs was set up, instead of about a second later.

Two things take that second. An end learns from a kernel worker that the other one is up, once a second at most; looking at it does the
worker's job (since Linux 6.8). And a question for a neighbour's address that was lost meanwhile is asked again after a second; when its
entry is gone, the next packet asks anew.
"""

from __future__ import annotations

import socket
import struct

from netplug.kernel import links, namespaces
from netplug.kernel.netlink import Message, Socket, attribute, parse_attributes
from netplug.kernel.syscalls import asked
from netplug.plan import Veth

_RTM_DELNEIGH, _RTM_GETNEIGH = 29, 30
_NDA_DST = 1
_INCOMPLETE = 1
_INFO = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type (struct ndmsg)


def settle(pair: Veth) -> None:
    for namespace, name in ((pair.namespace, pair.name), (pair.peer_namespace, pair.peer)):
        with namespaces.entered(namespace), asked("look at links"), Socket() as netlink:
            link = links.find(netlink, name)
            if link is not None and namespace == pair.peer_namespace:
                netlink.send([_forget(body) for body in _unanswered(netlink, link.index)])


def _unanswered(netlink: Socket, index: int) -> list[bytes]:
    """Neighbours whose address has been asked for in vain so far."""
    families = (socket.AF_INET, socket.AF_INET6)
    bodies = [body for family in families for body in netlink.dump(Message(_RTM_GETNEIGH, _INFO.pack(family, 0, 0, 0, 0)))]
    return [body for body in bodies if _INFO.unpack_from(body)[1:3] == (index, _INCOMPLETE)]


def _forget(body: bytes) -> Message:
    family, index, _, flags, _ = _INFO.unpack_from(body)
    address = parse_attributes(body, _INFO.size)[_NDA_DST]
    return Message(_RTM_DELNEIGH, _INFO.pack(family, index, 0, flags, 0) + attribute(_NDA_DST, address))
