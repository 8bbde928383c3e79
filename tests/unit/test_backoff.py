"""Nobody is fought: what is taken away again and again is left alone, longer each time, and not for ever."""

from __future__ import annotations

import pytest

from netplug.controller.backoff import LONGEST, TIMES, WINDOW, Backoff, Verdict


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backoff(clock: Clock) -> Backoff:
    return Backoff(clock)


def exhaust(backoff: Backoff, thing: str = "bridge") -> None:
    assert [backoff.judge(thing) for _ in range(TIMES + 1)] == [Verdict.PUT_BACK] * TIMES + [Verdict.PAUSE]


def test_a_thing_is_put_back_three_times_a_minute(backoff: Backoff, clock: Clock):
    exhaust(backoff)
    assert backoff.judge("bridge") is Verdict.PAUSED
    assert backoff.judge("another") is Verdict.PUT_BACK
    assert backoff.paused() == ["bridge"]
    assert backoff.left("bridge") == WINDOW
    assert backoff.left("another") == 0


def test_what_goes_seldom_is_put_back_for_ever(backoff: Backoff, clock: Clock):
    for _ in range(100):
        assert backoff.judge("bridge") is Verdict.PUT_BACK
        clock.now += WINDOW / (TIMES - 1)


def test_each_pause_is_twice_as_long_as_the_one_before(backoff: Backoff, clock: Clock):
    pauses = []
    for _ in range(9):
        exhaust(backoff)
        pauses.append(backoff.left("bridge"))
        clock.now += pauses[-1]
        assert backoff.paused() == []
    assert pauses[:4] == [WINDOW, 2 * WINDOW, 4 * WINDOW, 8 * WINDOW]
    assert pauses[-1] == LONGEST


@pytest.mark.parametrize("by_us", [True, False])
def test_a_thing_that_has_stayed_begins_anew(backoff: Backoff, clock: Clock, by_us: bool):
    """Whether we put it back after the pause, or whoever had taken it did."""
    for _ in range(3):
        exhaust(backoff)
        clock.now += backoff.left("bridge")
    if by_us:
        assert backoff.judge("bridge") is Verdict.PUT_BACK
    clock.now += 5 * WINDOW + 1
    exhaust(backoff)
    assert backoff.left("bridge") == WINDOW
