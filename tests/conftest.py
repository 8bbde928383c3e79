"""For every test: the machine's own network stays as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from netplug.cli import demo_service
from tests import nursery
from tests.hosts import untouched_machine

if TYPE_CHECKING:  # it imports gRPC, which most tests never need
    from tests.etcd_members import Cluster

# Some machines forbid Python to keep what it has compiled: thousands of daemons and commands would compile everything anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Where it names a bundle, aiohttp reads all authorities of the machine at import (twice, 50 ms each); a service's environment has none.
os.environ.pop("SSL_CERT_FILE", None)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("netplug", deadline=None)
hypothesis.settings.load_profile("netplug")


LONG = ("test_faults_points.py", "test_faults.py", "test_remote_faults.py", "test_provision.py", "test_explain_overlay.py", "test_demo.py")
"""Where a test takes half a minute and more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first: at the end no worker waits for another that has just begun with one."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def machine_guard() -> Iterator[None]:
    """Compares links, addresses, routes, rules and sysctls of the machine before and after (in each worker, under xdist)."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        yield  # without root nothing of it can be changed
        return
    with untouched_machine():
        yield


@pytest.fixture(scope="session", autouse=True)
def warm_starts() -> Iterator[None]:
    """Daemons and commands come from a nursery."""
    demo_service.launch = nursery.launch
    yield
    demo_service.launch = subprocess.Popen
    nursery.close()


@pytest.fixture(scope="module")
def plain_starts() -> Iterator[None]:
    """They do not, for what it is to start is tested: `pytestmark = pytest.mark.usefixtures("plain_starts")`."""
    with nursery.plainly():
        yield


@pytest.fixture(scope="session")
def etcd_member() -> Iterator[Cluster]:
    """One etcd member for all tests of this process that need no more than an etcd: each takes a prefix of its own."""
    from tests.etcd_members import etcd_cluster

    with etcd_cluster() as cluster:
        yield cluster


@pytest.fixture
def etcd(etcd_member: Cluster) -> Iterator[Cluster]:
    """That member, with nothing in it. (A lease of the test before would end, and count as a revision, during another.)"""
    yield etcd_member
    etcd_member.ctl("del", "--prefix", "")
