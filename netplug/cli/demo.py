"""`netplug demo`: the whole way for real, in a host namespace of its own, each claim checked.

It drives the `netplug` command as a user would: two networks, four containers, then lookups, pings, the way out, the way in, isolation,
a daemon that is killed while traffic runs, and the commands behind it all. At the end everything is removed, unless it is to be kept.
"""

from __future__ import annotations

import contextlib
import time

from rich.console import Console
from rich.table import Table

from netplug.cli import demo_stage
from netplug.cli.demo_hosts import INTERNET_ADDRESS, OUTSIDE_ADDRESS, Host, Lan
from netplug.cli.demo_stage import Stage, Terminal, fetch, greeting, line_of, serve, until
from netplug.cli.demo_traffic import Flood, Lookups, serving

ECHO_PORT = 9000
PUBLISHED = 8080


class Demo:
    """One run: a LAN with a neighbour, one host on it, and what was found."""

    def __init__(self, stage: Stage, lan: Lan, host: Host) -> None:
        self.stage, self.lan, self.host = stage, lan, host
        self.here = Terminal(stage, host)
        self.say, self.check, self.netplug = stage.say, stage.check, self.here.netplug

    def build(self) -> None:
        self.say("Two networks, four containers")
        self.netplug("network", "create", "front")
        self.netplug("network", "create", "back")
        port = f"{PUBLISHED}:80"
        self.netplug("run", "-d", "--name", "web", "--network", "front", "-p", port, "host", "sh", "-c", serve("web"))
        self.netplug("run", "-d", "--name", "client", "--network", "front", "host", "sleep", "1000000")
        self.netplug("run", "-d", "--name", "db", "--network", "back", "--network-alias", "database", "host", "sh", "-c", serve("db"))
        self.netplug("run", "-d", "--name", "worker", "--network", "back", "host", "sleep", "1000000")
        until(lambda: self.here.knock("client", self.here.address("web", "front"), 80), "web serves")
        until(lambda: self.here.knock("worker", self.here.address("db", "back"), 80), "db serves")

    def names(self) -> None:
        self.say("Names and neighbours")
        web, db = self.here.address("web", "front"), self.here.address("db", "back")
        self.check("client finds web by its name", self.here.answers("client", "web", web), f"web is {web}")
        self.check("worker finds db by an alias", self.here.answers("worker", "database", db), f"database is {db}")
        self.check("client does not know db, which is on another network", not self.here.answers("client", "db", db))
        ping = self.here.inside("client", "ping", "-c", "1", "-W", "2", "web")
        self.check("client pings web by its name", ping.returncode == 0, line_of(ping.stdout, "rtt"))

    def ways(self) -> None:
        self.say("The way out, and the way in")
        outside, own = self.lan.outside, self.host.namespace
        caller = self.here.inside("client", "busybox", "nc", "-w", "2", INTERNET_ADDRESS, str(ECHO_PORT)).stdout.strip()
        self.check("going out, a container wears the host's address", caller == self.host.address, f"the internet saw {caller or 'nobody'}")
        published = f"{self.host.address}:{PUBLISHED}"
        self.check("the published port answers from outside", greeting("web") in fetch(outside, published), f"http://{published}/")
        self.check("and on the host's loopback", greeting("web") in fetch(own, f"127.0.0.1:{PUBLISHED}"))
        self.check("and from a container on another network", greeting("web") in self.here.fetch("worker", published))
        web = self.here.address("web", "front")
        outside.ip("route", "add", f"{web}/32", "via", self.host.address)
        closed = greeting("web") not in fetch(outside, web)
        self.check("web's own address is closed to the outside", closed, f"tried {web}:80 by way of the host")
        outside.ip("route", "del", f"{web}/32")

    def isolation(self) -> None:
        self.say("Networks are apart until they are connected")
        db = self.here.address("db", "back")
        self.check("worker reaches db on its own network", self.here.knock("worker", db, 80))
        self.check("client on front does not reach db on back", not self.here.knock("client", db, 80))
        planned = self.netplug("network", "connect", "--dry-run", "back", "client").stdout
        self.check("a dry run says what would be done, and does nothing", bool(planned) and not self.here.knock("client", db, 80))
        explained = self.netplug("network", "connect", "--explain", "back", "client").stdout
        self.stage.console.print("\n".join(f"    {line}" for line in explained.splitlines()), style="dim", markup=False, soft_wrap=True)
        self.check(
            "--explain shows the commands behind a connect",
            "ip " in explained and "link" in explained,
            f"{len(explained.splitlines())} lines",
        )
        self.check("connected, client reaches db by its name", greeting("db") in self.here.fetch("client", "db"))

    def survival(self) -> None:
        self.say("The daemon dies, and nobody notices")
        client, web = self.here.namespace("client"), self.here.address("web", "front")
        before = self.here.running()
        with Flood(web, client) as pings, Lookups("web", client) as questions:
            self.stage.typed(("kill", "-9", str(self.host.daemon.pid if self.host.daemon else "")))
            self.host.kill9()
            meanwhile = fetch(self.lan.outside, f"{self.host.address}:{PUBLISHED}")
            time.sleep(0.5)  # some traffic without a daemon
            self.host.start()
            time.sleep(0.5)  # and some with the new one
        self.check("no ping was lost", not pings.lost and pings.sent > 10, f"{pings.sent} sent, {len(pings.lost)} lost")
        asked = f"{questions.asked} asked, {questions.answered} answered"
        self.check("every name was answered", questions.asked == questions.answered > 10, asked)
        self.check("the published port answered without a daemon", greeting("web") in meanwhile)
        self.check("the new daemon knows every container", self.here.running() == before, f"{len(before)} running")
        self.netplug("network", "disconnect", "back", "client")
        self.check("and takes orders: client is off back again", not self.here.knock("client", self.here.address("db", "back"), 80))

    def built(self) -> Table:
        table = Table(title="What was built", title_justify="left")
        for column in ("container", "network", "address", "MAC", "ports"):
            table.add_column(column)
        for name in ("web", "client", "db", "worker"):
            inspected = self.here.inspect(name)
            ports = ", ".join(
                f"{binding['HostIp'] or '0.0.0.0'}:{binding['HostPort']} → {port}"
                for port, bindings in (inspected["NetworkSettings"]["Ports"] or {}).items()
                for binding in bindings or []
            )
            for network, endpoint in inspected["NetworkSettings"]["Networks"].items():
                where = f"{endpoint['IPAddress']}/{endpoint['IPPrefixLen']}"
                table.add_row(name, network, where, endpoint["MacAddress"], ports)
        return table

    def what_to_try(self) -> tuple[str, ...]:
        here = self.host.namespace.name
        return (
            f"export NETPLUG_HOST=unix://{self.host.socket}",
            "netplug ps",
            "netplug network inspect front",
            "netplug exec client ping -c1 web",
            "netplug run --rm --network front host busybox wget -qO- http://web/",
            "netplug network connect --dry-run back client",
            "netplug ipam show front",
            "netplug journal",
            f"ip netns exec {here} nft list ruleset",
            f"ip netns exec {here} bridge link",
            f"ip netns exec {self.lan.outside.name} busybox wget -qO- http://{self.host.address}:{PUBLISHED}/",
        )


def run(keep: bool) -> int:
    """Build, check, show, and clean up unless `keep`; 1 when a check failed."""
    return demo_stage.perform(lambda console: _play(keep, console), keep)


def _play(keep: bool, console: Console) -> int:
    stage = Stage(console)
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan("netplug-demo"))
        # A name server that refuses at once: names that nobody has must not cost the resolver's patience.
        host = stack.enter_context(Host(lan, resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n"))
        demo = Demo(stage, lan, host)
        console.print(f"A host {host.address} (network namespace {host.namespace.name}), and the internet {INTERNET_ADDRESS} beside it")
        host.start()
        with serving(lan.outside, ECHO_PORT):
            for chapter in (demo.build, demo.names, demo.ways, demo.isolation, demo.survival):
                chapter()
        table = demo.built()
        if keep:
            demo_stage.keep([(host.namespace, host.directory)], [lan.switch, lan.outside])
            stack.pop_all()
    if not keep:
        stage.clean([(host.namespace.path, host.directory)])
    console.print()
    console.print(table)
    console.print(stage.checked())
    if keep:
        stage.try_this(demo.what_to_try())
    return stage.verdict()
