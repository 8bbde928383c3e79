"""Labs with a host per machine, as on the Vagrantfile's: made ready by packaging/lab-machine.sh, typed from the text, looked at from each.

A machine is stood in for by a host of namespaces that has what Vagrant gives: a link `eth1` with an address of its own, to the other one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug.labs import course, hosts
from netplug.labs.course import Cable, Lab
from netplug.labs.finding import Unmet
from netplug.labs.places import Place

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "packaging/lab-machine.sh"
NETPLUG = Path(sys.executable).with_name("netplug")
LABS = [lab for lab in course.labs() if lab.machines]


class Machine:
    """`host` is what it is in the lab."""

    def __init__(self, place: Place, host: str) -> None:
        self.place, self.host = place, host

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{NETPLUG.parent}:{os.environ['PATH']}"}
        return subprocess.run(
            self.place.argv(*argv), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, env=environment
        )

    def become(self, lab: str) -> subprocess.CompletedProcess[str]:
        return self.run("sh", str(SCRIPT), lab, self.host)

    def check(self, lab: Lab, number: int) -> subprocess.CompletedProcess[str]:
        return self.run("netplug", "lab", "check", str(number), "--lab", lab.name, "--on", self.host)


def machines(lab: Lab, directory: Path) -> list[Machine]:
    """node1, node2: with the addresses of the Vagrantfile."""
    directory.mkdir(exist_ok=True)
    made = [Machine(hosts.make(f"node{number}", directory), host.name) for number, host in enumerate(lab.hosts, 1)]
    hosts.plug(Cable(ends=("node1:eth1", "node2:eth1")), {machine.place.name: machine.place for machine in made})
    for number, machine in enumerate(made):
        machine.run("ip", "address", "add", f"192.168.205.{10 + number}/24", "dev", "eth1")
        machine.run("ip", "link", "set", "eth1", "up")
    return made


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "machines"
    hosts.end(tmp_path / "machines")


def test_there_are_such_labs():
    assert [lab.number for lab in LABS if len(lab.hosts) == 2][:2] == [9, 10]


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)
def test_a_lab_on_two_machines(lab: Lab, directory: Path):
    """Each step is not done, then typed on each machine from the text, and then done; the last one also as seen from each alone."""
    both = machines(lab, directory)
    for machine in both:
        done = machine.become(lab.name)
        assert done.stdout == f"this machine is {machine.host} of lab {lab.name}\n", done.stderr
        assert machine.run("hostname").stdout.strip() == machine.host

    places = {machine.host: machine.place.pid for machine in both}
    for number in range(1, len(lab.steps) + 1):
        assert unmet(lab, number, places) is not None
        for machine in both:
            typed = machine.run("sh", "-ec", lab.typed(machine.host, number))
            assert typed.returncode == 0, typed.stderr
        assert unmet(lab, number, places) is None
    for machine in both:
        done = machine.check(lab, len(lab.steps))
        assert done.returncode == 0, done


def unmet(lab: Lab, number: int, places: dict[str, int]) -> Unmet | None:
    """Of the whole step, with the eyes of both machines."""
    try:
        for check in lab.step(number).checks:
            check.look(lambda name: Place(name, places[name.partition("/")[0]]))
    except Unmet as missing:
        return missing
    return None


def test_a_machine_says_what_is_missing_there(directory: Path):
    lab = course.find("9")
    one, _ = machines(lab, directory)
    one.become("9")
    done = one.check(lab, 1)
    assert done.returncode == 1
    assert "expected  host1 to reach 10.1.2.1 via 192.168.205.11 through uplink" in done.stdout
    assert "that is how it looks from host1; look from host2 as well" in done.stdout
    assert "cannot be seen from host1 alone" in one.check(lab, 2).stderr


def test_what_cannot_be_is_said_and_changes_nothing(directory: Path):
    one, _ = machines(course.find("9"), directory)
    for arguments, sentence in (
        (("9", "host7"), "netplug lab: lab 09-routes has no host host7: its hosts are host1, host2"),
        (("99", "host1"), "netplug lab: No such lab: 99"),
        (("--uplink", "eth9", "9", "host1"), 'Device "eth9" does not exist.'),
        (("9",), "usage: lab-machine.sh"),
    ):
        done = one.run("sh", str(SCRIPT), *arguments)
        assert done.returncode != 0
        assert sentence in done.stderr
    assert "192.168.205.10/24" in one.run("ip", "address", "show", "dev", "eth1").stdout
    done = one.run("netplug", "lab", "check", "1", "--lab", "3", "--on", "host1")
    assert (done.returncode, "lab 03-outside is for one machine" in done.stderr) == (1, True)
    done = one.run("netplug", "lab", "commands", "9", "host2", "--step", "1")
    assert (done.returncode, done.stdout) == (0, course.find("9").typed("host2", 1) + "\n")
    assert done.stdout.startswith("ip route add 10.1.1.0/24 via 192.168.205.10")
    done = one.run("netplug", "lab", "check", "--on", "host1")
    assert (done.returncode, "say which step of which lab" in done.stderr) == (1, True)


def test_the_vagrantfile_has_the_machines_of_the_text():
    text = (ROOT / "Vagrantfile").read_text()
    assert '"node1" => "192.168.205.10", "node2" => "192.168.205.11"' in text
    for lab in LABS:
        addresses = [host.about.partition(";")[0] for host in lab.hosts]
        assert addresses == ["192.168.205.10", "192.168.205.11"]
