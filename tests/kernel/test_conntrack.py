"""Tracked flows: those to one port are forgotten, others stay."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest

from netplug.kernel import conntrack, namespaces
from netplug.kernel.netlink import NETLINK_NETFILTER, Socket
from tests.kernel.inside import Sandboxes, command, in_host

PORTS = (5001, 5002)


def make_flows() -> None:
    """UDP to both ports, over IPv4 and IPv6."""
    command("nft", "add table inet t; add chain inet t c { type filter hook output priority 0 ; }; add rule inet t c ct state new accept")
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for port in PORTS:
            for _ in range(3):
                with socket.socket(family, socket.SOCK_DGRAM) as client:
                    client.sendto(b"x", (address, port))


def flows() -> Counter[tuple[str, int]]:
    listed = command("conntrack", "-L", "-f", "ipv4") + command("conntrack", "-L", "-f", "ipv6")
    found = Counter[tuple[str, int]]()
    for line in listed.splitlines():
        fields = line.split()
        port = next(int(field.removeprefix("dport=")) for field in fields if field.startswith("dport="))
        found["ipv6" if "::1" in line else "ipv4", port] += 1
    return found


@in_host
def test_flows_to_the_port_are_forgotten():
    make_flows()
    assert flows() == {("ipv4", 5001): 3, ("ipv4", 5002): 3, ("ipv6", 5001): 3, ("ipv6", 5002): 3}

    conntrack.flush("udp", 5001)
    conntrack.flush("tcp", 5002)

    assert flows() == {("ipv4", 5002): 3, ("ipv6", 5002): 3}


@pytest.mark.parametrize(("family", "name"), [(socket.AF_INET, "ipv4"), (socket.AF_INET6, "ipv6")])
@in_host
def test_one_by_one_as_older_kernels_need_it(family: int, name: str):
    make_flows()
    with Socket(NETLINK_NETFILTER) as netlink:
        conntrack.delete_one_by_one(netlink, family, socket.IPPROTO_UDP, 5001)

    assert flows()[name, 5001] == 0
    assert flows().total() == 9


@in_host
def test_without_any_flow():
    conntrack.flush("sctp", 1)


@in_host
def test_only_the_namespace_of_the_caller(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        make_flows()
        with namespaces.entered(sandboxes[0]):
            conntrack.flush("udp", 5001)

        assert flows().total() == 12
