"""nftables' generation: a number that every transaction in a network namespace raises by one (linux/netfilter/nf_tables.h).

So it tells in 10 microseconds whether anybody but us has changed anything at all.
"""

from __future__ import annotations

import struct
import weakref

from netplug.kernel import descriptors
from netplug.kernel.netlink import NETLINK_NETFILTER, Message, Socket, find_attribute

NEWGEN, _GETGEN = 10 << 8 | 15, 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_…
_GEN_ID = 1
_INFO = struct.Struct("=BBH")  # family, version, resource


class Generation:
    """Of the namespace in which it is made."""

    def __init__(self) -> None:
        self._netlink = Socket(NETLINK_NETFILTER)
        # Not one socket for each question: closing it waits for all that is being deleted.
        weakref.finalize(self, descriptors.close_later, self._netlink.close).atexit = False

    def read(self) -> int:
        return parse_generation(self._netlink.get(Message(_GETGEN, _INFO.pack(0, 0, 0))))


def parse_generation(body: bytes) -> int:
    """Of a message of kind NEWGEN: an answer, or what is told of a transaction."""
    return int.from_bytes(find_attribute(body, _INFO.size, _GEN_ID), "big")
