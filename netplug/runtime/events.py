"""What happens to containers, told to whoever subscribed: `docker events` and friends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

from netplug.runtime.model import Container

log = logging.getLogger(__name__)

Subscriber: TypeAlias = Callable[[str, Container, Mapping[str, str]], None]


class ContainerEvents:
    """Subscribers get (action, container, attributes), on the loop; they must not block."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Returns what ends the subscription."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def send(self, action: str, container: Container, **attributes: str) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(action, container, attributes)
            except Exception:
                log.exception("a subscriber failed at %s of container %s", action, container.id)
