"""Fixtures of the packet tests: the lab, with br_netfilter's bridge-nf-call-iptables off and on (tools around us set it as they like), and
each firewall backend in it, empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts import command
from tests.kernel.firewall_lab import ADDRESS, ADDRESS6, NAMES, Addresses, Lab
from tests.kernel.firewall_rules import BACKENDS, HostFirewall, make


@pytest.fixture(scope="module", params=[0, 1], ids=["bridge-nf=0", "bridge-nf=1"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Servers on ports 80 and 81 everywhere."""
    lab = Lab(bridge_nf=request.param)
    try:
        for name in NAMES:
            lab.serve(name, 80, 81)
        lab.serve("out", 8080)
        yield lab
    finally:
        lab.close()


@pytest.fixture(params=BACKENDS)
def firewall(lab: Lab, request: pytest.FixtureRequest) -> Iterator[HostFirewall]:
    """Started, and with no networks; all of it is gone afterwards.

    Nor does it know of flows: a client may choose the port of an earlier test's, whose answers are let through.
    """
    firewall = HostFirewall(lab, make(request.param))
    firewall.clear()
    firewall.start()
    command("nsenter", f"--net={lab.path('h')}", "conntrack", "--flush")
    try:
        yield firewall
    finally:
        firewall.clear()


@pytest.fixture(params=["tcp", "udp"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[ADDRESS, ADDRESS6], ids=["IPv4", "IPv6"])
def ip(request: pytest.FixtureRequest) -> Addresses:
    """Everybody's address, by name."""
    found: Addresses = request.param
    return found
