"""Labs run in a directory of the test's own, and are gone afterwards whatever happened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug.labs.session import Session
from tests.labs.traces import written


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests make namespaces: without root they are skipped, with the reason."""
    if os.geteuid() != 0:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents and item.path.name != "test_texts.py":
                item.add_marker(pytest.mark.skip(reason="needs root: it makes network namespaces"))


@pytest.fixture(scope="session", autouse=True)
def labs_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where records lie: not where somebody's own labs do."""
    directory = tmp_path_factory.mktemp("labs") / "run"
    before = os.environ.get("NETPLUG_LABS")
    os.environ["NETPLUG_LABS"] = str(directory)
    there = written()
    yield directory
    Session.stop()
    assert written() == there, "a lab's daemon has written to the machine's own directories"
    if before is None:
        del os.environ["NETPLUG_LABS"]
    else:
        os.environ["NETPLUG_LABS"] = before
