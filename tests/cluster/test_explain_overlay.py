"""What is printed for networks of a cluster, pasted on a host that has nothing, makes the same there; and `--dry-run` prints the same."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netplug.cli.demo_hosts import OUTSIDE_ADDRESS, Namespace, mounts_below, remove_tree
from tests.cluster.neighbourhood import neighbourhood
from tests.differences import differences
from tests.hosts import Host, command, without_resolver_ports
from tests.kernel.test_explain import explained, paste
from tests.kernel.test_explain import state as kernel_state

IDLE = ("host", "busybox", "sleep", "1000")

COMMANDS: list[tuple[str, ...]] = [
    ("run", "-d", "--name", "web", "--network", "demo", "-p", "18080:80", *IDLE),
    ("network", "connect", "wide", "web"),
    ("network", "create", "--subnet", "10.83.0.0/24", "here"),
    ("network", "connect", "here", "web"),
    ("network", "disconnect", "wide", "web"),
    ("network", "disconnect", "here", "web"),
    ("run", "-d", "--name", "other", "--network", "demo", *IDLE),
    ("network", "disconnect", "demo", "web"),
    ("network", "connect", "--ip", "10.91.0.77", "demo", "web"),
    ("rm", "-f", "other"),
    ("stop", "-t", "0", "web"),
    ("start", "web"),
    ("network", "connect", "shut", "web"),
    ("rm", "-f", "web"),
]
"""In turn on one node, with containers of another node on `demo` and `wide`; `shut` is internal."""


@pytest.fixture
def hosts() -> Iterator[tuple[Host, ...]]:
    with neighbourhood() as found:
        far = found.hosts[1]
        far.netplug("network", "create", "-d", "overlay", "--subnet", "10.91.0.0/24", "demo", check=True)
        far.netplug("network", "create", "-d", "overlay", "--ipv6", "--subnet", "10.92.0.0/24", "--subnet", "fd92::/64", "wide", check=True)
        far.netplug("network", "create", "-d", "overlay", "--internal", "--subnet", "10.93.0.0/24", "shut", check=True)
        for name in ("far1", "far2"):
            far.netplug("run", "-d", "--name", name, "--network", "demo", *IDLE, check=True)
            far.netplug("network", "connect", "wide", name, check=True)
        yield found.hosts


@pytest.fixture
def bare(hosts: tuple[Host, ...]) -> Iterator[Namespace]:
    """A host with an uplink and nothing else."""
    lan = hosts[0].lan
    namespace = Namespace("bare-" + lan.switch.name)
    try:
        lan.plug(namespace, "bare", lan.free_address())
        namespace.ip("route", "add", "default", "via", OUTSIDE_ADDRESS)
        yield namespace
    finally:
        namespace.remove()


def state(namespace: str, folder: Path) -> dict[str, Any]:
    """With what leads to other nodes, and without the MACs that the kernel makes up for ends inside the networks' namespaces."""
    found = kernel_state(namespace, folder)
    for name, place in found["sandboxes"].items():
        if name.startswith("1-"):
            for link in place["links"]:
                if link["name"] != "br0":
                    link.pop("address")
            enter = ("nsenter", f"--net={folder / name}")
            entries = json.loads(command(*enter, "bridge", "-j", "fdb").stdout)
            place["fdb"] = sorted((entry["ifname"], entry["mac"], entry["dst"]) for entry in entries if "dst" in entry)
            neighbours = json.loads(command(*enter, "ip", "-j", "neigh", "show", "nud", "permanent").stdout)
            place["neighbours"] = sorted((one["dev"], one["dst"], one["lladdr"]) for one in neighbours)
    return found


def with_flag(arguments: tuple[str, ...], flag: str) -> tuple[str, ...]:
    words = 2 if arguments[0] == "network" else 1
    return (*arguments[:words], flag, *arguments[words:])


def anonymous(lines: list[str]) -> list[str]:
    """Without what is made up anew each time: ids, and the ports where the resolver listens."""
    return re.sub(r"\b(veth)?[0-9a-f]{7,64}\b", "ID", without_resolver_ports("\n".join(lines))).splitlines()


def test_what_is_printed_can_be_pasted(hosts: tuple[Host, ...], bare: Namespace):
    """Every command in turn: dry, which changes nothing; for real; then pasted on another host. What is printed is the same."""
    host = hosts[0]
    folder = host.run_directory / "netns"
    flags = ("--socket", str(host.socket), "--state-dir", str(host.state_directory), "--run-dir", str(host.run_directory))
    first = host.netplug("daemon", "--dry-run", *flags, check=True).stdout
    steps: list[tuple[tuple[str, ...], list[str], dict[str, Any]]] = [(("daemon",), explained(first), state(host.namespace.path, folder))]
    for arguments in COMMANDS:
        dry = host.netplug(*with_flag(arguments, "--dry-run"))
        assert dry.returncode == 0, f"{arguments}: {dry.stderr}"
        assert list(differences(state(host.namespace.path, folder), steps[-1][2])) == []
        done = host.netplug(*with_flag(arguments, "--explain"))
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        lines = explained(done.stdout)
        assert anonymous(explained(dry.stdout)) == anonymous(lines), arguments
        steps.append((arguments, lines, state(host.namespace.path, folder)))
    with_peers = next(step for step in steps if step[0][0] == "run")
    assert any(place.get("fdb") for place in with_peers[2]["sandboxes"].values())
    host.close()
    try:
        for arguments, lines, wanted in steps:
            assert lines, f"{arguments} explained nothing"
            paste(bare, lines)
            different = list(differences(state(bare.path, folder), wanted))
            assert different == [], f"after {arguments}:\n" + "\n".join(lines)
    finally:
        for point in reversed(mounts_below(host.directory)):
            subprocess.run(["umount", point], check=False)
        remove_tree(host.directory)
