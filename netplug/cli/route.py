"""`netplug route ls`: ways from this host to the networks of other nodes."""

from __future__ import annotations

from typing import Any

import click

from netplug.cli.client import Client
from netplug.cli.command import FORMAT_HELP, Command, Group
from netplug.cli.tables import print_list

_HEADINGS = {
    "Destination": "DESTINATION",
    "Via": "VIA",
    "Link": "LINK",
    "Node": "NODE",
    "Network": "NETWORK",
    "Status": "STATUS",
    "Alive": "ALIVE",
}
_FIELDS = ("Destination", "Via", "Node", "Network", "Status")


@click.group("route", cls=Group)
def route_command() -> None:
    """Show routes to networks of other nodes"""


@route_command.command("ls", cls=Command)
@click.option("--format", "template", default="", help=FORMAT_HELP)
@click.pass_obj
def ls(client: Client, template: str) -> None:
    """List the subnets of other nodes' networks (netplug.routes=cluster), the way there, and why there is none"""
    rows = [_row(route, plain=not template or template.startswith("table")) for route in client.call("GET", "/netplug/routes")]
    print_list(rows, _HEADINGS, _FIELDS, template)


def _row(route: dict[str, Any], plain: bool) -> dict[str, Any]:
    """For people, a node that is away is said where it matters."""
    if not plain or route["Alive"] or not route["Status"].startswith("installed"):
        return route
    return {**route, "Status": f"{route['Status']}, the node is away"}
