"""The daemon dies, at any moment, and starts again: containers, logs, terminals and exit codes are there, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from netplug.errors import NotFound
from netplug.runtime.model import ExecConfig
from netplug.runtime.waiting import open_pid, readable
from tests.kernel.runtime_lab import BUSYBOX, Lab, laboratory


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with laboratory() as made, asyncio.timeout(90):
        yield made


async def gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    descriptor = open_pid(pid)
    if descriptor is None:
        return
    try:
        async with asyncio.timeout(5):
            await readable(descriptor)
    finally:
        os.close(descriptor)


async def test_a_running_container_goes_on_with_its_streams(lab: Lab):
    before = await lab.running("echo one; while read x; do echo got $x; done", name="web", stdin=True)
    await lab.restart()
    after = lab.containers.get("web")
    assert (after.pid, after.status) == (before.pid, "running")
    session = await lab.containers.attach("web")
    await session.write(b"two\n")
    assert await lab.said("web", "two") == "one\ngot two\n"
    session.close()
    await lab.containers.kill("web")
    assert lab.containers.get("web").exit_code == 137


async def test_a_terminal_too(lab: Lab):
    await lab.running("while :; do stty size; sleep 0.02; done", name="term", tty=True, stdin=True)
    await lab.restart()
    session = await lab.containers.attach("term")
    await lab.containers.resize("term", 20, 30)
    seen = b""
    while b"20 30" not in seen:
        piece = await session.read()
        assert piece is not None
        seen += piece[1]
    session.close()


async def test_the_exit_code_of_one_that_ended_meanwhile(lab: Lab):
    container = await lab.running("read x; echo bye; exit 42", stdin=True)
    session = await lab.containers.attach(container.id)
    await lab.stop()
    await session.write(b"\n")
    while await session.read() is not None:
        pass
    session.close()
    await gone(container.conmon_pid)
    await lab.start()
    assert (await lab.containers.wait(container.id)).code == 42
    assert lab.containers.get(container.id).status == "exited"
    assert "bye" in await lab.output(container.id)
    assert lab.leftovers() == []


async def test_it_is_watched_again(lab: Lab):
    container = await lab.running("read x; exit 9", stdin=True)
    await lab.restart()
    waiting = lab.containers.wait(container.id)
    session = await lab.containers.attach(container.id)
    await session.write(b"\n")
    assert (await waiting).code == 9
    session.close()


async def test_auto_remove_also_after_the_restart(lab: Lab):
    container = await lab.running("sleep", "100", auto_remove=True)
    await lab.stop()
    os.kill(container.pid, signal.SIGKILL)
    await lab.start()
    with contextlib.suppress(NotFound):
        await lab.containers.wait(container.id, "removed")
    assert lab.containers.all() == []


async def test_a_pid_that_belongs_to_somebody_else_now_is_not_taken_for_ours(lab: Lab):
    """After a reboot the record's pids mean nothing."""
    container = await lab.running("sleep", "100")
    stranger = await asyncio.create_subprocess_exec("sleep", "100")
    try:
        forged = msgspec.structs.replace(container, pid=stranger.pid, conmon_pid=stranger.pid)
        await lab.containers._records.put(forged)
        await lab.restart()
        assert lab.containers.get(container.id).status == "exited"
        assert lab.containers.get(container.id).exit_code == 137
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_exec_sessions_with_a_client_end_and_detached_ones_go_on(lab: Lab):
    await lab.running("sleep", "100", name="web")
    attached = await lab.containers.exec_create("web", ExecConfig(command=(BUSYBOX, "sleep", "1001"), stdin=True))
    session = await lab.containers.exec_start(attached)
    await session.started()
    detached = await lab.containers.exec_create("web", ExecConfig(command=(BUSYBOX, "sleep", "1002"), detach=True))
    await lab.containers.exec_start(detached)
    pids = [lab.containers.exec_inspect(one).pid for one in (attached, detached)]
    await lab.restart()
    session.close()
    await gone(pids[0])
    assert Path(f"/proc/{pids[1]}").exists()


async def test_what_has_no_record_is_swept_away(lab: Lab):
    """As after a removal that was cut short behind the record's deletion."""
    container = await lab.running("sleep", "100")
    await lab.containers._records.remove(container)
    await lab.stop()
    await lab.controller.remove_sandbox(container.id)
    await lab.start()
    assert lab.leftovers() == []
    assert not lab.paths.record(container.id).exists()


DAEMON = """
import asyncio, os, signal, sys
from pathlib import Path
from netplug import faults
from tests.kernel.runtime_lab import Lab, shell

async def main(folder, action, count):
    lab = Lab(Path(folder))
    containers = await lab.start()
    if action == "remove":
        faults.arm(count)
        await containers.remove("web", force=True)
    else:
        await containers.create("web", shell("echo ran; sleep 1000", network_mode="demo"))
        if action == "timed":
            asyncio.get_running_loop().call_later(count / 1000, os.kill, os.getpid(), signal.SIGKILL)
        else:
            faults.arm(count)
        await containers.start("web")
    print(len(faults.passed), flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def die(lab: Lab, action: str, count: int) -> int:
    """Another process is the daemon, and dies at its `count`-th fault point. If it comes through: how many points it passed; else 0."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DAEMON,
        str(lab.folder),
        action,
        str(count),
        env={**os.environ, "NETPLUG_FAULTS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        output, _ = await child.communicate()
    assert child.returncode in (0, -signal.SIGKILL)
    return int(output or 0)


async def test_killed_at_every_point_of_a_start(lab: Lab):
    """Each time either it runs, or nothing of it is left and it can be started."""
    count = passed = 0
    while not passed:
        count += 1
        await lab.stop()
        passed = await die(lab, "start", count)
        await lab.start()
        for container in lab.containers.all():
            assert container.status in ("created", "running")
            if container.status == "created":
                assert lab.leftovers() == [], f"after point {count}"
                assert lab.controller.sandbox(container.id) is None
                await lab.containers.start("web")
            assert await lab.said("web", "ran\n") == "ran\n"
            await lab.containers.remove("web", force=True)
    assert passed == count - 1 >= 6


async def test_killed_at_every_point_of_a_removal(lab: Lab):
    count = passed = 0
    while not passed:
        count += 1
        await lab.running("sleep", "1000", name="web", mode="demo")
        await lab.stop()
        passed = await die(lab, "remove", count)
        await lab.start()
        for container in lab.containers.all():
            assert container.status in ("exited", "running"), f"after point {count}"
            await lab.containers.remove(container.id, force=True)
        assert lab.leftovers() == [], f"after point {count}"
        assert lab.controller.endpoints() == []
    assert passed == count - 1 >= 2


async def test_killed_at_any_time_of_a_start(lab: Lab):
    """Not only at the points that we thought of."""
    for milliseconds in (0, 3, 6, 9, 12, 15, 18, 21, 25, 30, 40, 60):
        await lab.stop()
        await die(lab, "timed", milliseconds)
        await lab.start()
        for container in lab.containers.all():
            assert container.status in ("created", "running")
            await lab.containers.remove(container.id, force=True)
        assert lab.leftovers() == [], f"after {milliseconds} ms"
