"""The `netplug` command: each subcommand speaks HTTP to the daemon, in the Docker Engine API's shapes; `lab` and `driver` need none.

A room for each subject (`network`, `node`, `container`, `running`, `image`, `ipam`, `journal`, `route`, `doctor`, `driver`, `capture`,
`events`, `system`, `daemon`, `install`), imported only when one of its commands is used: starting up is what a user of a command line waits
for. `command` holds what is common to all, `client` is the HTTP.

Exit codes: 0; what the container said (run, exec); 1; 64 for a template that cannot be read; 125 for a wrong flag, and for `run`
when the daemon fails; 126 and 127 when the container's command cannot be run, or is not there; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from netplug import __version__
from netplug.cli.client import Client
from netplug.cli.command import Failure, Group, Unread

_CONTAINER = {
    "attach": "running",
    "create": "running",
    "exec": "running",
    "inspect": "container",
    "kill": "container",
    "logs": "container",
    "port": "container",
    "ps": "container",
    "rm": "container",
    "run": "running",
    "start": "running",
    "stop": "container",
    "wait": "container",
}
_ROOMS = {
    **_CONTAINER,
    "capture": "capture",
    "completion": "system",
    "daemon": "daemon",
    "demo": "system",
    "doctor": "doctor",
    "driver": "driver",
    "events": "events",
    "explain": "doctor",
    "image": "image",
    "images": "image",
    "install": "install",
    "ipam": "ipam",
    "journal": "journal",
    "lab": "lab",
    "network": "network",
    "node": "node",
    "preflight": "preflight",
    "route": "route",
    "version": "system",
}


@click.group(cls=Group, rooms=_ROOMS)
@click.option("-H", "--host", metavar="unix://PATH", help="Daemon socket to connect to (NETPLUG_HOST)")
@click.version_option(__version__, "-v", "--version", prog_name="netplug", message="%(prog)s version %(version)s")
@click.pass_context
def program(ctx: click.Context, host: str | None) -> None:
    """One container network for every engine: networks, addresses, names, ports, and containers to try them with."""
    if ctx.invoked_subcommand not in ("daemon", "completion", "install"):
        ctx.obj = Client(host or "")


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; leaves with the exit code."""
    sys.exit(execute(args))


def execute(args: Sequence[str] | None = None) -> int:
    """Run one command line. Whatever goes wrong is one sentence on stderr, never a traceback (but with NETPLUG_DEBUG=1)."""
    try:
        code = program.main(args, prog_name="netplug", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Unread as failure:
        # What is still in the buffer must not be complained of by the interpreter when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failure.code
    except Failure as failure:
        return _fail(failure.message, failure.code)
    except click.UsageError as error:
        return _fail(error.format_message().rstrip("."), 125)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        if os.environ.get("NETPLUG_DEBUG"):
            raise
        return _fail(f"netplug: {type(error).__name__}: {error} (a mistake in netplug; NETPLUG_DEBUG=1 shows where)", 1)


def _fail(message: str, code: int) -> int:
    if message:
        click.echo(message, err=True)
    return code
