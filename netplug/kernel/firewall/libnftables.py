"""libnftables in process: run nft text as one transaction, read a table's elements.

A context belongs to the network namespace of the thread that makes it. Two costs to know (Linux 6.18, nftables 1.0.6): making one takes
0.05 ms, but closing its socket waits up to 40 ms for the kernel to free what the last transactions deleted (`nft_rcv_nl_event` in
net/netfilter/nf_tables_api.c). So contexts of passing use are closed by a thread.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import nftables

from netplug import faults
from netplug.errors import KernelError
from netplug.kernel import descriptors
from netplug.kernel.firewall.elements import Elements, from_json

_ERRORS = (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.ENOBUFS, errno.ENOMEM, errno.EBUSY, errno.EOPNOTSUPP)


class Context:
    """One libnftables context. Not for use by two threads at once."""

    def __init__(self) -> None:
        descriptors.check_low()
        self._nft = nftables.Nftables()
        # /etc/protocols may be missing: then names are only understood, not printed.
        self._nft.set_numeric_proto_output(True)

    def transact(self, text: str) -> None:
        """Run `text`, all of it or nothing; KernelError with the errno that nft reports."""
        faults.point("nft.before")
        code, _, error = self._nft.cmd(text)
        if code:
            raise _error("nft", error)
        faults.point("nft.after")

    def read(self, table: str) -> Elements | None:
        """All elements of a table; None if there is no such table."""
        self._nft.set_json_output(True)
        code, output, error = self._nft.cmd(f"list table {table}")
        self._nft.set_json_output(False)
        if not code:
            listing: dict[str, Any] = json.loads(output)
            return from_json(listing)
        failure = _error(f"nft list table {table}", error)
        if failure.errno == errno.ENOENT:
            return None
        raise failure

    def close(self) -> None:
        """Free the context without waiting for it. Nothing else may be called after this."""
        last = [self._nft]
        del self._nft
        descriptors.close_later(last.clear)


def _error(operation: str, text: str) -> KernelError:
    """nft prints strerror(3); behind the first line it repeats the command, which may be long."""
    first = text.split("\n", 1)[0].removeprefix("Error: ")
    for code in _ERRORS:
        if os.strerror(code) in first:
            return KernelError(code, operation, first)
    return KernelError(errno.EEXIST if "overlaps" in first else errno.EINVAL, operation, first)
