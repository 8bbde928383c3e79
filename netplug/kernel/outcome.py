"""What became of a plan: changes with what takes them back, failures, and a step's short text for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from netplug.errors import KernelError, NetplugError
from netplug.kernel.netlink import Message
from netplug.plan import (
    Address,
    Adopt,
    AllowPeer,
    Announce,
    AnyOp,
    Ask,
    Bridge,
    Direct,
    DnsRedirect,
    Dummy,
    Fdb,
    FlushFlows,
    ForgetFlows,
    Guard,
    Ipvlan,
    Isolate,
    LinkOp,
    LinkUp,
    Macvlan,
    Masquerade,
    Neighbour,
    Netns,
    Op,
    Parent,
    PlacedOp,
    Plan,
    Publish,
    Reach,
    Remove,
    Route,
    Step,
    Sysctl,
    Veth,
    Vlan,
    Vxlan,
)


class PutBack(Op, frozen=True, kw_only=True):
    """Undo only: a route that a plan replaced, whoever made it, as the kernel told it."""

    route: Message


Undo = tuple[Step | PutBack, ...]


class Change(NamedTuple):
    """What was really changed, and the steps that take it back; none where that would tear down what was there before."""

    step: Step
    undo: Undo


class Failure(NamedTuple):
    step: Step | PutBack
    error: KernelError


@dataclass(slots=True)
class Outcome:
    """Grows while steps are performed."""

    changes: list[Change] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def changed(self) -> Plan:
        return tuple(change.step for change in self.changes)

    def undo(self) -> Undo:
        return tuple(step for change in reversed(self.changes) for step in change.undo)


@dataclass(frozen=True, slots=True)
class Applied:
    """`changed`: what was really changed, in order. `undo` takes it back with old values; it is meant for `Executor.remove`."""

    changed: Plan
    undo: Undo


@dataclass(frozen=True, slots=True)
class Restored:
    """`missing`: what had to be put back; `strays`: links of ours that no plan names, removed; `failed`: by the plan's position.

    `stale`: how many entries for peers no plan names, removed.
    """

    missing: list[str]
    strays: list[str]
    failed: dict[int, NetplugError]
    stale: int = 0


def describe(step: Step | PutBack) -> str:
    """A few words: `add 172.18.0.2/16 to eth0`."""
    match step:
        case PutBack():
            return "put the former route back"
        case Remove(op=op):
            return _removing(op)
        case _:
            return _making(step)


def _making(op: AnyOp) -> str:
    match op:
        case Netns():
            return f"create network namespace {op.path}"
        case Bridge():
            return f"create bridge {op.name}"
        case Veth():
            return f"create veth {op.name} with {op.peer} in {op.peer_namespace or 'the host'}"
        case Parent():
            return f"use parent interface {op.name}"
        case Dummy():
            return f"create link {op.name}"
        case Vlan():
            return f"create VLAN {op.name} on parent interface {op.parent}"
        case Macvlan() | Ipvlan():
            return f"create {type(op).__name__.lower()} {op.name} on parent interface {op.parent}"
        case Vxlan():
            return f"create VXLAN {op.name} with VNI {op.vni}"
        case Adopt():
            return f"move {op.source} into {op.link_namespace} as {op.name}"
        case LinkUp():
            return f"set {op.link} up"
        case Address():
            return f"add {op.address} to {op.link}"
        case Ask():
            return op.what
        case Sysctl():
            return f"set sysctl {op.key}={op.value}"
        case FlushFlows():
            return f"flush tracked {op.protocol} flows to port {op.port}"
        case ForgetFlows():
            return f"forget tracked flows between {op.subnet} and {op.remote}"
        case Announce():
            return f"announce {op.address} on {op.link}"
        case Publish():
            return f"publish {_noun(op)}"
        case _:
            return f"add {_noun(op)}"


def _removing(op: AnyOp) -> str:
    match op:
        case Netns():
            return f"remove network namespace {op.path}"
        case LinkOp() | PlacedOp():
            return f"delete {op.name}"
        case Adopt():
            return f"move {op.name} of {op.link_namespace} back as {op.source}"
        case LinkUp():
            return f"set {op.link} down"
        case Address():
            return f"remove {op.address} from {op.link}"
        case Publish():
            return f"unpublish {_noun(op)}"
        case Route() | Fdb() | Neighbour() | Isolate() | Masquerade() | Guard() | AllowPeer() | Direct() | Reach() | DnsRedirect():
            return f"remove {_noun(op)}"
        case _:
            return _making(op)


def _noun(op: AnyOp) -> str:
    match op:
        case Route():
            return f"route {op.destination}" + (f" via {op.gateway}" if op.gateway else "") + f" on {op.link}"
        case Fdb():
            return f"forwarding of {op.mac} to {op.vtep} on {op.link}"
        case Neighbour():
            return f"neighbour {op.address} with {op.mac} on {op.link}"
        case Publish():
            return f"port {op.host_ip or '0.0.0.0'}:{op.host_port}/{op.protocol} to {op.address}:{op.port}"
        case Isolate():
            return f"isolation of {op.bridge}"
        case Masquerade():
            return f"masquerading of {op.subnet}"
        case Guard():
            return f"guard of {op.link}" if op.icc else f"block between {op.link} and its neighbours"
        case AllowPeer():
            return f"link from {op.client} to {op.server}:{op.port}/{op.protocol}"
        case Direct():
            return f"direct access to {op.address}:{op.port}/{op.protocol}"
        case Reach():
            return f"reach between {op.subnet} and {op.remote} by {op.link}"
        case _:
            return "redirection of names"
