"""All watches of a store over one stream to one member, which goes on at another member when it breaks.

Each watch knows the next revision that it has not given yet, so it neither loses nor repeats an event wherever it goes on. One whose
reader is slow is taken off the stream until the reader has caught up: memory stays bounded, and nothing is lost either.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from netplug.errors import Unavailable

from . import Compacted, Event
from .etcd_client import grpc, pb
from .etcd_members import Member, Members, reason
from .etcd_messages import Keys, changes

log = logging.getLogger(__name__)

KEPT = 1000
"""Transactions that wait for a watch's reader before it is taken off the stream."""
QUIET = 2.0
"""Seconds after which a stream is asked for a sign of life; one that is silent for twice as long is given up."""
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between rounds over all members; the last one for ever."""

News = list[Event] | Exception | None


@dataclass(slots=True, eq=False)
class Watch:
    """One reader. `next`: the revision it goes on from; `held`: the begun revision of a message that came in fragments."""

    prefix: str
    next: int
    id: int = 0
    news: asyncio.Queue[News] = field(default_factory=asyncio.Queue)
    held: list[Any] = field(default_factory=list)
    denied: bool = False


class _Restart(Exception):
    """The stream has to be made anew, at the same member."""


class Watches:
    """The stream is opened by the first watch and lives until `close`."""

    def __init__(self, members: Members, keys: Keys) -> None:
        self._members, self._keys = members, keys
        self._ids = itertools.count(1)
        self._active: dict[int, Watch] = {}
        self._all: set[Watch] = set()
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self._asked: deque[int] = deque()
        """Watches in the order in which the stream was asked for them, as long as it has not answered."""
        self._answered = False
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def follow(self, prefix: str, revision: int) -> AsyncIterator[list[Event]]:
        if self._closed:
            return
        watch = Watch(prefix, max(revision, 1))
        self._all.add(watch)
        self._start(watch)
        try:
            while (news := await self._next(watch)) is not None:
                if isinstance(news, Exception):
                    raise news
                yield news
        finally:
            self._stop(watch)
            self._all.discard(watch)

    async def close(self) -> None:
        """Watches end once they have given what is here."""
        self._closed = True
        for watch in self._all:
            watch.news.put_nowait(None)
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _next(self, watch: Watch) -> News:
        if watch.news.empty() and not watch.id:
            self._start(watch)
        return await watch.news.get()

    def _start(self, watch: Watch) -> None:
        """Under a new number: what still comes for the old one must not be taken for the new one's."""
        watch.id = next(self._ids)
        self._active[watch.id] = watch
        self._create(watch)
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._live(), name="etcd watches")
            self._task.add_done_callback(self._crashed)

    def _stop(self, watch: Watch) -> None:
        if self._active.pop(watch.id, None):
            self._outgoing.put_nowait(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch.id)))
        watch.id, watch.held = 0, []

    def _create(self, watch: Watch) -> None:
        start, end = self._keys.bounds(watch.prefix)
        request = pb.WatchCreateRequest(
            key=start, range_end=end, start_revision=watch.next, watch_id=watch.id, fragment=True, progress_notify=True
        )
        self._outgoing.put_nowait(pb.WatchRequest(create_request=request))
        self._asked.append(watch.id)

    async def _live(self) -> None:
        """One stream after the other."""
        troubles: dict[str, str] = {}
        pauses = iter(PAUSES)
        while True:
            member, self._answered = self._members.first, False
            try:
                await self._stream(member)
            except _Restart:
                continue
            except (grpc.aio.AioRpcError, TimeoutError, Unavailable) as error:
                if self._answered:
                    troubles, pauses = {}, iter(PAUSES)
                level = logging.DEBUG if member.address in troubles else logging.INFO  # once while it is away
                troubles[member.address] = reason(error)
                log.log(level, "the watches leave etcd member %s: %s", member.address, troubles[member.address])
                self._members.pass_over(member)
            if len(troubles) == len(self._members):
                self._members.tell(False)
                await asyncio.sleep(next(pauses, PAUSES[-1]))

    def _crashed(self, task: asyncio.Task[None]) -> None:
        """Nobody may wait for ever because of a fault of ours."""
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._task = None
            for watch in self._all:
                watch.news.put_nowait(error)

    async def _stream(self, member: Member) -> None:
        """Until it breaks."""
        until = self._members.until()
        metadata = await self._members.metadata(member, until, renew=True)
        outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self._outgoing, self._asked = outgoing, deque()
        outgoing.put_nowait(_SIGN_OF_LIFE)
        for watch in self._active.values():
            watch.held = []
            self._create(watch)
        call = member.watches.Watch(metadata=metadata)
        writing = asyncio.create_task(_write(call, outgoing), name="etcd watch requests")
        try:
            async with asyncio.timeout_at(until) as patience:
                while (answer := await call.read()) is not grpc.aio.EOF:
                    self._answered = True
                    self._members.tell(True)
                    self._take(answer)
                    patience.reschedule(asyncio.get_running_loop().time() + 2 * QUIET)
        finally:
            call.cancel()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        raise Unavailable("hung up")

    def _take(self, answer: Any) -> None:
        number = answer.watch_id
        if answer.created and self._asked:
            asked = self._asked.popleft()
            number = asked if answer.canceled else number  # a refused one may come without its number
        watch = self._active.get(number)
        if watch and not answer.canceled:
            self._give(watch, answer)
        elif watch:
            self._end(watch, answer)
        elif _DENIED in answer.cancel_reason:
            raise _Restart  # its reader has gone meanwhile, but the stream is deaf all the same

    def _give(self, watch: Watch, answer: Any) -> None:
        events = [event for event in [*watch.held, *answer.events] if event.kv.mod_revision >= watch.next]
        groups, watch.held = changes(self._keys, events), []
        if answer.fragment and groups:
            last = groups.pop()[0].revision
            watch.held = [event for event in events if event.kv.mod_revision == last]
        for group in groups:
            watch.news.put_nowait(group)
            watch.next = group[0].revision + 1
        if answer.created:
            watch.denied = False
        elif not answer.events:
            watch.next = max(watch.next, answer.header.revision + 1)  # etcd's word that there was nothing: compaction may come closer
        if watch.news.qsize() > KEPT:
            self._stop(watch)

    def _end(self, watch: Watch, answer: Any) -> None:
        """etcd will say no more of it. _Restart if it has stopped listening to the whole stream, as 3.4 does where it denies a watch."""
        denied = _DENIED in answer.cancel_reason
        if denied and self._members.named and not watch.denied:
            watch.denied = True  # once: a stream keeps the token that it began with, and tokens run out
            raise _Restart
        self._stop(watch)
        if answer.compact_revision:
            watch.news.put_nowait(Compacted(f"revision {watch.next} is no longer kept, the oldest is {answer.compact_revision}"))
        else:
            watch.news.put_nowait(Unavailable(f"etcd refuses to watch {watch.prefix or '/'}: {answer.cancel_reason}"))
        if denied:
            raise _Restart


_DENIED = "permission denied"
_SIGN_OF_LIFE = pb.WatchRequest(progress_request={})


async def _write(call: Any, outgoing: asyncio.Queue[Any]) -> None:
    while True:
        try:
            async with asyncio.timeout(QUIET):
                request = await outgoing.get()
        except TimeoutError:
            request = _SIGN_OF_LIFE
        await call.write(request)
