"""Checks that ask netplug itself: a daemon that is not there, a driver that is not there or falls, are said as what is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netplug.labs import course
from netplug.labs.checks.doctor import DoctorCheck
from netplug.labs.checks.driver import DriverCheck
from netplug.labs.finding import Unmet
from netplug.labs.session import Session


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Lab 1 has no daemon."""
    session = Session.start(course.find("1"))
    yield session
    Session.stop("1")


def unmet(session: Session, check: DoctorCheck | DriverCheck) -> str:
    with pytest.raises(Unmet) as caught:
        check.look(session.place)
    return str(caught.value)


def test_no_doctor_without_a_daemon(session: Session):
    check = DoctorCheck(at="host1", why="because")
    assert unmet(session, check).startswith("expected a netplug daemon on host1; found none answers (")


def test_a_driver_that_is_not_there(session: Session):
    check = DriverCheck(at="host1", why="because", name="wire", path="/run/none")
    expected = 'expected a driver wire that can be loaded from /run/none on host1; found plugin "wire" not found'
    assert unmet(session, check).startswith(expected)


def test_a_driver_that_is(session: Session):
    DriverCheck(at="host1", why="because", name="bridge", path="/run").look(session.place)
