"""Every error netplug raises on purpose.

NetplugError                    500  base: something of ours failed
├── InvalidArgument             400  the request makes no sense as it stands
├── Forbidden                   403  understood, and refused
│   ├── AddressInUse            403  a requested address has an owner
│   ├── AddressOutOfRange       403  a requested address is not in the pool
│   ├── PoolOverlap             403  a requested subnet overlaps another network's or a host route
│   ├── PoolsExhausted          403  no predefined subnet is left
│   ├── AddressesExhausted      403  no address is left in a pool
│   └── NetworkInUse            403  the network still has endpoints
├── NotFound                    404  no such network, container, image, endpoint, driver
├── Ambiguous                   400  an id prefix or a name fits more than one object
├── Conflict                    409  a name is taken, or the object's state does not allow it
├── PortTaken                   500  a host port is held by somebody (Docker answers 500 here)
├── Unavailable                 503  a part we depend on (etcd, the resolver, a plugin) does not answer
│   └── Undecided               503  nor is it known whether the change that was sent to it was made
├── StepFailed                  500  a change of the kernel failed; what was done has been undone
└── KernelError                 500  an errno from the kernel, with what was asked of it

Each carries `http_status` for the API and `cni_code` for the CNI door (https://www.cni.dev/docs/spec/#error: 7 invalid
configuration, 11 try again later, 3 container unknown; 100 and above are ours). Sentences are Docker's where Docker has one.
"""

from __future__ import annotations

import os


class NetplugError(Exception):
    """Base of every error raised on purpose; its text is one line for the user."""

    http_status = 500
    cni_code = 100


class InvalidArgument(NetplugError):
    http_status = 400
    cni_code = 7


class Ambiguous(InvalidArgument):
    """An id prefix or name fits more than one object."""


class Forbidden(NetplugError):
    http_status = 403
    cni_code = 101


class AddressInUse(Forbidden):
    """A requested address has an owner already."""

    cni_code = 11

    def __init__(self, address: str, owner: str = "") -> None:
        self.address, self.owner = address, owner
        super().__init__("Address already in use" + (f": {address} belongs to {owner}" if owner else f": {address}"))


class AddressOutOfRange(Forbidden):
    """A requested address does not lie in any pool of the network."""


class PoolOverlap(Forbidden):
    """A requested subnet overlaps what another network, or a route of the host, covers."""


class PoolsExhausted(Forbidden):
    """Every predefined subnet is in use."""


class AddressesExhausted(Forbidden):
    """The pool has no free address."""

    cni_code = 11


class NetworkInUse(Forbidden):
    """The network cannot go while endpoints are on it."""


class NotFound(NetplugError):
    http_status = 404
    cni_code = 3


class Conflict(NetplugError):
    http_status = 409
    cni_code = 102


class PortTaken(NetplugError):
    """A host port is held by another container or by another program on the host."""

    cni_code = 103


class Unavailable(NetplugError):
    http_status = 503
    cni_code = 11


class Undecided(Unavailable):
    """A change was sent to the cluster and no answer came: it may have been made, or may yet be. Read before asking again."""


class StepFailed(NetplugError):
    """One step of a plan failed. What had been done was undone; `undone` says whether all of it was."""

    cni_code = 104

    def __init__(self, step: str, reason: str, undone: bool = True) -> None:
        self.step, self.reason, self.undone = step, reason, undone
        super().__init__(f"{step}: {reason}" + ("" if undone else " (and undoing it failed too: see the daemon's log)"))


class KernelError(NetplugError):
    """An errno, with the operation that got it."""

    cni_code = 104

    def __init__(self, errno: int, operation: str, detail: str = "") -> None:
        self.errno, self.operation, self.detail = errno, operation, detail
        super().__init__(f"{operation}: {detail or os.strerror(errno)}")
