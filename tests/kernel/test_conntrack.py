"""Tracked flows: those to one port are forgotten, others stay."""

from __future__ import annotations

import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from netplug.kernel import conntrack, namespaces
from netplug.kernel.conntrack import Flows, flush
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

    flush([Flows("udp", 5001), Flows("tcp", 5002)])

    assert flows() == {("ipv4", 5002): 3, ("ipv6", 5002): 3}


@pytest.mark.parametrize(("family", "name"), [(socket.AF_INET, "ipv4"), (socket.AF_INET6, "ipv6")])
@in_host
def test_one_by_one_as_older_kernels_need_it(family: int, name: str):
    make_flows()
    with Socket(NETLINK_NETFILTER) as netlink:
        conntrack.delete_one_by_one(netlink, family, [Flows("udp", 5001)])

    assert flows()[name, 5001] == 0
    assert flows().total() == 9


@in_host
def test_rows_of_ports():
    """Few are asked for one by one, many are looked for."""
    for count in (2, conntrack.FEW + 1):
        make_flows()
        flush([Flows("udp", 5002 - count, count)])
        assert flows() == {("ipv4", 5002): 3, ("ipv6", 5002): 3}
        flush([Flows("udp", 5001, count)])
        assert flows() == {}


def make_translated_flows() -> None:
    """To one port each: led elsewhere, with another source, and as they are; one of each in IPv4 and IPv6."""
    rules = "; ".join(
        f"add rule inet t {chain} {family} daddr {target} {change}"
        for chain, family, target, change in (
            ("out", "ip", "127.0.0.9", "dnat to 127.0.0.1"),
            ("out", "ip6", "fd00::9", "dnat to fd00::1"),
            ("post", "ip", "127.0.0.8", "snat to 127.0.0.77"),
            ("post", "ip6", "fd00::8", "snat to fd00::77"),
        )
    )
    hooks = (
        "add chain inet t out { type nat hook output priority -100 ; }; add chain inet t post { type nat hook postrouting priority 100 ; }"
    )
    command("nft", f"add table inet t; {hooks}; {rules}")
    for own in ("fd00::1/64", "fd00::7/64", "fd00::8/64", "fd00::9/64"):
        command("ip", "address", "add", own, "dev", "lo", "nodad")
    expected = {f"{prefix}{last}" for prefix in ("127.0.0.", "fd00::") for last in "789"}
    deadline = time.monotonic() + 10
    while missing := expected - targets():  # a new address may take a moment to be of use
        assert time.monotonic() < deadline, missing
        for target in missing:
            with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", (target, 5001))


def targets() -> set[str]:
    listed = command("conntrack", "-L", "-f", "ipv4") + command("conntrack", "-L", "-f", "ipv6")
    return {field.removeprefix("dst=") for line in listed.splitlines() for field in line.split()[:6] if field.startswith("dst=")}


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(("address", "target"), [("127.0.0.1", "127.0.0.9"), ("fd00::1", "fd00::9")])
@in_host
def test_flows_that_were_led_to_an_address(address: str, target: str, one_by_one: bool):
    make_translated_flows()
    before = targets()
    if one_by_one:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with Socket(NETLINK_NETFILTER) as netlink:
            conntrack.delete_one_by_one(netlink, family, [Flows("udp", 5001, address=address)])
    else:
        flush([Flows("udp", 5001, address=address)])

    assert targets() == before - {target}


@pytest.mark.parametrize("count", [1, conntrack.FEW + 1])
@in_host
def test_the_way_out_of_others_stays(count: int):
    make_translated_flows()

    flush([Flows("udp", 5001, count)])

    assert targets() == {"127.0.0.8", "fd00::8"}


@in_host
def test_without_any_flow():
    flush([Flows("sctp", 1)])


@in_host
def test_only_the_namespace_of_the_caller(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        make_flows()
        with namespaces.entered(sandboxes[0]):
            flush([Flows("udp", 5001)])

        assert flows().total() == 12
