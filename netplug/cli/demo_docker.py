"""`netplug demo --docker`: a real dockerd and netplug side by side on one host, each claim checked.

A network that Docker makes, a container of each on it, by name both ways, a published port each; a network of netplug's that Docker joins;
either daemon killed and started again while traffic runs; `docker-compose up`. At the end everything is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator

from rich.console import Console

from netplug.cli import demo_dockerd, demo_stage
from netplug.cli.demo_dockerd import IMAGE, DockerHost
from netplug.cli.demo_hosts import INTERNET_ADDRESS, OUTSIDE_ADDRESS, Lan, command
from netplug.cli.demo_stage import Stage, Terminal, fetch, greeting, line_of, serve, until
from netplug.cli.demo_traffic import Flood, serving

NETWORK = "shop"
PLUGIN = ("-d", "netplug", "--ipam-driver")
ECHO_PORT = 9000
DOCKERS, OURS = 8080, 8081
"""Published: of Docker's container, and of netplug's."""
COMPOSE = f"""\
version: "3.5"
services:
  page:
    image: {IMAGE}
    command: sh -c "echo {greeting("page")} > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    stop_signal: SIGKILL
    ports: ["8082:80"]
    networks: [front]
networks:
  front: {{driver: netplug, ipam: {{driver: netplug}}}}
"""


class DockerDemo:
    """One run: a LAN with a neighbour, and one host with both daemons."""

    def __init__(self, stage: Stage, lan: Lan, host: DockerHost) -> None:
        self.stage, self.lan, self.host = stage, lan, host
        self.here = Terminal(stage, host)
        self.say, self.check, self.netplug = stage.say, stage.check, self.here.netplug

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        self.stage.typed(("docker", *arguments))
        return self.host.docker(*arguments, check=check)

    def start(self) -> None:
        self.say("Two daemons: netplug is the other's plugin")
        self.stage.typed(("netplug", "daemon", "--docker-plugin", demo_dockerd.PLUGIN), rest="&")
        self.host.start()
        self.stage.typed(("dockerd",), rest="&")
        self.host.start_dockerd()
        self.host.import_image()
        self.links = self._links()
        version = self.host.docker("version", "--format", "{{.Server.Version}}").stdout.strip()
        self.check("dockerd runs", bool(version), f"version {version}")

    def build(self) -> None:
        self.say("A network made by Docker, a container of each on it")
        identity = self.docker("network", "create", *PLUGIN, "netplug", NETWORK).stdout.strip()
        until(lambda: self._is_network(NETWORK), "netplug has learned the network's name")
        self.check("the network is one of netplug's, by its name", self._is_network(NETWORK), f"id {identity[:12]}")
        page = ("sh", "-c", serve("web"))
        self._run("web", "--network", NETWORK, "--restart", "always", "-p", f"{DOCKERS}:80", argv=page)
        ours = ("run", "-d", "--name", "mine", "--network", NETWORK, "-p", f"{OURS}:80")
        self.netplug(*ours, "host", "sh", "-c", serve("mine"))
        until(lambda: self._names() >= {"web", "mine"}, "netplug has learned the container's name")
        self.check("netplug lists the containers of both", self._names() == {"web", "mine"}, ", ".join(sorted(self._names())))

    def names(self) -> None:
        self.say("By name, both ways")
        ping = self.docker("exec", "web", "ping", "-c", "1", "mine", check=False)
        self.check("Docker's container pings netplug's by its name", ping.returncode == 0, line_of(ping.stdout, "PING"))
        ping = self.netplug("exec", "mine", "ping", "-c", "1", "web", check=False)
        self.check("netplug's container pings Docker's by its name", ping.returncode == 0, line_of(ping.stdout, "PING"))
        self.docker("network", "create", "plain")
        self._run("far", "--network", "plain")
        self.docker("network", "connect", "plain", "web")
        ping = self.docker("exec", "web", "ping", "-c", "1", "far", check=False)
        self.check("names of Docker's own networks are found as ever", ping.returncode == 0, line_of(ping.stdout, "PING"))
        self.docker("network", "disconnect", "plain", "web")

    def ways(self) -> None:
        self.say("The way in, and the way out")
        for name, port in (("web", DOCKERS), ("mine", OURS)):
            published = f"{self.host.address}:{port}"
            until(lambda published=published: bool(fetch(self.lan.outside, published)), f"{name} serves")  # type: ignore[misc]
            self.check(f"{name}'s published port answers from outside", greeting(name) in fetch(self.lan.outside, published), published)
        said = self.netplug("port", "web").stdout.strip()
        self.check("netplug shows the port of Docker's container", f"0.0.0.0:{DOCKERS}" in said, said)
        caller = self.docker("exec", "web", "nc", "-w", "2", INTERNET_ADDRESS, str(ECHO_PORT), check=False).stdout.strip()
        self.check("going out, it wears the host's address", caller == self.host.address, f"the internet saw {caller or 'nobody'}")

    def joined(self) -> None:
        self.say("A network of netplug's that Docker joins")
        self.netplug("network", "create", "ours")
        self.netplug("network", "connect", "ours", "mine")
        self.docker("network", "create", *PLUGIN, "null", "-o", "netplug.network=ours", "ours")
        self._run("guest", "--network", "ours")
        ping = self.docker("exec", "guest", "ping", "-c", "1", "mine", check=False)
        self.check("its container is a member by name", ping.returncode == 0, line_of(ping.stdout, "PING"))
        shown = self._addresses("ours")
        self.check("addresses come from one allocator", len(set(shown)) == len(shown) == 2, ", ".join(sorted(shown)))

    def netplug_dies(self) -> None:
        self.say("netplug dies, and comes back")
        with self._traffic("while netplug was killed and started again"):
            self.stage.typed(("kill", "-9", str(self.host.daemon.pid if self.host.daemon else "")))
            self.host.kill9()
            found = self.host.docker("exec", "web", "nslookup", "mine", check=False)
            self.host.start()
        self.check("names were answered meanwhile", found.returncode == 0)
        self._run("late", "--network", NETWORK)
        ping = self.docker("exec", "late", "ping", "-c", "1", "mine", check=False)
        self.check("and the new daemon takes Docker's orders", ping.returncode == 0, line_of(ping.stdout, "PING"))
        with self._traffic("while netplug was restarted"):
            self.host.restart()

    def docker_dies(self) -> None:
        self.say("dockerd dies, and comes back")
        self.stage.typed(("kill", "-9", str(self.host.dockerd.pid if self.host.dockerd else "")))
        with self._traffic("while dockerd was dead"):
            self.host.kill_dockerd()
        published = f"{self.host.address}:{DOCKERS}"
        self.check("the published port of its container answered without it", greeting("web") in fetch(self.lan.outside, published))
        self.host.start_dockerd()
        self._comes_back("after a kill")
        self.host.stop_dockerd()
        self.host.start_dockerd()
        self._comes_back("after a restart")

    def compose(self) -> None:
        self.say("docker-compose up")
        (self.host.directory / "docker-compose.yml").write_text(COMPOSE)
        self._compose("up", "--detach")
        published = f"{self.host.address}:8082"
        until(lambda: bool(fetch(self.lan.outside, published)), "the service answers")
        self.check("the service's published port answers", greeting("page") in fetch(self.lan.outside, published), published)
        until(lambda: self._is_network("demo_front"), "netplug has learned the network's name")
        self.netplug("network", "connect", "demo_front", "mine")
        until(lambda: greeting("page") in self.here.fetch("mine", "page"), "the service has its name")
        self.check("and netplug's container finds it by its name", greeting("page") in self.here.fetch("mine", "page"))
        self.netplug("network", "disconnect", "demo_front", "mine")
        self._compose("down")

    def remove(self) -> None:
        self.say("Away with it")
        self.docker("rm", "-f", *self.host.docker("ps", "-aq", "--format", "{{.Names}}").stdout.split())
        self.netplug("rm", "-f", "mine")
        self.docker("network", "rm", NETWORK, "ours", "plain")
        self.netplug("network", "rm", "ours")
        left = self.host.netplug("network", "ls", "--format", "{{.Name}}").stdout.split()
        self.check("netplug has its predefined networks only", sorted(left) == ["bridge", "host", "none"], ", ".join(left))
        until(lambda: self._links() == self.links, "no link is left")
        self.check("and the host its own links", self._links() == self.links, ", ".join(sorted(self.links)))

    def _run(self, name: str, *options: str, argv: tuple[str, ...] = ("sleep", "1000000")) -> None:
        # The first process of a container takes no SIGTERM unless it asks for it: ten seconds for each restart of dockerd.
        self.docker("run", "-d", "--name", name, "--stop-signal", "KILL", *options, IMAGE, *argv)

    def _comes_back(self, when: str) -> None:
        published = f"{self.host.address}:{DOCKERS}"
        until(lambda: greeting("web") in fetch(self.lan.outside, published), f"web serves {when} of dockerd", 30)
        until(lambda: greeting("web") in self.here.fetch("mine", "web"), f"web is found {when} of dockerd")
        self.check(f"{when} of dockerd its container is back, by port and by name", greeting("web") in self.here.fetch("mine", "web"))

    @contextlib.contextmanager
    def _traffic(self, when: str) -> Iterator[None]:
        """Pings from netplug's container to Docker's."""
        (web,) = (one["IPv4Address"].split("/")[0] for one in self._members(NETWORK) if one["Name"] == "web")
        with Flood(web, self.here.namespace("mine")) as pings:
            yield
            time.sleep(0.5)
        self.check(f"no ping was lost {when}", not pings.lost and pings.sent > 10, f"{pings.sent} sent, {len(pings.lost)} lost")

    def _compose(self, *arguments: str) -> None:
        self.stage.typed(("docker-compose", *arguments))
        environment = dict(self.host.docker_environment, COMPOSE_PROJECT_NAME="demo", PATH=os.environ["PATH"])
        file = str(self.host.directory / "docker-compose.yml")
        command(*self.host.argv("docker-compose", "--file", file, *arguments), env=environment, timeout=120)

    def _members(self, network: str) -> list[dict[str, str]]:
        (found,) = json.loads(self.host.netplug("network", "inspect", network, check=True).stdout)
        return list((found["Containers"] or {}).values())

    def _names(self) -> set[str]:
        return {one["Name"] for one in self._members(NETWORK)}

    def _addresses(self, network: str) -> list[str]:
        return [one["IPv4Address"] for one in self._members(network)]

    def _is_network(self, name: str) -> bool:
        return name in self.host.netplug("network", "ls", "--format", "{{.Name}}").stdout.split()

    def _links(self) -> set[str]:
        """Of the host, but for bridges that wait to be deleted."""
        names = {link["ifname"] for link in json.loads(self.host.run("ip", "-j", "link").stdout)}
        return {name for name in names if not name.startswith("retired")}


def run() -> int:
    """Build, check, show, and clean up; 1 when a check failed."""
    return demo_stage.perform(_play, False, (*demo_stage.TOOLS, *demo_dockerd.TOOLS))


def _play(console: Console) -> int:
    stage = Stage(console)
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan("netplug-demo"))
        host = stack.enter_context(DockerHost(lan, resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n"))
        demo = DockerDemo(stage, lan, host)
        console.print(f"A host {host.address} (network namespace {host.namespace.name}), and the internet {INTERNET_ADDRESS} beside it")
        with serving(lan.outside, ECHO_PORT):
            chapters = [demo.start, demo.build, demo.names, demo.ways, demo.joined, demo.netplug_dies, demo.docker_dies]
            for chapter in (*chapters, demo.compose, demo.remove):
                chapter()
    stage.clean([(host.namespace.path, host.directory)])
    console.print()
    console.print(stage.checked())
    return stage.verdict()
