"""`netplug run`, `create`, `start`, `exec`, `attach`: making containers run, and being in touch with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import click

from netplug.cli import completion, creation, options
from netplug.cli.client import JSON, Answer, Client, DaemonError, Unreachable, segment
from netplug.cli.command import Command, Explain, Failure, Value, explainable
from netplug.cli.several import each
from netplug.cli.streams import DETACH_KEYS, Session, detach_keys, proxied_signals

_DAEMON_ERROR, _CANNOT_INVOKE, _NOT_FOUND = 125, 126, 127
_BAD_REQUEST = 400
_KEYS = click.option(
    "--detach-keys", "keys", default=DETACH_KEYS, type=Value(lambda text: (detach_keys(text), text)[1]), help="Key sequence for detaching"
)
_PROXY = click.option("--sig-proxy/--no-sig-proxy", "proxy", default=True, help="Proxy received signals to the process")


def exit_code(reason: str) -> int:
    """126 and 127 as a shell's, by what the runtime said of the command."""
    if "executable file not found" in reason or "no such file or directory" in reason:
        return _NOT_FOUND
    if "permission denied" in reason or "is a directory" in reason:
        return _CANNOT_INVOKE
    return _DAEMON_ERROR


@contextlib.contextmanager
def _failing(command: str, with_help: bool = False) -> Iterator[None]:
    """Errors of `run`, and of the flags of `create`: signed, and with their own exit codes."""
    try:
        yield
    except Unreachable as error:
        raise Failure(f"netplug: {error.message}", _DAEMON_ERROR) from error
    except DaemonError as error:
        code = _DAEMON_ERROR if with_help else exit_code(error.reason)
        raise Failure(_signed(error.message, command if with_help else ""), code) from error
    except Failure as error:
        raise Failure(_signed(error.message, command), _DAEMON_ERROR) from error


def _signed(message: str, command: str) -> str:
    return f"netplug: {message.rstrip('.')}." + (f"\nSee 'netplug {command} --help'." if command else "")


def _create(client: Client, body: JSON, name: str, explain: Explain) -> str:
    answer = client.call("POST", "/containers/create", {**({"name": name} if name else {}), **explain.query}, body)
    for warning in answer.get("Warnings") or []:
        click.echo(f"WARNING: {warning}", err=True)
    explain.heard(answer)
    return str(answer.get("Id", ""))


@click.command("create", cls=Command, interspersed=False)
@creation.creation_flags
@click.argument("image", shell_complete=completion.images)
@click.argument("command", metavar="[COMMAND] [ARG...]", nargs=-1)
@explainable
@click.pass_obj
def create_command(client: Client, /, image: str, command: Sequence[str], explain: Explain, **given: Any) -> None:
    """Create a new container"""
    with _failing("create", with_help=True):
        body = creation.body(image, command, given, detach=False)
    explain.name(_create(client, body, given["name"], explain))


@click.command("run", cls=Command, interspersed=False)
@click.option("-d", "--detach", is_flag=True, help="Run container in background and print container ID")
@_KEYS
@_PROXY
@creation.creation_flags
@click.argument("image", shell_complete=completion.images)
@click.argument("command", metavar="[COMMAND] [ARG...]", nargs=-1)
@explainable
@click.pass_obj
def run_command(
    client: Client, /, image: str, command: Sequence[str], detach: bool, keys: str, proxy: bool, explain: Explain, **given: Any
) -> int:
    """Create and run a new container from an image"""
    streams = creation.attached(given, detach)
    if not explain.dry_run:
        creation.check_terminal("stdin" in streams, given["terminal"])
    with _failing("run", with_help=True):
        container = _create(client, creation.body(image, command, given, detach), given["name"], explain)
    if explain.dry_run:
        return 0
    if detach:
        try:
            with _failing("run"):
                explain.heard(client.call("POST", f"/containers/{container}/start", explain.query))
        finally:  # a container that did not start is there all the same, and may have no other name that its user knows
            click.echo(container)
        return 0
    attached = _Attached(client, container, streams, bool(given["terminal"]), keys, proxy, "removed" if given["remove"] else "next-exit")
    with _failing("run"):
        return attached.start(explain)


class _Attached:
    """A container whose streams are ours from before its start until its end, or until the user detaches."""

    def __init__(self, client: Client, container: str, streams: set[str], terminal: bool, keys: str, proxy: bool, until: str) -> None:
        self._client, self._path, self._container = client, f"/containers/{container}", container
        self._streams, self._terminal, self._keys, self._proxy, self._until = streams, terminal, keys, proxy, until

    def start(self, explain: Explain) -> int:
        """Start it; the exit code."""

        def start() -> None:
            explain.heard(self._client.call("POST", f"{self._path}/start", explain.query))

        return self._run(start)

    def join(self) -> int:
        """It runs already; the exit code. Its terminal is made another size and back, so that what it shows is drawn anew."""
        return self._run(None)

    def _run(self, start: Any) -> int:
        wanted = {"stream": "1", **dict.fromkeys(sorted(self._streams), "1")}
        connection = self._client.upgrade(f"{self._path}/attach", wanted)
        with contextlib.ExitStack() as stack:
            waiting = self._client.open("POST", f"{self._path}/wait", {"condition": self._until} if self._until else None)
            stack.callback(waiting.close)
            session = Session(
                self._client, connection, self._path, terminal=self._terminal, stdin="stdin" in self._streams, keys=self._keys
            )
            if start is None and self._terminal:
                session.resize(1)
            if self._proxy and not self._terminal:
                stack.enter_context(proxied_signals(self._client, self._container))
            session.run(start)
            return 0 if session.detached else _status(waiting)


def _status(waiting: Answer) -> int:
    """The exit code out of the answer to a wait."""
    try:
        answer = waiting.json()
    except Failure:
        answer = {}
    if message := (answer.get("Error") or {}).get("Message"):
        raise Failure(str(message), _DAEMON_ERROR)
    if "StatusCode" not in answer:
        raise Failure("the daemon ended the connection before the container did", _DAEMON_ERROR)
    return int(answer["StatusCode"])


@click.command("start", cls=Command)
@click.option("-a", "--attach", "attach", is_flag=True, help="Attach STDOUT/STDERR and forward signals")
@click.option("-i", "--interactive", is_flag=True, help="Attach container's STDIN")
@_KEYS
@click.argument("containers", metavar="CONTAINER [CONTAINER...]", nargs=-1, required=True, shell_complete=completion.containers)
@explainable
@click.pass_obj
def start_command(client: Client, /, containers: Sequence[str], attach: bool, interactive: bool, keys: str, explain: Explain) -> int:
    """Start one or more stopped containers"""
    if (attach or interactive) and not explain.dry_run:
        if len(containers) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _start_attached(client, containers[0], interactive, keys, explain)
    failed: list[str] = []

    def start(name: str) -> None:
        failed.append(name)
        explain.heard(client.call("POST", f"/containers/{segment(name)}/start", explain.query))
        failed.remove(name)
        explain.name(name)

    if code := each(containers, start):
        click.echo(f"Error: failed to start containers: {', '.join(failed)}", err=True)
    return code


def _start_attached(client: Client, name: str, interactive: bool, keys: str, explain: Explain) -> int:
    config = client.call("GET", f"/containers/{segment(name)}/json")
    streams = {"stdout", "stderr"} | ({"stdin"} if interactive and config["Config"].get("OpenStdin") else set())
    terminal = bool(config["Config"].get("Tty"))
    creation.check_terminal("stdin" in streams, terminal)
    until = "removed" if config.get("HostConfig", {}).get("AutoRemove") else "next-exit"
    return _Attached(client, config["Id"], streams, terminal, keys, True, until).start(explain)


@click.command("attach", cls=Command)
@click.option("--no-stdin", is_flag=True, help="Do not attach STDIN")
@_KEYS
@_PROXY
@click.argument("container", shell_complete=completion.running)
@click.pass_obj
def attach_command(client: Client, container: str, no_stdin: bool, keys: str, proxy: bool) -> int:
    """Attach local standard input, output, and error streams to a running container"""
    config = client.call("GET", f"/containers/{segment(container)}/json")
    if not config["State"].get("Running"):
        raise Failure("You cannot attach to a stopped container, start it first")
    streams = {"stdout", "stderr"} | ({"stdin"} if config["Config"].get("OpenStdin") and not no_stdin else set())
    terminal = bool(config["Config"].get("Tty"))
    creation.check_terminal("stdin" in streams, terminal)
    return _Attached(client, config["Id"], streams, terminal, keys, proxy, "").join()


@click.command("exec", cls=Command, interspersed=False)
@click.option("-d", "--detach", is_flag=True, help="Detached mode: run command in the background")
@click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open even if not attached")
@click.option("-t", "--tty", "terminal", is_flag=True, help="Allocate a pseudo-TTY")
@click.option("-e", "--env", "variables", multiple=True, type=Value(options.environment, "list"), help="Set environment variables")
@click.option("--env-file", "variable_files", multiple=True, help="Read in a file of environment variables")
@click.option("-w", "--workdir", default="", help="Working directory inside the container")
@click.option("-u", "--user", default="", help="Username or UID (format: <name|uid>[:<group|gid>])")
@click.option("--privileged", is_flag=True, help="Give extended privileges to the command")
@_KEYS
@click.argument("container", shell_complete=completion.running)
@click.argument("command", metavar="COMMAND [ARG...]", nargs=-1, required=True)
@click.pass_obj
def exec_command(client: Client, /, container: str, command: Sequence[str], detach: bool, keys: str, **given: Any) -> int:
    """Execute a command in a running container"""
    terminal, stdin = bool(given["terminal"]), bool(given["interactive"]) and not detach
    creation.check_terminal(stdin, terminal)
    try:
        variables = [line for path in given["variable_files"] for line in options.environment_file(path)]
    except (OSError, ValueError) as error:
        raise Failure(options.unread(error)) from None
    body = {
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Tty": terminal,
        "Cmd": list(command),
        "Env": [*variables, *given["variables"]],
        "User": given["user"],
        "WorkingDir": given["workdir"],
        "Privileged": given["privileged"],
        "Detach": detach,
    }
    path = f"/exec/{client.call('POST', f'/containers/{segment(container)}/exec', body=body)['Id']}"
    if detach:
        client.call("POST", f"{path}/start", body={"Detach": True, "Tty": terminal})
        return 0
    try:
        connection = client.upgrade(f"{path}/start", body={"Detach": False, "Tty": terminal})
    except DaemonError as error:
        if error.status == _BAD_REQUEST:  # nothing is wrong with the container, but with what was to be run
            raise Failure(error.reason, _CANNOT_INVOKE) from error
        code = exit_code(error.reason)
        raise Failure(error.message, code if code != _DAEMON_ERROR else 1) from error
    session = Session(client, connection, path, terminal=terminal, stdin=stdin, keys=keys)
    session.run()
    return 0 if session.detached else int(client.call("GET", f"{path}/json").get("ExitCode") or 0)
