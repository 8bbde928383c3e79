"""Packets of many points, in the order of their times.

Each point gives its own in order. A packet is given on when no other point can have an earlier one: those that were read to the end have
none from before the reading, give or take the moment between a packet's stamp and its being handed over.
"""

from __future__ import annotations

import heapq
import os
import selectors
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from netplug.capture.pcapng import Interface, Losses, Packet
from netplug.capture.points import Open, ended
from netplug.capture.stream import Stream
from netplug.errors import KernelError
from netplug.kernel.tap import PATIENCE, is_end

_SLACK = 3 * PATIENCE
"""Seconds after which what a link has carried has been handed over to us."""
_LAST_WAIT = 0.5
"""Seconds at the end for what was not."""
_STREAM_SLACK = 0.5
"""Seconds that packets of others wait for a stream's, which come over a network and have waited there already."""
_LOOK = 1.0
"""Seconds between looks whether namespaces are still there: our sockets would keep one alive."""


def recorded(streams: Sequence[Stream]) -> Iterator[Packet | Losses]:
    """All that files have, to their ends."""
    losses: list[Losses] = []

    def packets(stream: Stream) -> Iterator[Packet]:
        for item in stream.items():
            if isinstance(item, Packet):
                yield item
            elif isinstance(item, Losses):
                losses.append(item)

    yield from heapq.merge(*map(packets, streams), key=lambda packet: packet.time)
    yield from losses


class Live:
    """A capture that runs until `stop`, until its points are gone, or for some seconds."""

    def __init__(self, opened: Sequence[Open], streams: Sequence[Stream] = ()) -> None:
        self._opened: list[Open] = []
        self._streams = list(streams)
        self._selector = selectors.DefaultSelector()
        for stream in self._streams:
            self._selector.register(stream, selectors.EVENT_READ, stream)
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._rope, False)
        os.set_blocking(self._bell, False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._pending: list[Packet] = []
        self._counts: dict[Interface, tuple[int, int]] = {}
        self._ranks: dict[Interface, int] = {}
        self._told: list[Losses] = []
        self._places: dict[str, int] = {}
        self._stopped = self._rung = False
        self.gone: list[Interface] = []
        """Whose links have gone since the caller has looked."""
        for rank, one in enumerate(opened):
            self.add(one, rank)

    @property
    def count(self) -> int:
        """Points that are open."""
        return len(self._opened)

    def add(self, one: Open, rank: int = -1) -> None:
        """One more point. Of packets with the same stamp, that of the lower rank comes first."""
        self._opened.append(one)
        self._selector.register(one.tap, selectors.EVENT_READ, one)
        self._counts[one.interface], self._ranks[one.interface] = (0, 0), rank
        self._places[one.tap.namespace] = os.stat(one.tap.namespace).st_ino

    def ring(self) -> None:
        """From any thread: `batches` gives one soon, and `rung` is true once."""
        self._rung = True
        self._wake()

    def rung(self) -> bool:
        rung, self._rung = self._rung, False
        return rung

    def stop(self) -> None:
        """From any thread, or a signal's handler: what has come by now is still given."""
        self._stopped = True
        self._wake()

    def batches(self, seconds: float | None = None) -> Iterator[list[Packet]]:
        """In order. A batch may be empty: something else has happened."""
        deadline = None if seconds is None else time.monotonic() + seconds
        look = time.monotonic() + _LOOK
        while not self._stopped and (self._opened or self._streams):
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                break
            if now >= look:
                self._check_places()
                look = now + _LOOK
            waits = [look - now, *([deadline - now] if deadline is not None else []), *([_SLACK] if self._pending else [])]
            ready = [key.data for key, _ in self._selector.select(max(min(waits), 0)) if key.data is not None]
            self._hear()
            yield self._through(self._read(ready))
        self._drain()
        yield self._through(None)

    def losses(self) -> list[Losses]:
        """Of each point in all, up to now."""
        for one in self._opened:
            self._count(one)
        return [*(Losses(interface, *counts) for interface, counts in self._counts.items()), *self._told]

    def close(self) -> None:
        for one in self._opened:
            one.tap.close()
        for stream in self._streams:
            stream.close()
        self._selector.close()
        rope, self._rope = self._rope, -1
        os.close(self._bell)
        os.close(rope)

    def _wake(self) -> None:
        with suppress(BlockingIOError, OSError):  # it is full of rings, or all is over
            os.write(self._rope, b"x")

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._bell, 4096)

    def _read(self, ready: Sequence[Open | Stream]) -> int:
        """Up to when all has been read, in nanoseconds since 1970."""
        reached = time.time_ns() - int((_STREAM_SLACK if self._streams else _SLACK) * 1e9)
        for source in ready:
            if isinstance(source, Stream):
                self._read_stream(source)
            elif (last := self._read_tap(source)) is not None:
                reached = min(reached, last)
        return reached

    def _read_tap(self, one: Open) -> int | None:
        """The time of the last packet, if more wait behind it."""
        try:
            seen, more = one.tap.read()
        except KernelError as error:
            if not is_end(error.errno):
                raise
            if not one.tap.exists():
                self._drop(one)
            return None
        self._pending += (Packet(time, one.interface, data, length, outgoing) for time, data, length, outgoing in seen)
        return seen[-1].time if seen and more else None

    def _read_stream(self, stream: Stream) -> None:
        items, more = stream.read()
        self._pending += (item for item in items if isinstance(item, Packet))
        self._told += (item for item in items if isinstance(item, Losses))
        if not more:
            self._selector.unregister(stream)
            self._streams.remove(stream)
            stream.close()

    def _through(self, reached: int | None) -> list[Packet]:
        """Those that are not later; None: all."""
        pending = self._pending
        # What a bridge takes in keeps the stamp that its port has given it: then the order of the points decides.
        pending.sort(key=lambda packet: (packet.time, self._ranks.get(packet.interface, 0)))
        if reached is None:
            self._pending = []
            return pending
        count = next((at for at, packet in enumerate(pending) if packet.time > reached), len(pending))
        self._pending = pending[count:]
        return pending[:count]

    def _drain(self) -> None:
        """What has come before this moment."""
        now, deadline = time.time_ns(), time.monotonic() + _LAST_WAIT
        for one in list(self._opened):
            while one in self._opened and one.tap.waiting() and time.monotonic() < deadline:
                one.tap.wait(PATIENCE)
                if (last := self._read_tap(one)) is not None and last > now:
                    break

    def _check_places(self) -> None:
        """A namespace whose path leads elsewhere has ended for everybody but us."""
        for place, inode in self._places.items():
            if ended(place, inode):
                for one in [one for one in self._opened if one.tap.namespace == place]:
                    self._drop(one)

    def _count(self, one: Open) -> None:
        kept, dropped = (a + b for a, b in zip(self._counts[one.interface], one.tap.counts(), strict=True))
        self._counts[one.interface] = kept, dropped

    def _drop(self, one: Open) -> None:
        self._count(one)
        self._selector.unregister(one.tap)
        self._opened.remove(one)
        one.tap.close()
        self.gone.append(one.interface)
