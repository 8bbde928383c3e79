"""Images from tarballs: unpacked safely, run on an overlay, tagged and removed by Docker's rules."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import lzma
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from netplug.errors import Conflict, Forbidden, InvalidArgument, NotFound
from netplug.runtime import mounts
from netplug.runtime.model import HOST_IMAGE, ContainerConfig
from netplug.runtime.syscalls import bind_read_only, unmount
from netplug.runtime.trees import remove_plain_tree, remove_tree
from tests.kernel.runtime_lab import BUSYBOX, Lab, laboratory


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with laboratory() as made, asyncio.timeout(60):
        yield made


def tarball(
    *more: tuple[tarfile.TarInfo, bytes], passwd: str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/home/web:/bin/sh\n"
) -> bytes:
    """A root file system: busybox and a passwd."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content, mode in (("bin/busybox", Path(BUSYBOX).read_bytes(), 0o755), ("etc/passwd", passwd.encode(), 0o644)):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
        for info, content in more:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


async def stream(data: bytes, piece: int = 40_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        yield data[start : start + piece]


def plain(data: bytes) -> bytes:
    return data


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info, b""


async def output_of(lab: Lab, config: ContainerConfig) -> str:
    container = await lab.containers.create("", config)
    waiting = lab.containers.wait(container.id, "next-exit")
    await lab.containers.start(container.id)
    await waiting
    return await lab.output(container.id)


def script(image: str, text: str, **options: object) -> ContainerConfig:
    fields: dict[str, object] = {"image": image, "network_mode": "none", "command": (BUSYBOX, "sh", "-c", text), **options}
    return ContainerConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("compress", [plain, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
async def test_an_image_is_what_was_in_the_tarball(lab: Lab, compress: Callable[[bytes], bytes]):
    data = compress(tarball())
    image = await lab.images.import_(stream(data), "box")
    assert image.id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert image.tags == ("box:latest",)
    assert image.size > os.path.getsize(BUSYBOX)
    assert lab.images.get("box") == lab.images.get("box:latest") == lab.images.get(image.id[7:19]) == image
    text = "cat /etc/hostname; echo new > /file; cat /file; ls /etc"
    expected = ["thebox", "new", "hostname", "hosts", "passwd", "resolv.conf"]
    assert (await output_of(lab, script("box", text, hostname="thebox"))).split() == expected
    assert not (lab.paths.image(image.id) / "file").exists()


async def test_the_image_s_changes_are_the_container_s_defaults(lab: Lab):
    changes = ('CMD ["/bin/busybox", "env"]', "ENV A=1 B='two words'", "ENV C three", "WORKDIR /srv/deep", "USER web", "EXPOSE 80 53/udp")
    image = await lab.images.import_(stream(tarball()), "box:1", changes)
    assert (image.exposed, image.working_directory) == (("80/tcp", "53/udp"), "/srv/deep")
    lines = (await output_of(lab, ContainerConfig(image="box:1", network_mode="none", environment=("A=9",)))).splitlines()
    assert {"A=9", "B=two words", "C=three", "HOME=/home/web"} <= set(lines)
    text = f"{BUSYBOX} pwd; {BUSYBOX} id -u; {BUSYBOX} id -g"
    assert (await output_of(lab, script("box:1", text))).split() == ["/srv/deep", "33", "44"]
    with pytest.raises(InvalidArgument, match=r"^VOLUME is not a valid change command$"):
        await lab.images.import_(stream(tarball()), "box:2", ["VOLUME /x"])


async def test_nothing_is_written_outside(lab: Lab):
    """Names that climb, links that lead out, and files through such links."""
    outside = lab.folder / "outside"
    outside.mkdir()
    bad = tarfile.TarInfo("../../climbed")
    with pytest.raises(InvalidArgument, match="cannot be unpacked"):
        await lab.images.import_(stream(tarball((bad, b"x"))), "bad")
    through = [link("way", str(outside)), (tarfile.TarInfo("way/through"), b"x")]
    with pytest.raises(InvalidArgument, match="cannot be unpacked"):
        await lab.images.import_(stream(tarball(*through)), "bad")
    absolute = await lab.images.import_(stream(tarball((tarfile.TarInfo(str(outside / "absolute")), b"x"))), "fine")
    assert list(outside.iterdir()) == []
    assert (lab.paths.image(absolute.id) / str(outside / "absolute").lstrip("/")).exists()
    assert [entry.name for entry in lab.paths.images.iterdir()] == [absolute.id[7:]]


async def test_what_is_no_tarball_is_refused(lab: Lab):
    for data in (b"", b"no tarball at all" * 100, gzip.compress(b"x" * 1000), tarball()[:700_000]):
        with pytest.raises(InvalidArgument, match="tarball"):
            await lab.images.import_(stream(data), "bad")
    with pytest.raises(InvalidArgument, match=r"^invalid reference format$"):
        await lab.images.import_(stream(tarball()), "Bad Name")
    assert [image.tags for image in lab.images.all()] == [(f"{HOST_IMAGE}:latest",)]
    assert list(lab.paths.images.iterdir()) == []


async def test_a_tag_moves_to_the_newer_image(lab: Lab):
    old = await lab.images.import_(stream(tarball()), "box")
    new = await lab.images.import_(stream(tarball(passwd="root:x:0:0::/:\n")), "box")
    assert lab.images.get("box") == new
    assert lab.images.get(old.id).tags == ()
    again = await lab.images.import_(stream(tarball()), "other:v1")
    assert (again.id, again.tags) == (old.id, ("other:v1",))
    await lab.restart()
    assert [image.tags for image in lab.images.all()] == [("other:v1",), ("box:latest",), ("host:latest",)]


async def test_an_image_in_use_stays(lab: Lab):
    image = await lab.images.import_(stream(tarball()), "box")
    container = await lab.containers.create("web", script("box", "true"))
    short = image.id[7:19]
    with pytest.raises(Conflict) as caught:
        await lab.images.remove("box")
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "box" (must force)'
        f" - container {container.id[:12]} is using its referenced image {short}"
    )
    with pytest.raises(Conflict, match=f"^conflict: unable to delete {short} .must be forced. - image is being used by stopped"):
        await lab.images.remove(short)
    removed = await lab.images.remove("box", force=True)
    assert (removed.untagged, removed.deleted) == (("box:latest",), ())
    assert await output_of(lab, script(image.id, "echo still")) == "still\n"
    for one in lab.containers.all():
        await lab.containers.remove(one.id)
    assert (await lab.images.remove(image.id)).deleted == (image.id,)
    assert list(lab.paths.images.iterdir()) == []
    with pytest.raises(NotFound, match=r"^No such image: box:latest$"):
        lab.images.get("box")


async def test_several_tags(lab: Lab):
    image = await lab.images.import_(stream(tarball()), "box")
    await lab.images.import_(stream(tarball()), "box:2")
    with pytest.raises(Conflict, match="image is referenced in multiple repositories"):
        await lab.images.remove(image.id)
    assert (await lab.images.remove("box")).untagged == ("box:latest",)
    assert lab.images.get("box:2").tags == ("box:2",)
    with pytest.raises(NotFound):
        lab.images.get("box")


async def test_the_host_image_is_always_there_and_stays(lab: Lab):
    host = lab.images.get(HOST_IMAGE)
    assert lab.images.all() == [host]
    with pytest.raises(Forbidden):
        await lab.images.remove(HOST_IMAGE)
    with pytest.raises(Forbidden):
        await lab.images.import_(stream(tarball()), HOST_IMAGE)


async def test_changes_survive_a_stop_and_go_with_the_container(lab: Lab):
    await lab.images.import_(stream(tarball()), "box")
    container = await lab.containers.create("web", script("box", "if [ -e /kept ]; then cat /kept; else echo yes > /kept; fi"))
    for _ in range(2):
        waiting = lab.containers.wait("web", "next-exit")
        await lab.containers.start("web")
        await waiting
    assert await lab.output("web") == "yes\n"
    await lab.containers.remove("web")
    assert not lab.paths.record(container.id).exists()


async def test_a_name_in_the_image_that_leads_out_reads_nothing_of_the_host(lab: Lab):
    """A passwd that is a link to the host's would say who is who on the host."""
    secret = lab.folder / "secret"
    secret.write_text("spy:x:77:77::/:\n")
    escape = link("etc/group", "../../../../../../.." + str(secret))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(link("etc/passwd", str(secret))[0])
        archive.addfile(escape[0])
        info = tarfile.TarInfo("bin/busybox")
        info.size, info.mode = os.path.getsize(BUSYBOX), 0o755
        archive.addfile(info, io.BytesIO(Path(BUSYBOX).read_bytes()))
    await lab.images.import_(stream(packed.getvalue()), "sly")
    await lab.containers.create("web", script("sly", "true", user="spy"))
    with pytest.raises(InvalidArgument, match=r"^unable to find user spy: no matching entries in passwd file$"):
        await lab.containers.start("web")


def test_nothing_is_deleted_through_a_mount(tmp_path: Path):
    """The danger of the host image: its mount shows the host's own files."""
    precious, doomed = tmp_path / "precious", tmp_path / "doomed"
    (precious / "deep").mkdir(parents=True)
    (precious / "deep" / "file").write_text("keep me")
    (doomed / "inner" / "place").mkdir(parents=True)
    bind_read_only(str(precious), str(doomed / "inner" / "place"))
    try:
        assert mounts.at_or_below(doomed) == [str(doomed / "inner" / "place")]
        with pytest.raises(Exception, match=r"will not delete .* is mounted"):
            remove_tree(doomed)
        with pytest.raises(OSError, match=r"cross-device|busy"):
            remove_plain_tree(doomed)
    finally:
        for point in mounts.at_or_below(tmp_path):
            unmount(point)
    assert (precious / "deep" / "file").read_text() == "keep me"
    remove_tree(doomed)
    assert not doomed.exists()
