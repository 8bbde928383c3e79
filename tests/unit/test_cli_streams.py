"""A container's streams: frames, detach keys, the terminal."""

from __future__ import annotations

import os
import pty
import signal
import termios

import pytest
from cli_server import frame
from hypothesis import given
from hypothesis import strategies as st

from netplug.cli.streams import DetachKeys, Terminated, detach_keys, frames, handling, raw_terminal


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8), st.data())
def test_frames_come_whole_however_they_are_cut(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(number, content) for number, content in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert list(frames(chunks)) == sent


@pytest.mark.parametrize(
    ("text", "keys"), [("ctrl-p,ctrl-q", b"\x10\x11"), ("ctrl-@", b"\x00"), ("a,b", b"ab"), ("ctrl-[,x", b"\x1bx"), ("", b"")]
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-é", "ctrl-", "ab", "ctrl-pq", "ctrl-1"])
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="Unknown character"):
        detach_keys(text)


@pytest.mark.parametrize(
    ("typed", "passed", "detached"),
    [
        ([b"a\x10", b"\x11"], [b"a", b""], True),
        ([b"\x10", b"b"], [b"", b"\x10b"], False),
        ([b"\x10\x10\x11rest"], [b"\x10"], True),
        ([b"\x11\x10", b"\x10", b"\x11"], [b"\x11", b"\x10", b""], True),
    ],
)
def test_detaching(typed: list[bytes], passed: list[bytes], detached: bool) -> None:
    """What only began like the keys reaches the container, late."""
    keys = DetachKeys("ctrl-p,ctrl-q")
    results = [keys.feed(data) for data in typed]

    assert [out for out, _ in results] == passed
    assert results[-1][1] is detached


@given(st.binary(max_size=60))
def test_without_keys_everything_passes(data: bytes) -> None:
    assert DetachKeys("").feed(data) == (data, False)


@given(st.lists(st.binary(max_size=5), max_size=8))
def test_nothing_typed_is_lost(typed: list[bytes]) -> None:
    keys = DetachKeys("ctrl-p,ctrl-q")
    passed = b""
    for number, data in enumerate(typed):
        out, detached = keys.feed(data)
        passed += out
        if detached:
            assert b"".join(typed[: number + 1]).startswith(passed + b"\x10\x11")
            return
    everything = b"".join(typed)

    assert everything == passed or everything == passed + b"\x10"


def _is_raw(descriptor: int) -> bool:
    return not termios.tcgetattr(descriptor)[3] & (termios.ECHO | termios.ICANON)


@pytest.mark.parametrize("ending", [None, ValueError, signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_however_it_ends(ending: object) -> None:
    outer, inner = pty.openpty()
    before = termios.tcgetattr(inner)
    raised: BaseException | None = None
    try:
        with raw_terminal(inner):
            assert _is_raw(inner)
            if isinstance(ending, signal.Signals):
                signal.raise_signal(ending)
            elif ending:
                raise ValueError
    except (ValueError, Terminated) as error:
        raised = error

    assert termios.tcgetattr(inner) == before
    assert getattr(raised, "code", None) == (128 + ending if isinstance(ending, signal.Signals) else None)
    os.close(outer)
    os.close(inner)


def test_what_is_no_terminal_stays_as_it_is() -> None:
    reading, writing = os.pipe()
    with raw_terminal(reading):
        os.write(writing, b"x")
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)


def test_signals_are_handled_for_a_while() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    seen: list[int] = []
    with handling((signal.SIGUSR1,), seen.append):
        signal.raise_signal(signal.SIGUSR1)

    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == before
