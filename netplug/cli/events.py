"""`netplug events`."""

from __future__ import annotations

from typing import Any

import click

from netplug.cli import options, units
from netplug.cli.client import Client, filters_query
from netplug.cli.command import FORMAT_HELP, Command, Failure, Value
from netplug.cli.container import moments
from netplug.cli.templates import Template, TemplateError


@click.command("events", cls=Command)
@click.option("--since", default="", help="Show all events created since timestamp")
@click.option("--until", default="", help="Stream events until this timestamp")
@click.option("-f", "--filter", "filters", multiple=True, type=Value(options.filter_pair, "filter"), help="Filter (e.g. type=network)")
@click.option("--format", "template", default="", help=FORMAT_HELP)
@click.pass_obj
def events_command(client: Client, /, filters: list[tuple[str, str]], template: str, **times: str) -> None:
    """Get real time events from the daemon"""
    try:
        parsed = Template("{{json .}}" if template == "json" else template) if template else None
    except TemplateError as error:
        raise Failure(f"Error parsing format: {error}", 64) from None
    for event in client.lines("/events", {**moments(times), **filters_query(options.filters(filters))}):
        try:
            click.echo(parsed.render(event) if parsed else event_line(event))
        except TemplateError as error:
            raise Failure(str(error)) from None


def event_line(event: dict[str, Any]) -> str:
    """`2026-01-31T12:00:00.000000001+01:00 network connect 5bc5… (container=…, name=demo)`."""
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    nanoseconds = int(event.get("timeNano") or int(event.get("time") or 0) * 1_000_000_000)
    line = f"{units.stamp(nanoseconds)} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    return f"{line} ({attributes})" if attributes else line
