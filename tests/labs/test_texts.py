"""What learners read is what is checked: pages are written from lab.toml, links lead somewhere, and a bad lab.toml says what is bad."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from netplug.errors import Ambiguous, InvalidArgument, NotFound
from netplug.labs import course, readme
from netplug.labs.course import Lab, Look, Step

FRONT = course.COURSE / "README.md"
LABS = course.labs()


def name(value: object) -> str:
    return value.name if isinstance(value, Lab) else str(value)


@pytest.mark.parametrize("lab", LABS, ids=name)
def test_the_page_is_written_from_the_lab(lab: Lab):
    assert (course.COURSE / lab.name / "README.md").read_text() == readme.render(lab), "make docs writes it anew"


@pytest.mark.parametrize("lab", LABS, ids=name)
def test_the_page_has_the_solutions_commands(lab: Lab):
    """Letter by letter, each block that is typed by `solve` is a block to be typed by the reader."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (course.COURSE / lab.name / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    solutions = [commands.run.strip() + "\n" for step in lab.steps for commands in step.solution]
    assert [solution for solution in solutions if solution not in blocks] == []


@pytest.mark.parametrize("page", [FRONT, *sorted(course.COURSE.glob("*/README.md"))], ids=lambda page: page.parent.name)
def test_links_lead_to_files(page: Path):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    real = page.resolve().parent
    assert [target for target in targets if not (real / target).exists()] == []


def test_the_front_page_has_every_lab():
    text = FRONT.read_text()
    rows = [f"| [{lab.number}. {lab.title}]({lab.name}/README.md)" for lab in LABS]
    assert [row for row in rows if row not in text] == []
    assert [f"{lab.minutes} min" for lab in LABS if f"{lab.minutes} min |" not in text] == []


def test_the_front_page_shows_every_labs_picture():
    shown = re.findall(r'<a href="([^"]*)"><img src="([^"]*)"', FRONT.read_text())
    assert shown == [(f"{lab.name}/README.md", f"{lab.name}/{readme.PICTURE}") for lab in LABS]


@pytest.mark.parametrize("lab", LABS, ids=name)
def test_every_step_has_a_hint(lab: Lab):
    assert [step.title for step in lab.steps if not step.hint.strip()] == []


@pytest.mark.parametrize("lab", LABS, ids=name)
def test_every_lab_asks_and_answers(lab: Lab):
    """Below its steps, each answer folded away below its question."""
    page = readme.render(lab)
    _, _, asked = page.partition("\n## Questions\n")
    assert len(lab.questions) > 1
    for number, question in enumerate(lab.questions, 1):
        assert question.asks.strip().endswith("?")
        assert question.answer.strip() != ""
        folded = f"<details><summary>Answer</summary>\n\n{question.answer.strip()}\n"
        assert f"**Question {number}.** {question.asks.strip()}\n\n{folded}" in asked


@pytest.mark.parametrize("lab", LABS, ids=name)
def test_questions_have_short_lines(lab: Lab):
    _, _, asked = readme.render(lab).partition("\n## Questions\n")
    assert [line for line in asked.partition("\n## The end\n")[0].splitlines() if len(line) > 140] == []


@pytest.mark.parametrize("lab", LABS, ids=name)
def test_a_lab_that_names_tcpdump_needs_it(lab: Lab):
    assert "tcpdump" in lab.needs or "tcpdump" not in readme.render(lab)


def test_what_a_look_shows_is_one_thing_or_several():
    shown = [readme.render(msgspec.structs.replace(LABS[0], steps=[step], questions=[])) for step in _looking("one", ["one", "two"], "")]
    assert "It says `one`." in shown[0]
    assert "It says `one` and `two`." in shown[1]
    assert "It says" not in shown[2]


def _looking(*shows: str | list[str]) -> list[Step]:
    """A step that shows it, for each."""
    return [msgspec.structs.replace(LABS[0].steps[0], looks=[Look(run="true", shows=each)]) for each in shows]


def test_labs_are_found_by_number_name_and_beginning():
    first = LABS[0]
    assert [course.find(given).name for given in ("1", "01", first.name, first.name[:5])] == [first.name] * 4
    with pytest.raises(NotFound, match="No such lab: 99"):
        course.find("99")
    with pytest.raises(NotFound):
        course.find("")


def test_a_beginning_of_several_labs_is_refused(monkeypatch: pytest.MonkeyPatch):
    twins = (LABS[0], msgspec.structs.replace(LABS[0], name=f"{LABS[0].name}-again"))
    monkeypatch.setattr(course, "labs", lambda: twins)
    with pytest.raises(Ambiguous, match=f"lab 1 is not one: {twins[0].name}, {twins[1].name}"):
        course.find("1")
    assert course.find(twins[0].name) == twins[0]


MINIMAL = """
title = "T"
goal = "G"
minutes = 1
[[hosts]]
name = "host1"
[[steps]]
title = "S"
text = "t"
hint = "h"
[[steps.solution]]
run = "true"
[[steps.checks]]
kind = "ping"
at = "host1"
to = "127.0.0.1"
why = "w"
"""


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('kind = "ping"', 'kind = "pong"', "Invalid value 'pong'"),
        ('at = "host1"', 'at = "host2/red"', "no host host2; its hosts are host1"),
        ('run = "true"', 'run = "true"\non = "elsewhere"', "no host elsewhere"),
        ('to = "127.0.0.1"', 'too = "127.0.0.1"', "missing required field `to`|unknown field `too`"),
        ("minutes = 1", "minutes = soon", "Invalid value"),
        ("minutes = 1", "", "missing required field `minutes`"),
        ('why = "w"', 'why = "w"\n[[questions]]\nasks = "Why?"', "missing required field `answer`"),
        (
            'why = "w"',
            'why = "w"\n[[questions]]\nasks = "Why?"\nanswer = "So."\n[[questions.looks]]\nrun = "true"\non = "elsewhere"',
            "no host elsewhere",
        ),
    ],
)
def test_a_bad_lab_says_what_is_bad(tmp_path: Path, before: str, after: str, sentence: str):
    directory = tmp_path / "77-bad"
    directory.mkdir()
    (directory / "lab.toml").write_text(MINIMAL)
    assert course.read(directory).number == 77

    (directory / "lab.toml").write_text(MINIMAL.replace(before, after))

    with pytest.raises(InvalidArgument, match=sentence):
        course.read(directory)
