"""What commands print: lists as tables, as JSON lines or by a template, and inspected objects.

`--format` of a list is `table`, `table TEMPLATE`, `json` or `TEMPLATE` (`templates` says what a template may hold); of `inspect`, `json`
or `TEMPLATE`. Columns stand as Docker's do: three blanks apart and at least ten wide.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from netplug.cli.command import Failure
from netplug.cli.template_functions import Heading
from netplug.cli.templates import Template, TemplateError

Row = Mapping[str, Any]
"""Cells by field name; a function is a method of the row (`{{.Label "stage"}}`)."""

_MINIMUM, _PADDING = 10, 3
_PARSE_ERROR = 64


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Lines with their cells aligned; the last cell of a line is not padded."""
    lines = [list(row) for row in rows]
    count = max((len(line) for line in lines), default=0)
    widths = [
        max(_MINIMUM, *(len(line[column]) + _PADDING for line in lines if column < len(line) - 1))
        if any(column < len(line) - 1 for line in lines)
        else 0
        for column in range(count)
    ]
    return "".join("".join(cell.ljust(widths[column]) for column, cell in enumerate(line[:-1])) + line[-1] + "\n" for line in lines)


def label_method(labels: Mapping[str, str]) -> Callable[[str], str]:
    """`{{.Label "key"}}`."""
    return lambda key: labels.get(key, "")


def _label_heading(key: str) -> str:
    return key.split(".")[-1].replace("-", " ").replace("_", " ")


def print_list(rows: Iterable[Row], headings: Mapping[str, str], fields: Sequence[str], template: str, quiet: bool = False) -> None:
    """Print `rows` as `--format` (or `-q`) asks; without either, a table of `fields` under their headings."""
    if quiet and not template:
        template = "{{.ID}}"
    kind, separator, rest = template.partition(" ")
    if template == "json":
        template = "{{json .}}"
    is_table = kind in ("", "table") and (not template or bool(separator) or template == "table")
    if is_table:
        template = rest.strip() or "\t".join(f"{{{{.{field}}}}}" for field in fields)
    parsed = _parsed(template.replace("\\t", "\t").replace("\\n", "\n"))
    if is_table:
        top = {"Label": _label_heading, **{field: Heading(heading) for field, heading in headings.items()}}
        click.echo(columns(_rendered(parsed, row).split("\t") for row in (top, *rows)), nl=False)
        return
    for row in rows:
        click.echo(_rendered(parsed, row))


def _parsed(template: str) -> Template:
    try:
        return Template(template)
    except TemplateError as error:
        raise Failure(f"failed to parse template: {error}") from None


def _rendered(template: Template, row: Row) -> str:
    try:
        return template.render(dict(row))
    except TemplateError as error:
        raise Failure(f"failed to execute template: {error}") from None


class Inspection:
    """How `inspect` prints: an indented JSON list, a compact one (`json`), or each object by a template."""

    def __init__(self, template: str) -> None:
        self._kind = template
        try:
            self._template = Template(template) if template not in ("", "json") else None
        except TemplateError as error:
            raise Failure(f"template parsing error: {error}", _PARSE_ERROR) from None

    def show(self, objects: Sequence[Any]) -> None:
        if self._template is None:
            layout: dict[str, Any] = {"separators": (",", ":")} if self._kind == "json" else {"indent": 4}
            click.echo(json.dumps(objects, ensure_ascii=False, **layout))
            return
        for item in objects:
            try:
                click.echo(self._template.render(item))
            except TemplateError as error:
                raise Failure(f"template parsing error: {error}") from None
