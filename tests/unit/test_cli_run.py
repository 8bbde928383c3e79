"""`run`, `create`, `exec`, `attach`: what is asked in which order, and what happens to the streams and to the exit code."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cli_fixtures import Cli
from cli_server import Daemon, Request, frame

ID = "f2430044eda5a7be16dfeaf327a102ea283eeee6c64ca8378142a233bbc9376c"
NETPLUG = (sys.executable, "-m", "netplug.cli")


class Life:
    """A container's: created, waited for, started, ended with a code; `script` is its main process, on the attached connection."""

    def __init__(self, daemon: Daemon, code: int = 0, script: Callable[[Any], None] | None = None, start: Any = (204, b"")) -> None:
        self.ended, self.code, self.script, self.start_answer = threading.Event(), code, script, start
        self.signals: list[str] = []
        self.sizes: list[tuple[str, str]] = []
        path = f"/containers/{ID}"
        daemon.answers["POST", "/containers/create"] = (201, {"Id": ID, "Warnings": []})
        daemon.answers["POST", f"{path}/attach"] = self.attach
        daemon.answers["POST", f"{path}/wait"] = self.wait
        daemon.answers["POST", f"{path}/start"] = self.start
        daemon.answers["POST", f"{path}/kill"] = self.kill
        daemon.answers["POST", f"{path}/resize"] = self.resize
        self.started = threading.Event()

    def attach(self, request: Request) -> None:
        connection = request.upgrade()
        assert self.started.wait(20)
        if self.script:
            self.script(connection)
        self.ended.set()

    def start(self, request: Request) -> Any:
        if self.start_answer[0] < 400:
            self.started.set()
        return self.start_answer

    def wait(self, request: Request) -> None:
        request.handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        request.handler.wfile.flush()
        assert self.ended.wait(20)
        body = b'{"StatusCode": %d}\n' % self.code
        request.handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def kill(self, request: Request) -> tuple[int, bytes]:
        self.signals.append(request.query["signal"])
        self.ended.set()
        return 204, b""

    def resize(self, request: Request) -> tuple[int, bytes]:
        self.sizes.append((request.query["h"], request.query["w"]))
        return 200, b""


def test_what_create_asks_for(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/containers/create"] = (201, {"Id": ID, "Warnings": ["no limits"]})
    flags = """--name web --network name=demo,gw-priority=5 --network back --ip 10.0.0.9 --mac-address 02:42:ac:11:00:02
        --network-alias=b --link db:d --dns 1.1.1.1 --dns-search x.example --dns-option ndots:2 -h inside --add-host a:1.2.3.4
        -p 8080:80 -p=127.0.0.1:53:53/udp -P --expose 90-91 --rm -it -e A=1 -v /a:/b:ro -w /tmp -u 12:34 --entrypoint sh
        --label k=v -l x --privileged --cap-add NET_ADMIN --cap-drop ALL --sysctl net.core.somaxconn=9 --stop-signal INT --stop-timeout 3"""

    result = cli("create", *flags.split(), "bb", "-c", "exit 3", "--rm=false")

    assert result == (0, ID + "\n", "WARNING: no limits\n")
    request = cli_daemon.only("POST", "/containers/create")
    assert request.query == {"name": "web"}
    assert (
        request.body
        == {
            "Hostname": "inside",
            "Domainname": "",
            "User": "12:34",
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "ExposedPorts": {"90/tcp": {}, "91/tcp": {}, "80/tcp": {}, "53/udp": {}},
            "Tty": True,
            "OpenStdin": True,
            "StdinOnce": True,
            "Env": ["A=1"],
            "Cmd": ["-c", "exit 3", "--rm=false"],
            "Image": "bb",
            "WorkingDir": "/tmp",
            "Entrypoint": ["sh"],
            "Labels": {"k": "v", "x": ""},
            "StopSignal": "INT",
            "StopTimeout": 3,
            "HostConfig": {
                "NetworkMode": "demo",
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}]},
                "PublishAllPorts": True,
                "Binds": ["/a:/b:ro"],
                "Dns": ["1.1.1.1"],
                "DnsOptions": ["ndots:2"],
                "DnsSearch": ["x.example"],
                "ExtraHosts": ["a:1.2.3.4"],
                "Links": ["db:d"],
                "CapAdd": ["NET_ADMIN"],
                "CapDrop": ["ALL"],
                "Privileged": True,
                "AutoRemove": True,
                "Sysctls": {"net.core.somaxconn": "9"},
                "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            },
            "NetworkingConfig": {
                "EndpointsConfig": {
                    "demo": {
                        "Aliases": ["b"],
                        "IPAMConfig": {"IPv4Address": "10.0.0.9"},
                        "MacAddress": "02:42:ac:11:00:02",
                        "GwPriority": 5,
                        "Links": ["db:d"],
                    },
                    "back": {},
                }
            },
        }
        or "--network-alias" in request.body
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("-p x:y", "invalid containerPort: y"),
        ("-p 80:90-91", "invalid ranges specified for container and host Ports: 90-91 and 80"),
        ("--expose foo", 'invalid range format for --expose: foo, error: strconv.ParseUint: parsing "foo": invalid syntax'),
        ("--env-file /nosuch", "open /nosuch: no such file or directory"),
        ("--mac-address zz", "zz is not a valid mac address"),
        ("--network a --network a", 'network "a" is specified multiple times'),
        ("--network a --network host", "conflicting options: cannot attach both user-defined and non-user-defined network-modes"),
        ("--network name=a,alias=x --network-alias y", "conflicting options: cannot specify both --network-alias and per-network alias"),
        ("--network name=a,ip=1.2.3.4 --ip 1.2.3.5", "conflicting options: cannot specify both --ip and per-network IPv4 address"),
        ("--network host --network-alias x", "network-scoped aliases are only supported for user-defined networks"),
    ],
)
@pytest.mark.parametrize("command", ["run", "create"])
def test_flags_that_do_not_fit_together(cli: Cli, cli_daemon: Daemon, command: str, flags: str, sentence: str) -> None:
    assert cli(command, *flags.split(), "bb") == (125, "", f"netplug: {sentence}.\nSee 'netplug {command} --help'.\n")
    assert cli_daemon.asked() == []


def test_run_detached(cli: Cli, cli_daemon: Daemon) -> None:
    Life(cli_daemon)

    assert cli("run", "-d", "--name=web", "bb", "httpd", "-f") == (0, ID + "\n", "")
    assert cli_daemon.asked() == ["POST /containers/create", f"POST /containers/{ID}/start"]
    body = cli_daemon.requests[0].body
    assert (body["Cmd"], body["AttachStdout"], body["HostConfig"]["NetworkMode"]) == (["httpd", "-f"], False, "default")
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"default": {}}}


@pytest.mark.parametrize(("flags", "condition"), [([], "next-exit"), (["--rm"], "removed")])
def test_run_attached(cli: Cli, cli_daemon: Daemon, flags: list[str], condition: str) -> None:
    """Attached and waited for before the start: nothing of the output, and no exit, is missed."""

    def script(connection: Any) -> None:
        connection.sendall(frame(1, b"out\n") + frame(2, b"err\n"))
        assert connection.recv(1) == b""  # no -i: its stdin ended at once

    Life(cli_daemon, code=3, script=script)

    assert cli("run", *flags, "bb") == (3, "out\n", "err\n")
    path = f"/containers/{ID}"
    assert cli_daemon.asked() == ["POST /containers/create", f"POST {path}/attach", f"POST {path}/wait", f"POST {path}/start"]
    assert cli_daemon.only("POST", f"{path}/attach").query == {"stream": "1", "stdout": "1", "stderr": "1"}
    assert cli_daemon.only("POST", f"{path}/attach").headers["Upgrade"] == "tcp"
    assert cli_daemon.only("POST", f"{path}/wait").query == {"condition": condition}


RUNTIME = "OCI runtime create failed: unable to start container process: exec: "


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (RUNTIME + '"x": executable file not found in $PATH', 127),
        (RUNTIME + '"/x": stat /x: no such file or directory', 127),
        (RUNTIME + '"/etc": permission denied', 126),
        (RUNTIME + '"/etc": is a directory', 126),
        ("port 8080/tcp on 0.0.0.0 is taken by container web", 125),
    ],
)
@pytest.mark.parametrize("flags", [["-d"], []])
def test_a_start_that_fails(cli: Cli, cli_daemon: Daemon, flags: list[str], reason: str, code: int) -> None:
    """The container is there all the same: its id is told where nothing else would be."""
    Life(cli_daemon, start=(500, {"message": reason}))

    assert cli("run", *flags, "bb", "x") == (code, f"{ID}\n" if flags else "", f"netplug: Error response from daemon: {reason}.\n")


def test_a_create_that_fails(cli: Cli, cli_daemon: Daemon) -> None:
    """125, whatever the sentence says about files."""
    cli_daemon.answers["POST", "/containers/create"] = (404, {"message": "No such image: no such file or directory"})
    said = "netplug: Error response from daemon: No such image: no such file or directory.\nSee 'netplug run --help'.\n"

    assert cli("run", "bb") == (125, "", said)


def test_a_daemon_that_dies_while_we_wait(cli: Cli, cli_daemon: Daemon) -> None:
    life = Life(cli_daemon)

    def wait(request: Request) -> None:
        request.stream()

    life.script = lambda connection: connection.sendall(frame(1, b"x\n"))
    cli_daemon.answers["POST", f"/containers/{ID}/wait"] = wait

    assert cli("run", "bb") == (
        125,
        "x\n",
        "netplug: the daemon ended the connection before the container did.\nSee 'netplug run --help'.\n",
    )


def test_run_explained(cli: Cli, cli_daemon: Daemon) -> None:
    Life(cli_daemon, code=4, script=lambda connection: connection.sendall(frame(1, b"hi\n")), start=(200, {"Explain": ["two", "three"]}))
    cli_daemon.answers["POST", "/containers/create"] = (201, {"Id": ID, "Explain": ["one"]})

    assert cli("run", "--explain", "bb") == (4, "hi\none\ntwo\nthree\n", "")
    assert cli("run", "--explain", "-d", "bb").out.splitlines() == [ID, "one", "two", "three"]


@pytest.mark.parametrize("command", ["run", "create"])
def test_a_dry_run_only_asks(cli: Cli, cli_daemon: Daemon, command: str) -> None:
    cli_daemon.answers["POST", "/containers/create"] = (201, {"Id": "", "Explain": ["one", "two"]})

    assert cli(command, "--dry-run", "-it", "bb") == (0, "one\ntwo\n", "")
    assert cli_daemon.asked("GET /version") == ["POST /containers/create"]
    assert cli_daemon.only("POST", "/containers/create").query == {"dryrun": "1"}


@pytest.mark.parametrize("args", [["run", "-it", "bb"], ["exec", "-it", "web", "sh"]])
def test_a_terminal_needs_a_terminal(cli: Cli, cli_daemon: Daemon, monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert cli(*args) == (1, "", "the input device is not a TTY\n")
    assert cli_daemon.asked() == []


def test_attach_and_detach_exclude_one_another(cli: Cli, cli_daemon: Daemon) -> None:
    assert cli("run", "-d", "-a", "stdout", "bb") == (1, "", "conflicting options: cannot specify both --attach and --detach\n")
    assert cli("run", "-a", "foo", "bb").code == 125


def _exec(daemon: Daemon, code: int, script: Callable[[Any], None]) -> None:
    daemon.answers["POST", "/containers/web/exec"] = (201, {"Id": "e1"})
    daemon.answers["POST", "/exec/e1/start"] = lambda request: script(request.upgrade())
    daemon.answers["GET", "/exec/e1/json"] = (200, {"ExitCode": code})
    daemon.answers["POST", "/exec/e1/resize"] = (200, b"")


def test_exec(cli: Cli, cli_daemon: Daemon) -> None:
    _exec(cli_daemon, 4, lambda connection: connection.sendall(frame(2, b"err\n") + frame(1, b"out\n")))

    assert cli("exec", "-e", "A=1", "-w", "/tmp", "-u", "1", "--privileged", "web", "sh", "-c", "exit 4") == (4, "out\n", "err\n")
    assert cli_daemon.only("POST", "/containers/web/exec").body == {
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "Cmd": ["sh", "-c", "exit 4"],
        "Env": ["A=1"],
        "User": "1",
        "WorkingDir": "/tmp",
        "Privileged": True,
        "Detach": False,
    }
    assert cli_daemon.only("POST", "/exec/e1/start").body == {"Detach": False, "Tty": False}


def test_exec_detached(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/containers/web/exec"] = (201, {"Id": "e1"})
    cli_daemon.answers["POST", "/exec/e1/start"] = (200, b"")

    assert cli("exec", "-d", "web", "true") == (0, "", "")
    assert cli_daemon.only("POST", "/exec/e1/start").body == {"Detach": True, "Tty": False}


@pytest.mark.parametrize(("reason", "code"), [(RUNTIME + '"x": executable file not found in $PATH', 127), ("web is not running", 1)])
def test_an_exec_that_fails(cli: Cli, cli_daemon: Daemon, reason: str, code: int) -> None:
    cli_daemon.answers["POST", "/containers/web/exec"] = (201, {"Id": "e1"})
    cli_daemon.answers["POST", "/exec/e1/start"] = (409, {"message": reason})

    assert cli("exec", "web", "x") == (code, "", f"Error response from daemon: {reason}\n")


def test_attach_needs_a_running_container(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/containers/web/json"] = (200, {"Id": ID, "State": {"Running": False}, "Config": {}})

    assert cli("attach", "web") == (1, "", "You cannot attach to a stopped container, start it first\n")


@pytest.mark.parametrize("args", [["attach"], ["start", "-a"]])
def test_attach(cli: Cli, cli_daemon: Daemon, args: list[str]) -> None:
    life = Life(cli_daemon, code=7, script=lambda connection: connection.sendall(frame(1, b"out\n")))
    if args == ["attach"]:
        life.started.set()
    cli_daemon.answers["GET", "/containers/web/json"] = (200, {"Id": ID, "State": {"Running": True}, "Config": {"Tty": False}})

    assert cli(*args, "web") == (7, "out\n", "")


def test_only_one_is_started_attached(cli: Cli, cli_daemon: Daemon) -> None:
    assert cli("start", "-a", "a", "b") == (1, "", "you cannot start and attach multiple containers at once\n")


def _environment(daemon: Daemon) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NETPLUG_HOST": daemon.host}


@pytest.mark.parametrize("args", [("run", "-i", "bb", "cat"), ("exec", "-i", "web", "cat")])
def test_stdin_goes_in_and_ends(cli_daemon: Daemon, args: tuple[str, ...]) -> None:
    """A megabyte through `cat`, whole: the end of our stdin is the end of its."""

    def cat(connection: Any) -> None:
        received = b""
        while data := connection.recv(65536):
            received += data
        connection.sendall(frame(1, received))

    Life(cli_daemon, script=cat)
    _exec(cli_daemon, 0, cat)
    content = os.urandom(1 << 20)

    done = subprocess.run([*NETPLUG, *args], input=content, capture_output=True, env=_environment(cli_daemon), timeout=30)

    assert (done.returncode, done.stdout == content, done.stderr) == (0, True, b"")


def test_signals_go_to_the_container(cli_daemon: Daemon) -> None:
    life = Life(cli_daemon, code=143)

    def script(connection: Any) -> None:
        connection.sendall(frame(1, b"ready\n"))
        assert life.ended.wait(20)

    life.script = script
    with subprocess.Popen([*NETPLUG, "run", "bb"], stdout=subprocess.PIPE, env=_environment(cli_daemon)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)

    assert (code, life.signals) == (143, ["TERM"])


class Terminal:
    """A person at a terminal, in front of one of our commands."""

    def __init__(self, outer: int, process: subprocess.Popen[bytes]) -> None:
        self._outer, self.process, self.seen = outer, process, b""

    def expect(self, text: bytes) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._outer], [], [], 0.1)[0]:
                self.seen += os.read(self._outer, 65536)

    def type(self, text: bytes) -> None:
        os.write(self._outer, text)

    def resize(self, lines: int, width: int) -> None:
        fcntl.ioctl(self._outer, termios.TIOCSWINSZ, struct.pack("HHHH", lines, width, 0, 0))
        self.process.send_signal(signal.SIGWINCH)


@contextmanager
def terminal(daemon: Daemon, *args: str) -> Iterator[Terminal]:
    outer, inner = pty.openpty()
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    before = termios.tcgetattr(inner)
    process = subprocess.Popen([*NETPLUG, *args], stdin=inner, stdout=inner, stderr=inner, env=_environment(daemon))
    try:
        yield Terminal(outer, process)
        process.wait(20)
        assert termios.tcgetattr(inner) == before
    finally:
        process.kill()
        process.wait()
        os.close(outer)
        os.close(inner)


def _shell(connection: Any) -> None:
    """Answers what it is told, as it is told it; ends at `q`."""
    connection.sendall(b"# ")
    while (data := connection.recv(100)) not in (b"", b"q"):
        connection.sendall(b"<" + data + b">")


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("args", [("run", "-it", "bb"), ("exec", "-it", "web", "sh"), ("attach", "web")])
def test_a_terminal_passes_every_key(cli_daemon: Daemon, args: tuple[str, ...]) -> None:
    life = Life(cli_daemon, code=9, script=_shell)
    if args[0] == "attach":
        life.started.set()
    _exec(cli_daemon, 9, _shell)
    cli_daemon.answers["POST", "/exec/e1/resize"] = life.resize
    cli_daemon.answers["GET", "/containers/web/json"] = (
        200,
        {"Id": ID, "State": {"Running": True}, "Config": {"Tty": True, "OpenStdin": True}},
    )
    with terminal(cli_daemon, *args) as person:
        person.expect(b"# ")
        person.type(b"\x03")
        person.expect(b"<\x03>")
        _until(lambda: ("30", "100") in life.sizes)
        person.resize(44, 77)
        _until(lambda: life.sizes[-1] == ("44", "77"))
        person.type(b"q")

    assert person.process.returncode == 9
    if args[0] == "attach":
        assert life.sizes[0] == ("31", "101")  # another size first, so that what is on the screen is drawn anew


def test_detaching_leaves_the_container_running(cli_daemon: Daemon) -> None:
    life = Life(cli_daemon, script=_shell)
    with terminal(cli_daemon, "run", "-it", "bb") as person:
        person.expect(b"# ")
        person.type(b"\x10x")
        person.expect(b"<\x10x>")
        person.type(b"\x10")
        person.type(b"\x11")

    assert (person.process.returncode, life.signals) == (0, [])
