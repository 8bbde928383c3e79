"""What clients may ask of a container and netplug does not give: each is a warning, unless it is what everybody gets anyway.

The other way round, a list of what is unsupported, would silently drop the options of Docker versions to come.
"""

from __future__ import annotations

from typing import Any

from netplug.api.shapes import ContainerCreate, EndpointSettings, HostConfig

_NAMES = {"OomKillDisable": "--oom-kill-disable", "NanoCpus": "--cpus", "Memory": "--memory", "MemorySwap": "--memory-swap"}
_NAMES |= {"RestartPolicy": "--restart", "Devices": "--device", "Tmpfs": "--tmpfs", "ReadonlyRootfs": "--read-only", "Init": "--init"}
_NAMES |= {"PidMode": "--pid", "IpcMode": "--ipc", "UTSMode": "--uts", "UsernsMode": "--userns", "SecurityOpt": "--security-opt"}
_NAMES |= {"ShmSize": "--shm-size", "Ulimits": "--ulimit", "LogConfig": "--log-driver", "GroupAdd": "--group-add", "Runtime": "--runtime"}
_NAMES |= {"CpuShares": "--cpu-shares", "CpusetCpus": "--cpuset-cpus", "PidsLimit": "--pids-limit", "VolumesFrom": "--volumes-from"}
_NAMES |= {"Healthcheck": "--health-cmd", "Volumes": "-v"}

_HOST_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "RestartPolicy": ({"Name": "no"},),
    "IpcMode": ("private", "shareable"),
    "CgroupnsMode": ("private", "host"),
    "Isolation": ("default",),
    "LogConfig": ({"Type": "json-file"},),
    "MemorySwappiness": (-1,),
    "MemorySwap": (-1,),
    "OomScoreAdj": (0,),
    "PidsLimit": (-1,),
    "ShmSize": (64 << 20,),
    "Runtime": ("runc", "crun"),
}
_NOT_THE_CONTAINERS = frozenset({"ConsoleSize", "ContainerIDFile", "MaskedPaths", "ReadonlyPaths", "VolumeDriver", "Annotations"})
"""What the client keeps for itself, or what changes nothing without another option."""
_TOP_IGNORED = frozenset({"AttachStdout", "AttachStderr", "ArgsEscaped", "OnBuild", "Shell"})


def create_warnings(raw: dict[str, Any]) -> list[str]:
    """A sentence for each option that will have no effect."""
    top, host = _known(ContainerCreate), _known(HostConfig)
    asked = [key for key, value in raw.items() if key not in top | _TOP_IGNORED and not _empty(value)]
    for key, value in raw.get("HostConfig", {}).items():
        if key in host | _NOT_THE_CONTAINERS or _empty(value) or _without_empties(value) in _HOST_DEFAULTS.get(key, ()):
            continue
        asked.append(key)
    warnings = [f"netplug does not support {_NAMES.get(key, key)}: it has no effect" for key in asked]
    return warnings + _endpoint_warnings(raw)


def _endpoint_warnings(raw: dict[str, Any]) -> list[str]:
    """Members of a network's settings that a client copied from `inspect` are answers, not wishes."""
    answers = {"NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen"}
    known = _known(EndpointSettings) | answers | {"DNSNames"}
    endpoints = raw.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    asked = {key for settings in endpoints.values() for key, value in settings.items() if key not in known and not _empty(value)}
    return [f"netplug does not support {key} of a network: it has no effect" for key in sorted(asked)]


def _known(shape: type[ContainerCreate | HostConfig | EndpointSettings]) -> frozenset[str]:
    return frozenset(shape.__struct_encode_fields__)


def _empty(value: Any) -> bool:
    """Go's zero value, or a collection of nothing else."""
    if isinstance(value, dict):
        return all(_empty(member) for member in value.values())
    if isinstance(value, list):
        return all(_empty(member) for member in value)
    return not value


def _without_empties(value: Any) -> Any:
    return {key: member for key, member in value.items() if not _empty(member)} if isinstance(value, dict) else value
