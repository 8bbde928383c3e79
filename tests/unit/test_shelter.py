"""What is begun comes to its end, in one task however many rooms it passes."""

from __future__ import annotations

import asyncio
import contextlib

from netplug.shelter import Shelter


class Work:
    """Begun, told to go on, ended; or broken off."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.ended = False
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> str:
        self.task = asyncio.current_task()
        self.begun.set()
        await self.go_on.wait()
        self.ended = True
        return "done"


async def test_the_caller_s_end_does_not_end_the_work():
    shelter, work = Shelter(), Work()
    caller = asyncio.create_task(shelter.finish(work.run()))
    await work.begun.wait()
    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    assert not work.ended

    work.go_on.set()
    await shelter.settle()
    assert work.ended


async def test_what_is_sheltered_already_gets_no_further_task():
    outer, inner, work = Shelter(), Shelter(unbroken=True), Work()
    work.go_on.set()

    async def request() -> tuple[asyncio.Task[None] | None, str]:
        return asyncio.current_task(), await inner.finish(work.run())

    assert await outer.finish(request()) == (work.task, "done")


async def test_what_comes_from_elsewhere_gets_a_task_of_its_own():
    """A background task may be cancelled at any time; so may one that a sheltered task has made."""
    outer, inner, work = Shelter(), Shelter(unbroken=True), Work()
    work.go_on.set()

    async def request() -> asyncio.Task[str]:
        return asyncio.create_task(inner.finish(work.run()))

    background = await outer.finish(request())
    assert await background == "done"
    assert work.task is not background


async def test_late_work_is_cancelled_but_for_what_must_not_be_broken_off():
    outer, inner = Shelter(), Shelter(unbroken=True)
    slow, change = Work(), Work()

    async def request() -> None:
        await inner.finish(change.run())

    callers = [asyncio.create_task(outer.finish(slow.run())), asyncio.create_task(outer.finish(request()))]
    await slow.begun.wait()
    await change.begun.wait()
    settling = asyncio.create_task(outer.settle(0))
    await asyncio.wait([callers[0]])
    assert callers[0].cancelled()
    assert not settling.done()

    change.go_on.set()
    await settling
    await callers[1]
    assert change.ended


async def test_an_error_comes_to_the_caller_through_all_rooms():
    outer, inner = Shelter(), Shelter(unbroken=True)

    async def fail() -> None:
        raise ValueError("no")

    async def request() -> None:
        await inner.finish(fail())

    with contextlib.suppress(ValueError):
        await outer.finish(request())
        raise AssertionError("nothing was raised")
    await outer.settle(0)
