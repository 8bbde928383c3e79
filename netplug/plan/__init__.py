"""What a driver wants of the kernel, as data: one `Op` is one change, a `Plan` is an ordered tuple of them.

Links are named, never numbered. Every op says the network namespace it acts in by path; `HOST` (`""`) is the one the daemon runs in.
`Remove(op=...)` takes back what `op` made, so that a driver writes each fact once. `explain()` gives the commands that do the same
by hand; firewall ops have no text of their own here, because one room (`netplug.kernel.firewall`) owns the rules.

Marks that say what is ours: links carry `LINK_GROUP`, routes and neighbours `ROUTE_PROTOCOL`, rules live in our own tables.
"""

from __future__ import annotations

from typing import TypeAlias

from netplug.plan.links import (
    Adopt,
    Bridge,
    Dummy,
    Ipvlan,
    IpvlanFlag,
    IpvlanMode,
    Macvlan,
    MacvlanMode,
    Netns,
    Parent,
    Veth,
    Vlan,
    Vxlan,
)
from netplug.plan.op import (
    DOOMED_GROUP,
    HOST,
    IPV6_FORWARDING,
    LINK_GROUP,
    RETIRED_GROUP,
    ROUTE_PROTOCOL,
    FirewallOp,
    LinkOp,
    Op,
    PlacedOp,
    StackedOp,
    inside,
)
from netplug.plan.rules import (
    AllowPeer,
    Direct,
    DnsRedirect,
    GatewayMode,
    Guard,
    Isolate,
    Masquerade,
    Publish,
    Reach,
)
from netplug.plan.settings import (
    Address,
    Announce,
    Ask,
    Fdb,
    FlushFlows,
    ForgetFlows,
    LinkUp,
    Neighbour,
    Route,
    Sysctl,
)

__all__ = [
    "DOOMED_GROUP",
    "HOST",
    "IPV6_FORWARDING",
    "LINK_GROUP",
    "RETIRED_GROUP",
    "ROUTE_PROTOCOL",
    "Address",
    "Adopt",
    "AllowPeer",
    "Announce",
    "AnyOp",
    "Ask",
    "Bridge",
    "Direct",
    "DnsRedirect",
    "Dummy",
    "Fdb",
    "FirewallOp",
    "FlushFlows",
    "ForgetFlows",
    "GatewayMode",
    "Guard",
    "Ipvlan",
    "IpvlanFlag",
    "IpvlanMode",
    "Isolate",
    "LinkOp",
    "LinkUp",
    "Macvlan",
    "MacvlanMode",
    "Masquerade",
    "Neighbour",
    "Netns",
    "Op",
    "Parent",
    "PlacedOp",
    "Plan",
    "Publish",
    "Reach",
    "Remove",
    "Route",
    "StackedOp",
    "Step",
    "Sysctl",
    "Veth",
    "Vlan",
    "Vxlan",
    "inside",
    "removal",
]

AnyOp: TypeAlias = (
    Netns
    | Bridge
    | Veth
    | Parent
    | Dummy
    | Vlan
    | Macvlan
    | Ipvlan
    | Vxlan
    | Adopt
    | Fdb
    | Neighbour
    | LinkUp
    | Address
    | Route
    | Sysctl
    | Ask
    | Announce
    | FlushFlows
    | ForgetFlows
    | Isolate
    | Masquerade
    | Guard
    | AllowPeer
    | Publish
    | Direct
    | Reach
    | DnsRedirect
)


class Remove(Op, frozen=True, kw_only=True):
    """Take back what `op` made. What is not there any more is no error."""

    op: AnyOp

    def explain(self) -> tuple[str, ...]:
        return self.op.explain_removal()

    def explain_removal(self) -> tuple[str, ...]:
        return self.op.explain()


Step: TypeAlias = AnyOp | Remove
Plan: TypeAlias = tuple[Step, ...]


def removal(plan: Plan) -> Plan:
    """The plan that takes `plan` back, last step first."""
    return tuple(step.op if isinstance(step, Remove) else Remove(op=step, namespace=step.namespace) for step in reversed(plan))
