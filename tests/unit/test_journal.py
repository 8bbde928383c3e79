"""The journal's file: lines are written together where they come together, and none is left behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from netplug.kernel import journal as module
from netplug.kernel.journal import Journal


@pytest.fixture
def writes(monkeypatch) -> list[bytes]:
    made: list[bytes] = []
    write = os.write

    def noted(file: int, data: bytes) -> int:
        made.append(data)
        return write(file, data)

    monkeypatch.setattr(module.os, "write", noted)
    return made


def subjects(path: Path) -> list[str]:
    journal = Journal(path)
    found = [entry.subject for entry in journal.entries()]
    journal.close()
    return found


async def test_what_is_recorded_in_one_turn_is_one_write(tmp_path, writes):
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(3):
        journal.record("connect", f"c{number}", ())
    assert [entry.subject for entry in journal.entries()] == ["c0", "c1", "c2"]
    await asyncio.sleep(0)
    journal.record("connect", "c3", ())
    await asyncio.sleep(0)
    written = [lines for lines in writes if lines.startswith(b"{")]  # the loop wakes itself by os.write, perhaps
    assert [lines.count(b"\n") for lines in written] == [3, 1]
    assert subjects(tmp_path / "journal.jsonl") == ["c0", "c1", "c2", "c3"]
    journal.close()


async def test_what_waits_is_written_at_the_end(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record("connect", "last", ())
    journal.close()
    await asyncio.sleep(0)
    assert subjects(tmp_path / "journal.jsonl") == ["last"]


def test_without_a_loop_each_is_written_at_once(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(2):
        journal.record("connect", f"c{number}", ())
        assert subjects(tmp_path / "journal.jsonl")[-1] == f"c{number}"
    journal.close()


async def test_it_is_turned_over_when_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_FILE", 500)
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(12):
        journal.record("connect", f"c{number}", ())
        await asyncio.sleep(0)
    journal.close()
    kept = subjects(tmp_path / "journal.jsonl.1") + subjects(tmp_path / "journal.jsonl")
    assert kept == sorted(kept, key=lambda text: int(text[1:]))
    assert kept[-1] == "c11"
