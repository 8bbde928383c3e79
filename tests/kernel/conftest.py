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

__all__ = ["NO_SERVER", "both_backends", "firewall", "ip", "lab", "protocol"]


BACKENDS = ("", "nftables", "iptables")
"""`""`: the daemon's own choice."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests make namespaces: without root they are skipped, with the reason."""
    if os.geteuid() != 0:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs root: it makes network namespaces"))


KeptHosts = dict[tuple[str, ...], KeptHost]


@pytest.fixture(scope="module")
def kept_hosts() -> Iterator[KeptHosts]:
    """By the flags of their daemons."""
    with contextlib.ExitStack() as stack:
        yield {flags_of(backend): stack.enter_context(contextlib.closing(KeptHost(*flags_of(backend)))) for backend in BACKENDS}


@pytest.fixture
def lan(request: pytest.FixtureRequest) -> Iterator[Lan]:
    """A switch, with a neighbour outside: that of `host`, where a test has one."""
    if "host" in request.fixturenames and "hosts" not in request.fixturenames:
        yield request.getfixturevalue("host").lan
        return
    with Lan() as lan:
        yield lan


@pytest.fixture
def backend() -> str:
    """The firewall backend of the test's hosts, the daemon's own choice unless the test is one of `both_backends`."""
    return ""


both_backends = pytest.mark.parametrize("backend", BACKENDS[1:])


def flags_of(backend: str) -> tuple[str, ...]:
    return ("--firewall-backend", backend) if backend else ()


@pytest.fixture
def hosts(lan: Lan, backend: str) -> Iterator[Callable[..., Host]]:
    """Makes hosts on the LAN: `hosts(*daemon_flags, resolv_conf=…, environment=…)`; their daemons run already."""
    chosen = flags_of(backend)
    made: list[Host] = []
    with contextlib.ExitStack() as stack:

        def make(*flags: str, resolv_conf: str | None = NO_SERVER, environment: dict[str, str] | None = None) -> Host:
            host = stack.enter_context(Host(lan, *chosen, *flags, resolv_conf=resolv_conf, environment=environment))
            made.append(host)
            host.start()
            return host

        yield make
        for host in made:  # pytest shows it with a test that failed
            print(f"daemon of {host.namespace.name}:\n{host.said()}")


@pytest.fixture
def host(request: pytest.FixtureRequest, kept_hosts: KeptHosts, backend: str) -> Iterator[Host]:
    """One host with a running daemon, as new. A test that wants others beside it has all of them to itself."""
    if "hosts" in request.fixturenames:
        yield request.getfixturevalue("hosts")()
        return
    failures = request.session.testsfailed
    kept = kept_hosts[flags_of(backend)]
    host = kept.host()
    yield host
    print(f"daemon of {host.namespace.name}:\n{host.said()}")  # pytest shows it with a test that failed
    kept.take_back(failed=request.session.testsfailed > failures)
