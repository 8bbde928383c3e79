"""What a parsed template does: functions that render text, blocks and outputs, and that evaluate fields, calls and pipes.

`Eval` takes dot and the variables and gives a value; `Render` adds to the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from netplug.cli.template_functions import FUNCTIONS, shown, truth
from netplug.cli.template_lexer import TemplateError, Token, Where

_MAPS = frozenset(
    {"AuxiliaryAddresses", "Containers", "DriverOpts", "ExposedPorts", "Labels", "Networks", "Options"}
    | {"PortBindings", "Ports", "Sysctls", "Volumes"}
)
"""Fields whose keys are the user's: what lies below one that is missing has no value; any other missing field is a mistake."""


class Reason(Exception):
    """Why a node could not be evaluated; the node around it adds where."""


class Break(Exception):
    pass


class Continue(Exception):
    pass


Scope = dict[str, list[Any]]
"""Variables: cells of one value, so that `{{$x = 1}}` in a block changes the outer one."""
Eval = Callable[[Any, Scope], Any]
Render = Callable[[Any, Scope, list[str]], None]


def text_node(text: str) -> Render:
    return lambda dot, scope, out: out.append(text)


def sequence(nodes: Sequence[Render]) -> Render:
    def render(dot: Any, scope: Scope, out: list[str]) -> None:
        for node in nodes:
            node(dot, scope, out)

    return render


def jump(kind: type[Exception]) -> Render:
    def render(dot: Any, scope: Scope, out: list[str]) -> None:
        raise kind

    return render


def dot_itself(dot: Any, scope: Scope) -> Any:
    return dot


def variable(name: str) -> Eval:
    return lambda dot, scope: scope[name][0]


def constant(value: Any) -> Eval:
    return lambda dot, scope: value


def field_chain(start: Eval, fields: Sequence[Token], where: Where) -> Eval:
    def evaluate(dot: Any, scope: Scope) -> Any:
        value, parent = start(dot, scope), ""
        for token in fields:
            name = token.text[1:]
            if parent in _MAPS and isinstance(value, dict) and name not in value:
                return None
            try:
                value, parent = _field(value, name), name
            except Reason as reason:
                raise where.error(reason) from None
        return value

    return evaluate


def _field(value: Any, name: str) -> Any:
    if value is None:
        raise Reason(f"nil pointer evaluating interface {{}}.{name}")
    if not isinstance(value, dict):
        raise Reason(f"can't evaluate field {name} in type interface {{}}")
    if name in value:
        return value[name]
    raise Reason(f'map has no entry for key "{name}"')


def function_call(function: str, operands: Sequence[Eval], dot: Any, scope: Scope, piped: tuple[Any, ...], where: Where) -> Any:
    if function in ("and", "or"):
        return _decide(function == "or", operands, dot, scope, piped, where)
    arguments = [operand(dot, scope) for operand in operands]
    return _invoke(FUNCTIONS[function], function, [*arguments, *piped], where)


def _decide(stop_at: bool, operands: Sequence[Eval], dot: Any, scope: Scope, piped: tuple[Any, ...], where: Where) -> Any:
    """`and` and `or` give the first argument that decides, else the last."""
    if not operands and not piped:
        raise where.error(f"wrong number of args for {'or' if stop_at else 'and'}: want at least 1 got 0")
    value: Any = None
    for operand in operands:
        value = operand(dot, scope)
        if truth(value) is stop_at:
            return value
    return piped[0] if piped else value


def _invoke(function: Callable[..., Any], name: str, arguments: list[Any], where: Where) -> Any:
    try:
        return function(*arguments)
    except ValueError as error:
        raise where.error(f"error calling {name}: {error}") from None
    except (TypeError, AttributeError):
        raise where.error(f"error calling {name}: wrong number or type of arguments") from None


def method_call(head: Eval, arguments: Sequence[Eval], dot: Any, scope: Scope, piped: tuple[Any, ...], where: Where) -> Any:
    value = head(dot, scope)
    if callable(value):
        return _invoke(value, where.text.split()[0], [*(argument(dot, scope) for argument in arguments), *piped], where)
    if arguments or piped:
        raise where.error(f"can't give argument to non-function {where.text.split()[0]}")
    return value


def _if(names: list[str], evaluate: Eval, body: Render, otherwise: Render) -> Render:
    def render(dot: Any, scope: Scope, out: list[str]) -> None:
        inner = dict(scope)
        (body if truth(evaluate(dot, inner)) else otherwise)(dot, inner, out)

    return render


def _with(names: list[str], evaluate: Eval, body: Render, otherwise: Render) -> Render:
    def render(dot: Any, scope: Scope, out: list[str]) -> None:
        inner = dict(scope)
        value = evaluate(dot, inner)
        if truth(value):
            body(value, inner, out)
        else:
            otherwise(dot, inner, out)

    return render


def _range(names: list[str], evaluate: Eval, body: Render, otherwise: Render) -> Render:
    def render(dot: Any, scope: Scope, out: list[str]) -> None:
        pairs = _pairs(evaluate(dot, scope))
        for pair in pairs:
            inner = dict(scope)
            inner.update({name: [value] for name, value in zip(names, pair[2 - len(names) :], strict=False)} if names else {})
            try:
                body(pair[1], inner, out)
            except Continue:
                continue
            except Break:
                break
        if not pairs:
            otherwise(dot, dict(scope), out)

    return render


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, list):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(value)]
    raise TemplateError(f'1: executing "": range can\'t iterate over {shown(value)}', parsing=False)


BLOCKS: dict[str, Callable[[list[str], Eval, Render, Render], Render]] = {"if": _if, "with": _with, "range": _range}
