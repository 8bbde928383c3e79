"""`netplug image …` and `netplug images`: root file systems."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

import click

from netplug.cli import completion, options, units
from netplug.cli.client import Client, filters_query, segment
from netplug.cli.command import FORMAT_HELP, Command, Explain, Failure, Group, Value, explainable
from netplug.cli.several import each
from netplug.cli.tables import Row, print_list

HEADINGS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
}
_CHUNK = 65536


@click.group("image", cls=Group)
def image_command() -> None:
    """Manage images: root file systems imported from tarballs, and `host`, the host's own, read-only"""


def _listing(name: str) -> Any:
    """`image ls`, which `images` is too."""

    @click.command(name, cls=Command)
    @click.option("-a", "--all", "everything", is_flag=True, help="Show all images")
    @click.option("-q", "--quiet", is_flag=True, help="Only print image ids")
    @click.option("--no-trunc", is_flag=True, help="Do not cut ids")
    @click.option("-f", "--filter", "filters", multiple=True, type=Value(options.filter_pair, "filter"), help="Filter (e.g. label=KEY)")
    @click.option("--format", "template", default="", help=FORMAT_HELP)
    @click.argument("repository", metavar="[REPOSITORY[:TAG]]", required=False, shell_complete=completion.images)
    @click.pass_obj
    def listing(client: Client, repository: str | None, everything: bool, quiet: bool, no_trunc: bool, filters: Any, template: str) -> None:
        """List images"""
        wanted = options.filters([*filters, *([("reference", repository)] if repository else [])])
        query = {**({"all": "1"} if everything else {}), **filters_query(wanted)}
        rows = [row for item in client.call("GET", "/images/json", query) for row in _rows(item, no_trunc)]
        print_list(rows, HEADINGS, ("Repository", "Tag", "ID", "CreatedSince", "Size"), template, quiet)

    return listing


images_command = _listing("images")
image_command.add_command(_listing("ls"))


def _rows(item: dict[str, Any], whole_id: bool) -> Iterator[Row]:
    identity = str(item.get("Id", ""))
    created = int(item.get("Created") or 0)
    for tag in item.get("RepoTags") or ["<none>:<none>"]:
        repository, _, version = tag.rpartition(":")
        yield {
            "CreatedAt": units.unix_time(created) if created > 0 else "N/A",
            "CreatedSince": units.age(created) if created > 0 else "N/A",
            "Digest": "<none>",
            "ID": identity if whole_id else identity.removeprefix("sha256:")[:12],
            "Repository": repository or version,
            "Size": units.human_size(item.get("Size") or 0),
            "Tag": version if repository else "latest",
        }


@image_command.command("import", cls=Command)
@click.option("-c", "--change", "changes", multiple=True, help="Dockerfile instruction for the image, such as CMD or ENV")
@click.option("-m", "--message", default="", help="Commit message")
@click.argument("file", metavar="FILE|-")
@click.argument("repository", metavar="[REPOSITORY[:TAG]]", required=False)
@explainable
@click.pass_obj
def import_image(client: Client, /, file: str, repository: str | None, changes: Sequence[str], message: str, explain: Explain) -> None:
    """Import the contents of a tarball as a root file system"""
    from urllib.parse import urlencode

    name, _, tag = (repository or "").partition(":")
    named = file if file == "-" else os.path.abspath(file)
    pairs = [("fromSrc", "-"), ("repo", name), ("tag", tag), ("message", message)]
    if explain.query:
        pairs += [("source", named), *explain.query.items()]
    query = urlencode([(key, value) for key, value in pairs if value] + [("changes", change) for change in changes])
    with _opened(file) as source:
        answer = client.open("POST", f"/images/create?{query}", stream=_blocks(source))
        for line in answer.lines():
            if error := line.get("error"):
                raise Failure(str(error))
            explain.heard(line)
            if status := line.get("status"):
                click.echo(str(status))


def _opened(file: str) -> IO[bytes]:
    if file == "-":
        return sys.stdin.buffer
    try:
        return open(file, "rb")
    except OSError as error:
        raise Failure(f"open {file}: {(error.strerror or str(error)).lower()}") from None


def _blocks(source: IO[bytes]) -> Iterator[bytes]:
    while block := source.read(_CHUNK):
        yield block


@image_command.command("rm", cls=Command)
@click.option("-f", "--force", is_flag=True, help="Force removal of the image")
@click.option("--no-prune", is_flag=True, hidden=True)
@click.argument("images", metavar="IMAGE [IMAGE...]", nargs=-1, required=True, shell_complete=completion.images)
@explainable
@click.pass_obj
def rm(client: Client, /, images: Sequence[str], force: bool, no_prune: bool, explain: Explain) -> int:
    """Remove one or more images"""

    def remove(name: str) -> None:
        answer = client.call("DELETE", f"/images/{segment(name)}", {**({"force": "1"} if force else {}), **explain.query})
        if isinstance(answer, dict):
            explain.heard(answer)
            answer = answer.get("Removed", [])
        for item in answer:
            for kind, what in item.items():
                click.echo(f"{kind}: {what}")

    return each(images, remove)
