"""What the demos have in common: a terminal for each host, checks that are told as they are made, an end that leaves nothing behind.

A demo is a `Stage` and what is played on it (`demo`, `demo_cluster`). `perform` runs one, and `stop` ends one that was kept.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from netplug.cli.demo_hosts import Host, Namespace, command, mounts_below, owned_processes, remove_host

TOOLS = ("ip", "nsenter", "nft", "ping", "busybox", "runc", "conmon")
KEPT = Path(os.environ.get("NETPLUG_DEMO_KEPT", "/run/netplug-demo.json"))
"""What a kept demo consists of, for `netplug demo --stop`."""
WIDTH = 140
"""Of a line of output; `ip -d link` has much longer ones."""


@dataclass(frozen=True)
class Check:
    claim: str
    passed: bool
    detail: str


class Stage:
    """What is told, and what was found."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.checks: list[Check] = []

    def say(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]")

    def typed(self, argv: Sequence[str], where: str = "", rest: str = "") -> None:
        """Show a command line as it would be typed on the host `where`; `rest` as it is."""
        prompt = f"{where} $" if where else "$"
        self.console.print(f"  [cyan]{prompt} {escape(f'{shlex.join(argv)} {rest}'.rstrip())}[/cyan]", soft_wrap=True)

    def output(self, text: str) -> None:
        for line in text.splitlines():
            short = line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
            self.console.print(f"    {short}", style="dim", markup=False, highlight=False, soft_wrap=True)

    def check(self, claim: str, passed: bool, detail: str = "") -> None:
        self.checks.append(Check(claim, passed, detail.strip()))
        seen = f"  [dim]{escape(detail.strip())}[/dim]" if detail.strip() else ""
        self.console.print(f"  {tick(passed)} {escape(claim)}{seen}")

    def checked(self) -> Table:
        table = Table(title="What was checked", title_justify="left")
        for column in ("", "claim", "seen"):
            table.add_column(column)
        for one in self.checks:
            table.add_row(tick(one.passed), escape(one.claim), escape(one.detail))
        return table

    def clean(self, hosts: Iterable[tuple[str, Path]]) -> None:
        """Check that nothing is left of what was removed: by the path of its namespace, and its directory."""
        self.say("Cleaning up")
        left = [thing for namespace, directory in hosts for thing in _left_behind(namespace, directory)]
        self.check("nothing is left behind", not left, ", ".join(left))

    def verdict(self) -> int:
        """The last line; 1 when a check failed."""
        failed = [one for one in self.checks if not one.passed]
        style = "bold red" if failed else "bold green"
        self.console.print(f"{len(self.checks) - len(failed)} of {len(self.checks)} checks passed", style=style)
        return 1 if failed else 0

    def try_this(self, lines: Iterable[str]) -> None:
        console = Console(highlight=False, soft_wrap=True)
        console.print("\n[bold]It is left up. Try:[/bold]")
        for line in lines:
            console.print(f"  {escape(line)}", style="cyan")
        console.print("and to end it:\n  [cyan]netplug demo --stop[/cyan]\n")


class Terminal:
    """Where a user of one host works. `name`: of the host, where there are several."""

    def __init__(self, stage: Stage, host: Host, name: str = "") -> None:
        self.stage, self.host, self.name = stage, host, name

    def netplug(self, *arguments: str, check: bool = True, show: bool = False) -> subprocess.CompletedProcess[str]:
        """Show and run one command of a user; with `show` what it said, too."""
        self.stage.typed(("netplug", *arguments), self.name)
        done = self.host.netplug(*arguments, check=check, timeout=30)
        if show:
            self.stage.output(done.stdout + done.stderr)
        return done

    def root(self, *argv: str, namespace: str = "") -> str:
        """Show and run a command of an administrator's, in the host or in another namespace; what it said."""
        shown = ("nsenter", f"--net={namespace}", *argv) if namespace else argv
        self.stage.typed(shown, self.name)
        said = (command(*shown) if namespace else self.host.run(*argv)).stdout
        self.stage.output(said)
        return said

    def inside(self, container: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, quietly."""
        return self.host.netplug("exec", container, *argv, timeout=30)

    def inspect(self, container: str) -> Any:
        return json.loads(self.host.netplug("inspect", container, check=True).stdout)[0]

    def address(self, container: str, network: str) -> str:
        return str(self.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def namespace(self, container: str) -> str:
        return f"/proc/{self.inspect(container)['State']['Pid']}/ns/net"

    def running(self) -> list[str]:
        return sorted(self.host.netplug("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}", check=True).stdout.splitlines())

    def answers(self, container: str, name: str, address: str) -> bool:
        """Does `container` find `address` by `name`?"""
        said = self.inside(container, "busybox", "nslookup", name, "127.0.0.11").stdout
        return any(line.split()[-1] == address for line in said.splitlines() if line.startswith("Address") and line.split())

    def fetch(self, container: str, address: str) -> str:
        """The web page at `address`, as seen from a container; "" when there is none."""
        try:
            return self.inside(container, *_get(address)).stdout
        except subprocess.TimeoutExpired:
            return ""

    def knock(self, container: str, address: str, port: int) -> bool:
        """Does a TCP connection from a container come about within a second?"""
        return self.inside(container, "busybox", "nc", "-w", "1", address, str(port)).returncode == 0


def fetch(where: Namespace, address: str) -> str:
    """The web page at `address`, as seen from a namespace; "" when there is none."""
    try:
        return where.run(*_get(address), check=False, timeout=3).stdout
    except subprocess.TimeoutExpired:
        return ""


def _get(address: str) -> list[str]:
    return ["busybox", "wget", "-q", "-O", "-", f"http://{address}/"]  # not wget -T: that of Debian's busybox crashes


def greeting(name: str) -> str:
    return f"hello from {name}"


def serve(name: str) -> str:
    """A web server with one page. In the image `host` /tmp is the container's own."""
    return f"echo {greeting(name)} > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"


def perform(play: Callable[[Console], int], keep: bool, tools: Sequence[str] = TOOLS) -> int:
    """Run `play`, which removes what it made when it is interrupted or fails; the exit code."""
    console = Console()
    if (problem := _problem(keep, tools)) is not None:
        console.print(problem, style="red")
        return 1
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return play(console)
    except KeyboardInterrupt:
        console.print("\ninterrupted; everything is removed")
        return 130
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        console.print(f"\n{tick(False)} {escape(str(error))}", soft_wrap=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)


def keep(hosts: Iterable[tuple[Namespace, Path]], namespaces: Iterable[Namespace]) -> None:
    """Write down what `stop` has to remove: hosts with their directories, then other namespaces."""
    kept = {
        "hosts": [(namespace.name, str(directory)) for namespace, directory in hosts],
        "namespaces": [namespace.name for namespace in namespaces],
    }
    KEPT.write_text(json.dumps(kept))


def stop() -> int:
    """End a kept demo."""
    console = Console()
    if not KEPT.exists():
        console.print("no demo is kept")
        return 1
    kept = json.loads(KEPT.read_text())
    for name, directory in kept["hosts"]:
        remove_host(name, Path(directory))
    for name in kept["namespaces"]:
        command("ip", "netns", "del", name, check=False)
    KEPT.unlink()
    console.print("the demo is removed")
    return 0


def _left_behind(namespace: str, directory: Path) -> list[str]:
    left = [f"process {pid}" for pid in owned_processes(namespace, directory)]
    left += [f"mount {point}" for point in mounts_below(directory)]
    return left + [str(path) for path in (directory, Path(namespace)) if path.exists()]


def _problem(keep: bool, tools: Sequence[str]) -> str | None:
    """Why a demo cannot run here, if so."""
    if os.geteuid() != 0:
        return "the demo makes network namespaces: it needs root"
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        return f"the demo needs {', '.join(missing)}: `make setup` installs what is missing"
    if keep and KEPT.exists():
        return "a demo is kept already: `netplug demo --stop` ends it"
    return None


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def until(condition: Callable[[], bool], what: str, timeout: float = 10) -> None:
    """Ask again and again; RuntimeError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout:g} s in vain until {what}")


def tick(passed: bool) -> str:
    return "[green]✔[/green]" if passed else "[bold red]✘[/bold red]"


def line_of(text: str, start: str) -> str:
    """The first line that begins so."""
    return next((line for line in text.splitlines() if line.startswith(start)), "")
