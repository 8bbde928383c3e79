"""Reading conmon's log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug.runtime import logs
from netplug.runtime.logs import Formatter, Growth, Reader, Record, Wanted, parse, seconds, stream, tail_offset, utc

TIME = b"2026-01-31T12:00:00.123456789+00:00"


def line(text: bytes, stream: str = "stdout", tag: str = "F", time: bytes = TIME) -> bytes:
    return b" ".join((time, stream.encode(), tag.encode(), text))


def formatted(lines: list[bytes], **wanted: object) -> list[tuple[int, bytes]]:
    return list(Formatter(Wanted(**wanted)).format(lines))  # type: ignore[arg-type]


async def read(path: Path, **wanted: object) -> bytes:
    pieces = stream(path, Wanted(**wanted), lambda: Growth(path, None))  # type: ignore[arg-type]
    return b"".join([text async for _, text in pieces])


def test_records():
    assert parse(line(b"two  words ")) == Record(TIME, 1, True, b"two  words ")
    assert parse(line(b"", "stderr", "P")) == Record(TIME, 2, False, b"")
    for broken in (b"", b"2026", line(b"x", "stdin"), line(b"x", tag="X"), TIME + b" stdout F"):
        assert parse(broken) is None


def test_whole_and_partial_lines():
    assert formatted([line(b"a", tag="P"), line(b"b"), line(b"c")]) == [(1, b"ab\nc\n")]


def test_neighbours_of_one_stream_are_joined_and_order_is_kept():
    lines = [line(b"1"), line(b"2"), line(b"e", "stderr"), line(b"3")]
    assert formatted(lines) == [(1, b"1\n2\n"), (2, b"e\n"), (1, b"3\n")]
    assert formatted(lines, stderr=False) == [(1, b"1\n2\n3\n")]
    assert formatted(lines, stdout=False) == [(2, b"e\n")]


def test_a_line_has_one_timestamp_however_many_pieces_it_has():
    stamp = TIME[:-6] + b"Z "
    lines = [line(b"a", tag="P"), line(b"b"), line(b"c")]
    assert formatted(lines, timestamps=True) == [(1, stamp + b"ab\n" + stamp + b"c\n")]


@pytest.mark.parametrize(
    ("local", "universal"),
    [
        (b"2026-01-31T12:00:00.123456789+00:00", b"2026-01-31T12:00:00.123456789Z"),
        (b"2026-01-31T01:30:00.000000001+02:00", b"2026-01-30T23:30:00.000000001Z"),
        (b"2026-06-30T23:00:00.999999999-05:30", b"2026-07-01T04:30:00.999999999Z"),
    ],
)
def test_times(local: bytes, universal: bytes):
    assert utc(local) == universal
    assert seconds(local) == pytest.approx(seconds(universal[:-1] + b"+00:00"))


def test_since_and_until():
    times = [b"2026-01-31T12:00:0%d.500000000+00:00" % second for second in range(4)]
    lines = [line(b"%d" % number, time=time) for number, time in enumerate(times)]
    formatter = Formatter(Wanted(since=seconds(times[1]), until=seconds(times[2])))
    assert list(formatter.format(lines)) == [(1, b"1\n2\n")]
    assert formatter.over


@given(
    st.lists(st.tuples(st.binary(max_size=30).filter(lambda text: b"\n" not in text), st.booleans()), max_size=30),
    st.integers(0, 12),
    st.integers(1, 90),
)
def test_the_tail_is_the_end_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[bytes, bool]], count: int, block: int
):
    """Whatever the size of the blocks in which it is searched."""
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(b"".join(line(text, tag="F" if whole else "P") + b"\n" for text, whole in texts))
    whole = b"".join(text + (b"\n" if ends else b"") for text, ends in texts)
    with pytest.MonkeyPatch.context() as patched, open(path, "rb") as file:
        patched.setattr(logs, "_BLOCK", block)
        file.seek(tail_offset(file.fileno(), count))
        tail = b"".join(text for _, text in formatted(file.read().split(b"\n")))
    starts = [0] + [index for index in range(1, len(whole) + 1) if whole[index - 1 : index] == b"\n"]
    # A partial record without text still begins a line of output.
    pending = bool(texts) and not texts[-1][1]
    lines = [whole[a:b] for a, b in zip(starts, [*starts[1:], len(whole)], strict=True)]
    lines = lines if pending else lines[:-1]
    assert tail == b"".join(lines[len(lines) - count :] if count < len(lines) else lines)


async def test_long_records_and_large_logs(tmp_path: Path):
    """Carriage returns do not end a record; a record may be longer than what is read at once."""
    path = tmp_path / "log"
    long = b"x\r" * 400_000
    path.write_bytes(line(long) + b"\n" + b"".join(line(b"%d" % number) + b"\n" for number in range(20_000)))
    expected = long + b"\n" + b"".join(b"%d\n" % number for number in range(20_000))
    assert await read(path) == expected
    assert await read(path, tail=20_001) == expected
    assert await read(path, tail=1) == b"19999\n"


async def test_a_log_that_is_not_there_is_empty(tmp_path: Path):
    assert await read(tmp_path / "none", follow=True) == b""


def test_a_record_that_is_still_being_written_waits(tmp_path: Path):
    path = tmp_path / "log"
    reader = Reader(path, None)
    assert reader.read() == []
    with path.open("wb", buffering=0) as log:
        log.write(line(b"one") + b"\n" + line(b"tw"))
        assert reader.read() == [line(b"one")]
        assert reader.read() == []
        log.write(b"o\n")
        assert reader.read() == [line(b"two")]
    reader.close()
    assert str(path) not in {os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path)}
