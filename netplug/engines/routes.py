"""What a plugin's method is: the shape of its body, and its handler, which gives the answer's fields, at once if it can."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

Fields: TypeAlias = dict[str, Any]
Outcome: TypeAlias = Fields | Coroutine[Any, Any, Fields]
Handler: TypeAlias = Callable[[Any], Outcome]
Table: TypeAlias = Mapping[str, tuple[type[Any], Handler]]
