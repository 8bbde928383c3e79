"""Networks and images as Docker's JSON, and the small texts that several views share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from netplug.api.filters import seconds
from netplug.model import Endpoint, Network, PoolConfig
from netplug.runtime.images import is_host
from netplug.runtime.model import Image

Json = dict[str, Any]
NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time: Docker's word for "has not happened"."""


def network(record: Network, endpoints: Iterable[Endpoint] = (), others: Iterable[Endpoint] = ()) -> Json:
    """`network inspect`, with the endpoints here and on `others`, the other nodes; a list of networks leaves both out, as Docker's does."""
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": record.created,
        "Scope": record.scope,
        "Driver": record.driver,
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.ipv6,
        "IPAM": {
            "Driver": record.ipam_driver,
            "Options": record.ipam_options or ({} if not record.predefined else None),
            "Config": [_pool(pool) for pool in record.pools],
        },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            **{endpoint.sandbox: _member(endpoint) for endpoint in endpoints},
            **{f"ep-{endpoint.id}": _member(endpoint) for endpoint in others},
        },
        "Options": ordered(record.options),
        "Labels": ordered(record.labels),
    }


def ordered(pairs: Mapping[str, str]) -> dict[str, str]:
    """A map as Go writes it in JSON: in the order of its keys."""
    return dict(sorted(pairs.items()))


def _pool(pool: PoolConfig) -> Json:
    view: Json = {"Subnet": pool.subnet}
    if pool.ip_range:
        view["IPRange"] = pool.ip_range
    if pool.gateway:
        view["Gateway"] = pool.gateway
    if pool.auxiliary:
        view["AuxiliaryAddresses"] = ordered(pool.auxiliary)
    return view


def _member(endpoint: Endpoint) -> Json:
    """One that nobody asked for is named by Docker too as what it is."""
    return {
        "Name": f"gateway_{endpoint.sandbox:.12}" if endpoint.implied else endpoint.container_name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": endpoint.address,
        "IPv6Address": endpoint.address6,
    }


def image_line(image: Image) -> Json:
    """A line of `image ls`."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.tags),
        "RepoDigests": [],
        "Created": unix(image.created),
        "Size": image.size,
        "SharedSize": -1,
        "VirtualSize": image.size,
        "Labels": {},
        "Containers": -1,
    }


def image(record: Image, architecture: str) -> Json:
    """`image inspect`."""
    return {
        "Id": record.id,
        "RepoTags": list(record.tags),
        "RepoDigests": [],
        "Parent": "",
        "Comment": "The host's own file system, read-only" if is_host(record.id) else "Imported from -",
        "Created": record.created or NEVER,
        "Author": "",
        "Config": {
            "Cmd": list(record.command) or None,
            "Entrypoint": list(record.entrypoint) or None,
            "Env": list(record.environment) or None,
            "ExposedPorts": {port: {} for port in record.exposed} or None,
            "Labels": None,
            "User": record.user,
            "WorkingDir": record.working_directory,
        },
        "Architecture": architecture,
        "Os": "linux",
        "Size": record.size,
        "VirtualSize": record.size,
        "GraphDriver": {"Name": "overlay", "Data": None},
        "RootFS": {"Type": "layers", "Layers": [record.id]},
        "Metadata": {"LastTagTime": NEVER},
    }


def unix(timestamp: str) -> int:
    """Whole seconds since 1970; 0 for what has not happened."""
    return int(seconds(timestamp)) if timestamp else 0


def ago(timestamp: str) -> str:
    """How long since, as Docker says it: `2 minutes`."""
    return duration(time.time() - seconds(timestamp)) if timestamp else "Less than a second"


_UNITS = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (48 * 3600, 3600, "hour"),
    (14 * 86400, 86400, "day"),
    (60 * 86400, 7 * 86400, "week"),
    (2 * 365 * 86400, 30 * 86400, "month"),
)


def duration(elapsed: float) -> str:
    """docker/go-units HumanDuration: one unit, and "About a" for the first minute and hour."""
    whole = int(elapsed)
    if whole < 1:
        return "Less than a second"
    for limit, size, unit in _UNITS:
        if whole < limit:
            return _counted(whole // size, unit)
    return f"{whole // (365 * 86400)} years"


def _counted(count: int, unit: str) -> str:
    if count == 1 and unit in ("minute", "hour"):
        return "About a minute" if unit == "minute" else "About an hour"
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
