"""`netplug doctor` and `netplug explain`: what differs from the records and how to put it right; how to build what is there by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from netplug.cli import completion
from netplug.cli.client import Client, segment
from netplug.cli.command import FORMAT_HELP, Command
from netplug.cli.tables import print_list

HEADINGS = {"Subject": "SUBJECT", "Found": "FOUND", "Meaning": "MEANING"}
Difference = Mapping[str, Any]


@click.command("doctor", cls=Command)
@click.option("--fix", is_flag=True, help="Put right what differs")
@click.option("--format", "template", default="", help=FORMAT_HELP)
@click.pass_obj
def doctor_command(client: Client, fix: bool, template: str) -> int:
    """Compare kernel, names and store with the records: exits with 1 if something differs (with --fix: if it still does)"""
    found: list[Difference] = client.call("POST" if fix else "GET", "/netplug/doctor")
    if template:
        print_list(found, HEADINGS, tuple(HEADINGS), template)
    else:
        click.echo("\n".join(text(found, fix)))
    return int(any(not difference.get("Repaired") for difference in found))


def text(found: Iterable[Difference], fixed: bool = False) -> Iterator[str]:
    """A few lines for each difference, and a last one that counts them."""
    count = left = 0
    said: set[tuple[str, ...]] = set()
    for difference in found:
        count += 1
        yield f"{difference['Subject']}: {difference['Found']}"
        yield f"    {difference['Meaning']}"
        if difference.get("Repaired"):
            yield "    repaired"
            continue
        left += 1
        if fixed:
            yield f"    not repaired: {difference['Error']}"
        repair = tuple(difference["Repair"])
        yield from (f"    {line}" for command in repair for line in command.splitlines()) if repair not in said else ("    # as above",)
        said.add(repair)
    if fixed and count:
        yield f"{count - left} of {count} repaired"
    else:
        yield f"{counted(count)}: netplug doctor --fix puts right what it can" if count else "Nothing differs"


def counted(count: int) -> str:
    return "1 difference" if count == 1 else f"{count} differences"


@click.command("explain", cls=Command)
@click.argument("container", shell_complete=completion.running)
@click.argument("network", required=False, default="", shell_complete=completion.networks)
@click.pass_obj
def explain_command(client: Client, container: str, network: str) -> None:
    """Show the commands that build a running container's endpoints by hand, as they are now"""
    commands: list[str] = client.call("GET", f"/netplug/explain/{segment(container)}", {"network": network} if network else None)
    for command in commands:
        click.echo(command)
