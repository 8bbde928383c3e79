"""The OCI bundle's config.json (https://github.com/opencontainers/runtime-spec, 1.0.2), with Docker's defaults.

Capabilities, masked and read-only paths, devices and mounts are those that Docker gives an ordinary container. There is no seccomp
profile: a container can make any system call that its capabilities allow.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netplug.runtime import capabilities
from netplug.runtime.users import User

Json = dict[str, Any]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True)
class Spec:
    """All that config.json says. `namespace` is the network namespace's path; None: the one the daemon runs in.

    `binds` are (source, target, read-only) in the order in which they are mounted.
    """

    root: Path
    arguments: Sequence[str]
    environment: Sequence[str]
    user: User
    hostname: str
    cgroup: str
    namespace: str | None
    own_network: bool
    domainname: str = ""
    working_directory: str = "/"
    terminal: bool = False
    read_only: bool = False
    privileged: bool = False
    capabilities_add: Sequence[str] = ()
    capabilities_drop: Sequence[str] = ()
    binds: Sequence[tuple[str, str, bool]] = ()
    tmpfs: Sequence[tuple[str, str]] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def config(spec: Spec) -> Json:
    """The content of config.json."""
    document: Json = {
        "ociVersion": "1.0.2",
        "root": {"path": str(spec.root), "readonly": spec.read_only},
        "hostname": spec.hostname,
        "process": process(spec),
        "mounts": _mounts(spec),
        "annotations": dict(spec.annotations),
        "linux": {
            "cgroupsPath": spec.cgroup,
            "namespaces": _namespaces(spec),
            "sysctl": _sysctls(spec),
            "resources": {"devices": [{"allow": spec.privileged, "access": "rwm"}]},
            "maskedPaths": [] if spec.privileged else _MASKED,
            "readonlyPaths": [] if spec.privileged else _READ_ONLY,
        },
    }
    return document


def process(spec: Spec) -> Json:
    """The process part, which `exec` uses by itself."""
    granted = capabilities.chosen(spec.capabilities_add, spec.capabilities_drop, privileged=spec.privileged)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return {
        "terminal": spec.terminal,
        "user": {"uid": spec.user.uid, "gid": spec.user.gid, "additionalGids": list(spec.user.groups)},
        "args": list(spec.arguments),
        "env": list(spec.environment),
        "cwd": spec.working_directory or "/",
        "capabilities": capability_sets(granted),
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": min(hard, 1 << 20), "hard": hard}],
        "noNewPrivileges": False,
    }


def capability_sets(names: list[str]) -> Json:
    """Not inheritable and not ambient: a program run by another user starts without them."""
    return dict.fromkeys(("bounding", "effective", "permitted"), names)


def environment(*layers: Sequence[str]) -> list[str]:
    """Later layers replace earlier ones by name; an entry without `=` takes the name away."""
    merged: dict[str, str] = {}
    for entry in (entry for layer in layers for entry in layer):
        name, assigned, _ = entry.partition("=")
        if assigned:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def _namespaces(spec: Spec) -> list[Json]:
    kinds = ["mount", "uts", "ipc", "pid"]
    if unified_cgroups():
        kinds.append("cgroup")
    namespaces: list[Json] = [{"type": kind} for kind in kinds]
    if spec.namespace is not None:
        namespaces.append({"type": "network", "path": spec.namespace})
    return namespaces


def unified_cgroups() -> bool:
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _sysctls(spec: Spec) -> dict[str, str]:
    network = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"} if spec.own_network else {}
    domain = {"kernel.domainname": spec.domainname} if spec.domainname else {}
    return {**network, **domain, **spec.sysctls}


def _mounts(spec: Spec) -> list[Json]:
    taken = {target for _, target, _ in spec.binds}
    mounts = [mount for mount in _base_mounts(spec.privileged) if mount["destination"] not in taken]
    mounts += [_mount(target, "tmpfs", "tmpfs", ["nosuid", "nodev", *options.split(",")]) for target, options in spec.tmpfs]
    # A parent must be mounted before what lies in it, whatever the order on the command line was.
    binds = sorted(spec.binds, key=lambda bind: os.path.normpath(bind[1]).count("/"))
    mounts += [_mount(target, "bind", source, ["rbind", "rprivate", "ro" if ro else "rw"]) for source, target, ro in binds]
    return mounts


def _base_mounts(privileged: bool) -> list[Json]:
    access = "rw" if privileged else "ro"
    safe = ["nosuid", "noexec", "nodev"]
    return [
        _mount("/proc", "proc", "proc", safe),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        _mount("/sys", "sysfs", "sysfs", [*safe, access]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [access, *safe]),
        _mount("/dev/mqueue", "mqueue", "mqueue", safe),
        _mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", "size=67108864"]),
    ]


def _mount(target: str, kind: str, source: str, options: list[str]) -> Json:
    return {"destination": target, "type": kind, "source": source, "options": options}
