"""Which capabilities a container's process has: Docker's usual ones, what was added and dropped, and never more than the daemon has."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from netplug.errors import InvalidArgument

_DEFAULT = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
# In the order of their numbers in include/uapi/linux/capability.h.
_ALL = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST"
    " NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE"
    " SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM"
    " BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)


def chosen(add: Sequence[str], drop: Sequence[str], *, privileged: bool) -> list[str]:
    """Full names, `CAP_KILL`. `ALL` among the words means every one; InvalidArgument for a word that is none."""
    available = _available()
    names = list(available) if privileged else [f"CAP_{name}" for name in _DEFAULT.split()]
    dropped = _named(drop, available, "CapDrop")
    names = [name for name in names if name not in dropped]
    names += [name for name in _named(add, available, "CapAdd") if name not in names]
    return [name for name in names if name in available]


def check(add: Sequence[str], drop: Sequence[str]) -> None:
    """InvalidArgument for a word that is no capability."""
    _named(add, (), "CapAdd")
    _named(drop, (), "CapDrop")


def _named(words: Sequence[str], available: Sequence[str], member: str) -> list[str]:
    names: list[str] = []
    for word in words:
        name = word.upper().removeprefix("CAP_")
        if name == "ALL":
            names += available
        elif name in _ALL.split():
            names.append(f"CAP_{name}")
        else:
            raise InvalidArgument(f'invalid {member}: unknown capability: "CAP_{name}"')
    return names


@functools.cache
def _available() -> tuple[str, ...]:
    """What the daemon itself may hand on."""
    with open("/proc/self/status") as status:
        bounding = next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd:"))
    return tuple(f"CAP_{name}" for number, name in enumerate(_ALL.split()) if bounding >> number & 1)
