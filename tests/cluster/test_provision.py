"""packaging/provision-node.sh makes a cluster: run in host namespaces as the Vagrantfile runs it on machines, but without systemd."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netplug.cli.demo_hosts import end_processes, owned_processes, remove_tree
from netplug.labs import course
from tests.etcd_members import require_etcd
from tests.hosts import Lan, Namespace, command

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "packaging" / "provision-node.sh"
PATIENCE = 60
IDLE = ("host", "sleep", "1000000")
PIP = """#!/bin/sh
# A Python that only notes which labs pip is to install.
[ "$2 $3" = "pip install" ] || exit 0
for copy; do :; done
cd "$copy/netplug/labs/course" && ls -d [0-9]*/README.md >> "${0%/*}/installed"
echo . >> "${0%/*}/installed"
"""


class Machine:
    """A host namespace in which the script has been run. Everything it writes is in `directory`."""

    def __init__(self, lan: Lan, name: str, *options: str) -> None:
        self.name, self.options = name, options
        self.address = lan.free_address()
        self.directory = Path(tempfile.mkdtemp(prefix="np"))
        self.namespace = Namespace(f"{lan.label}-{name}")
        lan.plug(self.namespace, name, self.address)

    def install(self) -> None:
        """From outside the namespace, which has no way to where packages come from."""
        command("sh", str(SCRIPT), "--root", str(self.directory), "--install-only", timeout=300)

    def provision(self, *members: str) -> str:
        options = ("--root", str(self.directory), "--no-systemd", *self.options)
        return self.namespace.run("sh", str(SCRIPT), *options, self.name, self.address, *members, timeout=300).stdout

    def pid(self, program: str) -> int:
        return int((self.directory / "run" / f"{program}.pid").read_text())

    def netplug(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ, NETPLUG_HOST=f"unix://{self.directory}/run/netplug/netplug.sock")
        return command(sys.executable, "-m", "netplug.cli", *arguments, check=False, env=environment)

    def said(self) -> str:
        return "".join(path.read_text(errors="replace")[-3000:] for path in sorted((self.directory / "run").glob("*.log")))

    def close(self) -> None:
        """By the pids that were written; then what outlives a daemon, by its directory."""
        for container in self.netplug("ps", "-aq").stdout.split():
            self.netplug("rm", "-f", container)
        with contextlib.suppress(FileNotFoundError):
            end_processes([self.pid("netplug")])
        with contextlib.suppress(FileNotFoundError):
            end_processes([self.pid("etcd")])
        end_processes(owned_processes(self.namespace.path, self.directory))
        self.namespace.remove()
        remove_tree(self.directory)


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    """The first is for a netplug of its own, as a new machine is; the second is given ours."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    require_etcd()
    netplug = Path(sys.executable).with_name("netplug")
    with Lan() as lan, contextlib.ExitStack() as stack:
        made = []
        for name, options in (("node1", ()), ("node2", ("--netplug", str(netplug)))):
            made.append(Machine(lan, name, *options))
            stack.callback(made[-1].close)
        yield made[0], made[1]
        for machine in made:  # pytest shows it with a test that failed
            print(f"{machine.name}:\n{machine.said()}")


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"


def test_two_machines_become_a_cluster(machines):
    """The classic walkthrough on what the script has set up, with etcd on both."""
    one, two = machines
    members = [f"{machine.name}={machine.address}" for machine in machines]
    one.install()

    listed = command(str(one.directory / "opt/netplug/bin/netplug"), "lab", "list").stdout.splitlines()[1:]
    assert [line.split()[0] for line in listed] == [lab.name for lab in course.labs()]
    for machine in machines:
        assert machine.provision(*members).endswith(f"over etcd://{one.address}:2379,{two.address}:2379\n")

    until(lambda: one.netplug("network", "create", "-d", "overlay", "demo").returncode == 0, "node1 makes a network")
    until(lambda: "demo" in two.netplug("network", "ls", "--format", "{{.Name}}").stdout.split(), "node2 hears of it")
    assert one.netplug("run", "-d", "--name", "test1", "--network", "demo", *IDLE).returncode == 0
    refused = two.netplug("run", "-d", "--name", "test1", "--network", "demo", *IDLE)
    assert "endpoint with name test1 already exists in network demo" in refused.stderr
    assert two.netplug("run", "-d", "--name", "test2", "--network", "demo", *IDLE).returncode == 0
    for machine, container, other in ((one, "test1", "test2"), (two, "test2", "test1")):
        ping = machine.netplug("exec", container, "ping", "-c", "3", "-i", "0.2", "-W", "2", other)
        assert ping.returncode == 0, ping.stdout + ping.stderr


def test_a_changed_lab_is_installed_anew(tmp_path: Path):
    """With a pip that installs nothing: what the script gives it, and when."""
    source = tmp_path / "source"
    for directory in ("netplug", "drivers", "ipam", "packaging", "labs"):
        shutil.copytree(ROOT / directory, source / directory, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / file, source)
    binaries = tmp_path / "root/opt/netplug/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text(PIP)
    (binaries / "python").chmod(0o755)

    def installed() -> list[str]:
        command("sh", str(source / "packaging" / SCRIPT.name), "--root", str(tmp_path / "root"), "--install-only", timeout=300)
        return (binaries / "installed").read_text().split()

    once = [*(f"{lab.name}/README.md" for lab in course.labs()), "."]
    assert installed() == once
    assert installed() == once
    for name in ("README.md", "lab.svg", "lab.toml"):
        once += once[: len(course.labs()) + 1]
        with (source / "labs/01-namespaces" / name).open("a") as file:
            file.write("\n")
        assert installed() == once


def test_run_again_it_changes_what_is_not_as_asked(machines):
    one, _ = machines
    one.options = machines[1].options
    member = f"node1={one.address}"
    one.provision(member)
    before = one.pid("etcd"), one.pid("netplug")

    one.provision(member)
    assert (one.pid("etcd"), one.pid("netplug")) == before

    one.provision(member, "node9=203.0.113.99")
    assert one.pid("etcd") != before[0]
    assert one.pid("netplug") != before[1]
    flags = (one.directory / "etc/default/netplug").read_text()
    assert f"--store etcd://{one.address}:2379,203.0.113.99:2379 --advertise {one.address} --node node1" in flags
    assert not Path(f"/proc/{before[0]}").exists()


def test_units_are_ones_that_systemd_takes(machines):
    one, _ = machines
    one.options = machines[1].options
    one.provision(f"node1={one.address}")
    unit = (one.directory / "etc/systemd/system/etcd.service").read_text()

    assert f"ExecStart=/usr/bin/etcd --name node1 --data-dir {one.directory}/var/lib/etcd/netplug" in unit
    assert (one.directory / "etc/systemd/system/netplug.service").read_text() == (ROOT / "packaging/netplug.service").read_text()
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze, which would read the unit, is not here")
    verified = command("systemd-analyze", "verify", str(one.directory / "etc/systemd/system/etcd.service"), check=False)
    assert verified.returncode == 0, verified.stderr


def test_without_members_it_says_how_it_is_used():
    said = command("sh", str(SCRIPT), "node1", "192.0.2.1", check=False)
    assert (said.returncode, said.stderr.startswith("usage: provision-node.sh")) == (2, True)


def test_the_vagrantfile_is_ruby():
    if shutil.which("ruby") is None:
        pytest.skip("needs ruby")
    assert command("ruby", "-c", str(ROOT / "Vagrantfile")).stdout == "Syntax OK\n"


def test_the_scripts_are_clean():
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    checked = command("shellcheck", *map(str, (ROOT / "packaging").glob("*.sh")), check=False)
    assert checked.stdout == ""
