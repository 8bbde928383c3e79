"""`netplug preflight`: what on this host will not work, why, and what to do about it. The daemon looks; without one, this process does."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from netplug.cli import ports
from netplug.cli.client import JSON, Client, Unreachable
from netplug.cli.command import FORMAT_HELP, INT, Command, Failure, Value
from netplug.cli.daemon import from_file
from netplug.cli.tables import print_list

HEADINGS = {"Check": "CHECK", "Result": "RESULT", "Found": "FOUND", "Remedy": "REMEDY"}
_NARROW = 30


@click.command("preflight", cls=Command)
@click.option("--subnet", "subnets", multiple=True, help="A subnet that you mean to use")
@click.option("-p", "--publish", "published", multiple=True, type=Value(ports.published, "list"), help="A port that you mean to publish")
@click.option("--mtu", type=INT, default=0, help="An MTU that you mean to use")
@click.option("--config", metavar="FILE", default=None, help="Look as a daemon with this TOML file would if it started now")
@click.option("--run-dir", default=None, help="The same, with this --run-dir")
@click.option("--state-dir", default=None, help="The same, with this --state-dir")
@click.option("--format", "template", default="", help=FORMAT_HELP)
@click.pass_obj
def preflight_command(
    client: Client, /, subnets: Sequence[str], published: Sequence[Any], mtu: int, template: str, **start: str | None
) -> int:
    """Check this host for what would not work: exits with 1 if there is an error"""
    bindings = ports.bindings(spec for specs in published for spec in specs)
    wanted: JSON = {"Subnets": list(subnets), "PortBindings": bindings, "Mtu": mtu}
    findings = _from_daemon(client, wanted) if not any(start.values()) else None
    if findings is None:
        findings = _from_here(client, wanted, start)
    if template:
        print_list(findings, HEADINGS, tuple(HEADINGS), template)
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        click.echo(drawing(findings, width), nl=False)
    return int(any(finding["Result"] == "error" for finding in findings))


def _from_daemon(client: Client, wanted: JSON) -> list[JSON] | None:
    """None where there is no daemon to ask."""
    try:
        found: list[JSON] = client.call("POST", "/netplug/preflight", body=wanted)
    except Unreachable as failure:
        if isinstance(failure.__cause__, PermissionError):
            raise
        return None
    return found


def _from_here(client: Client, wanted: JSON, start: Mapping[str, str | None]) -> list[JSON]:
    """The rooms that look are the daemon's: they are imported only where there is none."""
    import msgspec

    from netplug.errors import NetplugError
    from netplug.observe import preflight
    from netplug.observe.situation import Wanted

    config = start.get("config")
    values = {"socket": client.host.partition("://")[2], **(from_file(config) if config else {})}
    values |= {name: value for name, value in start.items() if value and name != "config"}
    try:
        found: list[JSON] = msgspec.to_builtins(preflight.run_here(values, msgspec.convert(wanted, Wanted)))
    except NetplugError as error:
        raise Failure(f"netplug preflight: {error}") from None
    return found


def drawing(findings: Iterable[Mapping[str, str]], width: int = 0) -> str:
    """A table; what was found and what to do stand side by side, broken into lines where `width` says how much fits (0: all does)."""
    rows = [tuple(HEADINGS.values()), *(tuple(finding[name] for name in HEADINGS) for finding in findings)]
    first, second = (max(len(row[column]) for row in rows) + 3 for column in (0, 1))
    widest = max(len(row[2]) for row in rows) + 3
    third = min(widest, max((width - first - second) * 3 // 5, _NARROW)) if width else widest
    fourth = max(width - first - second - third, _NARROW) if width else 10_000
    lines = []
    for check, result, found, remedy in rows:
        left, right = textwrap.wrap(found, third - 3) or [""], textwrap.wrap(remedy, fourth) or [""]
        for index in range(max(len(left), len(right))):
            cells = ("", "") if index else (check, result)
            parts = [side[index] if index < len(side) else "" for side in (left, right)]
            lines.append(f"{cells[0]:<{first}}{cells[1]:<{second}}{parts[0]:<{third}}{parts[1]}".rstrip())
    return "\n".join(lines) + "\n"
