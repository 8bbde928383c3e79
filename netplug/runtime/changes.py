"""Dockerfile lines that describe an imported image: `docker import -c 'CMD ["sh"]'`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

from netplug.errors import InvalidArgument
from netplug.runtime.model import Image


def apply_changes(image: Image, changes: Sequence[str]) -> Image:
    """The image with the lines applied in order; InvalidArgument for a line that cannot be understood."""
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        image = _apply(image, word.upper(), rest.strip(), change)
    return image


def _apply(image: Image, word: str, rest: str, change: str) -> Image:
    replace = msgspec.structs.replace
    if not rest:
        raise InvalidArgument(f"{change.strip()}: it says nothing")
    match word:
        case "CMD":
            return replace(image, command=_words(rest))
        case "ENTRYPOINT":
            return replace(image, entrypoint=_words(rest))
        case "ENV":
            return replace(image, environment=(*image.environment, *_assignments(rest, change)))
        case "EXPOSE":
            return replace(image, exposed=(*image.exposed, *(port if "/" in port else f"{port}/tcp" for port in rest.split())))
        case "USER":
            return replace(image, user=rest)
        case "WORKDIR":
            return replace(image, working_directory=rest)
    raise InvalidArgument(f"{word} is not a valid change command")


def _words(text: str) -> tuple[str, ...]:
    """The exec form (a JSON list), or a line for the shell."""
    if text.startswith("["):
        try:
            return tuple(msgspec.json.decode(text, type=list[str]))
        except msgspec.DecodeError:
            pass
    return "/bin/sh", "-c", text


def _assignments(text: str, change: str) -> list[str]:
    """`A=b C="d e"`, or the old form `A b c`."""
    name, _, value = text.partition(" ")
    if "=" not in name and value:
        return [f"{name}={value.strip()}"]
    try:
        pairs = shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"{change.strip()}: {error}") from error
    if not all("=" in pair and not pair.startswith("=") for pair in pairs):
        raise InvalidArgument(f"{change.strip()}: it must be written as ENV name=value")
    return pairs
