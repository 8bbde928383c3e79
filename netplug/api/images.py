"""/images: root file systems, imported from tarballs. Nothing is pulled from anywhere."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import AsyncIterator

from aiohttp import web

from netplug.api import filters, views
from netplug.api.call import JSON, Call, json_line, open_stream, planned, reply
from netplug.api.routes import delete, get, post
from netplug.errors import InvalidArgument, NotFound
from netplug.runtime.model import Image

KEYS = frozenset({"reference", "dangling", "label", "id"})
CHUNK = 256 << 10

GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture() -> str:
    """The machine's, in Go's words, which Docker's JSON uses."""
    machine = platform.machine()
    return GO_ARCHITECTURES.get(machine, machine)


async def list_images(call: Call) -> web.Response:
    wanted = call.filters(KEYS)
    found = [image for image in call.services.images.all() if _keeps(image, wanted)]
    return reply([views.image_line(image) for image in sorted(found, key=lambda image: image.created, reverse=True)])


async def inspect(call: Call) -> web.Response:
    return reply(views.image(call.services.images.get(call.name), architecture()))


async def create(call: Call) -> web.StreamResponse:
    """`import -`: the body is the tarball. Everything else would be a download."""
    source, image = call.query.get("fromSrc", ""), call.query.get("fromImage", "")
    if image:
        raise NotFound(
            f"pull access denied for {image}, repository does not exist: netplug pulls nothing,"
            " import a root file system with `netplug image import`"
        )
    if source != "-":
        raise InvalidArgument(f"cannot import from {source!r}: netplug downloads nothing, give the tarball itself (fromSrc=-)")
    images, named = call.services.images, call.query.get("source", "-")
    if call.dry_run:
        return planned(images.explain_import(await _digest(call), named))
    imported = await images.import_(_body(call), _repository(call), tuple(call.http.query.getall("changes", [])))
    response = await open_stream(call, JSON)
    await response.write(json_line({"status": imported.id}))
    if call.explain:
        await response.write(json_line({"Explain": images.explain_import(imported.id.removeprefix("sha256:"), named)}))
    return response


async def remove(call: Call) -> web.Response:
    """Docker's answer is a list; where commands are asked for, it is a member beside them."""
    images, force = call.services.images, call.flag("force")
    lines = images.explain_removal(call.name, force=force) if call.dry_run or call.explain else []
    if call.dry_run:
        return planned(lines)
    removed = await images.remove(call.name, force=force)
    answer = [*({"Untagged": tag} for tag in removed.untagged), *({"Deleted": identity} for identity in removed.deleted)]
    return planned(lines, {"Removed": answer}) if call.explain else reply(answer)


async def _digest(call: Call) -> str:
    digest = hashlib.sha256()
    async for chunk in _body(call):
        digest.update(chunk)
    return digest.hexdigest()


async def _body(call: Call) -> AsyncIterator[bytes]:
    async for chunk in call.http.content.iter_chunked(CHUNK):
        yield chunk


def _repository(call: Call) -> str:
    repository, tag = call.query.get("repo", ""), call.query.get("tag", "")
    return f"{repository}:{tag}" if repository and tag else repository


def _keeps(image: Image, wanted: filters.Filters) -> bool:
    tags = image.tags
    names = {name for tag in tags for name in (tag, tag.removesuffix(":latest"), tag.rpartition(":")[0])}
    return (
        ("reference" not in wanted or any(reference in names for reference in wanted["reference"]))
        and all(filters.boolean("dangling", value) == (not tags) for value in wanted.get("dangling", ()))
        and filters.has_labels({}, wanted.get("label", ()))
        and ("id" not in wanted or filters.matches(image.id, wanted["id"]))
    )


ROUTES = [
    get("/images/json", list_images),
    get("/images/{name}/json", inspect),
    post("/images/create", create),
    delete("/images/{name}", remove),
]
