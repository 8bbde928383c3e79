"""libnftables in process: run nft text as one transaction, read tables.

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
from netplug.kernel.firewall import listing
from netplug.kernel.firewall.elements import Elements
from netplug.kernel.firewall.listing import Listing

_ERRORS = (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.ENOBUFS, errno.ENOMEM, errno.EBUSY, errno.EOPNOTSUPP)


class Context:
    """One libnftables context. Not for use by two threads at once."""

    def __init__(self) -> None:
        descriptors.check_low()
        self._nft = nftables.Nftables()
        # /etc/protocols may be missing: then names are only understood, not printed.
        self._nft.set_numeric_proto_output(True)
        self._nft.set_stateless_output(True)

    def transact(self, text: str) -> None:
        """Run `text`, all of it or nothing; KernelError with the errno that nft reports."""
        faults.point("nft.before")
        code, _, error = self._nft.cmd(text)
        if code:
            raise _error("nft", error)
        faults.point("nft.after")

    def read(self, table: str) -> Elements | None:
        """All elements of a table; None if there is no such table."""
        found = Listing()
        return found.elements if self.list(table, found) else None

    def list(self, table: str, into: Listing, *, terse: bool = False) -> bool:
        """Add all there is of a table, or (`terse`) all but its elements; False if there is no such table."""
        self._nft.set_terse_output(terse)
        try:
            content = self.json(f"list table {table}")
        finally:
            self._nft.set_terse_output(False)
        if content is None:
            return False
        listing.read(content, into)
        return True

    def json(self, command: str) -> dict[str, Any] | None:
        """What nft answers (libnftables-json(5)); None if what is asked for is not there."""
        self._nft.set_json_output(True)
        try:
            text = self._ask(command)
        finally:
            self._nft.set_json_output(False)
        if text is None:
            return None
        content: dict[str, Any] = json.loads(text)
        return content

    def text(self, chain: str) -> str:
        """A chain (`inet netplug user`) as nft would load it again; `""` if there is none."""
        return self._ask(f"list chain {chain}") or ""

    def _ask(self, command: str) -> str | None:
        """What nft answers; None if what is asked for is not there."""
        code, output, error = self._nft.cmd(command)
        if not code:
            return str(output)
        failure = _error(f"nft {command}", error)
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
