"""The words of a Go template: text and actions, the tokens of an action, and errors that say where.

A source is cut into text and `Action`s; trim markers are obeyed and comments dropped on the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:\\.|[^"\\\n])*")|(?P<raw>`[^`]*`)
    |(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?))
    |(?P<declare>:=)|(?P<assign>=)|(?P<comma>,)|(?P<pipe>\|)|(?P<open>\()|(?P<close>\))
    |(?P<field>\.[^\W\d]\w*)|(?P<dot>\.)|(?P<variable>\$\w*)|(?P<word>[^\W\d]\w*)""",
    re.VERBOSE,
)


class TemplateError(ValueError):
    """The template cannot be read (`parsing`), or does not fit the value."""

    def __init__(self, message: str, parsing: bool) -> None:
        super().__init__(f"template: :{message}")
        self.parsing = parsing


@dataclass
class Token:
    kind: str
    text: str
    position: int


@dataclass
class Action:
    """What stands between `{{` and `}}`."""

    tokens: list[Token]
    line: int
    offset: int
    source: str
    next: int = 0

    def peek(self, *kinds: str) -> bool:
        return self.next < len(self.tokens) and self.tokens[self.next].kind in kinds

    def take(self) -> Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def skip(self) -> None:
        while self.peek("space"):
            self.next += 1

    def between(self, first: int) -> str:
        """The source of the tokens from `first` up to the next one, for error messages."""
        return "".join(token.text for token in self.tokens[first : self.next]).strip()

    def fail(self, message: str) -> NoReturn:
        raise TemplateError(f"{self.line}: {message}", parsing=True)


@dataclass
class Where:
    """The place of a node, for errors while it is evaluated."""

    action: Action
    token: int
    text: str

    def error(self, reason: object) -> TemplateError:
        position = self.action.offset + self.action.tokens[self.token].position
        column = position - (self.action.source.rfind("\n", 0, position) + 1)
        line = line_of(self.action.source, position)
        return TemplateError(f'{line}:{column}: executing "" at <{self.text}>: {reason}', parsing=False)


def pieces(source: str) -> Iterator[str | Action]:
    """Text and actions in turn, with the trim markers obeyed and comments gone."""
    position, trim = 0, False
    while position < len(source):
        start = source.find("{{", position)
        text = source[position : start if start >= 0 else len(source)]
        text = text.lstrip() if trim else text
        if start < 0:
            yield text
            return
        inner = start + 2
        if re.match(r"-\s", source[inner:]):
            text, inner = text.rstrip(), inner + 2
        yield text
        end = _end_of_action(source, inner)
        stop = end
        if trim := bool(re.search(r"\s-$", source[inner:end])):
            stop = end - 1
        content = source[inner:stop]
        position = end + 2
        if not re.fullmatch(r"\s*/\*.*\*/\s*", content, re.DOTALL):
            yield Action(tokens(content, line_of(source, inner)), line_of(source, inner), inner, source)


def _end_of_action(source: str, position: int) -> int:
    """Where the `}}` of an action is that begins at `position`; braces inside of strings and comments do not count."""
    quoted = re.compile(r'"(?:\\.|[^"\\\n])*"|`[^`]*`|\s*/\*.*?\*/|(?P<end>\}\})|.', re.DOTALL)
    for match in quoted.finditer(source, position):
        if match["end"]:
            return match.start()
    raise TemplateError(f"{line_of(source, position)}: unclosed action", parsing=True)


def tokens(content: str, line: int) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(content):
        match = _TOKEN.match(content, position)
        if match is None:
            problem = "unterminated quoted string" if content[position] in '"`' else f'unexpected "{content[position]}" in command'
            raise TemplateError(f"{line}: {problem}", parsing=True)
        tokens.append(Token(str(match.lastgroup), match[0], position))
        position = match.end()
    if not content.strip():
        raise TemplateError(f"{line}: missing value for command", parsing=True)
    return tokens


def line_of(source: str, position: int) -> int:
    return source.count("\n", 0, position) + 1
