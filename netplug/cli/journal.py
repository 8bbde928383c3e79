"""`netplug journal`: what changed in the kernel, when, for whom, as commands."""

from __future__ import annotations

import json
from typing import Any

import click

from netplug.cli import units
from netplug.cli.client import Client
from netplug.cli.command import INT, Command, Failure
from netplug.cli.templates import Template, TemplateError


@click.command("journal", cls=Command)
@click.option("-n", "--lines", type=INT, default=None, help="Only the newest entries, this many")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens")
@click.option("-q", "--quiet", is_flag=True, help="Leave the commands out")
@click.option("--format", "template", default="", help="'json', or a Go template over time, action, subject, by, commands and error")
@click.pass_obj
def journal_command(client: Client, lines: int | None, follow: bool, quiet: bool, template: str) -> None:
    """Show what was changed in the kernel, when, for whom, and the commands that do the same"""
    if lines is not None and lines < 0:
        raise Failure("-n: how many entries? A number from 0 is needed")
    limit = {} if lines is None else {"limit": str(lines)}
    try:
        parsed = Template("{{json .}}" if template == "json" else template) if template else None
        found = client.lines("/netplug/journal", {**limit, "follow": "1"}) if follow else client.call("GET", "/netplug/journal", limit)
        for item in found:
            click.echo(parsed.render(item) if parsed else entry_text(item, quiet))
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", 64 if error.parsing else 1) from None


def entry_text(item: dict[str, Any], quiet: bool = False) -> str:
    """One entry: a line about it, and its commands below, ready for pasting."""
    by = f"  (by {item['by']})" if item.get("by") else ""
    lines = [f"# {_local(str(item.get('time', '')))}  {item.get('action', '')} {item.get('subject', '')}{by}"]
    if item.get("error"):
        lines.append(f"# failed, and undone: {item['error']}")
    if not quiet:
        lines += [command if isinstance(command, str) else json.dumps(command) for command in item.get("commands") or []]
    return "\n".join(lines)


def _local(text: str) -> str:
    at = units.moment(text)
    return units.stamp(at[0] * 1_000_000_000 + at[1])[:23].replace("T", " ") if at else text
