"""Logs, attach, terminals and exec on the real kernel."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator

import pytest

from netplug.errors import Conflict, InvalidArgument, NetplugError, NotFound
from netplug.runtime.attach import AttachSession
from netplug.runtime.execs import ExecSession
from netplug.runtime.logs import seconds
from netplug.runtime.model import ExecConfig
from tests.kernel.runtime_lab import BUSYBOX, Lab, laboratory, shell

TELL_SIZE = "while :; do stty size 2>/dev/null; sleep 0.02; done"


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with laboratory() as made, asyncio.timeout(60):
        yield made


async def everything(session: AttachSession | ExecSession) -> dict[int, bytes]:
    """Read to the end."""
    read: dict[int, bytes] = {1: b"", 2: b""}
    while (piece := await session.read()) is not None:
        read[piece[0]] += piece[1]
    session.close()
    return read


async def until(session: AttachSession | ExecSession, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        piece = await session.read()
        assert piece is not None, f"the end came after {seen!r}"
        seen += piece[1]
    return seen


async def execute(lab: Lab, reference: str, script: str, **options: object) -> tuple[dict[int, bytes], int]:
    config = ExecConfig(command=(BUSYBOX, "sh", "-c", script), **options)  # type: ignore[arg-type]
    identity = await lab.containers.exec_create(reference, config)
    session = await lab.containers.exec_start(identity)
    assert isinstance(session, ExecSession)
    output = await everything(session)
    code = await session.wait()
    assert lab.containers.exec_inspect(identity).exit_code == code
    return output, code


class TestAttach:
    async def test_a_session_opened_before_the_start_misses_nothing(self, lab: Lab):
        await lab.containers.create("web", shell("echo out; echo err >&2; exit 3"))
        session = await lab.containers.attach("web")
        waiting = lab.containers.wait("web", "next-exit")
        await lab.containers.start("web")
        assert await everything(session) == {1: b"out\n", 2: b"err\n"}
        assert (await waiting).code == 3

    async def test_stdin_goes_through_unharmed_and_ends_when_closed(self, lab: Lab):
        """Packets above 32 KiB would be cut short by conmon."""
        data = random.Random(1).randbytes(700_001)
        await lab.containers.create("sum", shell("md5sum", stdin=True, stdin_once=True))
        session = await lab.containers.attach("sum")
        await lab.containers.start("sum")
        await session.write(data)
        await session.close_stdin()
        assert (await everything(session))[1].split()[0].decode() == hashlib.md5(data).hexdigest()

    async def test_a_slow_reader_loses_nothing(self, lab: Lab):
        await lab.containers.create("big", shell("seq 1 300000"))
        session = await lab.containers.attach("big")
        await lab.containers.start("big")
        await asyncio.sleep(0.2)  # the stall itself is what is tested
        output = (await everything(session))[1]
        assert hashlib.md5(output).digest() == hashlib.md5("".join(f"{n}\n" for n in range(1, 300001)).encode()).digest()
        assert len(await lab.output("big")) == len(output)

    async def test_stdin_survives_a_detach_unless_it_is_for_once(self, lab: Lab):
        await lab.running("while read line; do echo got $line; done", name="echo", stdin=True)
        for word in (b"one", b"two"):
            session = await lab.containers.attach("echo")
            await session.write(word + b"\n")
            await until(session, b"got " + word)
            session.close()
        assert lab.containers.get("echo").status == "running"

    async def test_two_attachers_see_the_same(self, lab: Lab):
        await lab.running("read line; echo $line; read line", name="both", stdin=True)
        first, second = await lab.containers.attach("both"), await lab.containers.attach("both")
        await first.write(b"hello\n")
        assert await until(first, b"hello") == await until(second, b"hello")
        first.close()
        second.close()

    async def test_closing_wakes_a_reader(self, lab: Lab):
        await lab.running("sleep", "100", name="quiet")
        session = await lab.containers.attach("quiet")
        reading = asyncio.ensure_future(session.read())
        await asyncio.sleep(0)
        session.close()
        assert await reading is None

    async def test_a_session_of_a_container_that_never_starts_ends_with_it(self, lab: Lab):
        await lab.containers.create("idle", shell("true"))
        session = await lab.containers.attach("idle")
        await lab.containers.remove("idle")
        assert await session.read() is None


class TestTerminal:
    async def test_a_terminal_has_a_size_that_can_change(self, lab: Lab):
        await lab.containers.create("term", shell(f"tty; {TELL_SIZE}", tty=True, stdin=True))
        session = await lab.containers.attach("term")
        await lab.containers.start("term")
        await until(session, b"/dev/pts/0")
        for height, width in ((33, 101), (40, 120)):
            await lab.containers.resize("term", height, width)
            await until(session, f"{height} {width}".encode())
        session.close()

    async def test_control_c_ends_what_runs_in_it(self, lab: Lab):
        await lab.containers.create("term", shell("trap 'exit 9' INT; echo ready; while :; do sleep 0.02; done", tty=True, stdin=True))
        session = await lab.containers.attach("term")
        waiting = lab.containers.wait("term", "next-exit")
        await lab.containers.start("term")
        await until(session, b"ready")
        await session.write(b"\x03")
        assert b"^C" in (await everything(session))[1]
        assert (await waiting).code == 9

    async def test_a_detach_does_not_close_the_terminal_s_stdin(self, lab: Lab):
        await lab.running("while read line; do echo got $line; done", name="term", tty=True, stdin=True, stdin_once=True)
        for word in (b"one", b"two"):
            session = await lab.containers.attach("term")
            await session.write(word + b"\r")
            await until(session, b"got " + word)
            await session.close_stdin()
            session.close()
        assert lab.containers.get("term").status == "running"

    async def test_only_a_running_container_can_be_resized(self, lab: Lab):
        container = await lab.containers.create("idle", shell("true", tty=True))
        with pytest.raises(Conflict, match=rf"^Container {container.id} is not running$"):
            await lab.containers.resize("idle", 10, 10)


class TestLogs:
    async def test_tail_counts_lines_from_the_end(self, lab: Lab):
        await lab.containers.create("many", shell("seq 1 5000; printf unfinished"))
        waiting = lab.containers.wait("many", "next-exit")
        await lab.containers.start("many")
        await waiting
        for count, expected in ((0, ""), (1, "unfinished"), (3, "4999\n5000\nunfinished")):
            assert b"".join([text async for _, text in lab.containers.logs("many", tail=count)]).decode() == expected

    async def test_following_ends_with_the_container(self, lab: Lab):
        container = await lab.running("for i in 1 2 3; do echo $i; sleep 0.05; done")
        pieces = [text async for _, text in lab.containers.logs(container.id, follow=True)]
        assert b"".join(pieces) == b"1\n2\n3\n"
        assert len(pieces) >= 2

    async def test_timestamps_and_since(self, lab: Lab):
        container = await lab.running("echo early; read x; echo late; read x", stdin=True)
        await lab.said(container.id, "early")
        stamped = b"".join([text async for _, text in lab.containers.logs(container.id, timestamps=True)]).decode()
        moment, _, word = stamped.partition(" ")
        assert word == "early\n"
        assert container.created < moment < container.started.replace(container.started[:4], "9999")
        session = await lab.containers.attach(container.id)
        await session.write(b"\n")
        await until(session, b"late")
        session.close()
        late = b"".join([text async for _, text in lab.containers.logs(container.id, timestamps=True, tail=1)]).decode()
        since = seconds(late.split()[0].replace("Z", "+00:00").encode())
        assert b"".join([text async for _, text in lab.containers.logs(container.id, since=since)]) == b"late\n"
        assert b"".join([text async for _, text in lab.containers.logs(container.id, until=since - 1e-6)]) == b"early\n"

    async def test_unknown_containers_are_refused_at_once(self, lab: Lab):
        with pytest.raises(NotFound):
            lab.containers.logs("nothing")


class TestExec:
    async def test_streams_and_exit_code(self, lab: Lab):
        await lab.running("sleep", "100", name="web", environment=("FROM=container",))
        output, code = await execute(lab, "web", "echo $FROM; echo err >&2; exit 6")
        assert (output, code) == ({1: b"container\n", 2: b"err\n"}, 6)

    async def test_user_environment_and_folder(self, lab: Lab):
        await lab.running("sleep", "100", name="web", environment=("A=1",))
        options = {"environment": ("A=2", "B=3"), "user": "nobody:daemon", "working_directory": "/tmp"}
        output, _ = await execute(lab, "web", "echo $A $B $(id -u):$(id -g) $(pwd) $HOME", **options)
        assert output[1].split()[:4] == [b"2", b"3", b"65534:1", b"/tmp"]

    async def test_privileged(self, lab: Lab):
        await lab.running("sleep", "100", name="web")
        usual, _ = await execute(lab, "web", "grep CapEff /proc/self/status")
        more, _ = await execute(lab, "web", "grep CapEff /proc/self/status", privileged=True)
        assert usual[1].split()[1] == b"00000000a80425fb"
        assert int(more[1].split()[1], 16) > int(usual[1].split()[1], 16)

    async def test_stdin(self, lab: Lab):
        await lab.running("sleep", "100", name="web")
        identity = await lab.containers.exec_create("web", ExecConfig(command=(BUSYBOX, "md5sum"), stdin=True))
        session = await lab.containers.exec_start(identity)
        data = random.Random(2).randbytes(500_000)
        reading = asyncio.ensure_future(everything(session))
        await session.write(data)
        await session.close_stdin()
        assert (await reading)[1].split()[0].decode() == hashlib.md5(data).hexdigest()

    @pytest.mark.parametrize(("program", "code"), [("nosuchprogram", 127), ("/no/such", 127), ("/etc/passwd", 126)])
    async def test_a_program_that_cannot_run(self, lab: Lab, program: str, code: int):
        await lab.running("sleep", "100", name="web")
        identity = await lab.containers.exec_create("web", ExecConfig(command=(program,)))
        session = await lab.containers.exec_start(identity)
        output = await everything(session)
        assert await session.wait() == code
        assert program.encode() in output[2]
        detached = await lab.containers.exec_create("web", ExecConfig(command=(program,), detach=True))
        with pytest.raises(NetplugError, match=program):
            await lab.containers.exec_start(detached)

    async def test_a_child_that_keeps_the_pipe_does_not_keep_the_session(self, lab: Lab):
        await lab.running("sleep", "100", name="web")
        output, code = await execute(lab, "web", "echo done; sleep 50 &")
        assert (output[1], code) == (b"done\n", 0)

    async def test_a_terminal_with_its_size(self, lab: Lab):
        await lab.running("sleep", "100", name="web")
        config = ExecConfig(command=(BUSYBOX, "sh", "-c", f"tty; trap 'exit 4' INT; {TELL_SIZE}"), tty=True, stdin=True)
        identity = await lab.containers.exec_create("web", config)
        await lab.containers.exec_resize(identity, 20, 60)
        session = await lab.containers.exec_start(identity)
        assert b"/dev/pts/0" in await until(session, b"20 60")
        await lab.containers.exec_resize(identity, 21, 61)
        await until(session, b"21 61")
        await session.write(b"\x03")
        await everything(session)
        assert await session.wait() == 4

    async def test_detached(self, lab: Lab):
        await lab.running("sleep", "100", name="web")
        config = ExecConfig(command=(BUSYBOX, "sh", "-c", "read x < /tmp/fifo; exit 11"), detach=True)
        await execute(lab, "web", "mkfifo /tmp/fifo")
        identity = await lab.containers.exec_create("web", config)
        session = await lab.containers.exec_start(identity)
        assert lab.containers.exec_inspect(identity).running
        assert lab.containers.exec_inspect(identity).pid > 0
        await execute(lab, "web", "echo > /tmp/fifo")
        assert await session.wait() == 11
        assert not lab.containers.exec_inspect(identity).running

    async def test_what_is_refused(self, lab: Lab):
        container = await lab.containers.create("idle", shell("sleep", "100"))
        with pytest.raises(Conflict, match=rf"^Container {container.id} is not running$"):
            await lab.containers.exec_create("idle", ExecConfig(command=("true",)))
        await lab.containers.start("idle")
        with pytest.raises(InvalidArgument, match=r"^No exec command specified$"):
            await lab.containers.exec_create("idle", ExecConfig(command=()))
        with pytest.raises(NotFound, match=r"^No such exec instance: nothing$"):
            lab.containers.exec_inspect("nothing")
        with pytest.raises(InvalidArgument, match="unable to find user nosuchuser"):
            await execute(lab, "idle", "true", user="nosuchuser")

    async def test_a_session_that_is_closed_early_goes_on_and_leaves_no_descriptor(self, lab: Lab):
        await lab.running("sleep", "100", name="web")
        before = len(os.listdir("/proc/self/fd"))
        identity = await lab.containers.exec_create("web", ExecConfig(command=(BUSYBOX, "sh", "-c", "seq 1 200000; exit 8")))
        session = await lab.containers.exec_start(identity)
        session.close()
        assert await session.wait() == 8
        await lab.containers.stop("web", 0)
        await lab.containers.start("web")
        assert len(os.listdir("/proc/self/fd")) == before
