"""`netplug driver check`: does a driver keep to the rules of drivers? Its plans are looked at in this process, without daemon or root."""

from __future__ import annotations

from collections.abc import Sequence

import click

from netplug.cli import options
from netplug.cli.command import FORMAT_HELP, Command, Failure, Group, Value
from netplug.cli.tables import print_list
from netplug.errors import NetplugError

HEADINGS = {"Rule": "RULE", "Broken": "BROKEN"}


@click.group("driver", cls=Group)
def driver_command() -> None:
    """Write drivers: see docs/drivers.md"""


@driver_command.command("check", cls=Command)
@click.argument("name")
@click.option("-o", "--opt", "given", multiple=True, type=Value(options.pair, "map"), help="Options of the network that it is tried with")
@click.option("--format", "template", default="", help=FORMAT_HELP)
def check_command(name: str, given: Sequence[tuple[str, str]], template: str) -> int:
    """Try an installed driver against the conformance kit: exits with 1 if it breaks a rule, and says how"""
    from netplug.testing.checking import Installed, check  # when it is needed, not for `netplug --help`

    try:
        kit = Installed(name, dict(given))
    except NetplugError as error:
        raise Failure(f"netplug driver: {error}") from None
    except Exception as error:  # the driver is somebody else's code
        raise Failure(f"netplug driver: driver {name} cannot be loaded: {type(error).__name__}: {error}") from None
    found = list(check(kit))
    if template:
        print_list([{"Rule": one.rule, "Broken": one.reason} for one in found], HEADINGS, tuple(HEADINGS), template)
    else:
        for one in found:
            click.echo(f"broken  {one.rule}\n        {one.reason}" if one.reason else f"kept    {one.rule}")
        broken = sum(bool(one.reason) for one in found)
        click.echo(f"driver {name} breaks {broken} of {len(found)} rules" if broken else f"driver {name} keeps all {len(found)} rules")
    return int(any(one.reason for one in found))
