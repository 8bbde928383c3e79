"""Signals by name or number, as `docker kill --signal` takes them."""

from __future__ import annotations

import signal

from netplug.errors import InvalidArgument

KILL = int(signal.SIGKILL)
_RTMIN, _RTMAX = 34, 64
"""The real-time signals that libc leaves to programs."""


def parse(text: str) -> int:
    """`SIGTERM`, `term`, `15`, `RTMIN+3`; InvalidArgument if there is no such signal."""
    number = int(text) if text.isdecimal() else _by_name(text.upper().removeprefix("SIG"))
    if not 0 < number <= _RTMAX:
        raise InvalidArgument(f"Invalid signal: {text}")
    return number


def _by_name(name: str) -> int:
    for base, start in (("RTMIN", _RTMIN), ("RTMAX", _RTMAX)):
        if name.startswith(base):
            offset = name.removeprefix(base) or "+0"
            sign, digits = offset[0], offset[1:]
            number = start + int(sign + digits) if sign in "+-" and digits.isdecimal() else 0
            return number if _RTMIN <= number <= _RTMAX else 0
    return signal.Signals.__members__.get(f"SIG{name}", 0)
