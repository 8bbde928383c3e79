"""A container's life on the real kernel: start, end, exit codes, waiting, removal, and what goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netplug.errors import Conflict, InvalidArgument, NetplugError, NotFound
from netplug.runtime.model import Attachment, Container, Mount
from tests.kernel.runtime_lab import Lab, laboratory, shell


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with laboratory() as made, asyncio.timeout(60):
        yield made


async def ended(lab: Lab, *command: str, **options: object) -> Container:
    """Run to the end."""
    container = await lab.containers.create("", shell(*command, **options))
    waiting = lab.containers.wait(container.id, "next-exit")
    await lab.containers.start(container.id)
    await waiting
    return lab.containers.get(container.id)


async def test_a_container_runs_in_its_own_namespaces_and_ends_with_its_exit_code(lab: Lab):
    container = await ended(lab, "echo out; echo err >&2; hostname; exit 42")
    assert (container.status, container.exit_code, container.pid) == ("exited", 42, 0)
    assert [piece async for piece in lab.containers.logs(container.id, stdout=False)] == [(2, b"err\n")]
    assert [piece async for piece in lab.containers.logs(container.id, stderr=False)] == [(1, f"out\n{container.id[:12]}\n".encode())]
    assert container.started < container.finished
    assert lab.leftovers() == []


async def test_the_process_sees_only_itself_and_the_host_read_only(lab: Lab):
    script = "echo $$; touch /x1 2>&1; touch /etc/x1 2>&1; touch /tmp/x1 && touch /run/x1 && echo tmp; ls /tmp; ls -d /proc/[0-9]*"
    container = await ended(lab, script)
    output = await lab.output(container.id)
    assert output.splitlines()[0] == "1"
    assert output.count("Read-only file system") == 2
    assert "tmp\nx1\n" in output
    assert "/proc/1\n" in output
    assert not Path("/x1").exists()
    assert not Path("/etc/x1").exists()


async def test_the_host_mount_is_read_only_for_the_host_too(lab: Lab):
    """Whoever deletes below it by mistake must meet EROFS."""
    container = await lab.running("sleep", "100")
    probe = lab.paths.mount(container.id) / "tmp" / f"probe-{os.getpid()}"
    with pytest.raises(OSError, match="Read-only file system"):
        probe.touch()


async def test_a_signal_gives_128_and_its_number(lab: Lab):
    container = await lab.running("sleep", "100", name="sleeper")
    waiting = asyncio.ensure_future(lab.containers.wait("sleeper"))
    await lab.containers.kill("sleeper")
    assert (await waiting).code == 137
    assert lab.containers.get(container.id).exit_code == 137


async def test_stop_asks_first_and_then_kills(lab: Lab):
    polite = await lab.running("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")
    await lab.said(polite.id, "ready")
    await lab.containers.stop(polite.id)
    assert lab.containers.get(polite.id).exit_code == 7
    deaf = await lab.running("trap '' TERM; echo ready; while :; do sleep 0.01; done")
    await lab.said(deaf.id, "ready")
    await lab.containers.stop(deaf.id, 0)
    assert lab.containers.get(deaf.id).exit_code == 137
    await lab.containers.stop(deaf.id)


async def test_kill_sends_any_signal_by_name_or_number(lab: Lab):
    container = await lab.running("trap 'echo one' USR1; trap 'echo two' USR2; echo ready; while :; do sleep 0.01; done")
    await lab.said(container.id, "ready")
    await lab.containers.kill(container.id, "usr1")
    await lab.said(container.id, "one")
    await lab.containers.kill(container.id, str(signal.SIGUSR2.value))
    await lab.said(container.id, "two")
    with pytest.raises(InvalidArgument, match=r"^Invalid signal: NOPE$"):
        await lab.containers.kill(container.id, "NOPE")
    await lab.containers.kill(container.id)
    with pytest.raises(Conflict, match=rf"^Cannot kill container: {container.name}: Container {container.id} is not running$"):
        await lab.containers.kill(container.name)


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("nosuchprogram", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
    ],
)
async def test_a_program_that_cannot_run_fails_with_docker_s_code(lab: Lab, program: str, code: int, words: str):
    container = await lab.containers.create("bad", shell(program, entrypoint=(program,), command=()))
    session = await lab.containers.attach("bad")
    waiting = lab.containers.wait("bad", "next-exit")
    with pytest.raises(NetplugError) as caught:
        await lab.containers.start("bad")
    assert words in str(caught.value)
    assert caught.value.http_status == 400
    assert await session.read() is None
    assert (await waiting).code == code
    failed = lab.containers.get("bad")
    assert (failed.status, failed.exit_code, failed.error) == ("created", code, str(caught.value))
    assert lab.controller.calls == ["create_sandbox bad", "remove_sandbox bad"]
    assert lab.leftovers() == []
    assert failed.id == container.id


async def test_a_failed_start_is_undone_and_may_be_tried_again(lab: Lab):
    networks = (Attachment(network="demo"), Attachment(network="other"))
    await lab.containers.create("web", shell("sleep", "100", network_mode="demo", attachments=networks))
    lab.controller.refuse = "other"
    with pytest.raises(NetplugError, match="no address is left in other"):
        await lab.containers.start("web")
    assert lab.controller.calls == ["create_sandbox web", "connect demo web", "connect other web", "remove_sandbox web"]
    assert lab.containers.get("web").error == "no address is left in other"
    assert lab.leftovers() == []
    lab.controller.refuse = ""
    await lab.containers.start("web")
    assert lab.containers.get("web").status == "running"


async def test_auto_remove_also_after_a_failed_start(lab: Lab):
    await lab.containers.create("gone", shell("x", entrypoint=("/no/such",), command=(), auto_remove=True))
    waiting = lab.containers.wait("gone", "removed")
    with pytest.raises(NetplugError):
        await lab.containers.start("gone")
    assert (await waiting).code == 127
    with pytest.raises(NotFound, match=r"^No such container: gone$"):
        lab.containers.get("gone")


async def test_auto_remove_tells_the_exit_code(lab: Lab):
    container = await lab.containers.create("", shell("exit 5", auto_remove=True))
    waiting = lab.containers.wait(container.id, "removed")
    await lab.containers.start(container.id)
    assert (await waiting).code == 5
    assert lab.containers.all() == []
    assert not lab.paths.record(container.id).exists()


async def test_events_come_in_order(lab: Lab):
    seen: list[tuple[str, dict[str, str]]] = []
    lab.containers.events.subscribe(lambda action, container, attributes: seen.append((action, dict(attributes))))
    container = await lab.running("sleep", "100")
    await lab.containers.stop(container.id, 0)
    await lab.containers.remove(container.id)
    assert seen == [("create", {}), ("start", {}), ("die", {"exitCode": "137"}), ("stop", {}), ("destroy", {})]


async def test_a_running_container_is_removed_by_force_only(lab: Lab):
    container = await lab.running("sleep", "100", name="web")
    with pytest.raises(Conflict, match=rf"^You cannot remove a running container {container.id}. Stop the container before"):
        await lab.containers.remove("web")
    await lab.containers.remove("web", force=True)
    assert lab.leftovers() == []


async def test_a_name_is_given_once(lab: Lab):
    first = await lab.containers.create("web", shell("true"))
    with pytest.raises(Conflict, match=rf'^Conflict. The container name "/web" is already in use by container "{first.id}". You have'):
        await lab.containers.create("web", shell("true"))
    results = await asyncio.gather(*(lab.containers.create("twin", shell("true")) for _ in range(3)), return_exceptions=True)
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True, True]


async def test_a_stopped_container_keeps_its_files_and_starts_again(lab: Lab):
    container = await ended(lab, "echo again")
    waiting = lab.containers.wait(container.id, "next-exit")
    await lab.containers.start(container.id)
    await waiting
    assert await lab.output(container.id) == "again\nagain\n"


async def test_many_at_once(lab: Lab):
    """Starts, ends and removals side by side do not disturb one another."""

    async def one(number: int) -> int:
        container = await lab.containers.create(f"c{number}", shell(f"exit {number}"))
        waiting = lab.containers.wait(container.id, "next-exit")
        await lab.containers.start(container.id)
        code = (await waiting).code
        await lab.containers.remove(container.id)
        return code

    assert await asyncio.gather(*(one(number) for number in range(8))) == list(range(8))
    assert lab.leftovers() == []


async def test_the_caller_may_go_away_while_it_starts(lab: Lab):
    """The API's client hangs up: nothing is left half done."""
    container = await lab.containers.create("web", shell("sleep", "100"))
    starting = asyncio.ensure_future(lab.containers.start("web"))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await lab.containers.start("web")
    assert lab.containers.get(container.id).status == "running"


async def test_mounts_are_made_and_folders_created(lab: Lab):
    source, made = lab.folder / "data", lab.folder / "made" / "deep"
    source.mkdir()
    (source / "file").write_text("content\n")
    mounts = (
        Mount(source=str(source), target="/mnt"),
        Mount(source=str(made), target="/tmp/made"),
        Mount(source=str(source), target="/tmp/ro", read_only=True),
    )
    container = await ended(lab, "cat /mnt/file; echo more > /mnt/new; touch /tmp/made/x; touch /tmp/ro/y 2>&1", mounts=mounts)
    output = await lab.output(container.id)
    assert output.startswith("content\n")
    assert "Read-only" in output
    assert (source / "new").read_text() == "more\n"
    assert (made / "x").exists()


async def test_a_mount_the_host_image_has_no_place_for_is_refused_clearly(lab: Lab):
    mounts = (Mount(source=str(lab.folder), target="/no/such/place"),)
    await lab.containers.create("bad", shell("true", mounts=mounts))
    with pytest.raises(InvalidArgument, match="the host image is read-only and has no /no/such/place"):
        await lab.containers.start("bad")
    assert lab.leftovers() == []


async def test_process_settings_reach_the_process(lab: Lab):
    options = {
        "environment": ("A=1", "B=two words", "A=3"),
        "working_directory": "/tmp",
        "user": "nobody",
        "hostname": "thebox",
        "sysctls": {"net.ipv4.ip_default_ttl": "77"},
    }
    script = "echo $A $B; pwd; id -u; hostname; cat /proc/sys/net/ipv4/ip_default_ttl; echo $HOME; grep NoNewPrivs /proc/self/status"
    container = await ended(lab, script, **options)
    lines = (await lab.output(container.id)).splitlines()
    assert lines[:5] == ["3 two words", "/tmp", "65534", "thebox", "77"]
    assert lines[-1].split() == ["NoNewPrivs:", "0"]


async def test_capabilities_are_docker_s_unless_privileged(lab: Lab):
    usual = await ended(lab, "grep CapEff /proc/self/status")
    assert (await lab.output(usual.id)).split()[1] == "00000000a80425fb"
    more = await ended(lab, "grep CapEff /proc/self/status", capabilities_add=("NET_ADMIN",), capabilities_drop=("ALL",))
    assert (await lab.output(more.id)).split()[1] == f"{1 << 12:016x}"


async def test_a_privileged_container_has_all_and_nothing_is_masked(lab: Lab):
    container = await ended(lab, "grep CapEff /proc/self/status; echo 1 > /proc/sys/net/ipv4/ip_forward && echo written", privileged=True)
    output = await lab.output(container.id)
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert int(output.split()[1], 16) == int(own.split()[1], 16) & ((1 << 41) - 1)
    assert "written" in output


async def test_a_container_whose_conmon_is_killed_counts_as_lost(lab: Lab):
    container = await lab.running("sleep", "100")
    waiting = lab.containers.wait(container.id)
    os.kill(container.conmon_pid, signal.SIGKILL)
    assert (await waiting).code == 137
    assert lab.leftovers() == []


async def test_unknown_things_are_named(lab: Lab):
    with pytest.raises(NotFound, match=r"^No such container: web$"):
        await lab.containers.start("web")
    with pytest.raises(NotFound, match=r"^No such image: nothing:latest$"):
        await lab.containers.create("", shell("true", image="nothing"))
    with pytest.raises(NotFound, match=r"^network nowhere not found$"):
        await lab.containers.create("", shell("true", network_mode="nowhere", attachments=(Attachment(network="nowhere"),)))
    with pytest.raises(InvalidArgument, match=r"^No command specified$"):
        await lab.containers.create("", shell("true", entrypoint=(), command=()))
    assert lab.containers.all() == []
