"""Times, durations and sizes as people read them, and as Docker's API wants them."""

from __future__ import annotations

import datetime
import re
import time

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_SPANS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?(Z|[+-]\d\d:\d\d)?")


def duration(text: str) -> float:
    """Seconds of a Go duration: `1h30m`, `1.5s`, `0s`, `-5m`."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    position, seconds = 0, 0.0
    while position < len(rest):
        match = _DURATION.match(rest, position)
        if match is None:
            break
        seconds += float(match[1]) * _SPANS[match[2]]
        position = match.end()
    if not rest or position < len(rest):
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * seconds


def moment(text: str) -> tuple[int, int] | None:
    """Seconds since 1970 and nanoseconds of an RFC 3339 time; parts may be left out from the right, a zone too (then it is local)."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    zone = match[8]
    try:
        local = datetime.datetime(year, month, day, hour, minute, second)
        aware = local.astimezone() if zone is None else datetime.datetime.fromisoformat(f"{local.isoformat()}{zone.replace('Z', '+00:00')}")
    except (ValueError, OverflowError):
        return None
    return int(aware.timestamp()), int((match[7] or "0").ljust(9, "0"))


def since(text: str, now: float | None = None) -> str:
    """`--since` and `--until` for the API: `seconds.nanoseconds`, from a time, a duration before now, or seconds since 1970."""
    if (at := moment(text)) is not None:
        return f"{at[0]}.{at[1]:09d}"
    if re.fullmatch(r"[0-9]+(\.[0-9]{1,9})?", text):
        return text
    try:
        return f"{(time.time() if now is None else now) - duration(text):.9f}"
    except ValueError:
        raise ValueError(f'failed to parse value as time or duration: "{text}"') from None


def age(text: str | int, now: float | None = None) -> str:
    """How long ago a time was: `2 minutes ago`; "" if it is no time."""
    at = moment(text) if isinstance(text, str) else (text, 0)
    if at is None or at[0] < 0:
        return ""
    return f"{human_duration((time.time() if now is None else now) - at[0])} ago"


def human_duration(seconds: float) -> str:
    """Docker's words for a span, one unit and rounded down."""
    whole = max(int(seconds), 0)
    minutes, hours = whole // 60, round(whole / 3600)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 14:
        return f"{hours // 24} days"
    if hours < 24 * 60:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def human_size(size: float) -> str:
    """A number of bytes with three digits and a decimal unit: `1.88kB`."""
    unit = 0
    while size >= 1000 and unit < len(_SIZES) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g}{_SIZES[unit]}"


def go_time(text: str) -> str:
    """An RFC 3339 time as Go prints it: `2026-01-31 12:00:00.5 +0000 UTC`."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return text
    fraction = (match[7] or "").rstrip("0")
    date, clock = text[:10], text[11:19]
    zone = "+0000 UTC" if match[8] in ("Z", None) else f"{match[8].replace(':', '')} {match[8].replace(':', '')}"
    return f"{date} {clock}{'.' + fraction if fraction else ''} {zone}"


def unix_time(seconds: int) -> str:
    """Seconds since 1970 as Go prints a local time without a fraction."""
    local = datetime.datetime.fromtimestamp(seconds).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S %z} {local.tzname()}"


def stamp(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as a local RFC 3339 time with all nine digits, as `events` prints it."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    local = datetime.datetime.fromtimestamp(seconds).astimezone()
    zone = f"{local:%z}"
    return f"{local:%Y-%m-%dT%H:%M:%S}.{fraction:09d}" + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")
