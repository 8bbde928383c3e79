"""Hosts for tests that need the kernel: network namespaces with daemons of their own, gone afterwards whatever happened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts import Host, Lan
from tests.kernel.firewall_fixtures import firewall, ip, lab, protocol
from tests.kernel.kept_host import NO_SERVER, KeptHost

__all__ = ["NO_SERVER", "firewall", "ip", "lab", "protocol"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests make namespaces: without root they are skipped, with the reason."""
    if os.geteuid() != 0:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs root: it makes network namespaces"))


@pytest.fixture(scope="module")
def kept_host() -> Iterator[KeptHost]:
    with contextlib.closing(KeptHost()) as kept:
        yield kept


@pytest.fixture
def lan(request: pytest.FixtureRequest) -> Iterator[Lan]:
    """A switch, with a neighbour outside: that of `host`, where a test has one."""
    if "host" in request.fixturenames and "hosts" not in request.fixturenames:
        yield request.getfixturevalue("host").lan
        return
    with Lan() as lan:
        yield lan


@pytest.fixture
def hosts(lan: Lan) -> Iterator[Callable[..., Host]]:
    """Makes hosts on the LAN: `hosts(*daemon_flags, resolv_conf=…, environment=…)`; their daemons run already."""
    made: list[Host] = []
    with contextlib.ExitStack() as stack:

        def make(*flags: str, resolv_conf: str | None = NO_SERVER, environment: dict[str, str] | None = None) -> Host:
            host = stack.enter_context(Host(lan, *flags, resolv_conf=resolv_conf, environment=environment))
            made.append(host)
            host.start()
            return host

        yield make
        for host in made:  # pytest shows it with a test that failed
            print(f"daemon of {host.namespace.name}:\n{host.said()}")


@pytest.fixture
def host(request: pytest.FixtureRequest, kept_host: KeptHost) -> Iterator[Host]:
    """One host with a running daemon, as new. A test that wants others beside it has all of them to itself."""
    if "hosts" in request.fixturenames:
        yield request.getfixturevalue("hosts")()
        return
    failures = request.session.testsfailed
    host = kept_host.host()
    yield host
    print(f"daemon of {host.namespace.name}:\n{host.said()}")  # pytest shows it with a test that failed
    kept_host.take_back(failed=request.session.testsfailed > failures)
