"""What tests start in a hurry is what users start: the same command line, place, files, answers and ends."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import nursery
from tests.hosts import Host
from tests.kernel.test_faults import command_line

OURS = nursery.PROGRAM


@pytest.mark.parametrize(
    ("argv", "namespaces", "directory"),
    [
        (OURS, (), ""),
        (("nsenter", "--net=/run/netns/a", *OURS), ("/run/netns/a",), ""),
        (
            ("nsenter", "--target", "7", "--mount", "--uts", "--net=/n", "--wd=/tmp", *OURS),
            ("/proc/7/ns/uts", "/n", "/proc/7/ns/mnt"),
            "/tmp",
        ),
    ],
    ids=["here", "a namespace", "several"],
)
def test_what_it_starts(argv: tuple[str, ...], namespaces: tuple[str, ...], directory: str):
    assert nursery.place(argv) == nursery.Place(namespaces, directory, OURS)


@pytest.mark.parametrize(
    "argv",
    [
        ("ip", "link"),
        ("nsenter", "--pid=/x", *OURS),
        ("nsenter", "--net=/x", "ip"),
        ("unshare", "-n", *OURS),
        (*OURS, "daemon", "--docker-plugin", "/x"),
    ],
    ids=" ".join,
)
def test_what_it_does_not_start(argv: tuple[str, ...]):
    assert nursery.place(argv) is None


def files(process: Path) -> list[str]:
    """What it has open, but what it closes while that is looked at."""
    links = []
    for file in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(file))
    return links


def test_a_daemon_is_what_it_would_be(host: Host):
    seen = []
    for plain in (False, True):
        if plain:
            with nursery.plainly():
                host.restart()
        else:
            host.restart()
        assert isinstance(host.daemon, subprocess.Popen if plain else nursery.Fork)
        pid = host.daemon.pid
        path = Path(f"/proc/{pid}")
        links = files(path)
        seen.append(
            {
                "command line": command_line(pid).rstrip(b"\0"),
                "name": (path / "comm").read_text(),
                "session": os.getsid(pid) == pid,
                "directory": (path / "cwd").readlink(),
                "namespaces": {kind: (path / "ns" / kind).readlink() for kind in ("net", "mnt", "uts", "pid")},
                "files": {number: (path / "fd" / number).readlink() for number in "012"},
                "handed on": [
                    link for link in links if link == os.getcwd() or link.startswith(("net:", "mnt:", "uts:", "anon_inode:[pidfd"))
                ],
                "signals": [line for line in (path / "status").read_text().splitlines() if re.match("Sig(Pnd|Blk|Ign|Cgt)", line)],
                "end": host.stop(),
            }
        )
        host.start()
    assert seen[0] == seen[1]
    assert seen[0]["end"] == 0
    daemon = host.daemon
    host.kill9()
    assert daemon.returncode == -9
    host.start()


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("network", "ls", "--no-trunc"), ""),
        (("network", "nope"), ""),
        (("--version",), ""),
        (("run", "-i", "--rm", "host", "busybox", "wc", "-c"), "word " * 100_000),
        (("run", "--rm", "host", "busybox", "sh", "-c", "echo out; echo error >&2; exit 7"), ""),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_a_command_says_what_it_would(host: Host, arguments: tuple[str, ...], stdin: str):
    told = host.netplug(*arguments, stdin=stdin)
    with nursery.plainly():
        plain = host.netplug(*arguments, stdin=stdin)
    assert (told.returncode, told.stdout, told.stderr) == (plain.returncode, plain.stdout, plain.stderr)


def test_a_command_that_takes_too_long_is_ended(host: Host):
    with pytest.raises(subprocess.TimeoutExpired):
        host.netplug("events", timeout=0.5)
