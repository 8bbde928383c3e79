"""What Go templates can call, and how Go prints values (JSON values here: None, bool, int, float, str, list, dict).

`FUNCTIONS` maps names to functions. They raise ValueError with Go's reason; `templates` adds where in the template it happened.
`and` and `or` are not here: they stop at the first decisive argument, so the evaluator handles them.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote_plus

Function = Callable[..., Any]

NO_VALUE = "<no value>"
_VERB = re.compile(r"%([-+# 0]*)([0-9]+|\*)?(?:\.([0-9]*|\*))?([a-zA-Z%])")


def shown(value: Any, nested: bool = False) -> str:
    """Go's `%v`: lists as `[a b]`, maps as `map[k:v]` by key, nothing as `<no value>` (`<nil>` inside of something)."""
    if value is None:
        return "<nil>" if nested else NO_VALUE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(value[key], True)}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(shown(item, True) for item in value) + "]"
    return str(value)


def _float(value: float) -> str:
    """`%v` of a float64: shortest digits, an exponent from 1e21 on."""
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return re.sub(r"e([-+])(\d)$", r"e\g<1>0\2", repr(value))


def go_type(value: Any) -> str:
    """The name Go would give the value's type."""
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}", dict: "map[string]interface {}"}
    return names.get(type(value), "<nil>" if value is None else type(value).__name__)


def truth(value: Any) -> bool:
    """Go's notion of true: not nil, not zero, not empty."""
    return bool(value)


class Heading(str):
    """A column's heading in a table's first row: functions that change how a cell reads leave it as it is."""

    __slots__ = ()


def _cell(function: Function) -> Function:
    return lambda value, *rest: value if isinstance(value, Heading) else function(value, *rest)


def to_json(value: Any) -> str:
    """Compact JSON; a row's methods are left out."""
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if not callable(item)}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = _one_index(value, key)
    return value


def _one_index(value: Any, key: Any) -> Any:
    if value is None:
        raise ValueError("index of untyped nil")
    if isinstance(value, dict):
        if not isinstance(key, str):
            raise ValueError(f"value has type {go_type(key)}; should be string")
        # A map of strings gives its zero value for a key that it has not: that is what tutorials count on with labels.
        return value.get(key, "" if all(isinstance(item, str) for item in value.values()) else None)
    if not isinstance(value, list | str):
        raise ValueError(f"can't index item of type {go_type(value)}")
    if not isinstance(key, int) or isinstance(key, bool):
        raise ValueError(f"cannot index slice/array with type {go_type(key)}")
    if not 0 <= key < len(value):
        raise ValueError(f"index out of range: {key}")
    return value[key]


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, list | str):
        raise ValueError(f"can't slice item of type {go_type(value)}")
    if len(bounds) > 2 or any(not isinstance(bound, int) or not 0 <= bound <= len(value) for bound in bounds):
        raise ValueError(f"index out of range: {shown(list(bounds))}")
    return value[slice(*bounds)] if len(bounds) == 2 else value[bounds[0] if bounds else 0 :]


def _len(value: Any) -> int:
    if not isinstance(value, list | dict | str):
        raise ValueError(f"len of type {go_type(value)}" if value is not None else "len of nil pointer")
    return len(value.encode()) if isinstance(value, str) else len(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "nil" if value is None else "other"


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    for other in others:
        kinds = {_kind(first), _kind(other)}
        if "other" in kinds:
            raise ValueError("non-comparable type")
        if len(kinds) > 1 and "nil" not in kinds:
            raise ValueError("incompatible types for comparison")
        if first is other or (not isinstance(first, bool) and first == other):
            return True
    return False


def _less(first: Any, second: Any) -> bool:
    kinds = {_kind(first), _kind(second)}
    if not kinds <= {"number", "string"}:
        raise ValueError("invalid type for comparison")
    if len(kinds) > 1:
        raise ValueError("incompatible types for comparison")
    return bool(first < second)


def _join(values: Any, separator: str) -> str:
    if values is None:
        return ""
    if not isinstance(values, list):
        raise ValueError(f"wrong type for value; expected []string; got {go_type(values)}")
    return separator.join(shown(value) for value in values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"wrong type for value; expected string; got {go_type(value)}")
    return value


def _print(*values: Any) -> str:
    """Go's Sprint: a space between two operands if neither is a string."""
    pieces: list[str] = []
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            pieces.append(" ")
        pieces.append(shown(value, True))
    return "".join(pieces)


def _printf(template: str, *values: Any) -> str:
    """Go's Sprintf for the verbs v s q d x X o b c t f e g T."""
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        width = str(rest.pop(0)) if width == "*" and rest else width
        if not rest:
            return f"%!{verb}(MISSING)"
        text = _verb(verb, rest.pop(0), flags, precision)
        return _aligned(text, flags, int(width or 0), verb)

    done = _VERB.sub(one, _text(template))
    if rest:
        done += "%!(EXTRA " + ", ".join(f"{go_type(value)}={shown(value, True)}" for value in rest) + ")"
    return done


def _verb(verb: str, value: Any, flags: str, precision: str | None) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb == "v":
        return shown(value, True)
    if verb == "T":
        return go_type(value)
    if verb == "s" and not number and not isinstance(value, bool):
        text = shown(value, True)
        return text if precision is None else text[: int(precision or 0)]
    if verb == "q" and isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if verb == "q" and isinstance(value, list):
        return "[" + " ".join(json.dumps(shown(item), ensure_ascii=False) for item in value) + "]"
    if verb == "t" and isinstance(value, bool):
        return shown(value)
    if verb == "x" and isinstance(value, str):
        return value.encode().hex()
    if verb == "c" and isinstance(value, int) and 0 <= value < 0x110000:
        return chr(value)
    if verb in "dxXob" and isinstance(value, int) and number:
        return f"{value:{'+' if '+' in flags else ''}{verb}}"
    if verb in "feg" and number:
        return f"{float(value):{'+' if '+' in flags else ''}.{precision or 6}{verb}}"
    return f"%!{verb}({go_type(value)}={shown(value, True)})"


def _aligned(text: str, flags: str, width: int, verb: str) -> str:
    if "-" in flags:
        return text.ljust(width)
    return text.zfill(width) if "0" in flags and verb in "dxXobfeg" else text.rjust(width)


def _title(text: str) -> str:
    """Every word's first letter in upper case, the others as they are."""
    return re.sub(r"(?<![\w'])\w", lambda match: match[0].upper(), _text(text))


def _split(text: str, separator: str) -> Sequence[str]:
    return _text(text).split(separator) if separator else list(text)


FUNCTIONS: dict[str, Function] = {
    "eq": _equal,
    "ge": lambda first, second: not _less(first, second),
    "gt": lambda first, second: _less(second, first),
    "html": lambda *values: html.escape(_print(*values)),
    "index": _index,
    "join": _join,
    "json": _cell(to_json),
    "le": lambda first, second: not _less(second, first),
    "len": _len,
    "lower": _cell(lambda text: _text(text).lower()),
    "lt": _less,
    "ne": lambda first, second: not _equal(first, second),
    "not": lambda value: not truth(value),
    "pad": lambda text, before, after: " " * before + text + " " * after if text else "",
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(shown(value, True) for value in values) + "\n",
    "slice": _slice,
    "split": _split,
    "title": _cell(_title),
    "truncate": _cell(lambda text, length: _text(text)[:length]),
    "upper": _cell(lambda text: _text(text).upper()),
    "urlquery": lambda *values: quote_plus(_print(*values)),
}
