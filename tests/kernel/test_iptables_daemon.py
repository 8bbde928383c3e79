"""A daemon on the iptables backend, on none, and on one after the other; with containers that talk all the while."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from netplug.cli.demo_hosts import Lan, Namespace, mounts_below, remove_tree
from tests.differences import differences
from tests.hosts import INTERNET_ADDRESS, Host
from tests.kernel.daily import IDLE, ask, network, run, serve
from tests.kernel.test_explain import bare, paste, state
from tests.kernel.test_names import found

__all__ = ["bare"]

IPTABLES = ("--firewall-backend", "iptables")
PATIENCE = 5.0

COMMANDS: list[tuple[str, ...]] = [
    ("network", "create", "--subnet", "10.81.0.0/24", "demo"),
    ("network", "create", "--subnet", "10.82.0.0/24", "--opt", "com.docker.network.bridge.enable_icc=false", "strict"),
    ("network", "create", "--internal", "--ipv6", "--subnet", "10.83.0.0/24", "--subnet", "fd83::/64", "inner"),
    ("run", "-d", "--name", "web", "--network", "demo", "-p", "18080:80", "-p", "127.0.0.1:18081:81/udp", "-p", "19000-19002:90-92", *IDLE),
    ("network", "connect", "strict", "web"),
    ("network", "connect", "inner", "web"),
    ("network", "disconnect", "demo", "web"),
    ("stop", "-t", "0", "web"),
    ("start", "web"),
    ("rm", "-f", "web"),
    ("network", "prune", "-f"),
]


def listed(namespace: Namespace) -> list[str]:
    """The rules in iptables' tables."""
    text = "".join(namespace.run(program).stdout for program in ("iptables-save", "ip6tables-save"))
    return [line for line in text.splitlines() if line.startswith("-A ")]


def listed_again(namespace: Namespace, expected: list[str]) -> bool:
    """Within some seconds."""
    deadline = time.monotonic() + PATIENCE
    while sorted(listed(namespace)) != sorted(expected):
        if time.monotonic() > deadline:
            return False
    return True


def seen(host: str, folder: Path) -> dict[str, Any]:
    """As `state`. Tables are listed as they were made, which iptables does in an order of its own."""
    found = state(host, folder)
    for namespace in (found["host"], *found["sandboxes"].values()):
        namespace["nft"]["nftables"].sort(key=str)
    return found


@contextmanager
def ended(host: Host) -> Iterator[None]:
    """Its directories stay while others mount there."""
    try:
        yield
    finally:
        for point in reversed(mounts_below(host.directory)):
            subprocess.run(["umount", point], check=False)
        remove_tree(host.directory)


def test_explained_iptables_commands_can_be_pasted(lan: Lan, bare: Namespace) -> None:
    """Every command in turn: first for real, then pasted on another host; the two agree after each."""
    host = Host(lan, *IPTABLES)
    folder = host.run_directory / "netns"
    flags = ("--socket", str(host.socket), "--state-dir", str(host.state_directory), "--run-dir", str(host.run_directory), *IPTABLES)
    steps = []
    try:
        first = host.netplug("daemon", "--dry-run", *flags, check=True).stdout
        host.start()
        steps.append((("daemon",), first.splitlines(), seen(host.namespace.path, folder), listed(host.namespace)))
        for arguments in COMMANDS:
            words = 2 if arguments[0] == "network" else 1
            done = host.netplug(*arguments[:words], "--explain", *arguments[words:])
            assert done.returncode == 0, f"{arguments}: {done.stderr}"
            lines = done.stdout.splitlines()
            commands = [line for line in lines if not re.fullmatch(r"[0-9a-f]{64}|\w+|Deleted Networks:|", line)]
            steps.append((arguments, commands, seen(host.namespace.path, folder), listed(host.namespace)))
    finally:
        host.close()
    with ended(host):
        for arguments, lines, wanted, rules in steps:
            paste(bare, lines)
            # Among rules that come and go the order means nothing: a port that moves keeps its place in a transaction.
            assert sorted(listed(bare)) == sorted(rules), f"after {arguments}:\n" + "\n".join(lines)
            different = list(differences(seen(bare.path, folder), wanted))
            assert different == [], f"after {arguments}:\n" + "\n".join(lines)
    assert any("-j DNAT --to-destination" in line for _, lines, _, _ in steps for line in lines)


@pytest.mark.parametrize("backends", [("nftables", "iptables", "nftables"), ("iptables", "none")], ids="-".join)
def test_switching_backends_with_iptables_keeps_names_and_ports(lan: Lan, backends: tuple[str, ...]) -> None:
    """Each start takes away what the backend before it left, and no container notices."""
    with Host(lan) as host:
        host.start("--firewall-backend", backends[0])
        network(host, "--subnet", "10.75.0.0/24", "demo")
        serve(host, "aa", "--network", "demo", "-p", "8080:80")
        run(host, "bb", "--network", "demo", *IDLE)
        address = host.container_address("aa", "demo")

        for name in backends:
            host.restart(*(("--iptables=false",) if name == "none" else ("--firewall-backend", name)))

            assert bool(listed(host.namespace)) == (name == "iptables")
            tables = host.run("nft", "list", "tables").stdout
            assert ("table inet netplug" in tables) == (name == "nftables")
            assert ("table bridge netplug" in tables) == (name != "none")
            assert found(host, "bb", "aa") == [address]
            inside = host.inside("bb", "nft", "list", "ruleset").stdout
            assert ("NETPLUG_OUTPUT" in inside) == (name == "iptables")
            assert ("table ip netplug" in inside) == (name != "iptables")
            assert ask(host.sandbox("bb"), address, 80)
            if name != "none":
                assert ask(lan.outside.path, host.address, 8080)
                assert ask(host.sandbox("bb"), host.address, 8080)
                assert host.inside("bb", "ping", "-c1", "-W2", INTERNET_ADDRESS).returncode == 0
        if backends[-1] == "none":
            assert "--iptables=false" in host.said()


@pytest.mark.parametrize("damage", ["iptables -F", "iptables -t nat -F", "iptables -t nat -F NETPLUG", "nft flush ruleset"])
def test_flushed_iptables_come_back(lan: Lan, damage: str) -> None:
    with Host(lan, *IPTABLES) as host:
        host.start()
        network(host, "--subnet", "10.75.0.0/24", "demo")
        serve(host, "aa", "--network", "demo", "-p", "8080:80")
        assert ask(lan.outside.path, host.address, 8080)
        before = listed(host.namespace)

        host.run(*damage.split())

        assert listed_again(host.namespace, before)
        assert ask(lan.outside.path, host.address, 8080)


def test_names_come_back_after_a_flush_of_iptables_in_a_container(lan: Lan) -> None:
    with Host(lan, *IPTABLES) as host:
        host.start()
        network(host, "--subnet", "10.75.0.0/24", "demo")
        run(host, "aa", "--network", "demo", *IDLE)
        before = host.inside("aa", "iptables", "-t", "nat", "-S").stdout
        host.inside("aa", "iptables", "-t", "nat", "-F")

        deadline = time.monotonic() + PATIENCE
        while host.inside("aa", "iptables", "-t", "nat", "-S").stdout != before:
            assert time.monotonic() < deadline
        assert found(host, "aa", "aa") == [host.container_address("aa", "demo")]


def test_policy_of_forward_in_iptables_is_no_obstacle(lan: Lan) -> None:
    """dockerd and ufw set it to DROP."""
    with Host(lan, *IPTABLES) as host:
        host.start()
        network(host, "--subnet", "10.75.0.0/24", "demo")
        serve(host, "aa", "--network", "demo", "-p", "8080:80")
        host.run("iptables", "-P", "FORWARD", "DROP")

        assert ask(lan.outside.path, host.address, 8080)
        assert host.inside("aa", "ping", "-c1", "-W2", INTERNET_ADDRESS).returncode == 0
