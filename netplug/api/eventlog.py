"""`docker events`: what happened to networks and containers, the newest of it kept, all of it told to whoever listens."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from netplug.api import filters
from netplug.controller.requests import ControllerEvent
from netplug.model import Network
from netplug.runtime.model import Container

KEPT = 1000
BEHIND = 10_000
"""A listener that lets this many events pile up is let go."""

KEYS = frozenset({"type", "event", "network", "container", "image", "label", "scope", "daemon"})

_ACTIONS = {
    ("network", "create"): "create",
    ("network", "remove"): "destroy",
    ("endpoint", "create"): "connect",
    ("endpoint", "connect"): "connect",
    ("network", "connect"): "connect",
    ("endpoint", "remove"): "disconnect",
    ("endpoint", "disconnect"): "disconnect",
    ("network", "disconnect"): "disconnect",
}

Message = dict[str, Any]


class Listener:
    """Events that one client has not read yet."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._lost = False

    def put(self, message: Message) -> None:
        if len(self._waiting) >= BEHIND:
            self._lost = True
        else:
            self._waiting.append(message)
        self._arrived.set()

    async def get(self) -> Message | None:
        """The next one; None if this listener was too slow and has missed some."""
        while not self._waiting:
            if self._lost:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()


class EventLog:
    """The newest events, oldest first, and their listeners."""

    def __init__(self) -> None:
        self._kept: deque[Message] = deque(maxlen=KEPT)
        self._listeners: set[Listener] = set()

    def on_controller(self, event: ControllerEvent) -> None:
        action, endpoint = _ACTIONS.get((event.kind, event.action)), event.endpoint
        if action and event.network and not (endpoint and endpoint.implied):
            self._publish(_network_message(action, event.network, endpoint.sandbox if endpoint else ""))

    def on_container(self, action: str, container: Container, attributes: Mapping[str, str]) -> None:
        self._publish(_container_message(action, container, attributes))

    def past(self, since: float, until: float) -> list[Message]:
        return [message for message in self._kept if since <= message["timeNano"] / 1e9 <= until]

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def _publish(self, message: Message) -> None:
        self._kept.append(message)
        for listener in tuple(self._listeners):
            listener.put(message)


def wanted(message: Message, wanted_by: filters.Filters) -> bool:
    """Whether the filters keep it."""
    actor, kind = message["Actor"], message["Type"]
    attributes = actor["Attributes"]

    def fits(key: str, *texts: str) -> bool:
        return key not in wanted_by or any(text in wanted_by[key] for text in texts)

    return (
        fits("type", kind)
        and fits("event", message["Action"], message["Action"].partition(":")[0])
        and fits("scope", message["scope"])
        and filters.has_labels(attributes, wanted_by.get("label", ()))
        and (kind == "network" or "network" not in wanted_by)
        and (kind != "network" or _names(wanted_by, "network", actor["ID"], attributes.get("name", "")))
        and (kind == "container" or "container" not in wanted_by)
        and (kind != "container" or _names(wanted_by, "container", actor["ID"], attributes.get("name", "")))
        and fits("image", attributes.get("image", ""))
        and "daemon" not in wanted_by
    )


def _names(wanted_by: filters.Filters, key: str, identity: str, name: str) -> bool:
    if key not in wanted_by:
        return True
    return any(value == name or (len(value) >= 12 and identity.startswith(value)) for value in wanted_by[key])


def _network_message(action: str, network: Network, container: str) -> Message:
    attributes = {"name": network.name, "type": network.driver}
    if container:
        attributes["container"] = container
    return _message("network", action, network.id, attributes)


def _container_message(action: str, container: Container, more: Mapping[str, str]) -> Message:
    config = container.config
    attributes = {**config.labels, "image": config.image, "name": container.name, **more}
    old = {"status": action, "id": container.id, "from": config.image}
    return {**old, **_message("container", action, container.id, attributes)}


def _message(kind: str, action: str, identity: str, attributes: dict[str, str]) -> Message:
    now = time.time_ns()
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": identity, "Attributes": attributes},
        "scope": "local",
        "time": now // 1_000_000_000,
        "timeNano": now,
    }
