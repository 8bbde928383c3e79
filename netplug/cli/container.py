"""Containers as they are: `netplug ps`, `inspect`, `logs`, `port`, and their end: `stop`, `kill`, `rm`, `wait`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from netplug.cli import completion, options, ports, units
from netplug.cli.client import Client, DaemonError, filters_query, segment
from netplug.cli.command import FORMAT_HELP, INT, Command, Explain, Failure, Value, explainable
from netplug.cli.several import each
from netplug.cli.tables import Inspection, Row, label_method, print_list

HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Labels": "LABELS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
}
_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_CONTAINERS = click.argument(
    "containers", metavar="CONTAINER [CONTAINER...]", nargs=-1, required=True, shell_complete=completion.containers
)
_RUNNING = click.argument("containers", metavar="CONTAINER [CONTAINER...]", nargs=-1, required=True, shell_complete=completion.running)


@click.command("ps", cls=Command)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all containers (default shows just running)")
@click.option("-q", "--quiet", is_flag=True, help="Only display container IDs")
@click.option("-n", "--last", type=INT, default=-1, help="Show n last created containers (includes all states)")
@click.option("-l", "--latest", is_flag=True, help="Show the latest created container (includes all states)")
@click.option("--no-trunc", is_flag=True, help="Don't truncate output")
@click.option("-f", "--filter", "filters", multiple=True, type=Value(options.filter_pair, "filter"), help="Filter (e.g. status=running)")
@click.option("--format", "template", default="", help=FORMAT_HELP)
@click.pass_obj
def ps_command(client: Client, everything: bool, quiet: bool, last: int, latest: bool, no_trunc: bool, filters: Any, template: str) -> None:
    """List containers"""
    limit = 1 if latest else last
    query = {**({"all": "1"} if everything else {}), **({"limit": str(limit)} if limit > 0 else {})}
    found = client.call("GET", "/containers/json", {**query, **filters_query(options.filters(filters))})
    print_list([_row(item, no_trunc) for item in found], HEADINGS, _COLUMNS, template, quiet)


def _row(item: dict[str, Any], whole: bool) -> Row:
    labels = item.get("Labels") or {}
    names = [name.removeprefix("/") for name in item.get("Names") or []]
    created = int(item.get("Created") or 0)
    command = str(item.get("Command") or "")
    return {
        "Command": f'"{command if whole else ellipsis(command, 20)}"',
        "CreatedAt": units.unix_time(created),
        "ID": item["Id"] if whole else item["Id"][:12],
        "Image": str(item.get("Image") or "<no image>"),
        "Label": label_method(labels),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "LocalVolumes": "0",
        "Mounts": ",".join(str(mount.get("Name") or mount.get("Source") or "") for mount in item.get("Mounts") or []),
        "Names": ",".join(name for name in names if whole or "/" not in name),
        "Networks": ",".join(sorted((item.get("NetworkSettings") or {}).get("Networks") or {})),
        "Ports": ports.shown(item.get("Ports") or []),
        "RunningFor": units.age(created),
        "State": item.get("State", ""),
        "Status": item.get("Status", ""),
    }


def ellipsis(text: str, length: int) -> str:
    """The text, cut to `length` characters of which the last then is `…`."""
    return text if len(text) <= length else text[: length - 1] + "…"


@click.command("inspect", cls=Command)
@click.option("-f", "--format", "template", default="", help=FORMAT_HELP)
@click.option("--type", "kind", default="", help="Only objects of this type: container, network or image")
@click.argument("names", metavar="NAME|ID [NAME|ID...]", nargs=-1, required=True, shell_complete=completion.containers)
@click.pass_obj
def inspect_command(client: Client, template: str, kind: str, names: Sequence[str]) -> int:
    """Return low-level information on containers, networks and images"""
    kinds = {"container": "/containers/{}/json", "network": "/networks/{}", "image": "/images/{}/json"}
    if kind and kind not in kinds:
        raise Failure(f'"{kind}" is not a valid value for --type')
    view = Inspection(template)
    found: list[Any] = []
    failures: list[Failure] = []
    for name in names:
        try:
            found.append(_inspected(client, (kinds[kind],) if kind else tuple(kinds.values()), name))
        except DaemonError as error:
            missing = error.status == 404 and not kind
            failures.append(Failure(f"Error: No such object: {name}") if missing else error)
    view.show(found)
    for failure in failures:
        click.echo(failure.message, err=True)
    return 1 if failures else 0


def _inspected(client: Client, paths: Sequence[str], name: str) -> Any:
    """The first that there is; DaemonError of the last path if there is none."""
    *others, last = paths
    for path in others:
        try:
            return client.call("GET", path.format(segment(name)))
        except DaemonError as error:
            if error.status != 404:
                raise
    return client.call("GET", last.format(segment(name)))


@click.command("logs", cls=Command)
@click.option("-f", "--follow", is_flag=True, help="Follow log output")
@click.option("-n", "--tail", default="all", help="Number of lines to show from the end of the logs")
@click.option("--since", default="", help="Show logs since timestamp (2013-01-02T13:23:37Z) or relative (42m)")
@click.option("--until", default="", help="Show logs before a timestamp (2013-01-02T13:23:37Z) or relative (42m)")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps")
@click.option("--details", is_flag=True, hidden=True)
@click.argument("container", shell_complete=completion.containers)
@click.pass_obj
def logs_command(client: Client, /, container: str, tail: str, follow: bool, timestamps: bool, details: bool, **times: str) -> None:
    """Fetch the logs of a container"""
    from netplug.cli.streams import copy_out

    query = {"stdout": "1", "stderr": "1", "tail": tail}
    query |= {name: "1" for name, wanted in (("follow", follow), ("timestamps", timestamps)) if wanted}
    query |= moments(times)
    config = client.call("GET", f"/containers/{segment(container)}/json")["Config"]
    copy_out(client.open("GET", f"/containers/{segment(container)}/logs", query).chunks(), bool(config.get("Tty")))


def moments(times: dict[str, str]) -> dict[str, str]:
    """`--since` and `--until` as the API takes them."""
    found: dict[str, str] = {}
    for name, text in times.items():
        try:
            found |= {name: units.since(text)} if text else {}
        except ValueError as error:
            raise Failure(f'invalid value for "{name}": {error}') from None
    return found


@click.command("port", cls=Command)
@click.argument("container", shell_complete=completion.running)
@click.argument("port", metavar="[PRIVATE_PORT[/PROTO]]", required=False)
@click.pass_obj
def port_command(client: Client, container: str, port: str | None) -> None:
    """List port mappings or a specific mapping for the container"""
    mapping = _ports(client, container)
    if port is None:
        for line in ports.mapping_lines(mapping):
            click.echo(line)
        return
    number, _, protocol = port.partition("/")
    try:
        ports.port_range(number)
    except ports.PortError as error:
        raise Failure(f"Error: invalid port ({number}): {error}") from None
    found = ports.hosts(mapping.get(f"{number}/{protocol or 'tcp'}"))
    if not found:
        raise Failure(f"Error: No public port '{port}' published for {container}")
    click.echo("\n".join(found))


def _ports(client: Client, container: str) -> dict[str, Any]:
    """Of one of our containers, else of one of another engine's on our networks."""
    try:
        found = client.call("GET", f"/containers/{segment(container)}/json").get("NetworkSettings")
    except DaemonError as error:
        if error.status != 404:
            raise
        try:
            found = client.call("GET", f"/netplug/engines/containers/{segment(container)}")
        except DaemonError:
            raise error from None
    return dict((found or {}).get("Ports") or {})


@click.command("stop", cls=Command)
@click.option("-t", "--time", "--timeout", "seconds", type=INT, default=None, help="Seconds to wait before killing the container")
@click.option("-s", "--signal", "signal_name", default="", help="Signal to send to the container")
@_RUNNING
@explainable
@click.pass_obj
def stop_command(client: Client, /, containers: Sequence[str], seconds: int | None, signal_name: str, explain: Explain) -> int:
    """Stop one or more running containers"""
    query = {**({"t": str(seconds)} if seconds is not None else {}), **({"signal": signal_name} if signal_name else {}), **explain.query}

    def stop(name: str) -> None:
        explain.heard(client.call("POST", f"/containers/{segment(name)}/stop", query))
        explain.name(name)

    return each(containers, stop, at_once=True)


@click.command("kill", cls=Command)
@click.option("-s", "--signal", "signal_name", default="", help="Signal to send to the container")
@_RUNNING
@explainable
@click.pass_obj
def kill_command(client: Client, /, containers: Sequence[str], signal_name: str, explain: Explain) -> int:
    """Kill one or more running containers"""
    query = {**({"signal": signal_name} if signal_name else {}), **explain.query}

    def kill(name: str) -> None:
        explain.heard(client.call("POST", f"/containers/{segment(name)}/kill", query))
        explain.name(name)

    return each(containers, kill)


@click.command("rm", cls=Command)
@click.option("-f", "--force", is_flag=True, help="Force the removal of a running container (uses SIGKILL)")
@click.option("-v", "--volumes", is_flag=True, help="Remove anonymous volumes associated with the container")
@click.option("-l", "--link", is_flag=True, help="Remove the specified link")
@_CONTAINERS
@explainable
@click.pass_obj
def rm_command(client: Client, /, containers: Sequence[str], explain: Explain, **wanted: bool) -> int:
    """Remove one or more containers"""
    flags = {"force": "force", "volumes": "v", "link": "link"}
    query = {**{flag: "1" for name, flag in flags.items() if wanted[name]}, **explain.query}

    def remove(name: str) -> None:
        bare = name.strip("/")
        try:
            explain.heard(client.call("DELETE", f"/containers/{segment(bare)}", query))
        except DaemonError as error:
            if not (wanted["force"] and error.status == 404):
                raise
            click.echo(str(error), err=True)  # gone is what was wanted
            return
        explain.name(name)

    return each(containers, remove)


@click.command("wait", cls=Command)
@_RUNNING
@click.pass_obj
def wait_command(client: Client, containers: Sequence[str]) -> int:
    """Block until one or more containers stop, then print their exit codes"""

    def wait(name: str) -> None:
        answer = client.call("POST", f"/containers/{segment(name)}/wait")
        if message := (answer.get("Error") or {}).get("Message"):
            raise DaemonError(500, str(message))
        click.echo(json.dumps(answer.get("StatusCode", 0)))

    return each(containers, wait)
