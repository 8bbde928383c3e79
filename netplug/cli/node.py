"""`netplug node …`: the hosts of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from netplug.cli import completion, options, units
from netplug.cli.client import Client, filters_query, segment
from netplug.cli.command import FORMAT_HELP, Command, Explain, Group, Value, explainable
from netplug.cli.several import each
from netplug.cli.tables import Inspection, Row, print_list

HEADINGS = {
    "Name": "NAME",
    "Status": "STATUS",
    "Address": "ADDRESS",
    "Version": "VERSION",
    "StartedAt": "STARTED AT",
    "Self": "",
}
_TABLE = "table {{.Name}} {{if .Self}}*{{else}} {{end}}\t{{.Status}}\t{{.Address}}\t{{.Version}}"
_NODES = click.argument("nodes", metavar="NODE [NODE...]", nargs=-1, required=True, shell_complete=completion.nodes)


@click.group("node", cls=Group)
def node_command() -> None:
    """Manage the nodes of the cluster"""


@node_command.command("ls", cls=Command)
@click.option("-q", "--quiet", is_flag=True, help="Only print names")
@click.option("-f", "--filter", "filters", multiple=True, type=Value(options.filter_pair, "filter"), help="Filter (e.g. name=n1)")
@click.option("--format", "template", default="", help=FORMAT_HELP)
@click.pass_obj
def ls(client: Client, quiet: bool, filters: list[tuple[str, str]], template: str) -> None:
    """List nodes; the one that was asked has a star"""
    answer = client.call("GET", "/netplug/nodes", filters_query(options.filters(filters)))
    for warning in answer.get("Warnings") or []:
        click.echo(f"WARNING: {warning}", err=True)
    if not template or template == "table":
        template = "{{.Name}}" if quiet else _TABLE
    print_list([_row(item) for item in answer.get("Nodes") or []], HEADINGS, (), template)


def _row(item: dict[str, Any]) -> Row:
    return {
        "Address": item.get("Address", ""),
        "Name": item["Name"],
        "Self": item.get("Self", False),
        "StartedAt": units.go_time(item.get("Started", "")),
        "Status": item.get("Status", ""),
        "Version": item.get("Version", ""),
    }


@node_command.command("inspect", cls=Command)
@click.option("-f", "--format", "template", default="", help=FORMAT_HELP)
@_NODES
@click.pass_obj
def inspect(client: Client, template: str, nodes: Sequence[str]) -> int:
    """Display one or more nodes, and what they have of the cluster's networks"""
    view = Inspection(template)
    found: list[Any] = []
    code = each(nodes, lambda name: found.append(client.call("GET", f"/netplug/nodes/{segment(name)}")))
    view.show(found)
    return code


@node_command.command("rm", cls=Command)
@click.option("-f", "--force", is_flag=True, help="Also a node that is still heard of")
@_NODES
@explainable
@click.pass_obj
def rm(client: Client, /, nodes: Sequence[str], force: bool, explain: Explain) -> int:
    """Free the names and addresses of nodes that will not come back"""
    query = {**explain.query, **({"force": "1"} if force else {})}

    def remove(name: str) -> None:
        explain.heard(client.call("DELETE", f"/netplug/nodes/{segment(name)}", query))
        explain.name(name)

    return each(nodes, remove)
