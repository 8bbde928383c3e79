"""Hosts for tests that need the kernel: network namespaces with daemons of their own, gone afterwards whatever happened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts import Host, Lan
from tests.kernel.firewall_fixtures import firewall, ip, lab, protocol

__all__ = ["both_backends", "firewall", "ip", "lab", "protocol"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests make namespaces: without root they are skipped, with the reason."""
    if os.geteuid() != 0:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs root: it makes network namespaces"))


NO_SERVER = "nameserver 127.0.0.1\n"
"""Hosts have no DNS server unless a test gives them one: a lookup of an unknown name is refused at once, not timed out."""


@pytest.fixture
def lan() -> Iterator[Lan]:
    """A switch, with a neighbour outside."""
    with Lan() as lan:
        yield lan


@pytest.fixture
def backend() -> str:
    """The firewall backend of the test's hosts, the daemon's own choice unless the test is one of `both_backends`."""
    return ""


both_backends = pytest.mark.parametrize("backend", ["nftables", "iptables"])


@pytest.fixture
def hosts(lan: Lan, backend: str) -> Iterator[Callable[..., Host]]:
    """Makes hosts on the LAN: `hosts(*daemon_flags, resolv_conf=…, environment=…)`; their daemons run already."""
    chosen = ("--firewall-backend", backend) if backend else ()
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
def host(hosts: Callable[..., Host]) -> Host:
    """One host with a running daemon."""
    return hosts()
