"""The command as a whole: finding the daemon, usage errors, help, completion, what is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_fixtures import Cli
from cli_server import Daemon

import netplug.cli
from netplug import __version__
from netplug.cli.command import spelled_for_click
from netplug.cli.network import create
from netplug.cli.running import run_command

COMMANDS = [
    "attach",
    "capture",
    "completion",
    "create",
    "daemon",
    "demo",
    "doctor",
    "driver",
    "events",
    "exec",
    "explain",
    "image",
    "images",
    "inspect",
    "install",
    "ipam",
    "journal",
    "kill",
    "lab",
    "logs",
    "network",
    "node",
    "port",
    "preflight",
    "ps",
    "rm",
    "route",
    "run",
    "start",
    "stop",
    "version",
    "wait",
]
PYTHON = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
"""The environment of an interpreter that finds what this one finds."""


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["network", "create"], 1, '"netplug network create" requires exactly 1 argument.'),
        (["network", "create", "a", "b"], 1, '"netplug network create" requires exactly 1 argument.'),
        (["network", "connect", "a"], 1, '"netplug network connect" requires exactly 2 arguments.'),
        (["network", "ls", "a"], 1, '"netplug network ls" accepts no arguments.'),
        (["network", "create", "--foo", "a"], 125, "unknown flag: --foo"),
        (["network", "create", "-z", "a"], 125, "unknown shorthand flag: 'z' in -z"),
        (["network", "create", "--subnet"], 125, "flag needs an argument: --subnet"),
        (
            ["network", "create", "--internal=x", "a"],
            125,
            'invalid argument "x" for "--internal" flag: strconv.ParseBool: parsing "x": invalid syntax',
        ),
        (["run"], 1, '"netplug run" requires at least 1 argument.'),
        (["run", "--foo"], 125, "unknown flag: --foo"),
        (["run", "-e"], 125, "flag needs an argument: 'e' in -e"),
        (["run", "--dns", "foo", "bb"], 125, 'invalid argument "foo" for "--dns" flag: IP address is not correctly formatted: foo'),
        (["run", "--network", "name=a,b=c", "bb"], 125, 'invalid argument "name=a,b=c" for "--network" flag: invalid field key b'),
        (["exec", "web"], 1, '"netplug exec" requires at least 2 arguments.'),
        (["port"], 1, '"netplug port" requires at least 1 and at most 2 arguments.'),
        (["ps", "-f", "foo"], 125, 'invalid argument "foo" for "-f, --filter" flag: bad format of filter (expected name=value)'),
        (["stop", "-t", "x", "web"], 125, 'invalid argument "x" for "-t, --time" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["foo"], 1, "netplug: unknown command: netplug foo"),
        (["network", "foo"], 1, "netplug: unknown command: netplug network foo"),
        (["--foo"], 125, "unknown flag: --foo"),
    ],
)
def test_usage_errors_are_dockers(cli: Cli, args: list[str], code: int, sentence: str) -> None:
    result = cli(*args)

    assert (result.code, result.out, result.err.splitlines()[0]) == (code, "", sentence)


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("--rm=true --tty=false bb", "--rm bb"),
        ("--sig-proxy=false -p=80:80 bb", "--no-sig-proxy -p 80:80 bb"),
        ("--no-sig-proxy=false --sig-proxy=true bb", "--sig-proxy --sig-proxy bb"),
        ("bb --rm=false", "bb --rm=false"),
    ],
)
def test_flags_as_docker_users_spell_them(given: str, spelled: str) -> None:
    """A flag that is on unless it is switched off needs its opposite, not just to be left out."""
    assert spelled_for_click(given.split(), run_command.params, interspersed=False) == spelled.split()


def test_switched_off_on_the_command_line_is_more_than_not_said() -> None:
    assert spelled_for_click(["--ipv6=false", "demo"], create.params, interspersed=True) == ["--no-ipv6", "demo"]


@pytest.mark.parametrize(("args", "code"), [(["ps"], 1), (["network", "rm", "a"], 1), (["run", "host"], 125), (["create", "host"], 1)])
def test_no_daemon(cli: Cli, tmp_path: Path, args: list[str], code: int) -> None:
    host = f"unix://{tmp_path}/none.sock"
    result = cli("--host", host, *args)

    assert result.code == code
    assert result.err.removeprefix("netplug: ") == f"Cannot connect to the netplug daemon at {host}. Is the netplug daemon running?\n"


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/usr/bin/setpriv"), reason="root needs setpriv to be somebody else")
def test_no_permission(cli_daemon: Daemon) -> None:
    path = cli_daemon.host.removeprefix("unix://")
    os.chmod(os.path.dirname(path), 0o755)
    os.chmod(path, 0o600)
    argv = [sys.executable, "-c", "from netplug.cli import main; main(['ps'])"]
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv]
    else:
        os.chmod(path, 0)
    environment = {**PYTHON, "NETPLUG_HOST": cli_daemon.host}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20)
    if done.returncode and "permission denied while" not in done.stderr and "rror" in done.stderr:
        pytest.skip(f"another user cannot start this interpreter: {done.stderr.splitlines()[-1]}")

    assert (done.returncode, done.stderr) == (
        1,
        f"permission denied while trying to connect to the netplug daemon socket at {cli_daemon.host}\n",
    )


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "/run/x.sock", "unix://"])
def test_a_host_that_is_no_unix_socket(cli: Cli, host: str) -> None:
    result = cli("-H", host, "ps")

    assert (result.code, result.err) == (125, f'unable to parse host "{host}": a netplug daemon is reached at unix://PATH\n')


def test_the_flag_wins_over_the_environment(cli: Cli, cli_daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETPLUG_HOST", "unix:///nowhere")
    cli_daemon.answers["GET", "/networks"] = (200, [])

    assert cli("-H", cli_daemon.host, "network", "ls", "-q").code == 0


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((404, {"message": "network x not found"}), "Error response from daemon: network x not found"),
        ((500, b"plain words"), "Error response from daemon: plain words"),
        ((500, b""), "Error response from daemon: 500 Internal Server Error"),
    ],
)
def test_errors_of_the_daemon(cli: Cli, cli_daemon: Daemon, answer: tuple[int, object], sentence: str) -> None:
    cli_daemon.answers["DELETE", "/networks/x"] = answer

    assert cli("network", "rm", "x") == (1, "", sentence + "\n")


def test_a_daemon_that_dies_in_the_middle(cli: Cli, cli_daemon: Daemon) -> None:
    def die(request: object) -> None:
        request.handler.close_connection = True  # type: ignore[attr-defined]

    cli_daemon.answers["GET", "/networks"] = die
    result = cli("network", "ls")

    assert result.code == 1
    assert result.err.startswith(f"the daemon at {cli_daemon.host} ended the connection")


def test_a_mistake_of_ours_is_one_line(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/networks"] = (200, [{"unexpected": True}])
    result = cli("network", "ls")

    assert result == (1, "", "netplug: KeyError: 'Name' (a mistake in netplug; NETPLUG_DEBUG=1 shows where)\n")


def test_version(cli: Cli, cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/version"] = (200, {"Platform": {"Name": "netplug"}, "Version": "9", "ApiVersion": "1.47"})

    assert cli("--version").out == f"netplug version {__version__}\n"
    assert cli("version", "--format", "{{.Client.Version}} {{.Server.Version}}").out == f"{__version__} 9\n"
    assert " netplug:\n  Version:          9\n" in cli("version").out


def test_version_without_a_daemon_says_what_it_can(cli: Cli) -> None:
    result = cli("-H", "unix:///nowhere", "version")

    assert result.code == 1
    assert result.out.startswith(f"Client:\n Version:           {__version__}\n")
    assert result.err == "Cannot connect to the netplug daemon at unix:///nowhere. Is the netplug daemon running?\n"


def test_help_lists_every_command(cli: Cli) -> None:
    listed = cli("--help").out.partition("Commands:\n")[2]

    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == COMMANDS
    assert cli().out == cli("--help").out


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("image", "ipam", "network", "node")])
def test_every_command_has_help(cli: Cli, command: str) -> None:
    result = cli(command, "--help")

    assert result.code == 0
    assert result.out.startswith(f"Usage: netplug {command} ")


def test_commands_import_only_what_they_need(cli_daemon: Daemon) -> None:
    """Starting up is what a user waits for: none of the daemon's rooms, no server, no rich."""
    script = "import sys\nfrom netplug.cli import execute\nassert execute(['version']) == 0\nprint(*sys.modules)"
    environment = {**PYTHON, "NETPLUG_HOST": cli_daemon.host}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=20, check=True)
    modules = set(done.stdout.splitlines()[-1].split())

    assert not {"aiohttp", "asyncio", "rich", "msgspec", "netplug.daemon", "netplug.model"} & modules
    ours = {name for name in modules if name.startswith("netplug")}
    assert ours == {"netplug", "netplug.cli", *(f"netplug.cli.{name}" for name in ("client", "command", "completion", "system"))}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli: Cli, shell: str) -> None:
    result = cli("completion", shell)

    assert result.code == 0
    assert "_NETPLUG_COMPLETE" in result.out


def test_an_unknown_shell(cli: Cli) -> None:
    assert cli("completion", "tcsh").err.splitlines()[0] == "unknown shell: tcsh"


def _complete(daemon: Daemon, *words: str) -> list[str]:
    """What bash would offer for the last word."""
    environment = {
        **PYTHON,
        "NETPLUG_HOST": daemon.host,
        "_NETPLUG_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["netplug", *words]),
        "COMP_CWORD": str(len(words)),
    }
    argv = [sys.executable, "-c", "from netplug.cli import main; main()"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_names_are_completed(cli_daemon: Daemon) -> None:
    cli_daemon.answers["GET", "/networks"] = (200, [{"Name": "demo"}, {"Name": "bridge"}])
    cli_daemon.answers["GET", "/containers/json"] = (200, [{"Names": ["/web"]}, {"Names": ["/db", "/web/alias"]}])
    cli_daemon.answers["GET", "/netplug/nodes"] = (200, {"Nodes": [{"Name": "n1"}, {"Name": "n2"}], "Warnings": []})

    assert _complete(cli_daemon, "network", "connect", "d") == ["demo"]
    assert _complete(cli_daemon, "network", "connect", "demo", "") == ["db", "web"]
    assert _complete(cli_daemon, "run", "--network", "b") == ["bridge"]
    assert _complete(cli_daemon, "capture", "") == ["host", "db", "web", "bridge", "demo"]
    assert _complete(cli_daemon, "capture", "web", "") == []
    assert _complete(cli_daemon, "jou") == ["journal"]
    assert _complete(cli_daemon, "rm", "web", "") == ["db"]
    assert _complete(cli_daemon, "node", "rm", "n1", "") == ["n2"]


def test_completion_is_silent_without_a_daemon(cli_daemon: Daemon) -> None:
    cli_daemon.host = "unix:///nowhere"

    assert _complete(cli_daemon, "network", "inspect", "") == []


def test_main_leaves_with_the_exit_code() -> None:
    with pytest.raises(SystemExit) as caught:
        netplug.cli.main(["foo"])

    assert caught.value.code == 1


def test_a_reader_that_has_had_enough(cli_daemon: Daemon) -> None:
    """`netplug network ls | head -1`: no traceback, no complaint at exit."""
    cli_daemon.answers["GET", "/networks"] = (200, [{"Name": f"n{number}", "Id": "0" * 64} for number in range(5000)])
    environment = {**PYTHON, "NETPLUG_HOST": cli_daemon.host, "PYTHONUNBUFFERED": ""}
    argv = [sys.executable, "-c", "from netplug.cli import main; main(['network', 'ls'])"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        code = process.wait(20)

    assert (code, said) == (141, b"")
