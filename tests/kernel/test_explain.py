"""What `--explain` prints, pasted into a shell of a host that has nothing, makes the same kernel state; and `--dry-run` prints the same."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netplug.cli.demo_hosts import OUTSIDE_ADDRESS, Lan, Namespace, mounts_below, remove_tree
from tests.differences import differences
from tests.hosts import Host, namespace_state

IDLE = ("host", "busybox", "sleep", "1000")
BRIDGE, ENDPOINT = "com.docker.network.bridge.", "com.docker.network.endpoint."

COMMANDS: list[tuple[str, ...]] = [
    ("network", "create", "--subnet", "10.81.0.0/24", "demo"),
    ("network", "create", "--subnet", "10.82.0.0/24", "--opt", "com.docker.network.bridge.enable_icc=false", "strict"),
    ("network", "create", "--internal", "--opt", "com.docker.network.driver.mtu=1400", "--subnet", "10.83.0.0/24", "inner"),
    ("run", "-d", "--name", "web", "--network", "demo", "-p", "18080:80", "-p", "127.0.0.1:18081:81/udp", *IDLE),
    ("network", "connect", "--ip", "10.82.0.9", "strict", "web"),
    ("network", "connect", "inner", "web"),
    ("run", "-d", "--name", "plain", *IDLE),
    ("network", "disconnect", "demo", "web"),
    ("kill", "plain"),
    ("rm", "plain"),
    ("network", "disconnect", "inner", "web"),
    ("network", "rm", "inner"),
    ("stop", "-t", "0", "web"),
    ("start", "web"),
    ("network", "create", "--ipv6", "--subnet", "fd84::/64", "--subnet", "10.84.0.0/24", "both"),
    ("network", "create", "--ipv6", "--ipv4=false", "--subnet", "fd85::/64", "--opt", f"{BRIDGE}gateway_mode_ipv6=routed", "six"),
    ("network", "connect", "--ip6", "fd84::9", "--driver-opt", f"{ENDPOINT}sysctls=net.ipv4.conf.IFNAME.rp_filter=2", "both", "web"),
    ("run", "-d", "--name", "other", "--network", "six", "--mac-address", "02:00:00:00:00:aa", "-p", "18082:80", *IDLE),
    ("network", "disconnect", "both", "web"),
    ("rm", "-f", "web"),
    ("rm", "-f", "other"),
    ("network", "prune", "-f"),
]


def state(namespace: str, folder: Path) -> dict[str, Any]:
    """Of a host and the sandboxes in `folder`, without its uplink and what a container's processes set for themselves."""
    sandboxes = {path.name: namespace_state(str(path)) for path in sorted(folder.glob("*"))}
    host = namespace_state(namespace)
    for kind in ("links", "routes", "addresses"):
        host[kind] = [entry for entry in host[kind] if "uplink" not in json.dumps(entry)]
    for link in host["links"]:
        if link["name"].startswith("veth"):  # the kernel gives the host's end a random one
            link.pop("address")
    # The network `bridge` gets its id when a daemon first starts, after its dry run.
    next(link for link in host["links"] if link["name"] == "netplug0").pop("ifalias")
    return {"host": host, "sandboxes": sandboxes}


def explained(output: str) -> list[str]:
    """The commands among the lines printed: what is printed before them are names and ids."""
    lines = output.splitlines()
    first = next(
        (index for index, line in enumerate(lines) if re.match(r"(ip|nft|nsenter|mkdir|sysctl|bridge|conntrack|umount|#) ", line)),
        len(lines),
    )
    return lines[first:]


@pytest.fixture
def bare(lan: Lan) -> Iterator[Namespace]:
    """A host with an uplink and nothing else."""
    namespace = Namespace("bare-" + lan.switch.name)
    try:
        lan.plug(namespace, "bare", lan.free_address())
        namespace.ip("route", "add", "default", "via", OUTSIDE_ADDRESS)
        yield namespace
    finally:
        namespace.remove()


def paste(namespace: Namespace, lines: list[str]) -> None:
    script = "set -e\n" + "\n".join(lines) + "\n"
    done = subprocess.run(namespace.argv("sh"), input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    assert done.stderr == "", script


def test_what_is_printed_can_be_pasted(lan: Lan, bare: Namespace):
    """Every command in turn: first for real, then pasted on another host; the two agree after each."""
    host = Host(lan)
    folder = host.run_directory / "netns"
    flags = ("--socket", str(host.socket), "--state-dir", str(host.state_directory), "--run-dir", str(host.run_directory))
    steps: list[tuple[tuple[str, ...], list[str], dict[str, Any]]] = []
    try:
        first = host.netplug("daemon", "--dry-run", *flags, check=True).stdout
        host.start()
        steps.append((("daemon",), explained(first), state(host.namespace.path, folder)))
        for arguments in COMMANDS:
            command = (*arguments[:1], "--explain", *arguments[1:])
            if arguments[0] == "network":
                command = (*arguments[:2], "--explain", *arguments[2:])
            done = host.netplug(*command)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            steps.append((arguments, explained(done.stdout), state(host.namespace.path, folder)))
    finally:
        host.close()
    try:
        for arguments, lines, wanted in steps:
            assert lines or arguments == ("rm", "plain"), f"{arguments} explained nothing"
            paste(bare, lines)
            different = list(differences(state(bare.path, folder), wanted))
            assert different == [], f"after {arguments}:\n" + "\n".join(lines)
    finally:
        for point in reversed(mounts_below(host.directory)):
            subprocess.run(["umount", point], check=False)
        remove_tree(host.directory)


def test_what_is_there_is_explained(lan: Lan, bare: Namespace):
    """`netplug explain` prints a container's endpoints as they are now: pasted on another host with the same networks, they are there."""
    host = Host(lan)
    folder = host.run_directory / "netns"
    flags = ("--socket", str(host.socket), "--state-dir", str(host.state_directory), "--run-dir", str(host.run_directory))
    try:
        lines = explained(host.netplug("daemon", "--dry-run", *flags, check=True).stdout)
        host.start()
        for arguments in COMMANDS[:2]:
            lines += explained(host.netplug("network", "create", "--explain", *arguments[2:], check=True).stdout)
        for arguments in (*COMMANDS[3:5], ("network", "disconnect", "demo", "web"), ("network", "connect", "demo", "web")):
            host.netplug(*arguments, check=True)
        everything = host.netplug("explain", "web", check=True).stdout.splitlines()
        strict = host.netplug("explain", "web", "strict", check=True).stdout.splitlines()
        wanted = state(host.namespace.path, folder)
        assert host.netplug("explain", "nobody").stderr == "Error response from daemon: No such container: nobody\n"
        refused = host.netplug("explain", "web", "bridge")
        assert (refused.returncode, "is not connected to network bridge" in refused.stderr) == (1, True)
    finally:
        host.close()
    assert set(strict) < set(everything)
    assert any("10.82.0.9/24" in line for line in strict)
    assert not any("10.81.0" in line for line in strict)
    try:
        paste(bare, [*lines, *everything])
        assert list(differences(state(bare.path, folder), wanted)) == []
    finally:
        for point in reversed(mounts_below(host.directory)):
            subprocess.run(["umount", point], check=False)
        remove_tree(host.directory)


def test_a_dry_run_prints_and_changes_nothing(host: Host):
    def dry(*arguments: str) -> list[str]:
        before = host.state()
        done = host.netplug(*arguments)
        assert done.returncode == 0, done.stderr
        assert host.state() == before, arguments
        return explained(done.stdout)

    assert dry("network", "create", "--dry-run", "--subnet", "10.81.0.0/24", "demo")
    assert host.netplug("network", "create", "--subnet", "10.81.0.0/24", "demo").returncode == 0
    assert dry("run", "--dry-run", "-d", "--name", "web", "--network", "demo", "-p", "18080:80", *IDLE)
    assert host.netplug("run", "-d", "--name", "web", "--network", "bridge", *IDLE).returncode == 0
    joined = dry("network", "connect", "--dry-run", "demo", "web")
    assert any("10.81.0.2/24" in line for line in joined)
    assert host.netplug("network", "connect", "demo", "web").returncode == 0
    for arguments in (
        ("network", "disconnect", "--dry-run", "demo", "web"),
        ("stop", "--dry-run", "web"),
        ("kill", "--dry-run", "web"),
        ("rm", "--dry-run", "-f", "web"),
    ):
        assert dry(*arguments), arguments
    assert host.netplug("rm", "-f", "web").returncode == 0
    assert dry("network", "rm", "--dry-run", "demo")
    assert dry("network", "prune", "--dry-run", "-f")


def test_images_are_explained_too(host: Host, tmp_path: Path):
    """What import and rm print makes and deletes the same files."""
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "motd").write_text("hello\n")
    tarball = tmp_path / "root.tar"
    subprocess.run(["tar", "--create", "--file", tarball, "--directory", tmp_path / "root", "."], check=True)

    planned = host.netplug("image", "import", "--dry-run", str(tarball), "small").stdout.splitlines()
    assert host.netplug("images", "-q", "small").stdout == ""
    done = host.netplug("image", "import", "--explain", str(tarball), "small")
    assert done.stdout.splitlines()[1:] == planned
    folder = Path(planned[0].split()[-1])
    made = (folder / "etc" / "motd").stat()

    planned_removal = host.netplug("image", "rm", "--dry-run", "small").stdout.splitlines()
    removed = host.netplug("image", "rm", "--explain", "small")
    assert removed.stdout.splitlines()[-1:] == planned_removal
    assert not folder.exists()

    paste(host.namespace, planned)
    pasted = (folder / "etc" / "motd").stat()
    assert (pasted.st_mode, pasted.st_uid, pasted.st_size) == (made.st_mode, made.st_uid, made.st_size)
    paste(host.namespace, planned_removal)
    assert not folder.exists()
