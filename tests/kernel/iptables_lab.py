"""Firewall ops, namespaces for them, and the rules that are there as iptables and nft list them."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator

from netplug.kernel import namespaces
from netplug.plan import AllowPeer, Direct, DnsRedirect, FirewallOp, Guard, Isolate, Masquerade, Publish

NETWORK: list[FirewallOp] = [
    Isolate(bridge="br-one", subnets=("172.20.0.0/24", "fd20::/64")),
    Masquerade(subnet="172.20.0.0/24", bridge="br-one"),
    Masquerade(subnet="fd20::/64", bridge="br-one", source="fd99::1"),
    Isolate(bridge="br-two", subnets=("10.0.0.1/32",), mode4="routed", icc=False, trusted=("tun0",)),
    Isolate(bridge="br-three", subnets=("10.3.0.0/16",), internal=True),
    Guard(link="veth1", bridge="br-two", bridge_mac="02:42:AC:14:00:01", icc=False),
    AllowPeer(client="10.0.0.2", server="10.0.0.3", protocol="tcp", port=80),
]
WEB = Publish(protocol="tcp", host_port=8080, address="172.20.0.2", port=80)
ELSEWHERE = Publish(protocol="tcp", host_port=8080, address="172.20.0.3", port=80)
DIRECT = Direct(protocol="tcp", address="172.20.0.2", port=80)
PORTS: list[FirewallOp] = [
    WEB,
    DIRECT,
    Publish(protocol="udp", host_port=53, address="172.20.0.2", port=5353, host_ip="127.0.0.1"),
    Publish(protocol="tcp", host_port=8000, address="172.20.0.2", port=8000, count=11),
    Publish(protocol="sctp", host_port=8080, address="fd20::2", port=80),
    Publish(protocol="tcp", host_port=8080, address="fd20::2", port=80, host_ip="fd99::1", count=3),
    Direct(protocol="udp", address="fd20::2", port=80, count=2),
]
DNS = DnsRedirect(udp_port=40001, tcp_port=40002)
REFUSED = Masquerade(subnet="172.29.0.0/16", source="nonsense")
"""The programs refuse it, not we."""
VARIANTS = ("nft", "legacy")

_numbers = itertools.count()


@contextlib.contextmanager
def own_namespace() -> Iterator[str]:
    """Its path."""
    path = f"/run/netns/i{os.getpid()}-{next(_numbers)}"
    namespaces.create(path)
    try:
        yield path
    finally:
        namespaces.remove(path)


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10).stdout


def saved(variant: str) -> list[str]:
    """Everything in the tables of both IP versions and in the table of the bridge, without counters and dates."""
    lines: list[str] = []
    for program in (f"iptables-{variant}-save", f"ip6tables-{variant}-save"):
        text = "".join(line.split(" [")[0].strip() + "\n" for line in run(program).splitlines() if not line.startswith("#"))
        lines += "COMMIT\n".join(sorted(text.split("COMMIT\n"))).splitlines()  # legacy tables are listed as they were made
    return [*lines, *bridge_table().splitlines()]


def bridge_table() -> str:
    done = subprocess.run(["nft", "-s", "list", "table", "bridge", "netplug"], capture_output=True, text=True, timeout=10)
    return done.stdout


def ours(variant: str) -> list[str]:
    return [line for line in saved(variant) if "NETPLUG" in line or "netplug" in line]


def paste(commands: list[str]) -> None:
    """Type them into a shell, as a reader of --explain does."""
    subprocess.run(["sh", "-e"], input="\n".join(commands) + "\n", check=True, text=True, timeout=60)


def netplug_tables() -> set[str]:
    return {line.removeprefix("table ") for line in run("nft", "list", "tables").splitlines() if line.endswith(" netplug")}
