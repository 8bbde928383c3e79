"""A netplug daemon and a dockerd for a module; each test leaves no container and no network of its own behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.dockerd import FIREWALLS, Pair
from tests.hosts import Lan


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests make namespaces: without root they are skipped, with the reason."""
    if os.geteuid() != 0:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs root: it makes network namespaces"))


@pytest.fixture(scope="module")
def started() -> Iterator[Pair]:
    """Both daemons, with an image in dockerd's store; `dockerd.IMAGE`. What nobody allows is not forwarded.

    dockerd sees to that itself where it is the first to switch forwarding on; here netplug is.
    """
    with Lan() as lan, Pair(lan) as pair:
        pair.start()
        for program in FIREWALLS:
            pair.run_here(program, "-P", "FORWARD", "DROP")
        pair.start_dockerd()
        pair.import_image()
        yield pair
        print(f"netplug:\n{pair.said()}\ndockerd:\n{pair.docker_said()}")


@pytest.fixture
def pair(started: Pair) -> Iterator[Pair]:
    yield started
    started.clean()
