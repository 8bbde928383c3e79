"""`make labs`: labs from start to end, a table of what took how long and went wrong, and an exit code; and what `make docs` writes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from netplug.labs import __main__, course, readme, record, vector
from netplug.labs.course import Commands, Lab

LAB = course.find("1")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the table are lines."""
    monkeypatch.setenv("COLUMNS", "250")


def rows(table: str) -> list[list[str]]:
    """Lab, step and result of each; what took how long is a number."""
    found = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    assert [row[2] for row in found if not re.fullmatch(r"\d+\.\d\d", row[2])] == []
    return [[row[0], row[1], row[3]] for row in found]


def test_a_lab_is_played_and_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(course, "COURSE", tmp_path)
    (tmp_path / LAB.name).mkdir()

    assert __main__.main(["--write", "1"]) == 0

    steps = [["", f"{number}  {step.title}", "ok"] for number, step in enumerate(LAB.steps, 1)]
    assert rows(capsys.readouterr().out) == [[LAB.name, "start", "ok"], *steps, ["", "stop", "ok"]]
    assert (tmp_path / LAB.name / "README.md").read_text() == readme.render(LAB)
    drawn = (tmp_path / LAB.name / readme.PICTURE).read_text()
    assert {"red", "blue", "10.0.0.1/24", "10.0.0.2/24"} <= set(vector.words(drawn))
    assert record.running() == []


def test_a_lab_that_is_not_there(capsys: pytest.CaptureFixture[str]):
    assert __main__.main(["99"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "labs: No such lab: 99 ('netplug lab list' shows all)\n"
    assert rows(printed.out) == []


def with_solution(run: str) -> Lab:
    """Lab 1 with nothing but its first step, and another solution of that."""
    return msgspec.structs.replace(LAB, steps=[msgspec.structs.replace(LAB.steps[0], solution=[Commands(run=run)])])


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("ip netns add '[red]'", "expected a network namespace red on host1; found namespaces on host1: [red]"),
        ("ip netns add red; ip netns add blue", "ok"),
    ],
    ids=["wrong", "right"],
)
def test_a_solution_that_does_not_solve_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str, said: str):
    monkeypatch.setattr(course, "find", lambda name: with_solution(run))
    assert __main__.main(["1"]) == (said != "ok")
    assert rows(capsys.readouterr().out)[1:] == [["", "1  Two namespaces", said], ["", "stop", "ok"]]


def test_a_solution_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(course, "find", lambda name: with_solution("echo so far; false"))
    assert __main__.main(["1"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "labs: on host1, this failed with 1:\necho so far; false\nso far\n"
    assert rows(printed.out) == [[LAB.name, "start", "ok"]]
    assert record.running() == []


def test_a_check_that_passes_too_soon_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    lab = msgspec.structs.replace(with_solution("true"), prepare=LAB.steps[0].solution)
    monkeypatch.setattr(course, "find", lambda name: lab)
    assert __main__.main(["1"]) == 1
    assert rows(capsys.readouterr().out)[1] == ["", "1  Two namespaces", "its check passes before it is done"]
