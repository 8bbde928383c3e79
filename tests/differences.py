"""Where two snapshots differ, a line each, so that a failed comparison can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{path}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{path}/{index}")
    elif one != other:
        yield f"{path}: {json.dumps(one)[:300]} != {json.dumps(other)[:300]}"
