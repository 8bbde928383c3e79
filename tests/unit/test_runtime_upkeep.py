"""What follows a change of a running container's network: its files, and its record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from netplug.controller.requests import ControllerEvent
from netplug.model import Endpoint
from netplug.runtime import upkeep as upkeep_module
from netplug.runtime.model import Container, ContainerConfig
from netplug.runtime.network_files import NetworkFiles
from netplug.runtime.records import Records
from netplug.runtime.upkeep import Upkeep
from netplug.runtime.waiting import Tasks
from netplug.store.sqlite import SqliteStore


class Files:
    """Notes whose files are brought up to date; `broken` ones cannot be."""

    def __init__(self) -> None:
        self.refreshed: list[str] = []
        self.broken: set[str] = set()
        self.enough = asyncio.Event()
        self.wanted = 1

    def refresh_files(self, container: Container) -> None:
        self.refreshed.append(container.name)
        if len(self.refreshed) >= self.wanted:
            self.enough.set()
        if container.name in self.broken:
            raise OSError("no space left on device")

    async def count(self, wanted: int) -> list[str]:
        """Who was refreshed, once there are so many."""
        self.wanted = wanted
        if len(self.refreshed) < wanted:
            self.enough.clear()
            await asyncio.wait_for(self.enough.wait(), 10)
        return self.refreshed


def container(name: str, *, status: str = "running", links: tuple[str, ...] = ()) -> Container:
    config = ContainerConfig(image="host", links=links)
    return Container(id=name * 64, name=name, created=name, config=config, status=status)  # type: ignore[arg-type]


def changed(name: str) -> ControllerEvent:
    endpoint = Endpoint(id="e" * 64, network="n" * 64, sandbox=name * 64, created="")
    return ControllerEvent(kind="endpoint", action="connect", endpoint=endpoint)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "db")
    yield opened
    await opened.close()


@pytest.fixture
async def records(store: SqliteStore) -> Records:
    found = Records(store)
    for each in (container("a"), container("b", links=("a",)), container("c"), container("d", status="exited")):
        await found.add(each)
    return found


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
async def upkeep(records: Records, files: Files) -> AsyncIterator[Upkeep]:
    tasks = Tasks()
    made = Upkeep(records, cast(NetworkFiles, files), tasks)
    yield made
    await made.close()
    await tasks.close()


async def stored(store: SqliteStore, name: str) -> Container:
    again = Records(store)
    await again.load()
    return again.get(name)


async def test_several_changes_are_one_writing_and_links_see_them(upkeep: Upkeep, files: Files):
    for _ in range(3):
        upkeep.network_changed(changed("a"))
    assert files.refreshed == []
    assert sorted(await files.count(2)) == ["a", "b"]


async def test_those_that_do_not_run_have_no_files_to_keep_up(upkeep: Upkeep, files: Files):
    upkeep.network_changed(changed("d"))
    await upkeep.close()
    assert files.refreshed == ["b"], "b has links, and runs"


async def test_a_few_at_a_time(upkeep: Upkeep, files: Files, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep_module, "AT_ONCE", 2)
    upkeep.all_files()
    await files.count(1)
    assert len(files.refreshed) == 2
    assert sorted(await files.count(3)) == ["a", "b", "c"]


async def test_one_that_cannot_be_written_does_not_stop_the_others(upkeep: Upkeep, files: Files, caplog: pytest.LogCaptureFixture):
    files.broken = {"a", "b", "c"}
    upkeep.all_files()
    assert sorted(await files.count(3)) == ["a", "b", "c"]
    assert "updating the network files of container a" in caplog.text


async def test_what_is_looked_at_is_shown_at_once_and_once(upkeep: Upkeep, files: Files, records: Records):
    upkeep.network_changed(changed("c"))
    upkeep.show(records.get("c"))
    upkeep.show(records.get("c"))
    upkeep.show(records.get("a"))
    assert files.refreshed == ["c"]


async def test_a_record_is_known_at_once_and_written_soon(upkeep: Upkeep, records: Records, store: SqliteStore):
    before, revision = records.get("a"), (await store.range(""))[0]
    for number in range(3):
        upkeep.record(msgspec.structs.replace(before, image_id=f"newer {number}"))
    assert records.get("a").image_id == "newer 2"
    assert await stored(store, "a") == before
    async with asyncio.timeout(10):
        async for events in store.watch("", revision + 1):
            assert [event.key for event in events] == [f"/netplug/v1/containers/{before.id}"]
            break
    assert await stored(store, "a") == records.get("a")


async def test_at_the_end_nothing_is_left(upkeep: Upkeep, records: Records, files: Files, store: SqliteStore):
    newer = msgspec.structs.replace(records.get("c"), image_id="newer")
    upkeep.record(newer)
    upkeep.network_changed(changed("c"))
    await upkeep.close()
    assert sorted(files.refreshed) == ["b", "c"]
    assert await stored(store, "c") == newer


async def test_the_record_of_one_that_has_ended_meanwhile_stays_as_its_end_wrote_it(upkeep: Upkeep, records: Records, store: SqliteStore):
    running = records.get("a")
    upkeep.record(running)
    await records.put(msgspec.structs.replace(running, status="exited"))
    await records.remove(records.get("a"))
    await upkeep.close()
    assert [item.key for item in (await store.range("/netplug/v1/containers/"))[1] if running.id in item.key] == []
