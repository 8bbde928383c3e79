"""`netplug capture`: packets of a container, a network or the host, as lines or into a pcapng file; or of files that there are already.

The daemon says where they are to be seen; they are read here, by `netplug.capture`.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from netplug.cli import completion, units
from netplug.cli.capture_places import Places
from netplug.cli.client import Client
from netplug.cli.command import FLAG_ERROR, INT, Command, Failure, Value
from netplug.errors import Forbidden, InvalidArgument, NetplugError

if TYPE_CHECKING:  # imported when the command runs, not for `netplug --help`
    from netplug.capture.lines import Lines
    from netplug.capture.output import Output
    from netplug.capture.pcapng import Losses, Packet

_KEPT_FOR_A_LINE, _WHOLE = 1024, 262144
_AT_ONCE = 64
_STDOUT = 1
_AFTER_STOP = 1.0
"""Seconds for printing what had come before the end was asked for."""
_DAEMON = "unix://"


def _span(text: str) -> float:
    if (seconds := units.duration(text)) <= 0:
        raise ValueError("it must be more than 0")
    return seconds


@dataclass(frozen=True)
class Limits:
    """0 or None: there is none."""

    count: int
    timeout: float | None
    snaplen: int


@click.command("capture", cls=Command)
@click.argument("words", metavar="CONTAINER|NETWORK|host [FILTER...]", nargs=-1, shell_complete=completion.capturable)
@click.option("-w", "--write", "path", metavar="FILE", default="", help="Write a new pcapng file, and print nothing; - is standard output")
@click.option("--print", "printing", is_flag=True, help="Print lines, also where a file is written")
@click.option("-c", "--count", type=INT, default=0, help="End after so many packets")
@click.option("--timeout", type=Value(_span, "duration"), default=None, help="End after a time, as in 10s")
@click.option("-i", "--interface", "only", metavar="NAME", multiple=True, help="Only this one of the interfaces")
@click.option("-s", "--snapshot-length", "snaplen", type=INT, default=0, help="Bytes to keep of each packet (all, in a file)")
@click.option("--type", "kind", metavar="KIND", default="", help="What the name is of: container, network or host")
@click.option(
    "--with", "others", metavar="SOURCE", multiple=True, help="Another host's, too: unix://PATH of its daemon, or what capture writes there"
)
@click.option("-r", "--read", "files", metavar="FILE", multiple=True, help="Packets of files instead, several in the order of their times")
@click.pass_obj
def capture_command(
    client: Client,
    words: Sequence[str],
    path: str,
    printing: bool,
    count: int,
    timeout: float | None,
    only: Sequence[str],
    snaplen: int,
    kind: str,
    others: Sequence[str],
    files: Sequence[str],
) -> None:
    """See the packets of a container, of a network, or of the host itself, until Ctrl-C

    FILTER is tcpdump's: icmp, udp port 53, host 10.0.0.2 and tcp (pcap-filter(7)). It is asked of a network's own packets also where a
    tunnel carries them.
    """
    limits = Limits(count, timeout, snaplen)
    if count < 0 or snaplen < 0:
        raise Failure("netplug capture: --count and --snapshot-length are numbers above 0", FLAG_ERROR)
    with _told():
        if (files or not words) and (only or kind or others or timeout):
            raise InvalidArgument("say what is to be captured: a container, a network, or host (with --read, files are all that is read)")
        if files:
            _read(files, " ".join(words), path, printing, limits)
        elif words:
            daemons = [client, *(Client(other) for other in others if other.startswith(_DAEMON))]
            streams = [other for other in others if not other.startswith(_DAEMON)]
            if os.geteuid():
                raise Forbidden("only root may see packets")
            _capture(Places(daemons, words[0], kind, only, bool(others)), streams, " ".join(words[1:]), path, printing, limits)
        else:
            raise InvalidArgument("say what is to be captured: a container, a network, or host")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What goes wrong is one sentence."""
    try:
        yield
    except NetplugError as error:
        raise Failure(f"netplug capture: {error}") from None


def _capture(places: Places, sources: Sequence[str], expression: str, path: str, printing: bool, limits: Limits) -> None:
    from netplug.capture.merging import Live
    from netplug.capture.points import open_taps
    from netplug.capture.stream import Stream

    seats = places.seats()
    lines = _lines((seat.name for seat in seats), (seat.tunnel[2] for seat in seats if seat.tunnel), path, printing)
    snaplen = min(max(limits.snaplen, 1), _WHOLE) if limits.snaplen else _WHOLE if path else _KEPT_FOR_A_LINE
    with contextlib.ExitStack() as stack:
        streams = [Stream(source, expression) for source in sources]
        if finished := next((stream.name for stream in streams if not stream.growing), ""):
            raise InvalidArgument(f"{finished} is a file: --with takes what another capture is just writing, --read takes files")
        opened = open_taps(seats, expression, snaplen)
        live = Live(opened, streams)
        stack.callback(live.close)
        taker = _Taker(lines, _output(path, [one.interface for one in opened]), limits.count)

        def stop() -> None:
            taker.until = time.monotonic() + _AFTER_STOP
            live.stop()

        stack.enter_context(_stopped_by_signals(stop))
        places.follow(live.ring)
        _say(f"capturing on {', '.join([seat.name for seat in seats] + [stream.name for stream in streams])}")
        for batch in live.batches(limits.timeout):
            if (lines or path == "-") and _is_unread(_STDOUT):
                raise BrokenPipeError  # as the next write would: there may be none for long
            if not all(taker.take(batch[at : at + _AT_ONCE]) for at in range(0, len(batch), _AT_ONCE)):
                break
            while live.gone:
                _say(f"{live.gone.pop().name} is gone")
            if live.rung():
                with contextlib.suppress(NetplugError):  # it has gone again
                    for one in open_taps(places.new(), expression, snaplen, beside=live.count):
                        live.add(one)
                        _say(f"also on {one.interface.name}")
        taker.finish(live.losses())


def _read(files: Sequence[str], expression: str, path: str, printing: bool, limits: Limits) -> None:
    from netplug.capture.merging import recorded
    from netplug.capture.pcapng import Packet
    from netplug.capture.stream import Stream

    streams = [Stream(file, expression) for file in files]
    taker = _Taker(_lines((), (), path, printing), _output(path, ()), limits.count)
    losses: list[Losses] = []
    for item in recorded(streams):
        if not isinstance(item, Packet):
            losses.append(item)
        elif not taker.take([item]):
            break
    taker.finish(losses)
    for stream in streams:
        if stream.interrupted:
            _say(f"{stream.name} ends in the middle of a packet")
        stream.close()


@dataclass
class _Taker:
    """What is done with packets: printed, written, counted."""

    lines: Lines | None
    output: Output | None
    most: int
    count: int = field(default=0, init=False)
    until: float = field(default=math.inf, init=False)
    """When no more lines are to be printed."""
    _skipped: int = field(default=0, init=False)

    def take(self, packets: Sequence[Packet]) -> bool:
        """Whether more are wanted."""
        wanted = packets[: self.most - self.count] if self.most else packets
        self.count += len(wanted)
        if self.output is not None:
            self.output.packets(wanted)
        if self.lines is not None and time.monotonic() > self.until:
            self._skipped += len(wanted)
        elif self.lines is not None and wanted:
            click.echo("\n".join(map(self.lines.line, wanted)))
        return not self.most or self.count < self.most

    def finish(self, losses: Sequence[Losses]) -> None:
        if self.output is not None:
            self.output.close(losses)
        dropped = sum(each.dropped for each in losses)
        skipped = f", {self._skipped} of them not printed" if self._skipped else ""
        _say(f"{self.count} packet{'s' * (self.count != 1)} captured{skipped}, {dropped} dropped by the kernel")
        for each in losses:
            if each.dropped:
                _say(f"  {each.interface.name}: {each.dropped} of {each.received} dropped")


def _lines(names: Iterable[str], tunnels: Iterable[int], path: str, printing: bool) -> Lines | None:
    if path and not printing:
        return None
    if path == "-":
        raise InvalidArgument("--print and --write - both want standard output")
    from netplug.capture.lines import Lines

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without arrows gets question marks
    return Lines(names, tunnels)


def _output(path: str, interfaces: Sequence[Any]) -> Output | None:
    if not path:
        return None
    from netplug.capture.output import Output

    return Output(path, interfaces)


def _is_unread(descriptor: int) -> bool:
    """Whether it leads into a pipe or a connection that nobody reads any more, as when ssh has ended."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda number, frame: stop()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _say(text: str) -> None:
    click.echo(text, err=True)
