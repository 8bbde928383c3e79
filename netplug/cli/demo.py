"""`netplug demo`: the whole way for real, in a host namespace of its own, each claim checked.

It drives the `netplug` command as a user would: two networks, four containers, then lookups, pings, the way out, the way in, isolation,
a daemon that is killed while traffic runs, and the commands behind it all. At the end everything is removed, unless it is to be kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from netplug.cli.demo_hosts import INTERNET_ADDRESS, OUTSIDE_ADDRESS, Host, Lan, command, mounts_below, owned_processes, remove_host
from netplug.cli.demo_traffic import Flood, Lookups, serving

TOOLS = ("ip", "nsenter", "nft", "ping", "busybox", "runc", "conmon")
KEPT = Path("/run/netplug-demo.json")
"""What a kept demo consists of, for `netplug demo --stop`."""
ECHO_PORT = 9000
PUBLISHED = 8080


@dataclass(frozen=True)
class Check:
    claim: str
    passed: bool
    detail: str


class Demo:
    """One run: a LAN with a neighbour, one host on it, and what was found."""

    def __init__(self, lan: Lan, host: Host, console: Console) -> None:
        self.lan, self.host, self.console = lan, host, console
        self.checks: list[Check] = []

    # Telling

    def say(self, text: str) -> None:
        self.console.print(f"\n[bold]{text}[/bold]")

    def check(self, claim: str, passed: bool, detail: str = "") -> None:
        self.checks.append(Check(claim, passed, detail.strip()))
        self.console.print(f"  {_tick(passed)} {escape(claim)}" + (f"  [dim]{escape(detail.strip())}[/dim]" if detail.strip() else ""))

    # Doing

    def netplug(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Show and run one command of a user on the host."""
        self.console.print(f"  [cyan]$ netplug {escape(shlex.join(arguments))}[/cyan]", soft_wrap=True)
        return self.host.netplug(*arguments, check=check, timeout=30)

    def inside(self, container: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, quietly."""
        return self.host.netplug("exec", container, *argv, timeout=30)

    def inspect(self, container: str) -> Any:
        return json.loads(self.host.netplug("inspect", container, check=True).stdout)[0]

    def address(self, container: str, network: str) -> str:
        return str(self.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def namespace(self, container: str) -> str:
        return f"/proc/{self.inspect(container)['State']['Pid']}/ns/net"

    def fetch(self, address: str, *, outside: bool = True, container: str = "") -> str:
        """The web page at `address`, as seen from outside, from the host, or from a container; "" when there is none."""
        # Not wget -T: that of Debian's busybox crashes.
        get = ["busybox", "wget", "-q", "-O", "-", f"http://{address}/"]
        try:
            if container:
                return self.inside(container, *get).stdout
            where = self.lan.outside if outside else self.host.namespace
            return where.run(*get, check=False, timeout=3).stdout
        except subprocess.TimeoutExpired:
            return ""

    def knock(self, container: str, address: str, port: int) -> bool:
        """Does a TCP connection from a container come about within a second?"""
        return self.inside(container, "busybox", "nc", "-w", "1", address, str(port)).returncode == 0

    # The chapters

    def build(self) -> None:
        self.say("Two networks, four containers")
        self.netplug("network", "create", "front")
        self.netplug("network", "create", "back")
        port = f"{PUBLISHED}:80"
        self.netplug("run", "-d", "--name", "web", "--network", "front", "-p", port, "host", "sh", "-c", _serve("web"))
        self.netplug("run", "-d", "--name", "client", "--network", "front", "host", "sleep", "1000000")
        self.netplug("run", "-d", "--name", "db", "--network", "back", "--network-alias", "database", "host", "sh", "-c", _serve("db"))
        self.netplug("run", "-d", "--name", "worker", "--network", "back", "host", "sleep", "1000000")
        _until(lambda: self.knock("client", self.address("web", "front"), 80), "web serves")
        _until(lambda: self.knock("worker", self.address("db", "back"), 80), "db serves")

    def names(self) -> None:
        self.say("Names and neighbours")
        web, db = self.address("web", "front"), self.address("db", "back")
        self.check("client finds web by its name", self._answers("client", "web", web), f"web is {web}")
        self.check("worker finds db by an alias", self._answers("worker", "database", db), f"database is {db}")
        self.check("client does not know db, which is on another network", not self._answers("client", "db", db))
        ping = self.inside("client", "ping", "-c", "1", "-W", "2", "web")
        self.check("client pings web by its name", ping.returncode == 0, _line(ping.stdout, "rtt"))

    def _answers(self, container: str, name: str, address: str) -> bool:
        said = self.inside(container, "busybox", "nslookup", name, "127.0.0.11").stdout
        return any(line.split()[-1] == address for line in said.splitlines() if line.startswith("Address") and line.split())

    def ways(self) -> None:
        self.say("The way out, and the way in")
        caller = self.inside("client", "busybox", "nc", "-w", "2", INTERNET_ADDRESS, str(ECHO_PORT)).stdout.strip()
        self.check("going out, a container wears the host's address", caller == self.host.address, f"the internet saw {caller or 'nobody'}")
        published = f"{self.host.address}:{PUBLISHED}"
        self.check("the published port answers from outside", _greeting("web") in self.fetch(published), f"http://{published}/")
        self.check("and on the host's loopback", _greeting("web") in self.fetch(f"127.0.0.1:{PUBLISHED}", outside=False))
        self.check("and from a container on another network", _greeting("web") in self.fetch(published, container="worker"))
        web = self.address("web", "front")
        self.lan.outside.ip("route", "add", f"{web}/32", "via", self.host.address)
        self.check(
            "web's own address is closed to the outside", _greeting("web") not in self.fetch(web), f"tried {web}:80 by way of the host"
        )
        self.lan.outside.ip("route", "del", f"{web}/32")

    def isolation(self) -> None:
        self.say("Networks are apart until they are connected")
        db = self.address("db", "back")
        self.check("worker reaches db on its own network", self.knock("worker", db, 80))
        self.check("client on front does not reach db on back", not self.knock("client", db, 80))
        planned = self.netplug("network", "connect", "--dry-run", "back", "client").stdout
        self.check("a dry run says what would be done, and does nothing", bool(planned) and not self.knock("client", db, 80))
        explained = self.netplug("network", "connect", "--explain", "back", "client").stdout
        self.console.print("\n".join(f"    {line}" for line in explained.splitlines()), style="dim", markup=False, soft_wrap=True)
        self.check(
            "--explain shows the commands behind a connect",
            "ip " in explained and "link" in explained,
            f"{len(explained.splitlines())} lines",
        )
        self.check("connected, client reaches db by its name", _greeting("db") in self.fetch("db", container="client"))

    def survival(self) -> None:
        self.say("The daemon dies, and nobody notices")
        client, web = self.namespace("client"), self.address("web", "front")
        before = self._running()
        with Flood(web, client) as pings, Lookups("web", client) as questions:
            self.console.print(f"  [cyan]$ kill -9 {self.host.daemon.pid if self.host.daemon else ''}[/cyan]")
            self.host.kill9()
            meanwhile = self.fetch(f"{self.host.address}:{PUBLISHED}")
            time.sleep(0.5)  # some traffic without a daemon
            self.host.start()
            time.sleep(0.5)  # and some with the new one
        self.check("no ping was lost", not pings.lost and pings.sent > 10, f"{pings.sent} sent, {len(pings.lost)} lost")
        asked = f"{questions.asked} asked, {questions.answered} answered"
        self.check("every name was answered", questions.asked == questions.answered > 10, asked)
        self.check("the published port answered without a daemon", _greeting("web") in meanwhile)
        self.check("the new daemon knows every container", self._running() == before, f"{len(before)} running")
        self.netplug("network", "disconnect", "back", "client")
        self.check("and takes orders: client is off back again", not self.knock("client", self.address("db", "back"), 80))

    def _running(self) -> list[str]:
        return sorted(self.host.netplug("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}", check=True).stdout.splitlines())

    # The end

    def built(self) -> Table:
        table = Table(title="What was built", title_justify="left")
        for column in ("container", "network", "address", "MAC", "ports"):
            table.add_column(column)
        for name in ("web", "client", "db", "worker"):
            inspected = self.inspect(name)
            ports = ", ".join(
                f"{binding['HostIp'] or '0.0.0.0'}:{binding['HostPort']} → {port}"
                for port, bindings in (inspected["NetworkSettings"]["Ports"] or {}).items()
                for binding in bindings or []
            )
            for network, endpoint in inspected["NetworkSettings"]["Networks"].items():
                where = f"{endpoint['IPAddress']}/{endpoint['IPPrefixLen']}"
                table.add_row(name, network, where, endpoint["MacAddress"], ports)
        return table

    def checked(self) -> Table:
        table = Table(title="What was checked", title_justify="left")
        for column in ("", "claim", "seen"):
            table.add_column(column)
        for one in self.checks:
            table.add_row(_tick(one.passed), escape(one.claim), escape(one.detail))
        return table


def run(keep: bool) -> int:
    """Build, check, show, and clean up unless `keep`; 1 when a check failed."""
    console = Console()
    if (problem := _problem(keep)) is not None:
        console.print(problem, style="red")
        return 1
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(keep, console)
    except KeyboardInterrupt:
        console.print("\ninterrupted; everything is removed")
        return 130
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        console.print(f"\n{_tick(False)} {escape(str(error))}", soft_wrap=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(keep: bool, console: Console) -> int:
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan("netplug-demo"))
        # A name server that refuses at once: names that nobody has must not cost the resolver's patience.
        host = stack.enter_context(Host(lan, resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n"))
        demo = Demo(lan, host, console)
        console.print(f"A host {host.address} (network namespace {host.namespace.name}), and the internet {INTERNET_ADDRESS} beside it")
        host.start()
        with serving(lan.outside, ECHO_PORT):
            for chapter in (demo.build, demo.names, demo.ways, demo.isolation, demo.survival):
                chapter()
        table = demo.built()
        if keep:
            _keep(demo, stack.pop_all())
    if not keep:
        demo.say("Cleaning up")
        left = _left_behind(host)
        demo.check("nothing is left behind", not left, ", ".join(left))
    console.print()
    console.print(table)
    console.print(demo.checked())
    if keep:
        _show_what_to_try(demo)
    failed = [one for one in demo.checks if not one.passed]
    console.print(f"{len(demo.checks) - len(failed)} of {len(demo.checks)} checks passed", style="bold red" if failed else "bold green")
    return 1 if failed else 0


def stop() -> int:
    """End a kept demo."""
    console = Console()
    if not KEPT.exists():
        console.print("no demo is kept")
        return 1
    _end_kept(json.loads(KEPT.read_text()))
    console.print("the demo is removed")
    return 0


def _end_kept(kept: dict[str, Any]) -> None:
    remove_host(kept["host"], Path(kept["directory"]))
    for name in kept["namespaces"]:
        command("ip", "netns", "del", name, check=False)
    KEPT.unlink(missing_ok=True)


def _keep(demo: Demo, everything: contextlib.ExitStack) -> None:
    """Write down what `stop` has to remove; `everything` is not closed."""
    host, lan = demo.host, demo.lan
    names = [lan.switch.name, lan.outside.name]
    KEPT.write_text(json.dumps({"host": host.namespace.name, "directory": str(host.directory), "namespaces": names}))


def _show_what_to_try(demo: Demo) -> None:
    host, outside = demo.host, demo.lan.outside.name
    console = Console(highlight=False, soft_wrap=True)
    console.print("\n[bold]It is left up. Try:[/bold]")
    for line in (
        f"export NETPLUG_HOST=unix://{host.socket}",
        "netplug ps",
        "netplug network inspect front",
        "netplug exec client ping -c1 web",
        "netplug run --rm --network front host busybox wget -qO- http://web/",
        "netplug network connect --dry-run back client",
        "netplug ipam show front",
        "netplug journal",
        f"ip netns exec {host.namespace.name} nft list ruleset",
        f"ip netns exec {host.namespace.name} bridge link",
        f"ip netns exec {outside} busybox wget -qO- http://{host.address}:{PUBLISHED}/",
    ):
        console.print(f"  {escape(line)}", style="cyan")
    console.print("and to end it:\n  [cyan]netplug demo --stop[/cyan]\n")


def _greeting(name: str) -> str:
    return f"hello from {name}"


def _serve(name: str) -> str:
    """A web server with one page. In the image `host` /tmp is the container's own."""
    return f"echo {_greeting(name)} > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"


def _left_behind(host: Host) -> list[str]:
    left = [f"process {pid}" for pid in owned_processes(host.namespace.path, host.directory)]
    left += [f"mount {point}" for point in mounts_below(host.directory)]
    return left + [str(path) for path in (host.directory, Path(host.namespace.path)) if path.exists()]


def _problem(keep: bool) -> str | None:
    """Why the demo cannot run here, if so."""
    if os.geteuid() != 0:
        return "the demo makes network namespaces: it needs root"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"the demo needs {', '.join(missing)}: `make setup` installs what is missing"
    if keep and KEPT.exists():
        return "a demo is kept already: `netplug demo --stop` ends it"
    return None


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _until(condition: Callable[[], bool], what: str, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout:g} s in vain until {what}")


def _tick(passed: bool) -> str:
    return "[green]✔[/green]" if passed else "[bold red]✘[/bold red]"


def _line(text: str, start: str) -> str:
    return next((line for line in text.splitlines() if line.startswith(start)), "")
