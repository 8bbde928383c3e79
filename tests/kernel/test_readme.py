"""README's first ten minutes, typed as they stand into one shell: each command works, and says what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug.cli.demo_hosts import end_processes, mounts_below

ROOT = Path(__file__).parents[2]
CHAPTER = "## The first ten minutes\n"
MARK = "@@@ "
VARIES = (
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b(veth|br-|netplug:|netns/)[0-9a-f]{7,12}(/[0-9a-f]{12})?", r"\1ID"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d{3}", "TIME"),
    (r"\btime=\S+", "time=T"),
    (r"\bpid \d+", "pid N"),
    (r"\b\d+ seconds? ago|Less than a second ago", "NOW"),
    (r" {2,}", "  "),
)
"""What is another every time."""


def chapter() -> list[tuple[str, list[str]]]:
    """Its commands, each with the lines that the page shows below it."""
    text = (ROOT / "README.md").read_text().split(CHAPTER)[1].split("\n## ")[0]
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("# ") and not re.match(r"# \d{4}-", line):  # a line of the journal begins so as well
                found.append((line.removeprefix("# "), []))
            else:
                found[-1][1].append(line)
    return found


@pytest.fixture
def tour() -> Iterator[Path]:
    """A directory whose name is also the namespace's; nothing of either is left, whatever the shell has come to."""
    with tempfile.TemporaryDirectory(prefix="np-tour-", dir="/run") as name:
        place = Path(name)
        yield place
        if Path("/run/netns", place.name).exists():
            pids = subprocess.run(("ip", "netns", "pids", place.name), text=True, capture_output=True, check=True).stdout
            end_processes([int(pid) for pid in pids.split()])
            subprocess.run(("ip", "netns", "del", place.name), check=True)
        for point in reversed(mounts_below(place)):
            subprocess.run(("umount", "--lazy", point), check=True)
        place.mkdir(exist_ok=True)  # the tour has removed it


def test_the_first_ten_minutes(tour: Path):
    steps = [(_here(command, tour), [_here(line, tour) for line in shown]) for command, shown in chapter()]
    steps = [step for step in steps if "make setup" not in step[0]]
    script = "set -m\n" + "".join(_typed(number, command, tour) for number, (command, _) in enumerate(steps))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    done = subprocess.run(
        ("bash",), input=script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"PATH": path}, cwd=ROOT, timeout=60
    )

    said = dict(part.split("\n", 1) for part in f"\n{done.stdout}".split(f"\n{MARK}")[1:])
    assert len(said) == len(steps), done.stdout
    for number, (command, shown) in enumerate(steps):
        pattern = "".join(map(_pattern, shown))
        assert re.match(pattern, _steady(f"{said[str(number)].strip()}\n")), f"{command} says\n{said[str(number)]}\nnot\n" + "\n".join(
            shown
        )
    assert not tour.exists()
    assert not Path("/run/netns", tour.name).exists()


def _here(text: str, tour: Path) -> str:
    return re.sub(r"\btour\b", tour.name, text)


def _typed(number: int, command: str, tour: Path) -> str:
    """As in a terminal, where the next command comes when a daemon in the background is ready."""
    ready = f"for _ in {{1..100}}; do [ -S /run/{tour.name}/netplug.sock ] && netplug version > /dev/null 2>&1 && break; sleep 0.1; done\n"
    return f"echo; echo '{MARK}{number}'\n{command}\n" + (ready if command.endswith("&") else "")


def _pattern(line: str) -> str:
    """`…` is the rest of a line, or of all that is said."""
    if line == "…":
        return r"(.*\n)*?"
    return re.escape(_steady(line)).replace("…", ".*") + r"\n"


def _steady(text: str) -> str:
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text)
    return text
