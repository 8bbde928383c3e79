"""`netplug install docker|systemd`: the files that make netplug a service, and the Docker Engine's plugin; `--uninstall` removes them.

What it writes carries a mark in its first line. A file without it is somebody else's: it is neither written over nor removed. Directories
that had to be made for a file are named in its first line, too, and go with it when nothing else is in them. Nothing is started or stopped.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import click

from netplug.cli.command import Command, Failure

MARK = "# Written by netplug install"
PLUGIN = "/run/docker/plugins/netplug.sock"
AWAY = Path("etc/docker/plugins/netplug.json")
"""Where the engine looks if there is no socket: it says at once that nobody is there, and the engine does not ask again for 15 s."""
SOCKET = "netplug-docker.socket"
UNITS = Path("etc/systemd/system")

_MADE = re.compile(r" \(made with it: ([^)]*)\)")
_REMOVES = "--uninstall removes it"
"""In each first line; directories follow it, by their paths below the root."""

Files = dict[Path, str]
"""By path below the root: what is in it."""


def systemd(program: str) -> Files:
    """The service, run from where this command is."""
    unit = files("netplug.cli").joinpath("netplug.service").read_text()
    return {UNITS / "netplug.service": _marked("systemd", unit.replace("/usr/local/bin/netplug", program))}


def docker(program: str) -> Files:
    """The plugin's socket, which is there before the engine looks for it and while netplug is down, and the service with it."""
    plugin = f"[Unit]\nRequires={SOCKET}\nAfter={SOCKET}\n\n[Service]\nEnvironment=NETPLUG_DOCKER=--docker-plugin={PLUGIN}\n"
    engine = f"[Unit]\nAfter={SOCKET}\nWants={SOCKET} netplug.service\n"
    return {
        UNITS / SOCKET: _marked("docker", files("netplug.cli").joinpath(SOCKET).read_text()),
        UNITS / "netplug.service.d/docker.conf": _marked("docker", plugin),
        UNITS / "docker.service.d/netplug.conf": _marked("docker", engine),
        AWAY: away(),
    }


def away() -> str:
    """A plugin's specification that cannot be used: its certificate is the socket that is missing, so that the engine's error names it."""
    written = f"{MARK} docker: read by the Docker Engine while netplug has no socket; netplug install docker {_REMOVES}"
    address = {"Name": "netplug", "Addr": "https://localhost", "TLSConfig": {"CAFile": PLUGIN}}
    return json.dumps({"Comment": written}).removesuffix("}") + ",\n" + json.dumps(address).removeprefix("{") + "\n"


WHAT: dict[str, Callable[[str], Files]] = {"docker": docker, "systemd": systemd}
AFTERWARDS = {
    "docker": "Now: systemctl daemon-reload && systemctl restart netplug\n"
    "Then: docker network create -d netplug --ipam-driver netplug demo",
    "systemd": "Now: systemctl daemon-reload && systemctl enable --now netplug",
}


@click.command("install", cls=Command)
@click.argument("what", metavar="docker|systemd")
@click.option("--uninstall", is_flag=True, help="Remove what was written")
@click.option("--dry-run", is_flag=True, help="Only say what would be written or removed")
@click.option("--root", "root", metavar="DIR", default="/", help="Below this directory instead of /")
def install_command(what: str, uninstall: bool, dry_run: bool, root: str) -> int:
    """Write what makes netplug a service (systemd), or the Docker Engine's plugin (docker)"""
    if what not in WHAT:
        raise Failure(f"netplug install: there is no {what}: docker or systemd is needed")
    if not Path(root).is_dir():
        raise Failure(f"netplug install: there is no directory {root}")
    wanted = WHAT[what](_program())
    for path in wanted:
        if (found := _read(Path(root) / path)) is not None and MARK not in found.partition("\n")[0]:
            raise Failure(f"netplug install: {Path(root) / path} was not written by this command: move it away first")
    if what == "docker" and not uninstall and _read(Path(root) / UNITS / "netplug.service") is None:
        click.echo("netplug is no service yet: netplug install systemd", err=True)
    try:
        for line in _removed(Path(root), wanted, dry_run) if uninstall else _written(Path(root), wanted, dry_run):
            click.echo(line)
    except OSError as error:
        raise Failure(f"netplug install: {error.filename}: {error.strerror}") from None
    if not dry_run:
        click.echo("Now: systemctl daemon-reload" if uninstall else AFTERWARDS[what])
    return 0


def _written(root: Path, wanted: Files, dry_run: bool) -> Iterator[str]:
    for path, text in wanted.items():
        target = root / path
        found = _read(target) or ""
        if _MADE.sub("", found, count=1) == text:
            yield f"{target} is there already"
            continue
        yield f"would write {target}:\n{text}" if dry_run else f"wrote {target}"
        if not dry_run:
            made = _made(found) or [folder for folder in path.parents if not (root / folder).exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_naming(text, made))
            target.chmod(0o644)


def _removed(root: Path, wanted: Files, dry_run: bool) -> Iterator[str]:
    """And the directories that were made for them, but for those that somebody has something in."""
    gone, made = set[Path](), set[Path]()
    for path in wanted:
        target = root / path
        if (found := _read(target)) is None:
            yield f"{target} is not there"
            continue
        yield f"would remove {target}" if dry_run else f"removed {target}"
        gone.add(target)
        made |= {root / folder for folder in _made(found)}
        if not dry_run:
            target.unlink()
    for folder in sorted(made, reverse=True):  # what is in a directory before it
        if folder.is_dir() and not set(folder.iterdir()) - gone:
            yield f"would remove {folder}" if dry_run else f"removed {folder}"
            gone.add(folder)
            if not dry_run:
                folder.rmdir()


def _naming(text: str, made: list[Path]) -> str:
    """With these directories in its first line."""
    return text.replace(_REMOVES, f"{_REMOVES} (made with it: {', '.join(map(str, made))})", 1) if made else text


def _made(text: str) -> list[Path]:
    """The opposite."""
    found = _MADE.search(text.partition("\n")[0])
    return list(map(Path, found[1].split(", "))) if found else []


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _marked(what: str, text: str) -> str:
    return f"{MARK} {what}: netplug install {what} {_REMOVES}.\n{text}"


def _program() -> str:
    """This command's path, as a service needs it."""
    found = shutil.which(sys.argv[0]) if Path(sys.argv[0]).name == "netplug" else shutil.which("netplug")
    beside = Path(sys.executable).with_name("netplug")
    return str(Path(found).absolute() if found else beside if beside.exists() else "/usr/local/bin/netplug")
