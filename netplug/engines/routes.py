"""What a plugin's method is: the shape of its body, and its handler, which gives the answer's fields."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[Any], Coroutine[Any, Any, dict[str, Any]]]
Table: TypeAlias = Mapping[str, tuple[type[Any], Handler]]
