"""Records of containers and images in a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netplug.errors import Ambiguous, Conflict, NotFound
from netplug.model import encode
from netplug.runtime.images import Images
from netplug.runtime.model import Container, ContainerConfig, Image
from netplug.runtime.records import Records
from netplug.store import PREFIX, Put
from netplug.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "db")
    yield opened
    await opened.close()


def container(digit: str, name: str, tail: str = "") -> Container:
    return Container(id=(digit * 62 + tail).ljust(64, digit), name=name, created=f"2026-{digit}", config=ContainerConfig(image="host"))


async def test_lookup_by_id_name_and_prefix(store: SqliteStore):
    records = Records(store)
    one, other, third = container("a", "web"), container("a", "db", "bb"), container("c", "aaa")
    for each in (one, other, third):
        await records.add(each)
    assert records.get(one.id) == records.get("web") == records.get("/web") == one
    assert records.get("c") == third
    assert records.get("aaa") == third, "a name goes before a prefix"
    with pytest.raises(Ambiguous, match=r"^Multiple IDs found with provided prefix: aaaa$"):
        records.get("aaaa")
    for nothing in ("", "/", "zzz"):
        with pytest.raises(NotFound, match=f"^No such container: {nothing}$"):
            records.get(nothing)


async def test_they_outlive_the_process(store: SqliteStore):
    records = Records(store)
    kept, gone = container("a", "web"), container("b", "db")
    await records.add(kept)
    await records.add(gone)
    await records.remove(gone)
    again = Records(store)
    await again.load()
    assert again.all() == [kept]
    await again.add(container("d", "db"))
    with pytest.raises(Conflict, match="already in use"):
        await records.add(container("e", "db"))


async def test_an_image_s_prefix_must_be_unique(store: SqliteStore, tmp_path: Path):
    ids = ["ab" * 32, "ac" * 32]
    for identity in ids:
        await store.txn((), [Put(f"{PREFIX}images/{identity}", encode(Image(id=f"sha256:{identity}", tags=(f"t{identity[1]}:1",))))])
    images = Images(store, tmp_path)
    await images.load()
    assert images.get("ab").id == images.get("sha256:ab").id == images.get("tb:1").id == f"sha256:{ids[0]}"
    with pytest.raises(NotFound, match=r"^No such image: a:latest$"):
        images.get("a")
    await store.txn((), [Put(f"{PREFIX}images/{'ad' + ids[0][2:]}", encode(Image(id=f"sha256:{'ad' + ids[0][2:]}")))])
    await store.txn((), [Put(f"{PREFIX}images/{'adff' + ids[0][4:]}", encode(Image(id=f"sha256:{'adff' + ids[0][4:]}")))])
    await images.load()
    with pytest.raises(Ambiguous, match=r"^image ad is ambiguous"):
        images.get("ad")


async def test_what_an_import_that_was_cut_short_left_is_removed(store: SqliteStore, tmp_path: Path):
    (tmp_path / "images" / "incoming-1" / "etc").mkdir(parents=True)
    await Images(store, tmp_path).load()
    assert list((tmp_path / "images").iterdir()) == []
