"""`netplug network …`."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from netplug.cli import completion, options, units
from netplug.cli.client import Client, DaemonError, filters_query, segment
from netplug.cli.command import FORMAT_HELP, Command, Explain, Failure, Group, Value, explainable
from netplug.cli.several import each
from netplug.cli.tables import Inspection, Row, label_method, print_list

HEADINGS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}


@click.group("network", cls=Group)
def network_command() -> None:
    """Manage networks"""


@network_command.command("create", cls=Command)
@click.option("-d", "--driver", default="bridge", help="Driver to manage the network (bridge)")
@click.option("--subnet", "subnets", multiple=True, help="Subnet in CIDR form that represents a network segment")
@click.option("--gateway", "gateways", multiple=True, help="Gateway of the subnet before it in the command")
@click.option("--ip-range", "ranges", multiple=True, help="Allocate container addresses from this sub-range")
@click.option("--aux-address", "reserved", multiple=True, type=Value(options.pair, "map"), help="NAME=ADDRESS that containers must not get")
@click.option("--internal", is_flag=True, help="No way in from, or out to, anything outside of the network")
@click.option("--attachable", is_flag=True, help="Let containers be attached by hand")
@click.option("--ipam-driver", default="default", help="IPAM driver (default)")
@click.option("--ipam-opt", "ipam_options", multiple=True, type=Value(options.pair, "map"), help="IPAM driver options")
@click.option("-o", "--opt", "driver_options", multiple=True, type=Value(options.pair, "map"), help="Driver options")
@click.option("--label", "labels", multiple=True, type=Value(options.label), help="Set metadata on the network")
@click.option("--ipv4/--no-ipv4", default=None, help="Enable or disable IPv4 (enabled)")
@click.option("--ipv6/--no-ipv6", default=None, help="Enable or disable IPv6 (disabled)")
@click.option("--scope", default="", help="Scope of the network (local, global)")
@click.argument("network")
@explainable
@click.pass_obj
def create(client: Client, /, network: str, explain: Explain, **given: Any) -> None:
    """Create a network"""
    ipam = {"Driver": given["ipam_driver"], "Options": dict(given["ipam_options"]), "Config": pools(**_pool_flags(given))}
    body: dict[str, Any] = {
        "Name": network,
        "CheckDuplicate": True,
        "Driver": given["driver"],
        "Scope": given["scope"],
        "Internal": given["internal"],
        "Attachable": given["attachable"],
        "IPAM": ipam,
        "Options": dict(given["driver_options"]),
        "Labels": dict(given["labels"]),
    }
    # What is not said is left out: the daemon may have a default of its own.
    said = {"EnableIPv4": given["ipv4"], "EnableIPv6": given["ipv6"]}
    body |= {key: value for key, value in said.items() if value is not None}
    answer = client.call("POST", "/networks/create", explain.query, body)
    if warning := answer.get("Warning"):
        click.echo(f"WARNING: {warning}", err=True)
    explain.name(answer.get("Id", ""))
    explain.heard(answer)


def _pool_flags(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in ("subnets", "gateways", "ranges", "reserved")}


def pools(
    subnets: Sequence[str], gateways: Sequence[str], ranges: Sequence[str], reserved: Iterable[tuple[str, str]]
) -> list[dict[str, Any]]:
    """The API's IPAM Config: each gateway, range and reserved address at the subnet that it lies in."""
    if len(subnets) < max(len(ranges), len(gateways)):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        if any(_within(subnet, other) or _within(other, subnet) for other in found):
            raise Failure("multiple overlapping subnet configuration is not supported")
        found[subnet] = {"Subnet": subnet}
    for kind, key, given in (("range", "IPRange", ranges), ("gateway", "Gateway", gateways)):
        for text in given:
            pool = _pool_of(text, found, kind)
            if key in pool:
                subnet = pool["Subnet"]
                where = "on" if kind == "range" else "for"
                raise Failure(f"cannot configure multiple {kind}s ({text}, {pool[key]}) {where} the same subnet ({subnet})")
            pool[key] = text
    for name, address in reserved:
        if not address:
            raise Failure(f"invalid aux-address {name}: NAME=ADDRESS is needed")
        _pool_of(address, found, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = address
    return list(found.values())


def _pool_of(text: str, found: dict[str, dict[str, Any]], kind: str) -> dict[str, Any]:
    for subnet, pool in found.items():
        if _within(text, subnet):
            return pool
    raise Failure(f"no matching subnet for {kind} {text}")


def _within(text: str, subnet: str) -> bool:
    """Whether an address, or the first address of a CIDR, lies in a subnet."""
    try:
        block = ipaddress.ip_network(subnet, strict=False)
        if "/" not in subnet:
            raise ValueError(subnet)
    except ValueError:
        raise Failure(f"invalid subnet: invalid CIDR address: {subnet}") from None
    try:
        address = ipaddress.ip_interface(text).ip
    except ValueError:
        if "/" in text:
            raise Failure(f"invalid CIDR address: {text}") from None
        return False
    return address.version == block.version and address in block


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sorts `net2` before `net10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part]


@network_command.command("ls", cls=Command)
@click.option("-q", "--quiet", is_flag=True, help="Only print network ids")
@click.option("-f", "--filter", "filters", multiple=True, type=Value(options.filter_pair, "filter"), help="Filter (e.g. driver=bridge)")
@click.option("--no-trunc", is_flag=True, help="Do not cut ids")
@click.option("--format", "template", default="", help=FORMAT_HELP)
@click.pass_obj
def ls(client: Client, quiet: bool, filters: list[tuple[str, str]], no_trunc: bool, template: str) -> None:
    """List networks"""
    found = client.call("GET", "/networks", filters_query(options.filters(filters)))
    rows = [_row(item, no_trunc) for item in sorted(found, key=lambda item: natural(item["Name"]))]
    print_list(rows, HEADINGS, ("ID", "Name", "Driver", "Scope"), template, quiet)


def _row(item: dict[str, Any], whole_id: bool) -> Row:
    labels = item.get("Labels") or {}
    return {
        "CreatedAt": units.go_time(item.get("Created", "")),
        "Driver": item.get("Driver", ""),
        "ID": item["Id"] if whole_id else item["Id"][:12],
        "IPv4": _word(item.get("EnableIPv4", True)),
        "IPv6": _word(item.get("EnableIPv6", False)),
        "Internal": _word(item.get("Internal", False)),
        "Label": label_method(labels),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Name": item["Name"],
        "Scope": item.get("Scope", ""),
    }


def _word(value: Any) -> str:
    return "true" if value else "false"


@network_command.command("inspect", cls=Command)
@click.option("-f", "--format", "template", default="", help=FORMAT_HELP)
@click.option("-v", "--verbose", is_flag=True, help="Verbose output for diagnostics")
@click.argument("networks", metavar="NETWORK [NETWORK...]", nargs=-1, required=True, shell_complete=completion.networks)
@click.pass_obj
def inspect(client: Client, template: str, verbose: bool, networks: Sequence[str]) -> int:
    """Display detailed information on one or more networks"""
    view = Inspection(template)
    found: list[Any] = []
    query = {"verbose": "true"} if verbose else None
    code = each(networks, lambda name: found.append(client.call("GET", f"/networks/{segment(name)}", query)))
    view.show(found)
    return code


@network_command.command("rm", cls=Command)
@click.option("-f", "--force", is_flag=True, help="Do not error if the network does not exist")
@click.argument("networks", metavar="NETWORK [NETWORK...]", nargs=-1, required=True, shell_complete=completion.networks)
@explainable
@click.pass_obj
def rm(client: Client, /, networks: Sequence[str], force: bool, explain: Explain) -> int:
    """Remove one or more networks"""

    def remove(name: str) -> None:
        try:
            explain.heard(client.call("DELETE", f"/networks/{segment(name)}", explain.query))
        except DaemonError as error:
            if not (force and error.status == 404):
                raise
            return
        explain.name(name)

    return each(networks, remove)


@network_command.command("connect", cls=Command)
@click.option("--ip", "address", default="", help="IPv4 address (e.g. 172.30.100.104)")
@click.option("--ip6", "address6", default="", help="IPv6 address")
@click.option("--alias", "aliases", multiple=True, help="Add a name for the container on this network")
@click.option("--link", "links", multiple=True, type=Value(options.link, "list"), help="Add a name for another container, CONTAINER:NAME")
@click.option("--link-local-ip", "link_local", multiple=True, help="Add a link-local address for the container")
@click.option("--driver-opt", "driver_options", multiple=True, help="Driver options")
@click.option("--gw-priority", "gateway_priority", type=Value(int, "int"), default=None, help="Highest priority gives the default gateway")
@click.argument("network", shell_complete=completion.networks)
@click.argument("container", shell_complete=completion.containers)
@explainable
@click.pass_obj
def connect(client: Client, /, network: str, container: str, explain: Explain, **given: Any) -> None:
    """Connect a container to a network"""
    addresses = {"IPv4Address": given["address"], "IPv6Address": given["address6"], "LinkLocalIPs": list(given["link_local"])}
    ipam = {key: value for key, value in addresses.items() if value}
    endpoint: dict[str, Any] = {
        "IPAMConfig": ipam,
        "Links": options.links(given["links"]),
        "Aliases": list(given["aliases"]),
        "DriverOpts": _driver_options(given["driver_options"]),
    }
    if given["gateway_priority"] is not None:
        endpoint["GwPriority"] = given["gateway_priority"]
    body = {"Container": container, "EndpointConfig": {key: value for key, value in endpoint.items() if value}}
    explain.heard(client.call("POST", f"/networks/{segment(network)}/connect", explain.query, body))


@network_command.command("disconnect", cls=Command)
@click.option("-f", "--force", is_flag=True, help="Force the container to disconnect from the network")
@click.argument("network", shell_complete=completion.networks)
@click.argument("container", shell_complete=completion.containers)
@explainable
@click.pass_obj
def disconnect(client: Client, /, network: str, container: str, force: bool, explain: Explain) -> None:
    """Disconnect a container from a network"""
    body = {"Container": container, "Force": force}
    explain.heard(client.call("POST", f"/networks/{segment(network)}/disconnect", explain.query, body))


@network_command.command("prune", cls=Command)
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--filter", "filters", multiple=True, type=Value(options.filter_pair, "filter"), help="Filter (e.g. until=24h)")
@explainable
@click.pass_obj
def prune(client: Client, /, force: bool, filters: list[tuple[str, str]], explain: Explain) -> None:
    """Remove all unused networks"""
    if not force and not explain.dry_run and not confirmed():
        return
    answer = client.call("POST", "/networks/prune", {**explain.query, **filters_query(options.filters(filters))})
    removed = answer.get("NetworksDeleted") or []
    if removed:
        explain.name("Deleted Networks:\n" + "\n".join(removed) + "\n")
    explain.heard(answer)


def confirmed() -> bool:
    click.echo("WARNING! This will remove all custom networks not used by at least one container.")
    click.echo("Are you sure you want to continue? [y/N] ", nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _driver_options(texts: Iterable[str]) -> dict[str, str]:
    """Failure for what is not `KEY=VALUE`: no misuse of a flag, as with Docker."""
    try:
        return dict(map(options.driver_option, texts))
    except ValueError:
        raise Failure("invalid key/value pair format in driver options") from None
