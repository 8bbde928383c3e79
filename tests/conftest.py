"""For every test: the machine's own network stays as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import hypothesis
import pytest

from tests.hosts import untouched_machine

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("netplug", deadline=None)
hypothesis.settings.load_profile("netplug")


@pytest.fixture(scope="session", autouse=True)
def machine_guard() -> Iterator[None]:
    """Compares links, addresses, routes, rules and sysctls of the machine before and after (in each worker, under xdist)."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        yield  # without root nothing of it can be changed
        return
    with untouched_machine():
        yield
