"""Steps that are one system call or two: namespaces, sysctls, tracked flows."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from netplug.errors import KernelError
from netplug.kernel import conntrack, namespaces, sysctl
from netplug.kernel.outcome import Change
from netplug.plan import FlushFlows, ForgetFlows, Netns, Op, Remove, Step, Sysctl

_NO_IPV6 = ".disable_ipv6"


def perform(step: Step) -> Change | None:
    """The change that was made, None if it was as asked already; raises KernelError.

    A sysctl is not taken back by its removal: it went with its link or namespace, or somebody else relies on it by now.
    """
    match step:
        case Netns():
            return _create(step)
        case Sysctl():
            return _set(step)
        case Remove(op=Netns() as op):
            return _remove(step, op)
    return None


def flush(namespace: str, steps: Sequence[Op], tracking: conntrack.Tracking | None = None) -> None:
    """All at once, of one namespace: looking through what is tracked is most of the work. `tracking`: one that is open there."""
    ops = [step.op if isinstance(step, Remove) else step for step in steps]
    with namespaces.entered(namespace):
        flows = [conntrack.Flows(op.protocol, op.port, op.count, op.address) for op in ops if isinstance(op, FlushFlows)]
        pairs = [(op.subnet, op.remote) for op in ops if isinstance(op, ForgetFlows)]
        (tracking.flush if tracking is not None else conntrack.flush)(flows, pairs)


def _create(op: Netns) -> Change | None:
    if namespaces.cookie(op.path) is not None:
        return None
    namespaces.create(op.path)
    return Change(op, (Remove(op=op),))


def _remove(step: Remove, op: Netns) -> Change | None:
    there = namespaces.cookie(op.path) is not None
    namespaces.remove(op.path)
    return Change(step, (op,)) if there else None


def _set(op: Sysctl) -> Change | None:
    with namespaces.entered(op.namespace):
        try:
            before = sysctl.read(op.key)
        except KernelError as error:
            if error.errno == errno.ENOENT and op.key.endswith(_NO_IPV6) and op.value == "1":
                return None  # a kernel without IPv6, or a link whose MTU is too small for it
            raise
        if before == " ".join(op.value.split()):
            return None
        sysctl.write(op.key, op.value)
    return Change(op, (Sysctl(key=op.key, value=before, namespace=op.namespace),))
