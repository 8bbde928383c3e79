"""Completing names on the command line: what the daemon has, asked while the user waits, so quick and silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from netplug.cli.client import Client

Completer = Callable[[click.Context, click.Parameter, str], list[str]]
SHELLS = ("bash", "zsh", "fish")


def _ask(ctx: click.Context, path: str, query: dict[str, str] | None = None) -> Any:
    try:
        return Client(str(ctx.find_root().params.get("host") or "")).call("GET", path, query)
    except (click.ClickException, OSError, ValueError):
        return []  # no daemon, no names: the shell must not hear of it


def _completer(names: Callable[[click.Context], list[str]]) -> Completer:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        given = ctx.params.get(param.name or "") or ()
        return [name for name in names(ctx) if name.startswith(incomplete) and name not in given]

    return complete


def _containers(ctx: click.Context, running: bool) -> list[str]:
    found = _ask(ctx, "/containers/json", {} if running else {"all": "1"})
    return sorted(name.removeprefix("/") for item in found for name in item.get("Names") or [] if name.count("/") == 1)


networks = _completer(lambda ctx: sorted(str(item["Name"]) for item in _ask(ctx, "/networks")))
containers = _completer(lambda ctx: _containers(ctx, running=False))
running = _completer(lambda ctx: _containers(ctx, running=True))
_anything = _completer(lambda ctx: ["host", *_containers(ctx, running=True), *sorted(str(one["Name"]) for one in _ask(ctx, "/networks"))])
nodes = _completer(lambda ctx: [str(item["Name"]) for item in (_ask(ctx, "/netplug/nodes") or {}).get("Nodes") or []])
images = _completer(lambda ctx: sorted(str(tag) for item in _ask(ctx, "/images/json") for tag in item.get("RepoTags") or []))


def capturable(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Of the arguments, only the first is a name: the others are a filter."""
    return [] if ctx.params.get(param.name or "") else _anything(ctx, param, incomplete)


def shells(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [shell for shell in SHELLS if shell.startswith(incomplete)]


def script(shell: str, program: click.Command) -> str:
    """What the shell has to source."""
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    if completion is None:
        raise click.UsageError(f"unknown shell: {shell}")
    return completion(program, {}, "netplug", "_NETPLUG_COMPLETE").source()
