"""Images: root file systems imported from a tarball, and `host`.

An image is a folder that is the lower layer of its containers' overlays, and a record at `images/<id>`. A tag leads to one image; importing
under a tag that exists moves the tag, and the older image stays without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shlex
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from netplug.errors import Ambiguous, Conflict, Forbidden, InvalidArgument, NotFound
from netplug.model import encode, now
from netplug.runtime import tarball
from netplug.runtime.changes import apply_changes
from netplug.runtime.model import HOST_IMAGE, Container, Image
from netplug.runtime.trees import remove_tree
from netplug.store import PREFIX, Delete, Put, Store, Write

HOST_WARNING = "image host is this machine's own file system, read-only: its containers can read every file of the host"
"""To be said whenever a container is made from the `host` image."""

_HOST = Image(
    id="sha256:" + hashlib.sha256(HOST_IMAGE.encode()).hexdigest(), tags=(f"{HOST_IMAGE}:latest",), created="1970-01-01T00:00:00Z"
)


class Removed(msgspec.Struct, frozen=True):
    """What `remove` did."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


class Images:
    """All images of this host. `users` gives the containers made from an image; whoever keeps containers sets it."""

    def __init__(self, store: Store, state_dir: Path) -> None:
        self._store, self._folder = store, state_dir / "images"
        self._images: dict[str, Image] = {}
        self.users: Callable[[str], Iterable[Container]] = lambda identity: ()

    async def load(self) -> None:
        """Read the records; remove what an import that was cut short has left."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _, found = await self._store.range(f"{PREFIX}images/")
        self._images = {image.id: image for image in (msgspec.json.decode(item.value, type=Image) for item in found)}
        for folder in self._folder.iterdir():
            if f"sha256:{folder.name}" not in self._images:
                remove_tree(folder)

    def all(self) -> list[Image]:
        """Newest first; `host` last."""
        return [*sorted(self._images.values(), key=lambda image: image.created, reverse=True), _HOST]

    def get(self, reference: str) -> Image:
        """By `repository[:tag]`, id, or unique prefix of an id. `host` is the host's file system: pass HOST_WARNING on."""
        tag = with_tag(reference)
        for image in self.all():
            if tag in image.tags or image.id == reference:
                return image
        prefix = reference.removeprefix("sha256:")
        fits = [image for image in self.all() if re.fullmatch(r"[0-9a-f]{2,64}", prefix) and image.id[7:].startswith(prefix)]
        if len(fits) > 1:
            raise Ambiguous(f"image {reference} is ambiguous: {len(fits)} ids begin like this")
        if not fits:
            raise NotFound(f"No such image: {tag}")
        return fits[0]

    async def import_(self, stream: AsyncIterator[bytes], repository: str, changes: Sequence[str] = ()) -> Image:
        """Unpack a tarball (plain, gzip, xz, bzip2 or zstd). `repository` may carry a tag; `""` leaves the image without one.

        `changes` are Dockerfile lines: CMD, ENTRYPOINT, ENV, EXPOSE, USER, WORKDIR.
        """
        tag = _valid_tag(repository) if repository else ""
        if tag == _HOST.tags[0]:
            raise Forbidden(f"{HOST_IMAGE} is the host's own file system: choose another name")
        blank = apply_changes(Image(id="", created=now()), changes)
        unpacked = await tarball.unpack(stream, self._folder)
        identity = f"sha256:{unpacked.digest}"
        known = self._images.get(identity)
        if known is None:
            unpacked.folder.rename(self._folder / unpacked.digest)
        else:
            remove_tree(unpacked.folder)
        tags = (*(known.tags if known else ()), *((tag,) if tag else ()))
        image = msgspec.structs.replace(blank, id=identity, size=unpacked.size, tags=tuple(dict.fromkeys(tags)))
        await self._write([image, *self._without(tag, identity)])
        return image

    def explain_import(self, digest: str, source: str) -> list[str]:
        """The commands that unpack `source`, a file's name or `-`, to where its image lies."""
        folder = shlex.quote(str(self._folder / digest))
        return [f"mkdir -p {folder}", f"tar --extract --numeric-owner --directory {folder} --file {shlex.quote(source)}"]

    def explain_removal(self, reference: str, *, force: bool = False) -> list[str]:
        """The command that deletes its files; none where only a tag goes."""
        image, _, kept, users = self._going(reference, force)
        return [] if kept or users else [f"rm -r {shlex.quote(str(self._folder / image.id.removeprefix('sha256:')))}"]

    async def remove(self, reference: str, *, force: bool = False) -> Removed:
        """Take the tag away; with the last tag goes the image, unless (with force) containers still use it."""
        image, gone, kept, users = self._going(reference, force)
        if kept or users:
            await self._write([msgspec.structs.replace(image, tags=kept)])
            return Removed(untagged=gone)
        await self._store.txn((), [Delete(_key(image.id))])
        del self._images[image.id]
        await asyncio.to_thread(remove_tree, self._folder / image.id.removeprefix("sha256:"))
        return Removed(untagged=gone, deleted=(image.id,))

    def _going(self, reference: str, force: bool) -> tuple[Image, tuple[str, ...], tuple[str, ...], list[Container]]:
        """What a removal takes: the image, the tags that go, those that stay, and its users if there are any; raises if it may not be."""
        image = self.get(reference)
        if image.id == _HOST.id:
            raise Forbidden(f"conflict: unable to remove {HOST_IMAGE}: it is the host's own file system")
        by_tag = with_tag(reference) in image.tags
        if not by_tag and len(image.tags) > 1 and not force:
            raise Conflict(f"conflict: unable to delete {short(image)} (must be forced) - image is referenced in multiple repositories")
        gone = (with_tag(reference),) if by_tag else image.tags
        kept = tuple(tag for tag in image.tags if tag not in gone)
        users = [] if kept else list(self.users(image.id))
        if users and not force:
            raise _in_use(reference, image, users[0], by_tag)
        return image, gone, kept, users

    def _without(self, tag: str, keeper: str) -> list[Image]:
        """Other images that have the tag, as they are after losing it."""
        others = [image for image in self._images.values() if tag and tag in image.tags and image.id != keeper]
        return [msgspec.structs.replace(image, tags=tuple(one for one in image.tags if one != tag)) for image in others]

    async def _write(self, images: Sequence[Image]) -> None:
        writes: list[Write] = [Put(_key(image.id), encode(image)) for image in images]
        await self._store.txn((), writes, durable=True)
        self._images.update({image.id: image for image in images})


def is_host(identity: str) -> bool:
    return identity == _HOST.id


def short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]


def with_tag(reference: str) -> str:
    """`name` is `name:latest`; a colon before a slash belongs to a registry's port."""
    return reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"


def _valid_tag(repository: str) -> str:
    tag = with_tag(repository)
    name, _, version = tag.rpartition(":")
    if not re.fullmatch(r"[a-z0-9]+([._-]+[a-z0-9]+)*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*", name) or not re.fullmatch(
        r"\w[\w.-]{0,127}", version
    ):
        raise InvalidArgument("invalid reference format")
    return tag


def _in_use(reference: str, image: Image, user: Container, by_tag: bool) -> Conflict:
    if by_tag:
        return Conflict(
            f'conflict: unable to remove repository reference "{reference}" (must force)'
            f" - container {user.id[:12]} is using its referenced image {short(image)}"
        )
    state = "running" if user.status == "running" else "stopped"
    return Conflict(f"conflict: unable to delete {short(image)} (must be forced) - image is being used by {state} container {user.id[:12]}")


def _key(identity: str) -> str:
    return f"{PREFIX}images/{identity.removeprefix('sha256:')}"
