"""`filters=`: what a list is narrowed by.

Clients write `{"label": ["a=b"]}` or, older ones and compose, `{"label": {"a=b": true}}`. Within one key the values are alternatives
(labels: all must hold), between keys all must hold. Names and ids match as Docker matches them: the whole text, or a regular
expression found anywhere in it.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec

from netplug.errors import InvalidArgument, NotFound
from netplug.model import Network
from netplug.runtime.model import Container

Filters: TypeAlias = Mapping[str, tuple[str, ...]]

NETWORK_KEYS = frozenset({"name", "id", "label", "driver", "scope", "type", "dangling"})
NETWORK_PRUNE_KEYS = frozenset({"label", "label!", "until"})
CONTAINER_KEYS = frozenset(
    {
        "name",
        "id",
        "label",
        "status",
        "network",
        "ancestor",
        "exited",
        "publish",
        "expose",
        "since",
        "before",
        "volume",
        "health",
        "is-task",
    }
)
STATUSES = frozenset({"created", "restarting", "running", "removing", "paused", "exited", "dead"})
HEALTHS = frozenset({"starting", "healthy", "unhealthy", "none"})

_ENCODED = dict[str, tuple[str, ...] | dict[str, bool]]


def parse(text: str, known: frozenset[str]) -> Filters:
    """The filters of a query; InvalidArgument for what is no filter, or is one that this list does not know."""
    if not text:
        return {}
    try:
        decoded = msgspec.json.decode(text.encode(), type=_ENCODED | None)
    except msgspec.DecodeError:
        raise InvalidArgument(f"invalid filters: {text}") from None
    filters = {key: tuple(values) for key, values in (decoded or {}).items()}
    for key in filters:
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'")
    return filters


def matches(text: str, patterns: Iterable[str]) -> bool:
    return any(text == pattern or _found(pattern, text) for pattern in patterns)


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Every `key` is there, every `key=value` as it says."""
    return all(_has_label(labels, label) for label in wanted)


def networks(all_networks: Iterable[Network], filters: Filters, in_use: Callable[[Network], bool]) -> list[Network]:
    """Those that every filter keeps."""
    for value in filters.get("type", ()):
        if value not in ("custom", "builtin"):
            raise InvalidArgument(f"invalid filter: 'type'='{value}'")
    dangling = [boolean("dangling", value) for value in filters.get("dangling", ())]

    def keeps(network: Network) -> bool:
        kind = "builtin" if network.predefined else "custom"
        return (
            _one("name", network.name, filters)
            and _one("id", network.id, filters)
            and has_labels(network.labels, filters.get("label", ()))
            and _exact("driver", network.driver, filters)
            and _exact("scope", network.scope, filters)
            and _exact("type", kind, filters)
            and all(wanted == (not network.predefined and not in_use(network)) for wanted in dangling)
        )

    return [network for network in all_networks if keeps(network)]


def prunable(network: Network, filters: Filters) -> bool:
    """Whether the prune's filters let it go."""
    unwanted = filters.get("label!", ())
    if not has_labels(network.labels, filters.get("label", ())) or (unwanted and has_labels(network.labels, unwanted)):
        return False
    return all(seconds(network.created) < moment(value) for value in filters.get("until", ()))


def containers(
    all_containers: Iterable[Container],
    filters: Filters,
    networks_of: Callable[[Container], set[str]],
    host_ports_of: Callable[[Container], set[str]],
    find: Callable[[str], Container],
) -> list[Container]:
    """Those that every filter keeps; a container's networks by names and ids, its published ports as `8080/tcp`, by the host's number.

    NotFound if `find` does not know a container that the filters name.
    """
    for value in filters.get("status", ()):
        if value not in STATUSES:
            raise InvalidArgument(f"invalid filter 'status={value}'")
    if not _of_kinds(filters):
        return []
    since, before = ([_created(find, value) for value in filters.get(key, ())] for key in ("since", "before"))
    codes = [_exit_code(value) for value in filters.get("exited", ())]
    published, exposed = _port_sets("publish", filters), _port_sets("expose", filters)

    def keeps(container: Container) -> bool:
        return (
            _one("name", container.name, filters, "/" + container.name)
            and _one("id", container.id, filters)
            and has_labels(container.config.labels, filters.get("label", ()))
            and _exact("status", container.status, filters)
            and ("network" not in filters or bool(networks_of(container) & set(filters["network"])))
            and ("ancestor" not in filters or any(_from_image(container, image) for image in filters["ancestor"]))
            and (not since or any(container.created > moment for moment in since))
            and (not before or any(container.created < moment for moment in before))
            and ("volume" not in filters or not _mounted(container).isdisjoint(filters["volume"]))
            and (not codes or (container.status == "exited" and container.exit_code in codes))
            and (published is None or not published.isdisjoint(host_ports_of(container)))
            and (exposed is None or not exposed.isdisjoint(container.config.exposed))
        )

    return [container for container in all_containers if keeps(container)]


def boolean(key: str, value: str) -> bool:
    if value.lower() in ("1", "true", "t"):
        return True
    if value.lower() in ("0", "false", "f"):
        return False
    raise InvalidArgument(f'invalid value for filter \'{key}\', must be "true" (or "1"), or "false" (or "0")')


def moment(text: str) -> float:
    """Seconds since the epoch from `1700000000.5`, RFC 3339, or `10m` (that long ago)."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    ago = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if ago and text:
        hours, minutes, rest = (float(part or 0) for part in ago.groups())
        return time.time() - hours * 3600 - minutes * 60 - rest
    try:
        return seconds(text)
    except ValueError:
        raise InvalidArgument(f"invalid time {text!r}: give seconds since 1970, RFC 3339, or a duration such as 10m") from None


def seconds(timestamp: str) -> float:
    """RFC 3339 to seconds since the epoch; nanoseconds are cut to what Python's datetime holds."""
    found = re.fullmatch(r"([\d-]+)(?:[T ]([\d:]+)(\.\d+)?(Z|[+-]\d\d:\d\d)?)?", timestamp)
    if not found:
        raise ValueError(timestamp)
    clock = f"{found[1]}T{found[2] or '00:00:00'}{'+00:00' if found[4] in (None, 'Z') else found[4]}"
    return datetime.datetime.fromisoformat(clock).timestamp() + float(found[3] or 0)


def _of_kinds(filters: Filters) -> bool:
    """Whether containers as ours are, with no health check and of no swarm, are what is looked for."""
    for value in filters.get("health", ()):
        if value not in HEALTHS:
            raise InvalidArgument(f"Unrecognised filter value for health: {value}")
    tasks = filters.get("is-task", ("false",))
    if not {*tasks} <= {"true", "false", "1", "0"}:
        raise InvalidArgument(f"invalid filter 'is-task=[{' '.join(tasks)}]'")
    return ("health" not in filters or "none" in filters["health"]) and not {*tasks}.isdisjoint(("false", "0"))


def _created(find: Callable[[str], Container], reference: str) -> str:
    try:
        return find(reference).created
    except NotFound:
        raise NotFound(f"no such container {reference}") from None


def _mounted(container: Container) -> set[str]:
    return {path for mount in container.config.mounts for path in (mount.source, mount.target)}


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return key in labels and (not separator or labels[key] == value)


def _one(key: str, text: str, filters: Filters, *others: str) -> bool:
    return key not in filters or any(matches(candidate, filters[key]) for candidate in (text, *others))


def _exact(key: str, text: str, filters: Filters) -> bool:
    return key not in filters or text in filters[key]


def _from_image(container: Container, image: str) -> bool:
    names = (container.config.image, f"{container.config.image}:latest")
    identity = image.removeprefix("sha256:")
    return image in names or (len(identity) >= 12 and container.image_id.removeprefix("sha256:").startswith(identity))


def _exit_code(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"invalid filter 'exited={text}'") from None


def _port_sets(key: str, filters: Filters) -> set[str] | None:
    """Every `80/tcp` that the filter names; None if there is no such filter."""
    if key not in filters:
        return None
    return {port for value in filters[key] for port in _expand(key, value)}


def _expand(key: str, value: str) -> Iterable[str]:
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", value)
    if not found:
        raise InvalidArgument(f"invalid filter '{key}={value}'")
    first, last = int(found[1]), int(found[2] or found[1])
    return (f"{port}/{found[3] or 'tcp'}" for port in range(first, last + 1))
