"""Every lab, step by step: not done before, done by its solution, and not done by the ways in which it goes wrong.

A step's check must not pass without what it asks for, so each is tried before the step, and after each mistake that lab.toml names; and
what the text says that one sees is compared with what is to be seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from netplug.labs import course, topology, vector
from netplug.labs.course import Lab, Look
from netplug.labs.readme import PICTURE
from netplug.labs.session import Session
from tests.labs.traces import Traces

STEPS = [(lab, number) for lab in course.labs() for number in range(1, len(lab.steps) + 1)]
MISTAKES = [
    (lab, number, mistake) for lab in course.labs() for number, step in enumerate(lab.steps, 1) for mistake in range(len(step.mistakes))
]

READING = 5.0
"""Seconds."""


def name(value: object) -> str:
    return value.name if isinstance(value, Lab) else str(value)


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[str, Session]]:
    """Labs that run already, by name: one at a time."""
    running: dict[str, Session] = {}
    yield running
    Session.stop()


def at(sessions: dict[str, Session], lab: Lab, number: int) -> Session:
    """The lab as it is after step `number`."""
    if lab.name not in sessions:
        Session.stop()
        sessions.clear()
        sessions[lab.name] = Session.start(lab)
    session = sessions[lab.name]
    if not 0 <= session.record.done <= number:
        session.goto(number)
    for each in range(session.record.done + 1, number + 1):
        session.solve(each)
        assert session.judge().unmet is None
    return session


def ended_without_a_trace(sessions: dict[str, Session], session: Session) -> None:
    """No process, namespace (with its links and rules), control group, mount or file of a lab is left when it is stopped."""
    traces = Traces.of(session)
    assert len(traces.namespaces) >= len(session.lab.hosts)
    assert len(traces.groups) >= traces.containers
    sessions.clear()
    Session.stop()
    assert traces.left() == []


def tried(session: Session, looks: list[Look], before: bool) -> list[str]:
    """What the text promises, of steps or of answers, and what is not so."""
    return [said for look in looks if look.before == before and (said := broken(session, look))]


def broken(session: Session, look: Look) -> str:
    """What is said instead, for as long as it takes to read on: a host hears a moment later of what another one has done."""
    deadline = time.monotonic() + READING
    while True:
        code, said = session.shell(session.lab.host(look.on), look.run)
        if bool(code) == look.fails and all(words in said for words in look.shown):
            return ""
        if time.monotonic() > deadline:
            return f"{look.run}: exit code {code}, {said}"
        time.sleep(0.1)


@pytest.mark.parametrize(("lab", "number"), STEPS, ids=name)
def test_a_step_is_not_done_and_then_it_is(sessions: dict[str, Session], lab: Lab, number: int):
    session = at(sessions, lab, number - 1)
    step = session.step(number)

    unmet = session.look(number)
    assert unmet is not None, "the check passes before the step is done"
    assert unmet.expected != ""
    assert unmet.found != ""
    assert unmet.why != ""
    assert tried(session, step.looks, before=True) == []

    session.solve(number)

    verdict = session.judge()
    assert verdict.unmet is None
    assert session.record.done == number
    if number == len(lab.steps):
        drawn = vector.picture(topology.read(session.places()))
        page = (course.COURSE / lab.name / PICTURE).read_text()
        assert vector.words(drawn) == vector.words(page), "the page's picture is of another lab: make docs draws it anew"
    assert tried(session, step.looks, before=False) == []
    if number == len(lab.steps):
        assert tried(session, [look for question in lab.questions for look in question.looks], before=False) == []
    assert session.look(number) is None, "what the text says to look at changes nothing that counts"
    if number == len(lab.steps):
        ended_without_a_trace(sessions, session)


@pytest.mark.parametrize(("lab", "number", "mistake"), MISTAKES, ids=name)
def test_a_mistake_is_named(sessions: dict[str, Session], lab: Lab, number: int, mistake: int):
    session = at(sessions, lab, number - 1)
    wrong = session.step(number).mistakes[mistake]
    session.record.done = -1  # whatever comes next needs the lab anew, unless this can be taken back

    for commands in (wrong, *wrong.also):
        session.shell(lab.host(commands.on), commands.run)

    unmet = session.look(number)
    assert unmet is not None, "the check takes a mistake for the solution"
    assert wrong.says in str(unmet)
    for commands in wrong.undo:
        session.type(commands)
    session.record.done = number - 1 if wrong.undo else -1


@pytest.mark.parametrize("lab", course.labs(), ids=name)
def test_every_step_has_a_mistake_and_a_check_that_sends_or_looks(lab: Lab):
    assert [step.title for step in lab.steps if not step.mistakes or not step.checks] == []
