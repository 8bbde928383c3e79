"""The iptables programs: which of them the host uses, and running them.

All changes go through `iptables-restore --noflush`: one process and one lock however many rules, each table all or nothing. Measured for
hosts with legacy tables (iptables 1.8.9, Linux 6.18, two CPUs; milliseconds for adding / deleting N rules, medians):

| way                                        | 1, beside 0 | 100, beside 0 | 1, beside 1,000 | 100, beside 1,000 |
|--------------------------------------------|-------------|---------------|-----------------|-------------------|
| iptables-legacy-restore                    | 1.5 / 1.5   | 1.9 / 2.0     | 2.7 / 2.7       | 3.0 / 5.9         |
| python-iptables 1.0.1, in process, no lock | 0.3 / 0.4   | 31 / 31       | 1.2 / 1.2       | 31 / 36           |
| iptables-nft-restore                       | 3.5 / 13    | 5.3 / 18      | 2.5 / 22        | 3.6 / 124         |

python-iptables takes no lock (/run/xtables.lock) beside kube-proxy and others, may end its process with a segmentation fault, and so would
need a worker process of its own: nothing is left of what it wins on a single rule.
"""

from __future__ import annotations

import errno
import subprocess
from functools import cached_property
from pathlib import Path

from netplug import faults
from netplug.errors import InvalidArgument, KernelError
from netplug.kernel.firewall import processes
from netplug.kernel.firewall.iptables_chains import Chains, read_listing

_TIMEOUT = 30
"""Seconds; the programs themselves wait for the lock less long."""
_LOCK_WAIT = "10"
_FAMILY = {"ip": "iptables", "ip6": "ip6tables"}


class Programs:
    """`variant`: `nft`, `legacy`, or (`""`) what the host uses."""

    def __init__(self, variant: str = "") -> None:
        self._chosen = variant

    @cached_property
    def variant(self) -> str:
        """`""` is the host's `iptables`, whatever that is."""
        return self._chosen or ("legacy" if _legacy_is_in_use() else "")

    @cached_property
    def kind(self) -> str:
        """`nft` or `legacy`."""
        return self.variant or ("nft" if _nf_tables() else "legacy")

    def name(self, family: str) -> str:
        """The command for a person to type."""
        return _FAMILY[family] + (f"-{self.variant}" if self.variant else "")

    def restore(self, family: str, document: str) -> None:
        """Run the document, each of its tables all or nothing; KernelError with what the program says."""
        faults.point("iptables.before")
        run([f"{self.name(family)}-restore", "--noflush", "--wait", _LOCK_WAIT], document)
        faults.point("iptables.after")

    def listing(self, family: str) -> dict[str, Chains]:
        """All tables that there are."""
        return read_listing(run([f"{self.name(family)}-save"]))


def run(argv: list[str], document: str = "") -> str:
    """What the program prints, in the calling thread's namespace."""
    try:
        done = processes.run(argv, document, _TIMEOUT)
    except FileNotFoundError:
        raise InvalidArgument(
            f"the firewall backend iptables needs {argv[0]}: install iptables, or use --firewall-backend nftables"
        ) from None
    except subprocess.TimeoutExpired:
        raise KernelError(errno.ETIMEDOUT, argv[0], f"no answer in {_TIMEOUT} s") from None
    if done.returncode:
        raise KernelError(errno.EIO, argv[0], _complaint(done.stderr, document))
    return done.stdout


def legacy_tables() -> bool:
    """Whether there are legacy tables of IPv4 or IPv6 in the calling thread's namespace. Reading this makes none."""
    return any(_read(f"/proc/thread-self/net/{family}_tables_names") for family in _FAMILY)


def _legacy_is_in_use() -> bool:
    """`iptables` works on nf_tables, but the host's rules, those that are not ours, are in legacy tables."""
    if not legacy_tables() or not _nf_tables():
        return False
    try:
        return _rules("iptables-legacy-save") > _rules("iptables-save")
    except InvalidArgument:  # there are tables, but no program for them
        return False


def _nf_tables() -> bool:
    """Programs before 1.8 knew legacy tables only, and do not say so."""
    return "nf_tables" in run(["iptables", "--version"])


def _rules(program: str) -> int:
    return sum(line.startswith("-A ") and "NETPLUG" not in line for line in run([program]).splitlines())


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _complaint(error: str, document: str) -> str:
    """One line, with the rule that it is about."""
    words = [line for line in error.splitlines() if line and not line.startswith(("Try `", "#"))]
    text = "; ".join(words) or "failed"
    lines = document.splitlines()
    for number in (int(word) for word in text.replace(":", " ").split() if word.isdigit()):
        if "line" in text and 0 < number <= len(lines):
            return f"{text} ({lines[number - 1]})"
    return text
