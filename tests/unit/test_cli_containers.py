"""Containers and images as lists, as objects, and their end: what is asked of the daemon, and what is said."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from cli_fixtures import Cli
from cli_server import Daemon, Request, frame

from netplug.cli.container import ellipsis

ID = "f2430044eda5a7be16dfeaf327a102ea283eeee6c64ca8378142a233bbc9376c"
COMMANDS = ["ip link del veth1234567"]


def _line(**more: Any) -> dict[str, Any]:
    common = {
        "Id": ID,
        "Names": ["/web", "/other/alias"],
        "Image": "bb",
        "Command": "sh -c 'echo a; exec httpd -f'",
        "Created": int(time.time()) - 125,
        "State": "running",
        "Status": "Up 2 minutes",
        "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
        "Labels": {"stage": "test"},
        "NetworkSettings": {"Networks": {"demo": {}, "back": {}}},
        "Mounts": [{"Source": "/data"}],
    }
    return {**common, **more}


def _container(*, tty: bool = False, running: bool = True, ports: Any = None) -> dict[str, Any]:
    return {
        "Id": ID,
        "Config": {"Tty": tty, "OpenStdin": False},
        "State": {"Running": running},
        "NetworkSettings": {"Ports": ports or {}},
    }


def test_ps(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/containers/json"] = (200, [_line()])

    assert cli("ps").out == (
        "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS                  NAMES\n"
        'f2430044eda5   bb        "sh -c \'echo a; exec…"   2 minutes ago   Up 2 minutes   0.0.0.0:8080->80/tcp   web\n'
    )


@pytest.mark.parametrize(
    ("args", "query"),
    [
        ([], {}),
        (["-a"], {"all": "1"}),
        (["-n", "3"], {"limit": "3"}),
        (["-l"], {"limit": "1"}),
        (["-f", "name=web", "--filter=status=exited"], {"filters": '{"name": {"web": true}, "status": {"exited": true}}'}),
    ],
)
def test_what_ps_asks_for(cli: Cli, cli_daemon: Daemon, args: list[str], query: dict[str, str]) -> None:
    cli_daemon.answers["GET", "/containers/json"] = (200, [])

    assert cli("ps", "-q", *args) == (0, "", "")
    assert cli_daemon.only("GET", "/containers/json").query == query


def test_ps_formats(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/containers/json"] = (200, [_line()])

    assert cli("ps", "-q").out == "f2430044eda5\n"
    assert cli("ps", "-q", "--no-trunc").out == ID + "\n"
    assert cli("ps", "--no-trunc", "--format", "{{.Names}} {{.Command}}").out == "web,other/alias \"sh -c 'echo a; exec httpd -f'\"\n"
    wide = '{{.State}} {{.Networks}} {{.Mounts}} {{.Labels}} {{.Label "stage"}} {{.RunningFor}}'
    assert cli("ps", "--format", wide).out == "running back,demo /data stage=test test 2 minutes ago\n"


@pytest.mark.parametrize(("text", "length", "expected"), [("short", 5, "short"), ("longer", 5, "long…"), ("", 3, "")])
def test_ellipsis(text: str, length: int, expected: str) -> None:
    assert ellipsis(text, length) == expected


def test_inspect_finds_containers_networks_and_images(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/containers/web/json"] = (200, {"Name": "/web"})
    cli_daemon.answers["GET", "/networks/demo"] = (200, {"Name": "demo"})
    cli_daemon.answers["GET", "/images/bb/json"] = (200, {"Name": "image"})

    result = cli("inspect", "-f", "{{.Name}}", "web", "demo", "nosuch", "bb")

    assert result == (1, "/web\ndemo\nimage\n", "Error: No such object: nosuch\n")


def test_inspect_of_one_kind(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/networks/web"] = (404, {"message": "network web not found"})

    assert cli("inspect", "--type", "network", "web").err == "Error response from daemon: network web not found\n"
    assert cli_daemon.asked() == ["GET /networks/web"]


def test_inspect_does_not_hide_other_errors(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/containers/we/json"] = (400, {"message": "we is ambiguous"})

    assert cli("inspect", "we") == (1, "[]\n", "Error response from daemon: we is ambiguous\n")


def test_logs_go_to_stdout_and_stderr(cli: Cli, cli_daemon: Daemon) -> None:
    """Frames are cut anywhere on their way."""
    data = frame(1, b"out\n") + frame(2, b"err\n") + frame(1, b"again\n")
    cli_daemon.answers["GET", "/containers/web/json"] = (200, _container())
    cli_daemon.answers["GET", "/containers/web/logs"] = lambda request: request.stream(data[:5], data[5:11], data[11:])

    assert cli("logs", "-t", "--tail", "5", "--since", "2026-01-31T12:00:00Z", "web") == (0, "out\nagain\n", "err\n")
    assert cli_daemon.only("GET", "/containers/web/logs").query == {
        "stdout": "1",
        "stderr": "1",
        "tail": "5",
        "timestamps": "1",
        "since": "1769860800.000000000",
    }


def test_logs_of_a_terminal_are_as_they_are(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/containers/web/json"] = (200, _container(tty=True))
    cli_daemon.answers["GET", "/containers/web/logs"] = lambda request: request.stream(b"\x01\x00 raw\r\n")

    assert cli("logs", "-f", "web").out == "\x01\x00 raw\r\n"
    assert cli_daemon.only("GET", "/containers/web/logs").query["follow"] == "1"


def test_logs_since_when(cli: Cli, cli_daemon: Daemon) -> None:
    assert cli("logs", "--since", "foo", "web") == (1, "", 'invalid value for "since": failed to parse value as time or duration: "foo"\n')


PORTS = {
    "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
    "81/udp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}],
    "9/tcp": None,
}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 0, "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n81/udp -> 127.0.0.1:32768\n"),
        (["80"], 0, "0.0.0.0:8080\n[::]:8080\n"),
        (["81/udp"], 0, "127.0.0.1:32768\n"),
        (["81"], 1, "Error: No public port '81' published for web\n"),
        (["9"], 1, "Error: No public port '9' published for web\n"),
        (["foo"], 1, 'Error: invalid port (foo): strconv.ParseUint: parsing "foo": invalid syntax\n'),
    ],
)
def test_port(cli: Cli, cli_daemon: Daemon, args: list[str], code: int, said: str) -> None:
    cli_daemon.answers["GET", "/containers/web/json"] = (200, _container(ports=PORTS))
    result = cli("port", "web", *args)

    assert (result.code, result.out + result.err) == (code, said)


def test_stop_is_asked_of_all_at_once(cli: Cli, cli_daemon: Daemon) -> None:
    """Each may take its ten seconds."""
    together = threading.Barrier(2, timeout=10)

    def stop(request: Request) -> tuple[int, bytes]:
        together.wait()
        return 204, b""

    cli_daemon.answers["POST", "/containers/a/stop"] = cli_daemon.answers["POST", "/containers/b/stop"] = stop
    cli_daemon.answers["POST", "/containers/c/stop"] = (404, {"message": "No such container: c"})
    result = cli("stop", "-t", "0", "a", "b", "c")

    assert (result.code, sorted(result.out.split()), result.err) == (1, ["a", "b"], "Error response from daemon: No such container: c\n")
    assert {tuple(request.query.items()) for request in cli_daemon.requests} == {(("t", "0"),)}


def test_stopping_what_is_stopped_is_fine(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/containers/a/stop"] = (304, b"")

    assert cli("stop", "a") == (0, "a\n", "")


@pytest.mark.parametrize(
    ("args", "method", "path", "query"),
    [
        (["stop", "--time=3", "web"], "POST", "/containers/web/stop", {"t": "3"}),
        (["kill", "web"], "POST", "/containers/web/kill", {}),
        (["kill", "-s", "HUP", "web"], "POST", "/containers/web/kill", {"signal": "HUP"}),
        (["rm", "web"], "DELETE", "/containers/web", {}),
        (["rm", "-fv", "/web"], "DELETE", "/containers/web", {"force": "1", "v": "1"}),
        (["start", "web"], "POST", "/containers/web/start", {}),
    ],
)
def test_changes(cli: Cli, cli_daemon: Daemon, args: list[str], method: str, path: str, query: dict[str, str]) -> None:
    cli_daemon.answers[method, path] = (204, b"")

    assert cli(*args) == (0, f"{args[-1]}\n", "")
    assert cli_daemon.only(method, path).query == query


@pytest.mark.parametrize(("flag", "query"), [("--explain", {"explain": "1"}), ("--dry-run", {"dryrun": "1"})])
@pytest.mark.parametrize("command", ["stop", "kill", "start", "rm"])
def test_changes_explained(cli: Cli, cli_daemon: Daemon, flag: str, query: dict[str, str], command: str) -> None:
    method, path = ("DELETE", "/containers/web") if command == "rm" else ("POST", f"/containers/web/{command}")
    cli_daemon.answers[method, path] = (200, {"Explain": COMMANDS})

    assert cli(command, flag, "web").out.splitlines() == ["web"] * (flag == "--explain") + COMMANDS
    assert cli_daemon.only(method, path).query == query


def test_rm_force_is_content_with_what_is_gone(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["DELETE", "/containers/web"] = (404, {"message": "No such container: web"})

    assert cli("rm", "-f", "web") == (0, "", "Error response from daemon: No such container: web\n")
    assert cli("rm", "web").code == 1


def test_start_says_at_the_end_which_failed(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/containers/b/start"] = (204, b"")
    for name in ("a", "c"):
        cli_daemon.answers["POST", f"/containers/{name}/start"] = (404, {"message": f"No such container: {name}"})

    assert cli("start", "a", "b", "c") == (
        1,
        "b\n",
        "Error response from daemon: No such container: a\nError response from daemon: No such container: c\n"
        "Error: failed to start containers: a, c\n",
    )


def test_wait(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["POST", "/containers/a/wait"] = (200, {"StatusCode": 42})
    cli_daemon.answers["POST", "/containers/b/wait"] = (200, {"StatusCode": 125, "Error": {"Message": "it is gone"}})

    assert cli("wait", "a", "b") == (1, "42\n", "Error response from daemon: it is gone\n")


IMAGE = {
    "Id": "sha256:" + "de32e800b480" * 5 + "de32",
    "RepoTags": ["bb:latest", "reg:5000/bb:two"],
    "Created": 1769860800,
    "Size": 1982256,
}


def test_images(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/images/json"] = (200, [IMAGE, {**IMAGE, "RepoTags": None, "Created": 0}])

    assert cli("images", "--format", "{{.Repository}}|{{.Tag}}|{{.ID}}|{{.Size}}|{{.CreatedAt}}").out.splitlines() == [
        "bb|latest|de32e800b480|1.98MB|2026-01-31 12:00:00 +0000 UTC",
        "reg:5000/bb|two|de32e800b480|1.98MB|2026-01-31 12:00:00 +0000 UTC",
        "<none>|<none>|de32e800b480|1.98MB|N/A",
    ]
    assert cli("image", "ls", "-q", "bb").out == "de32e800b480\n" * 3
    assert cli_daemon.requests[-1].query == {"filters": '{"reference": {"bb": true}}'}


def test_import(cli: Cli, cli_daemon: Daemon, tmp_path: Any) -> None:
    """The tarball goes in pieces: it may be larger than memory."""
    tarball = tmp_path / "root.tar"
    tarball.write_bytes(b"tar" * 100_000)
    cli_daemon.answers["POST", "/images/create"] = (200, b'{"status":"sha256:1"}\n')

    assert cli("image", "import", "-c", "CMD sh", str(tarball), "bb:two") == (0, "sha256:1\n", "")
    request = cli_daemon.only("POST", "/images/create")
    assert request.query == {"fromSrc": "-", "repo": "bb", "tag": "two", "changes": "CMD sh"}
    assert (request.headers["Transfer-Encoding"], request.body) == ("chunked", b"tar" * 100_000)


def test_import_that_fails_on_the_way(cli: Cli, cli_daemon: Daemon, tmp_path: Any) -> None:
    (tmp_path / "x").write_bytes(b"x")
    cli_daemon.answers["POST", "/images/create"] = (200, b'{"error":"not a tarball"}\n')

    assert cli("image", "import", str(tmp_path / "x")) == (1, "", "not a tarball\n")
    assert cli("image", "import", "/nosuch", "bb") == (1, "", "open /nosuch: no such file or directory\n")


def test_image_rm(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["DELETE", "/images/bb"] = (200, [{"Untagged": "bb:latest"}, {"Deleted": "sha256:1"}])
    cli_daemon.answers["DELETE", "/images/x"] = (404, {"message": "No such image: x:latest"})

    assert cli("image", "rm", "x", "bb") == (
        1,
        "Untagged: bb:latest\nDeleted: sha256:1\n",
        "Error response from daemon: No such image: x:latest\n",
    )
