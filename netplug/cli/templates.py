"""The part of Go's text/template that `--format` needs, over JSON values.

    {{.Name}}  {{.NetworkSettings.Networks.demo.IPAddress}}  {{$}}      fields, as deep as you like
    {{if .X}}…{{else if .Y}}…{{else}}…{{end}}                           and {{with}}, {{range}}, {{break}}, {{continue}}
    {{range $name, $value := .Map}}…{{else}}…{{end}}                     maps in the order of their keys
    {{$x := .X}} {{$x = 1}} {{(index .List 0).Field}} {{.X | json}}      variables, parentheses, pipes
    {{- trimmed -}} {{/* comments */}} "text" `raw` 12 1.5 true false nil
    eq ne lt le gt ge and or not len index slice print printf println html urlquery     Go's functions
    json join split lower upper title truncate pad                                       Docker's functions

`table …` and plain `json` are not templates but ways to print; `tables` and `formats` know them. Errors read as Go's:
`template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"`.

A value that is a Python function is a method: `{{.Label "stage"}}` calls it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from netplug.cli.template_functions import FUNCTIONS, shown
from netplug.cli.template_lexer import Action, TemplateError, Token, Where, line_of, pieces
from netplug.cli.template_nodes import (
    BLOCKS,
    Break,
    Continue,
    Eval,
    Render,
    Scope,
    constant,
    dot_itself,
    field_chain,
    function_call,
    jump,
    method_call,
    sequence,
    text_node,
    variable,
)

__all__ = ["Template", "TemplateError"]

_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "nil": None}


@dataclass
class _Parser:
    """Turns a source into a function that renders it."""

    source: str
    variables: list[str] = field(default_factory=lambda: ["$"])

    def parse(self) -> Render:
        self._pieces = list(pieces(self.source))
        body, end = self._body()
        if end is not None:
            end.fail(f"unexpected {{{{{end.tokens[0].text}}}}}")
        return body

    def _body(self) -> tuple[Render, Action | None]:
        """Nodes up to an `end` or `else` of the block they stand in, or to the end of the source."""
        nodes: list[Render] = []
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, str):
                nodes.append(text_node(piece))
                continue
            piece.skip()
            word = piece.tokens[piece.next].text if piece.peek("word") else ""
            if word in ("end", "else"):
                piece.tokens, piece.next = piece.tokens[piece.next :], 0
                return sequence(nodes), piece
            if word in BLOCKS:
                nodes.append(self._block(piece, piece.take().text))
            elif word in ("break", "continue"):
                nodes.append(jump(Break if word == "break" else Continue))
            elif piece.tokens:
                nodes.append(self._output(piece))
        return sequence(nodes), None

    def _output(self, action: Action) -> Render:
        names, evaluate = self._pipeline(action)
        self._done(action)

        def render(dot: Any, scope: Scope, out: list[str]) -> None:
            value = evaluate(dot, scope)
            if not names:
                out.append(shown(value))

        return render

    def _block(self, action: Action, kind: str) -> Render:
        known = len(self.variables)
        names, evaluate = self._pipeline(action, ranging=kind == "range")
        self._done(action)
        body, end = self._body()
        otherwise: Render = sequence([])
        if end is not None and end.tokens[0].text == "else":
            end.take()
            end.skip()
            if end.peek("word") and end.tokens[end.next].text in ("if", "with"):
                otherwise, end = self._block(end, end.take().text), None
                del self.variables[known:]
                return BLOCKS[kind](names, evaluate, body, otherwise)
            otherwise, end = self._body()
        if end is None:
            raise TemplateError(f"{line_of(self.source, len(self.source))}: unexpected EOF", parsing=True)
        if end.tokens[0].text != "end":
            end.fail("expected end; found {{else}}")
        del self.variables[known:]
        return BLOCKS[kind](names, evaluate, body, otherwise)

    def _pipeline(self, action: Action, ranging: bool = False) -> tuple[list[str], Eval]:
        """`$k, $v := command | command`, the names and the value; a declaration is made when the value is asked for."""
        names, declared = self._declaration(action, ranging)
        commands = [self._command(action)]
        while action.peek("pipe"):
            action.take()
            commands.append(self._command(action))

        def evaluate(dot: Any, scope: Scope) -> Any:
            value = commands[0](dot, scope, ())
            for command in commands[1:]:
                value = command(dot, scope, (value,))
            if names and not ranging:
                if declared:
                    scope[names[0]] = [value]
                else:
                    scope[names[0]][0] = value
            return value

        if declared:
            self.variables += names
        return names, evaluate

    def _declaration(self, action: Action, ranging: bool) -> tuple[list[str], bool]:
        start = action.next
        names: list[str] = []
        action.skip()
        while action.peek("variable"):
            names.append(action.take().text)
            action.skip()
            if not (ranging and action.peek("comma") and len(names) == 1):
                break
            action.take()
            action.skip()
        if names and action.peek("declare", "assign"):
            declared = action.take().kind == "declare"
            if not declared and (unknown := [name for name in names if name not in self.variables]):
                action.fail(f'undefined variable "{unknown[0]}"')
            return names, declared
        action.next = start
        return [], False

    def _command(self, action: Action) -> Callable[[Any, Scope, tuple[Any, ...]], Any]:
        """A function or method with its arguments, or a value; the third parameter is what came through the pipe."""
        action.skip()
        start = action.next
        if not action.tokens[start:] or action.peek("pipe", "close"):
            action.fail("missing value for command")
        if action.peek("word") and action.tokens[start].text == "nil":
            action.fail("nil is not a command")
        function = ""
        if action.peek("word") and action.tokens[action.next].text not in _CONSTANTS:
            function = action.take().text
            if function not in FUNCTIONS and function not in ("and", "or"):
                action.fail(f'function "{function}" not defined')
        operands: list[Eval] = []
        action.skip()
        while action.next < len(action.tokens) and not action.peek("pipe", "close"):
            operands.append(self._operand(action))
            action.skip()
        where = Where(action, start, action.between(start))
        if function:
            return lambda dot, scope, piped: function_call(function, operands, dot, scope, piped, where)
        head, arguments = operands[0], operands[1:]
        return lambda dot, scope, piped: method_call(head, arguments, dot, scope, piped, where)

    def _operand(self, action: Action) -> Eval:
        start = action.next
        token = action.take()
        value: Eval
        if token.kind == "open":
            _, value = self._pipeline(action)
            if not action.peek("close"):
                action.fail("unclosed left paren")
            action.take()
        elif token.kind == "field":
            action.next -= 1
            value = dot_itself
        elif token.kind == "dot":
            value = dot_itself
        elif token.kind == "variable":
            if token.text not in self.variables:
                action.fail(f'undefined variable "{token.text}"')
            value = variable(token.text)
        else:
            value = constant(_literal(token, action))
        fields: list[Token] = []
        while action.peek("field"):
            fields.append(action.take())
        if not action.peek("space", "pipe", "close") and action.next < len(action.tokens):
            action.fail(f'unexpected "{action.tokens[action.next].text}" in operand')
        return field_chain(value, fields, Where(action, action.next - 1, action.between(start))) if fields else value

    def _done(self, action: Action) -> None:
        action.skip()
        if action.next < len(action.tokens):
            action.fail(f'unexpected "{action.tokens[action.next].text}" in command')


def _literal(token: Token, action: Action) -> Any:  # noqa: RET503 (fail does not return)
    if token.kind == "word" and token.text in _CONSTANTS:
        return _CONSTANTS[token.text]
    if token.kind == "raw":
        return token.text[1:-1]
    try:
        if token.kind == "string":
            return json.loads(re.sub(r"\\x([0-9a-fA-F]{2})", r"\\u00\1", token.text), strict=False)
        if token.kind == "number":
            return float(token.text) if re.search(r"[.eE]", token.text) and "x" not in token.text.lower() else int(token.text, 0)
    except ValueError:
        action.fail(f"bad constant: {token.text}")
    if token.kind == "word" and (token.text in FUNCTIONS or token.text in ("and", "or")):
        action.fail(f"function {token.text} needs parentheses here")
    if token.kind == "word":
        action.fail(f'function "{token.text}" not defined')
    action.fail(f'unexpected "{token.text}" in operand')


class Template:
    """A parsed template; `render` may be called again and again."""

    def __init__(self, source: str) -> None:
        try:
            self._render = _Parser(source).parse()
        except RecursionError:
            raise TemplateError("1: exceeded maximum template depth", parsing=True) from None

    def render(self, value: Any) -> str:
        out: list[str] = []
        try:
            self._render(value, {"$": [value]}, out)
        except RecursionError:
            raise TemplateError("1: exceeded maximum template depth", parsing=False) from None
        except (Break, Continue):
            raise TemplateError("1: {{break}} or {{continue}} outside {{range}}", parsing=True) from None
        return "".join(out)
