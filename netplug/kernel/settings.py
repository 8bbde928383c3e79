"""Steps that are one system call or two: namespaces, sysctls, tracked flows."""

from __future__ import annotations

from netplug.kernel import conntrack, namespaces, sysctl
from netplug.kernel.outcome import Change
from netplug.plan import AnyOp, FlushFlows, Netns, Remove, Step, Sysctl


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
        case FlushFlows() | Remove(op=FlushFlows()):
            _flush(step.op if isinstance(step, Remove) else step)
    return None


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
        before = sysctl.read(op.key)
        if before == " ".join(op.value.split()):
            return None
        sysctl.write(op.key, op.value)
    return Change(op, (Sysctl(key=op.key, value=before, namespace=op.namespace),))


def _flush(op: AnyOp) -> None:
    if isinstance(op, FlushFlows):
        with namespaces.entered(op.namespace):
            conntrack.flush(op.protocol, op.port)
