"""A lab's life: it ends without a trace, also where it was half built; what cannot be is refused with one sentence."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from netplug.errors import Conflict, InvalidArgument, NotFound
from netplug.labs import course, record, topology
from netplug.labs.course import Cable, Commands, Lab
from netplug.labs.hosts import LabFailed
from netplug.labs.session import Session
from tests.hosts import command, machine_state
from tests.labs.traces import Traces, cookies, marked

LAB = course.find("3")


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session.start(LAB)
    yield session
    with contextlib.suppress(NotFound):
        Session.stop()


def test_stop_leaves_nothing(labs_directory: Path):
    """No namespace, link, rule, process, mount or file: with a service, a shell and rules in the lab."""
    before = machine_state()
    session = Session.start(LAB)
    session.goto(len(LAB.steps))
    session.type(Commands(run="busybox httpd -p 80 -h /run; sleep 1000 > /dev/null &"))
    argv = session.place("host1/red").argv("sleep", "1000")
    with subprocess.Popen(argv, env=session.environment(session.place("host1/red"))) as shell:
        traces = Traces.of(session)
        assert len(traces.namespaces) == 3
        assert traces.namespaces <= cookies()
        assert len(marked(traces.directory)) > 4

        assert Session.stop() == [LAB.name]

        assert shell.wait(5) == -signal.SIGKILL
    assert traces.left() == []
    assert not labs_directory.exists()
    assert machine_state() == before


def test_two_labs_run_side_by_side(session: Session):
    other = Session.start(course.find("1"))
    with pytest.raises(InvalidArgument, match=r"several labs run \(01-namespaces, 03-outside\): say which one with --lab"):
        Session.of()
    assert Session.of("1").lab == other.lab
    assert Session.stop("1") == ["01-namespaces"]
    assert Session.of().lab == LAB


def test_a_lab_starts_once(session: Session):
    with pytest.raises(Conflict, match="lab 03-outside runs already"):
        Session.start(LAB)
    assert session.look(1) is not None


@pytest.mark.parametrize(
    "broken",
    [
        msgspec.structs.replace(LAB, prepare=[*LAB.prepare, Commands(run="echo so far; ip link set nothing up")]),
        msgspec.structs.replace(LAB, cables=[*LAB.cables, Cable(ends=("host1:uplink", "internet:another"))]),
    ],
    ids=["command", "cable"],
)
def test_a_start_that_fails_leaves_nothing(broken: Lab, labs_directory: Path):
    with pytest.raises(LabFailed, match=r"nothing|File exists"):
        Session.start(broken)
    assert marked(record.directory(LAB.name)) == []
    assert not labs_directory.exists()


@pytest.mark.parametrize("damage", ["half", "missing", "unbuilt"])
def test_what_is_left_of_a_lab_can_be_stopped(session: Session, damage: str, labs_directory: Path):
    """Whoever started it was killed meanwhile, or the record was lost."""
    path = record.directory(LAB.name) / "lab.json"
    if damage == "half":
        path.write_bytes(path.read_bytes()[:20])
    elif damage == "missing":
        path.unlink()
    else:
        record.save(record.Record(LAB.name, {"host1": session.record.hosts["host1"]}))
    with pytest.raises(LabFailed, match="is not whole"):
        Session.of()

    assert Session.stop("3") == [LAB.name]

    assert marked(record.directory(LAB.name)) == []
    assert not labs_directory.exists()


def test_a_host_that_died_is_seen(session: Session):
    handle = os.pidfd_open(session.record.hosts["internet"])
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert select.select([handle], [], [], 10)[0] == [handle]  # readable when it has ended
    os.close(handle)
    with pytest.raises(LabFailed, match="a host's first process has ended"):
        Session.of()


def test_what_a_lab_needs_is_asked_for_first(monkeypatch: pytest.MonkeyPatch, labs_directory: Path):
    """The remedy is one command, with each package once."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("docker", "dockerd", "conmon") else which(name))
    with pytest.raises(
        InvalidArgument, match=r"^lab 12-plug-into-engine needs commands that are not here: apt-get install conmon docker\.io$"
    ):
        Session.start(course.find("12"))
    assert not labs_directory.exists()


def test_goto_builds_the_state_after_a_step(session: Session):
    session.type(Commands(run="ip link del br0; ip netns del red"))
    session.goto(2)
    assert session.record.done == Session.of().record.done == 2
    assert session.look(2) is None
    assert session.look(3) is not None
    session.goto(0)
    assert session.look(1) is not None
    with pytest.raises(InvalidArgument, match="has steps 1 to 3, and no step 4"):
        session.goto(4)


def test_a_host_is_a_machine_of_its_own(session: Session):
    """Host name, /run, resolv.conf, processes and /sys are the host's; the machine's are what they were."""
    code, said = session.shell("host1", "hostname; ls /run/netns; ls /sys/class/net; cat /etc/resolv.conf; ps -e -o pid= | head -1")
    assert code == 0
    lines = said.split()
    assert lines[:2] == ["host1", "red"]
    assert {"br0", "uplink", "veth-red"} <= set(lines)
    assert "A lab host has no name server" in said
    assert lines[-1] == "1"
    assert "red" not in command("ip", "netns", "list").stdout.split()
    assert "A lab host" not in Path("/etc/resolv.conf").read_text()


def test_a_lab_asks_its_own_daemons(session: Session, monkeypatch: pytest.MonkeyPatch):
    """Whatever the learner's own shell is set to."""
    monkeypatch.setenv("NETPLUG_HOST", "unix:///run/elsewhere.sock")
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    assert session.shell("host1", "echo ${NETPLUG_HOST-unset} ${DOCKER_HOST-unset}") == (0, "unset unset\n")


def test_what_fails_in_a_step_is_said(session: Session):
    """Steps need those before them: nothing is pretended."""
    with pytest.raises(LabFailed, match="Network is unreachable"):
        session.solve(3)


def test_the_picture_knows_both_ends_of_a_cable(session: Session):
    host1, internet = topology.read(session.places())
    (red,) = host1.inner
    peers = {(place.name, link.name): link.peer for place in (host1, red, internet) for link in place.interfaces if link.kind == "veth"}
    assert peers == {
        ("host1", "uplink"): ("internet", "lan0"),
        ("host1", "veth-red"): ("host1/red", "eth0"),
        ("host1/red", "eth0"): ("host1", "veth-red"),
        ("internet", "lan0"): ("host1", "uplink"),
    }
    assert {link.name: (link.master, link.state) for link in host1.interfaces} == {
        "lo": ("", "UP"),
        "uplink": ("", "UP"),
        "br0": ("", "UP"),
        "veth-red": ("br0", "UP"),
    }
    session.type(Commands(run="ip -n red link set eth0 down; ip link add one type veth peer name two"))
    links = {link.name: link for link in topology.read(session.places())[0].interfaces}
    assert links["veth-red"].state == "NO-CARRIER"
    assert links["one"].peer == ("host1", "two")
    assert links["two"].state == "DOWN"
