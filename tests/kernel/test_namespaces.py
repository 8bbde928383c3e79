"""Namespaces on paths: made without a fork, entered for a moment, let go of."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from netplug.errors import KernelError
from netplug.kernel import namespaces
from tests.kernel.inside import Sandboxes, command, in_host, ip, link


def own_namespace() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def mounted(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


@in_host
def test_a_new_namespace_has_lo_up_and_nothing_else(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        assert [one["ifname"] for one in ip("link", namespace=sandboxes[0])] == ["lo"]
        assert "UP" in link("lo", sandboxes[0])["flags"]
        assert "1 received" in command("ping", "-n", "-c1", "-W2", "127.0.0.1", namespace=sandboxes[0])


@in_host
def test_processes_started_later_find_it(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        inside = subprocess.run(
            ["nsenter", f"--net={sandboxes[0]}", "readlink", "/proc/self/ns/net"], capture_output=True, text=True, timeout=10
        )
        with namespaces.entered(sandboxes[0]):
            assert own_namespace() == inside.stdout.strip()


@in_host
def test_it_works_where_mounts_are_private(tmp_path: Path):
    """As under a service manager, or in a container: nothing propagates, and nothing needs to."""
    script = (
        "import sys; from netplug.kernel import namespaces as n; c = n.create(sys.argv[1]); assert n.cookie(sys.argv[1]) == c;"
        "import subprocess; subprocess.run(['nsenter', '--net=' + sys.argv[1], 'true'], check=True); n.remove(sys.argv[1])"
    )
    path = str(tmp_path / "deep" / "new")
    done = subprocess.run(
        ["unshare", "-mn", "--propagation", "private", sys.executable, "-c", script, path],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(path).exists()


@in_host
def test_the_cookie_tells_namespaces_apart(tmp_path: Path):
    first = namespaces.create(str(tmp_path / "a"))
    try:
        assert namespaces.cookie(str(tmp_path / "a")) == first
        namespaces.remove(str(tmp_path / "a"))
        assert namespaces.create(str(tmp_path / "a")) != first
    finally:
        namespaces.remove(str(tmp_path / "a"))


@in_host
def test_there_is_no_cookie_without_a_namespace(tmp_path: Path):
    (tmp_path / "file").touch()

    assert namespaces.cookie(str(tmp_path / "missing")) is None
    assert namespaces.cookie(str(tmp_path / "file")) is None
    assert namespaces.cookie(str(tmp_path / "file" / "below")) is None


@in_host
def test_creating_twice_is_an_error_and_keeps_the_first(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes:
        cookie = namespaces.cookie(sandboxes[0])
        with pytest.raises(KernelError, match="there is one already") as refused:
            namespaces.create(sandboxes[0])

        assert refused.value.errno == errno.EEXIST
        assert namespaces.cookie(sandboxes[0]) == cookie


@in_host
def test_a_file_without_mount_is_no_obstacle(tmp_path: Path):
    """What is left when a daemon dies between making the file and mounting on it."""
    path = str(tmp_path / "left")
    Path(path).touch()
    try:
        assert namespaces.create(path) == namespaces.cookie(path)
    finally:
        namespaces.remove(path)


@in_host
def test_a_failed_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = own_namespace()

    def fail(*_: str) -> None:
        raise OSError(errno.EPERM, "refused by the test")

    monkeypatch.setattr(namespaces, "bind_mount", fail)
    with pytest.raises(KernelError, match=r"create network namespace .*: refused by the test"):
        namespaces.create(str(tmp_path / "new"))

    assert own_namespace() == home
    assert list(tmp_path.iterdir()) == []


@in_host
def test_removing_is_idempotent_and_takes_mounts_on_top(tmp_path: Path):
    path = str(tmp_path / "new")
    namespaces.create(path)
    command("mount", "--bind", path, path)

    namespaces.remove(path)
    namespaces.remove(path)

    assert mounted(tmp_path) == []
    assert not Path(path).exists()


@in_host
def test_the_kernel_ends_a_removed_namespace(tmp_path: Path):
    """No thread, descriptor or mount of ours keeps it: its end of a veth goes, and the other with it."""
    namespaces.create(str(tmp_path / "new"))
    command("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(tmp_path / "new"))
    namespaces.remove(str(tmp_path / "new"))

    deadline = time.monotonic() + 10
    while link("near") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert link("near") == {}


@in_host
def test_entered_comes_back_also_after_an_error(tmp_path: Path):
    home = own_namespace()
    with Sandboxes(tmp_path, 1) as sandboxes:
        with namespaces.entered(sandboxes[0]):
            assert own_namespace() != home
        assert own_namespace() == home

        with pytest.raises(RuntimeError), namespaces.entered(sandboxes[0]):
            raise RuntimeError
        assert own_namespace() == home
    with namespaces.entered(""):
        assert own_namespace() == home


@in_host
def test_entering_nothing_says_what_was_asked(tmp_path: Path):
    path = str(tmp_path / "missing")
    with pytest.raises(KernelError, match=f"enter network namespace {path}: No such file"), namespaces.entered(path):
        pass


@in_host
def test_a_socket_stays_where_it_was_born(tmp_path: Path):
    with Sandboxes(tmp_path, 1) as sandboxes, namespaces.open_socket(sandboxes[0], socket.AF_INET, socket.SOCK_STREAM) as inside:
        inside.bind(("127.0.0.1", 5355))
        inside.listen()

        assert "127.0.0.1:5355" in command("ss", "-Hltn", namespace=sandboxes[0])
        assert "5355" not in command("ss", "-Hltn")


@in_host
def test_no_descriptor_is_left_behind(tmp_path: Path):
    """Of this process: other tests of the worker run before or after, not meanwhile. That of the thread's own namespace is kept."""
    assert namespaces.cookie(str(tmp_path / "new")) is None
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        namespaces.create(str(tmp_path / "new"))
        with namespaces.entered(str(tmp_path / "new")):
            pass
        with pytest.raises(KernelError):
            namespaces.create(str(tmp_path / "new"))
        namespaces.remove(str(tmp_path / "new"))
        assert namespaces.cookie(str(tmp_path / "new")) is None

    assert len(os.listdir("/proc/self/fd")) == before


@in_host
def test_many_threads_and_a_loop_make_namespaces_at_once(tmp_path: Path):
    """Each thread is where it was, whatever the others do."""
    home = own_namespace()
    paths = [str(tmp_path / f"n{number}") for number in range(40)]

    def make(path: str) -> tuple[str, int | None, bool]:
        before = own_namespace()
        cookie = namespaces.create(path)
        return path, cookie, own_namespace() == before

    async def loop_with_threads() -> list[tuple[str, int | None, bool]]:
        with ThreadPoolExecutor(8) as pool:
            loop = asyncio.get_running_loop()
            futures = [loop.run_in_executor(pool, make, path) for path in paths[:20]]
            here = [make(path) for path in paths[20:]]
            return here + list(await asyncio.gather(*futures))

    try:
        made = asyncio.run(loop_with_threads())
        assert all(stayed for _, _, stayed in made)
        assert {path: cookie for path, cookie, _ in made} == {path: namespaces.cookie(path) for path in paths}
        assert len({cookie for _, cookie, _ in made}) == 40
        assert own_namespace() == home
    finally:
        for path in paths:
            namespaces.remove(path)
    assert threading.current_thread().is_alive()
