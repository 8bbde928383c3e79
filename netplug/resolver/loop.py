"""The process's event loop (epoll, one thread) and its log."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT

TICK = 0.25
"""Seconds between looks at the clock, while anything waits for a time-out."""

_LINES_PER_MINUTE = 60
_LOG_SIZE = 1024 * 1024
_minute, _lines = 0, 0


def log(text: str) -> None:
    """One line to standard error, which is RUN/resolver.log. Containers can cause such lines, so they are rationed."""
    global _minute, _lines
    minute = int(time.time() // 60)
    if minute != _minute:
        _minute, _lines = minute, 0
        _shorten()
    _lines += 1
    if _lines <= _LINES_PER_MINUTE:
        last = " (no more lines this minute)" if _lines == _LINES_PER_MINUTE else ""
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}{last}", file=sys.stderr, flush=True)


def _shorten() -> None:
    """Start the log file anew when it has grown large: nobody rotates it."""
    status = os.fstat(2)
    if stat.S_ISREG(status.st_mode) and status.st_size > _LOG_SIZE:
        os.ftruncate(2, 0)


class Loop:
    """Calls handlers of ready descriptors. A handler gets the epoll events, must not block, and must bear being called for nothing:
    a descriptor's number may be in use again when its event comes."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._clocks: list[Callable[[float], bool]] = []
        self._running = False

    def add(self, descriptor: int, handler: Callable[[int], None], events: int = READ) -> None:
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """To be called before the descriptor is closed; fine if it is not there."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def clock(self, look: Callable[[float], bool]) -> None:
        """Call `look(monotonic seconds)` about every TICK until all looks return False, and again once something has happened."""
        self._clocks.append(look)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Until `stop`. With nothing to time out it sleeps until a packet comes."""
        self._running = True
        next_look, waiting = 0.0, True
        while self._running:
            for descriptor, events in self._epoll.poll(TICK if waiting else None, 256):
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    _guarded(handler, events)
            now = time.monotonic()
            waiting = True  # this turn may have begun something; the next look tells
            if now >= next_look:
                waits = [look(now) for look in self._clocks]
                next_look, waiting = now + TICK, any(waits)


def _guarded(handler: Callable[[int], None], events: int) -> None:
    """One packet's trouble must not end everybody's names."""
    try:
        handler(events)
    except Exception as error:
        log(f"unexpected {type(error).__name__} in {handler}: {error}")
        sys.__excepthook__(type(error), error, error.__traceback__)
