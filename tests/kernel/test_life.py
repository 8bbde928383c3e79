"""A container's life as its user sees it: how it ends, what it gives back, and what outlives the daemon, the command and the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from netplug.cli.demo_hosts import OUTSIDE_ADDRESS, Lan, end_processes, mounts_below
from netplug.kernel.namespaces import open_socket
from tests.differences import differences
from tests.hosts import Api, Host, Namespace
from tests.kernel.daily import IDLE, ask, network, run, serve

DEADLINE = 10.0


SLEEPER = ("--stop-signal", "SIGKILL", *IDLE)
"""As IDLE, but a stop need not wait: the first process of a container gets no signal that it does not handle."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what has no event that could be awaited."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not after {DEADLINE} s: {what}"
        time.sleep(0.02)


def cgroups(identity: str) -> list[Path]:
    return [found for pattern in ("*", "*/*") for found in Path("/sys/fs/cgroup").glob(f"{pattern}-{identity}")]


def ended(host: Host, name: str) -> int:
    """The exit code, once it has ended."""
    done = host.netplug("wait", name)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def taken(host: Host, network_name: str) -> list[str]:
    pools = host.api("GET", f"/netplug/ipam/{network_name}")["Pools"]
    return [entry["Address"].partition("/")[0] for pool in pools for entry in pool["Taken"] if entry["Kind"] == "endpoint"]


# How a container ends


def test_a_container_that_dies_gives_everything_back_but_its_logs(host: Host):
    network(host, "--subnet", "10.70.0.0/24", "demo")
    run(host, "client", "--network", "demo", *IDLE)
    before = host.state()
    script = "echo said; echo complained >&2; exit 3"
    run(host, "short", "--network", "demo", "--ip", "10.70.0.9", "-p", "8080:80", "host", "busybox", "sh", "-c", script)
    assert ended(host, "short") == 3
    serve(host, "web", "--network", "demo", "--ip", "10.70.0.9", "--network-alias", "www", "-p", "8080:80")
    identity, pid = host.container("web")["Id"], host.container("web")["State"]["Pid"]
    assert cgroups(identity)
    assert host.netplug("exec", "client", "getent", "hosts", "www").returncode == 0
    os.kill(pid, signal.SIGKILL)
    assert ended(host, "web") == 137
    assert host.state() == before
    assert cgroups(identity) == []
    assert taken(host, "demo") == [host.container_address("client", "demo")]
    for name in ("web", "www", "short"):
        assert host.netplug("exec", "client", "getent", "hosts", name).returncode != 0
    with open_socket(host.namespace.path, socket.AF_INET, socket.SOCK_STREAM) as somebody:
        somebody.bind(("0.0.0.0", 8080))
    for name, code in (("short", 3), ("web", 137)):
        state = host.container(name)["State"]
        assert (state["Status"], state["Running"], state["Pid"], state["ExitCode"]) == ("exited", False, 0, code)
    logs = host.netplug("logs", "short")
    assert (logs.stdout, logs.stderr) == ("said\n", "complained\n")
    listed = host.netplug("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout
    assert "short Exited (3) " in listed
    assert "web Exited (137) " in listed


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("host", "busybox", "sh", "-c", "exit 7"), 7, ""),
        (("host", "/etc"), 126, "netplug: "),
        (("host", "/etc/passwd"), 126, "permission denied"),
        (("host", "nothing-of-this-name"), 127, "executable file not found"),
        (("nothing-of-this-name", "true"), 125, "No such image: nothing-of-this-name"),
        (("--network", "nowhere", "host", "true"), 125, "network nowhere not found"),
        (("--no-such-flag", "host", "true"), 125, "unknown flag: --no-such-flag"),
        (("-p", "1:2:3:4", "host", "true"), 125, "invalid"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_exit_codes_of_run_are_docker_s_and_rm_leaves_nothing(host: Host, arguments: tuple[str, ...], code: int, words: str):
    before = host.state()
    done = host.netplug("run", "--rm", "-p", "8080:80", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert host.netplug("ps", "-aq").stdout == ""
    assert host.state() == before
    assert [entry.name for entry in (host.state_directory / "containers").iterdir()] == []


def test_stop_and_start_keep_what_was_asked_for(host: Host, lan: Lan):
    network(host, "--subnet", "10.71.0.0/24", "demo")
    run(host, "client", "--network", "demo", *IDLE)
    serve(
        host, "web", "--network", "demo", "--ip", "10.71.0.9", "--mac-address", "02:00:00:00:00:09", "-p", "8080:80", "--stop-timeout", "0"
    )
    with host.state_directory.joinpath("containers", host.container("web")["Id"], "hosts").open() as hosts:
        assert "10.71.0.9" in hosts.read()
    for _ in range(2):
        assert host.netplug("stop", "web").stdout == "web\n"
        assert host.netplug("stop", "web").returncode == 0, "stopping what does not run is fine"
        assert taken(host, "demo") == [host.container_address("client", "demo")]
        assert ask(lan.outside.path, host.address, 8080) == ""
        assert host.netplug("start", "web").stdout == "web\n"
        assert host.netplug("start", "web").returncode == 0
        assert host.container_address("web", "demo") == "10.71.0.9"
        until(lambda: ask(host.sandbox("client"), "10.71.0.9", 80), "the server is there again")
        assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
        assert host.netplug("exec", "client", "getent", "hosts", "web").stdout.split()[0] == "10.71.0.9"


def test_wait_tells_every_exit_code(host: Host):
    for name, code in (("first", 0), ("second", 42)):
        run(host, name, "host", "busybox", "sh", "-c", f"exit {code}")
    assert host.netplug("wait", "first", "second").stdout == "0\n42\n"
    assert host.netplug("wait", "second").stdout == "42\n"
    unknown = host.netplug("wait", "nobody")
    assert (unknown.returncode, unknown.stderr) == (1, "Error response from daemon: No such container: nobody\n")
    run(host, "late", *IDLE)
    waiting = subprocess.Popen(
        [sys.executable, "-m", "netplug.cli", "wait", "late"], env=host.environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert host.netplug("kill", "late").returncode == 0
        assert waiting.communicate(timeout=DEADLINE)[0] == "137\n"
    finally:
        waiting.kill()
        waiting.wait()


def test_exit_codes_of_exec(host: Host):
    run(host, "web", *IDLE)
    done = host.netplug(
        "exec",
        "-i",
        "-w",
        "/usr",
        "-u",
        "1:2",
        "-e",
        "WORD=a b",
        "web",
        "sh",
        "-c",
        'echo $PWD "$WORD"; id -u; id -g; cat; exit 4',
        stdin="in",
    )
    assert (done.returncode, done.stdout) == (4, "/usr a b\n1\n2\nin")
    assert host.netplug("exec", "web", "sh", "-c", "kill -9 $$").returncode == 137
    assert host.netplug("exec", "web", "nothing-of-this-name").returncode == 127
    assert host.netplug("exec", "web", "/etc").returncode == 126
    assert host.netplug("exec", "web", "/etc/passwd").returncode == 126
    assert host.netplug("kill", "web").returncode == 0
    refused = host.netplug("exec", "web", "true")
    identity = host.container("web")["Id"]
    assert (refused.returncode, refused.stderr) == (1, f"Error response from daemon: Container {identity} is not running\n")


def test_streams_of_run_and_exec(host: Host):
    swapped = ("host", "busybox", "sh", "-c", "tr a-z A-Z; echo complaint >&2; exit 3")
    done = host.netplug("run", "-i", "--rm", *swapped, stdin="some words\n")
    assert (done.returncode, done.stdout) == (3, "SOME WORDS\n")
    assert done.stderr.endswith("complaint\n")
    much = "line after line\n" * 100_000
    assert host.netplug("run", "-i", "--rm", "host", "cat", stdin=much).stdout == much
    assert host.netplug("run", "--rm", "host", "cat", stdin="nobody reads this").stdout == ""
    run(host, "web", *IDLE)
    assert host.netplug("exec", "-i", "web", "cat", stdin=much).stdout == much
    assert host.netplug("exec", "-d", "web", "sh", "-c", "echo done > /tmp/made").stdout == ""
    until(lambda: host.netplug("exec", "web", "cat", "/tmp/made").stdout == "done\n", "it has run in the background")


def test_who_waits_is_told_when_the_daemon_goes(host: Host):
    """The container goes on; the command in the foreground says so, and does not end as if all were well."""
    argv = [sys.executable, "-m", "netplug.cli", "run", "--name", "web", "host", "busybox", "sh", "-c", "echo begun; sleep 1000"]
    with subprocess.Popen(argv, env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as attached:
        try:
            assert attached.stdout is not None
            assert attached.stdout.readline() == "begun\n"
            assert host.stop() == 0
            _, complaint = attached.communicate(timeout=DEADLINE)
        finally:
            attached.kill()
    assert attached.returncode == 125
    assert complaint.endswith("\nnetplug: the daemon ended the connection before the container did.\nSee 'netplug run --help'.\n")
    host.start()
    assert host.container("web")["State"]["Running"]


# The daemon goes and comes


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_containers_outlive_the_daemon(host: Host, lan: Lan, how: str):
    folder = host.directory / "shared"
    folder.mkdir()
    network(host, "demo")
    serve(host, "web", "--network", "demo", "-p", "8080:80")
    script = "echo before; while [ ! -e /run/shared/go ]; do sleep 0.02; done; echo after; exit 6"
    for name in ("dies", "stays"):
        # Only the first finds the file: the other's folder is empty for ever.
        source = folder if name == "dies" else host.directory / "empty"
        run(host, name, "--network", "demo", "-v", f"{source}:/run/shared", "host", "busybox", "sh", "-c", script)
    until(lambda: host.netplug("logs", "dies").stdout == "before\n", "it runs")
    process = host.container("dies")["State"]["Pid"]
    host.kill9() if how == "killed" else host.stop()
    (folder / "go").touch()
    until(lambda: not Path(f"/proc/{process}").exists(), "it has ended")
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    host.start()
    assert ended(host, "dies") == 6
    assert host.container("dies")["State"]["Status"] == "exited"
    assert host.netplug("logs", "dies").stdout == "before\nafter\n"
    assert taken(host, "demo") == sorted(host.container_address(name, "demo") for name in ("web", "stays"))
    for name in ("web", "stays"):
        assert host.container(name)["State"]["Running"]
        assert host.netplug("exec", name, "sh", "-c", "exit 4").returncode == 4
    assert host.netplug("logs", "stays").stdout == "before\n"
    assert ask(lan.outside.path, host.address, 8080) == OUTSIDE_ADDRESS
    with open_socket(host.namespace.path, socket.AF_INET, socket.SOCK_STREAM) as intruder, pytest.raises(OSError, match="in use"):
        intruder.bind(("0.0.0.0", 8080))
    (host.directory / "empty" / "go").touch()
    assert ended(host, "stays") == 6
    assert host.netplug("logs", "stays").stdout == "before\nafter\n"
    assert host.netplug("rm", "-f", "web", "dies", "stays").returncode == 0
    assert host.state()["sandboxes"] == {}


def test_nothing_is_lost_while_the_daemon_restarts(host: Host):
    network(host, "demo")
    for name in ("web", "client"):
        run(host, name, "--network", "demo", *IDLE)
    with host.flood(host.container_address("web", "demo"), sandbox="client") as flood, host.lookups("web", "client") as lookups:
        host.restart()
        host.kill9()
        host.start()
        run(host, "other", "--network", "demo", *IDLE)
    assert flood.lost == []
    assert flood.sent > 10
    assert lookups.asked > 10
    assert lookups.answered == lookups.asked


def test_logs_are_followed_over_a_restart(host: Host):
    folder = host.directory / "shared"
    folder.mkdir()
    script = "echo one; while [ ! -e /run/shared/go ]; do sleep 0.02; done; echo two"
    run(host, "web", "-v", f"{folder}:/run/shared", "host", "busybox", "sh", "-c", script)

    @contextlib.contextmanager
    def following() -> Iterator[subprocess.Popen[str]]:
        argv = [sys.executable, "-m", "netplug.cli", "logs", "-f", "web"]
        with subprocess.Popen(argv, env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as follower:
            try:
                yield follower
            finally:
                follower.kill()

    with following() as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "one\n"
        host.restart()
        rest = follower.communicate(timeout=DEADLINE)[0]
        assert rest == "the daemon ended the connection: unexpected EOF\n"
        assert follower.returncode == 1
    with following() as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "one\n"
        (folder / "go").touch()
        assert follower.communicate(timeout=DEADLINE)[0] == "two\n"
        assert follower.returncode == 0


# The host goes and comes


def reboot(host: Host, *, keeps_run: bool) -> None:
    """What a reboot leaves: no process, no mount, no cgroup, and a network namespace that is new.

    `keeps_run`: the run directory lies on a disk, and only the boot is another one.
    """
    containers = [host.container(entry["Id"]) for entry in host.api("GET", "/containers/json")]
    host.kill9()
    end_processes([*host.processes(), *(container["State"]["Pid"] for container in containers)])
    for container in containers:
        for folder in cgroups(container["Id"]):
            until(lambda folder=folder: not (folder / "cgroup.procs").read_text(), "its processes are gone")
            folder.rmdir()
    for point in reversed(mounts_below(host.run_directory)):
        subprocess.run(["umount", "--lazy", point], check=True)
    assert mounts_below(host.run_directory) == []
    if keeps_run:
        # Its first part names the boot.
        (host.run_directory / "incarnation").write_text("00000000-0000-0000-0000-000000000000.0123456789abcdef\n")
    else:
        shutil.rmtree(host.run_directory)
    name = host.namespace.name
    host.namespace.remove()
    port = f"h{host.address.rpartition('.')[2]}"
    until(lambda: port not in host.lan.switch.ip("link").stdout, "the old namespace is gone")
    host.namespace = Namespace(name)
    host.lan.plug(host.namespace, port, host.address)
    host.namespace.ip("route", "add", "default", "via", OUTSIDE_ADDRESS)


@pytest.mark.parametrize("keeps_run", [False, True], ids=["run-is-new", "run-is-kept"])
def test_a_host_that_reboots_gives_everything_back(host: Host, lan: Lan, keeps_run: bool):
    network(host, "--subnet", "10.72.0.0/24", "demo")
    network(host, "--subnet", "10.73.0.0/24", "other")
    before = host.state()
    serve(host, "web", "--network", "demo", "--ip", "10.72.0.9", "-p", "8080:80")
    run(host, "idle", "--network", "demo", "--network", "other", *IDLE)
    run(host, "brief", "--rm", *IDLE)
    run(host, "done", "--network", "demo", "host", "busybox", "sh", "-c", "echo said; exit 3")
    assert ended(host, "done") == 3
    reboot(host, keeps_run=keeps_run)
    host.start()
    after = host.state()
    assert after["sandboxes"] == {}
    assert after["mounts"] == before["mounts"]
    assert after["host"]["nft"] == before["host"]["nft"]
    assert after["host"]["addresses"] == before["host"]["addresses"]
    assert taken(host, "demo") == taken(host, "other") == []
    assert host.api("GET", "/networks/demo")["Containers"] == {}
    listed = host.netplug("ps", "-a", "--format", "{{.Names}} {{.State}}").stdout.split("\n")
    assert sorted(listed) == ["", "done exited", "idle exited", "web exited"]
    assert host.container("done")["State"]["ExitCode"] == 3
    assert host.netplug("logs", "done").stdout == "said\n"
    assert host.container("web")["State"]["ExitCode"] != 0
    assert host.netplug("start", "web", "idle").returncode == 0
    assert host.container_address("web", "demo") == "10.72.0.9"
    until(lambda: ask(lan.outside.path, host.address, 8080), "the server is there again")
    assert host.netplug("exec", "idle", "getent", "hosts", "web").stdout.split()[0] == "10.72.0.9"
    assert host.netplug("rm", "-f", "web", "idle", "done").returncode == 0
    assert host.state()["sandboxes"] == {}


# Many at once


def test_fifty_connects_at_once_and_fifty_disconnects(host: Host):
    networks = [f"net{number}" for number in range(10)]
    containers = [f"c{number}" for number in range(5)]
    host.api("POST", "/networks/create", {"Name": "base"})
    for number, name in enumerate(networks):
        host.api("POST", "/networks/create", {"Name": name, "IPAM": {"Config": [{"Subnet": f"10.74.{number}.0/24"}]}})
    for name in containers:
        # On a network with names from the beginning: what serves them stays in a sandbox as long as it lives.
        wanted = {"Image": "host", "Cmd": ["busybox", "sleep", "1000"], "HostConfig": {"NetworkMode": "base"}}
        host.api("POST", f"/containers/create?name={name}", wanted)
        host.api("POST", f"/containers/{name}/start")
    before = host.state()
    pairs = [(one, other) for one in networks for other in containers]

    def change(what: str) -> None:
        def once(pair: tuple[str, str]) -> None:
            with contextlib.closing(Api(host.socket)) as connection:
                connection.call("POST", f"/networks/{pair[0]}/{what}", {"Container": pair[1]})

        with ThreadPoolExecutor(len(pairs)) as threads:
            list(threads.map(once, pairs))

    change("connect")
    inspected = {name: host.container(name)["NetworkSettings"]["Networks"] for name in containers}
    for name in networks:
        own: dict[str, Any] = host.api("GET", f"/networks/{name}")["Containers"]
        addresses = {entry["Name"]: entry["IPv4Address"].partition("/")[0] for entry in own.values()}
        assert len(set(addresses.values())) == len(containers)
        assert addresses == {container: inspected[container][name]["IPAddress"] for container in containers}
        assert sorted(taken(host, name)) == sorted(addresses.values())
    sandboxes = host.state()["sandboxes"]
    for container in containers:
        kernel = {
            address.partition("/")[0] for link, address in sandboxes[host.container(container)["Id"][:12]]["addresses"] if link != "lo"
        }
        assert kernel == {settings["IPAddress"] for settings in inspected[container].values()}
    change("disconnect")
    assert list(differences(host.state(), before)) == []
    assert all(taken(host, name) == [] for name in networks)
    assert all(set(host.container(name)["NetworkSettings"]["Networks"]) == {"base"} for name in containers)
    for name in networks:
        host.api("DELETE", f"/networks/{name}")
