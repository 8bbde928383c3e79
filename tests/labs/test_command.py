"""`netplug lab …`, as a learner types it; no daemon runs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from netplug.labs import course
from netplug.labs.session import Session


def netplug_lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "netplug.cli", "lab", *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    """Lab 1 runs."""
    done = netplug_lab("start", "1")
    assert done.returncode == 0
    assert "netplug lab shell host1" in done.stdout
    assert "Step 1: Two namespaces" in done.stdout
    yield "01-namespaces"
    Session.stop()


def test_list_shows_all_and_which_run(lab: str):
    lines = netplug_lab("list").stdout.splitlines()
    assert lines[0].split() == ["LAB", "STEPS", "TIME", "STATE", "TITLE"]
    assert [line.split()[0] for line in lines[1:]] == [each.name for each in course.labs()]
    assert [line.split()[0] for line in lines if " running " in line] == [lab]


def test_a_learners_way(lab: str):
    """Check, hint, a step by hand, one by `solve`, back, and all at once."""
    assert netplug_lab("goto", "0").returncode == 0
    done = netplug_lab("check")
    assert done.returncode == 1
    for words in (
        "step 1  not done  Two namespaces",
        "expected  a network namespace red on host1",
        "found     namespaces on host1: none",
        "why       Both ends",
        "netplug lab hint",
    ):
        assert words in done.stdout
    assert "`ip netns add NAME`" in netplug_lab("hint").stdout

    for name in ("red", "blue"):
        assert netplug_lab("shell", "host1", "ip", "netns", "add", name).returncode == 0
    done = netplug_lab("check")
    assert done.returncode == 1
    assert "step 1  done  Two namespaces\nstep 2  not done" in done.stdout

    done = netplug_lab("solve")
    assert done.returncode == 0
    assert "host1# ip link add eth0 netns red type veth peer name eth0 netns blue\nstep 2  done" in done.stdout
    assert "step 3  next  Addresses" in netplug_lab("status").stdout
    assert netplug_lab("check", "1").returncode == 0
    assert netplug_lab("check", "4").returncode == 1

    assert netplug_lab("goto", "1").returncode == 0
    assert "step 2  next  A cable" in netplug_lab("status").stdout
    done = netplug_lab("solve", "--all")
    assert done.returncode == 0
    assert "All steps are done" in done.stdout
    assert netplug_lab("check").returncode == 0


def test_the_diagram_is_drawn_from_the_kernel(lab: str, tmp_path: Path):
    netplug_lab("goto", "4")
    netplug_lab("shell", "host1", "ip", "-n", "blue", "link", "set", "eth0", "down")
    assert netplug_lab("diagram").stdout.splitlines() == [
        "host1",
        "├─ lo             UP          127.0.0.1/8, ::1/128",
        "├─ blue",
        "│  ├─ lo          DOWN",
        "│  └─ eth0  veth  DOWN        10.0.0.2/24           ── red:eth0",
        "└─ red",
        "   ├─ lo          DOWN",
        "   └─ eth0  veth  NO-CARRIER  10.0.0.1/24           ── blue:eth0",
    ]
    picture = tmp_path / "lab.svg"
    assert netplug_lab("diagram", "--svg", str(picture)).returncode == 0
    words = [element.text for element in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert words[:2] == ["host1", "blue"]
    assert {"red", "lo  DOWN", "eth0  DOWN", "eth0  NO-CARRIER", "10.0.0.1/24"} <= set(words)
    dots = tmp_path / "lab.png"
    assert netplug_lab("diagram", "--png", str(dots)).returncode == 0
    assert dots.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    size = [round(float(ElementTree.parse(picture).getroot().get(side, ""))) for side in ("width", "height")]
    assert [int.from_bytes(dots.read_bytes()[start : start + 4]) for start in (16, 20)] == [2 * side for side in size]
    done = netplug_lab("diagram", "--svg", str(tmp_path / "no" / "lab.svg"))
    assert (done.returncode, done.stderr) == (1, f"netplug lab: {tmp_path}/no/lab.svg: No such file or directory\n")


def test_a_shell_says_where_it_is(lab: str):
    """On a terminal; the shell is one of the host's processes, with the host's name."""
    netplug_lab("goto", "1")
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "netplug.cli", "lab", "shell", "host1/red"]
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as shell:
        os.close(slave)
        os.write(master, b"echo I am on $(hostname) as $$; ip -o link | wc -l; exit 7\n")
        said = b""
        try:
            while piece := os.read(master, 4096):
                said += piece
        except OSError:  # the other side of a terminal has gone
            pass
        assert shell.wait(20) == 7
    os.close(master)
    assert b"host1/red:/# " in said
    assert b"I am on host1 as " in said
    assert int(said.split(b"I am on host1 as ")[-1].split()[0]) < 1000


def test_the_command_of_a_shell_gives_its_exit_code(lab: str):
    assert netplug_lab("shell", "host1", "sh", "-c", "exit 3").returncode == 3
    done = netplug_lab("shell", "host1", "ip", "-br", "link", "show", "lo")
    assert done.stdout.split()[:2] == ["lo", "UNKNOWN"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["start", "99"], "netplug lab: No such lab: 99 ('netplug lab list' shows all)"),
        (["start", "1"], "netplug lab: lab 01-namespaces runs already: 'netplug lab status', or 'netplug lab stop 01-namespaces'"),
        (["check", "9"], "netplug lab: lab 01-namespaces has steps 1 to 4, and no step 9"),
        (["check", "--lab", "2"], "netplug lab: lab 02-bridge does not run: start it with 'netplug lab start 02-bridge'"),
        (["shell", "host7"], "netplug lab: lab 01-namespaces has no host host7: its hosts are host1"),
        (["shell", "host1/green", "true"], "netplug lab: host host1 has no namespace green: it has"),
        (["stop", "2"], "netplug lab: lab 02-bridge does not run"),
    ],
)
def test_what_cannot_be_is_said(lab: str, arguments: list[str], sentence: str):
    done = netplug_lab(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["list"], ["start", "2"], ["status"], ["stop"]], ids=lambda words: words[0])
def test_who_is_not_root_is_told_so(lab: str, arguments: list[str], labs_directory: Path):
    """Somebody else's labs are running: their directory is closed to him."""
    someone = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "netplug.cli", "lab", *arguments]
    done = subprocess.run(someone, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("netplug lab: ")
    assert done.stderr.rstrip().endswith("as root")


def test_a_users_path_is_enough(lab: str):
    """What `su` leaves has no directory for the administrator's commands."""
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    argv = [sys.executable, "-m", "netplug.cli", "lab", "shell", "host1", "ip", "-br", "link"]
    assert subprocess.run(argv, capture_output=True, env=environment, timeout=60).returncode == 0


def test_stop_says_what_it_ended(lab: str):
    assert netplug_lab("stop").stdout == f"{lab}\n"
    assert netplug_lab("status").stdout == "no lab runs\n"
    done = netplug_lab("check")
    assert (done.returncode, done.stderr) == (
        1,
        "netplug lab: no lab runs: 'netplug lab list' shows them, 'netplug lab start LAB' starts one\n",
    )
    assert netplug_lab("start", "1").returncode == 0
