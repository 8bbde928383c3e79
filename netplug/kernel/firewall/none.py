"""The backend `none` (`--iptables=false`): the host's firewall is the administrator's own, and gets no rule of ours.

The redirection of names stays: its rules are in the sandboxes, and no part of the host's firewall.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from netplug.kernel.firewall import FirewallStep, Gaps
from netplug.kernel.firewall.nftables import Nftables
from netplug.plan import HOST, DnsRedirect, FirewallOp, Step

log = logging.getLogger(__name__)

_BY_HAND = (
    "no firewall rules of ours (--iptables=false); what containers need of the host's own firewall:",
    "forwarding: accept what goes into the networks' bridges and out of them;",
    "the way out: masquerade the networks' subnets wherever they leave the host (IPv6: or route them);",
    "published ports: DNAT each host port to the container's address, for the host's own connections too;",
    "isolation: nothing keeps networks apart, closes internal ones, or ports to a neighbour on the LAN, unless you do.",
)


class NoFirewall:
    """See `Firewall`."""

    name = "none"

    def __init__(self) -> None:
        self._sandboxes = Nftables()

    def start(self) -> None:
        log.warning(" ".join(_BY_HAND))

    def apply(self, namespace: str, steps: Sequence[FirewallStep]) -> list[Step]:
        return [] if namespace == HOST else self._sandboxes.apply(namespace, steps)

    def replace(self, steps: Sequence[FirewallOp]) -> None:
        pass

    def heal(self) -> list[str]:
        return []

    def damage(self) -> list[str]:
        return []

    def redirects(self, op: DnsRedirect) -> bool:
        return self._sandboxes.redirects(op)

    def survey(self, namespace: str, steps: Sequence[FirewallOp]) -> Gaps:
        return Gaps([]) if namespace == HOST else self._sandboxes.survey(namespace, steps)

    def mend(self) -> None:
        pass

    def explain(self, namespace: str, steps: Sequence[FirewallStep]) -> list[str]:
        return [] if namespace == HOST else self._sandboxes.explain(namespace, steps)

    def explain_base(self) -> list[str]:
        return [f"# {line}" for line in _BY_HAND]

    def clear(self) -> None:
        pass
