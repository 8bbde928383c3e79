"""`netplug version`, `completion` and `demo`."""

from __future__ import annotations

import json
import platform
from typing import Any

import click

from netplug import __version__
from netplug.cli import completion
from netplug.cli.client import Client
from netplug.cli.command import FORMAT_HELP, Command, Failure

API_VERSION = "1.47"


@click.command("version", cls=Command)
@click.option("-f", "--format", "template", default="", help=FORMAT_HELP)
@click.pass_obj
def version_command(client: Client, template: str) -> int:
    """Show the version of the command and of the daemon"""
    ours = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": platform.machine(),
    }
    server: dict[str, Any] | None = None
    failure: Failure | None = None
    try:
        server = client.call("GET", "/version")
    except Failure as error:
        failure = error
    versions = {"Client": ours, "Server": server}
    if template == "json":
        click.echo(json.dumps(versions, ensure_ascii=False, separators=(",", ":")))
    elif template:
        from netplug.cli.tables import Inspection  # templates: not for those who only want to see the version

        Inspection(template).show([versions])
    else:
        _show(ours, server)
    if failure:
        raise failure
    return 0


def _show(ours: dict[str, str], server: dict[str, Any] | None) -> None:
    lines = {
        "Version": ours["Version"],
        "API version": ours["ApiVersion"],
        "Python version": ours["PythonVersion"],
        "OS/Arch": f"{ours['Os']}/{ours['Arch']}",
    }
    click.echo("Client:\n" + _block(lines, 1))
    if server is None:
        return
    name = (server.get("Platform") or {}).get("Name") or "Engine"
    least = server.get("MinAPIVersion", "")
    theirs = {
        "Version": server.get("Version", ""),
        "API version": f"{server.get('ApiVersion', '')} (minimum version {least})",
        "Kernel version": server.get("KernelVersion", ""),
        "OS/Arch": f"{server.get('Os', '')}/{server.get('Arch', '')}",
    }
    click.echo(f"\nServer:\n {name}:\n" + _block(theirs, 2))


def _block(lines: dict[str, Any], indent: int) -> str:
    return "\n".join(f"{' ' * indent}{name + ':':<{20 - indent}}{value}" for name, value in lines.items())


@click.command("completion", cls=Command)
@click.argument("shell", metavar="bash|zsh|fish", shell_complete=completion.shells)
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete our commands, flags and names (e.g. source <(netplug completion bash))"""
    if shell not in completion.SHELLS:
        raise Failure(f"unknown shell: {shell}\nSee 'netplug completion --help'.")
    click.echo(completion.script(shell, ctx.find_root().command))


@click.command("demo", cls=Command)
@click.option("--cluster", is_flag=True, help="Two hosts, and one network on both over etcd")
@click.option("--docker", is_flag=True, help="netplug beside a dockerd, whose plugin it is")
@click.option("--keep", is_flag=True, help="Leave it up, and say what to try")
@click.option("--stop", is_flag=True, help="End one that was kept")
def demo_command(cluster: bool, docker: bool, keep: bool, stop: bool) -> int:
    """Build a small network on a host of its own, prove what it does, and clean up"""
    from netplug.cli import demo, demo_cluster, demo_docker, demo_stage

    if stop:
        return demo_stage.stop()
    if docker and (cluster or keep):
        raise Failure("netplug demo: --docker stands alone: it cannot be kept, and has no cluster")
    if docker:
        return demo_docker.run()
    return demo_cluster.run(keep) if cluster else demo.run(keep)
