"""`netplug demo --cluster`: one network on two hosts, over a real etcd, with each command and what it said.

    etcd 203.0.113.11 --- switch --- node1 203.0.113.12, node2 203.0.113.13     and an overlay network, 10.0.0.0/24, on top

An overlay network made on one node and seen on the other, a container on each, names, ports and the way out, what is in etcd and what in
the kernel; then a daemon that is killed and an etcd that is stopped while traffic runs. At the end everything is removed, unless it is to
be kept.
"""

from __future__ import annotations

import contextlib
import time

from rich.console import Console
from rich.table import Table

from netplug.cli import demo_etcd, demo_stage
from netplug.cli.demo_etcd import Etcd
from netplug.cli.demo_hosts import INTERNET_ADDRESS, OUTSIDE_ADDRESS, Host, Lan
from netplug.cli.demo_stage import Stage, Terminal, fetch, greeting, line_of, serve, until
from netplug.cli.demo_traffic import Flood, Lookups, serving

NETWORK = "demo"
IDLE = ("host", "sleep", "1000000")
ECHO_PORT = 9000
PUBLISHED = 8080
PATIENCE = 5.0
"""Seconds that a refusal may take while etcd is away: two for the daemon, the rest for the command's own start on a busy machine."""


class Node(Terminal):
    """A host in the cluster, and its user."""

    def __init__(self, stage: Stage, host: Host, name: str, store: str) -> None:
        super().__init__(stage, host, name)
        self._flags = ("--store", store, "--advertise", host.address, "--node", name)

    def start(self) -> None:
        self.stage.typed(("netplug", "daemon", *self._flags), self.name, "&")
        self.host.start(*self._flags)

    def overlay(self) -> str:
        """The namespace in which this node has the network."""
        identity = self.host.netplug("network", "inspect", "--format", "{{.Id}}", NETWORK, check=True).stdout.strip()
        return str(self.host.run_directory / "netns" / f"1-{identity[:10]}")


class ClusterDemo:
    """One run. `test1` is on the first node, `test2` on the second."""

    def __init__(self, stage: Stage, lan: Lan, etcd: Etcd, one: Node, two: Node) -> None:
        self.stage, self.lan, self.etcd = stage, lan, etcd
        self.one, self.two = one, two
        self.say, self.check = stage.say, stage.check

    def start(self) -> None:
        self.say("etcd, and a daemon on each node that is told of it")
        self._start_etcd()
        self.one.start()
        self.two.start()

    def _start_etcd(self) -> None:
        self.stage.typed(("etcd", "--listen-client-urls", f"http://{self.etcd.endpoint}"), "etcd", "… &")
        self.etcd.start()

    def network(self) -> None:
        self.say("A network made on one node is there on the other")
        identity = self.one.netplug("network", "create", "-d", "overlay", NETWORK, show=True).stdout.strip()
        wanted = [identity[:12], NETWORK, "overlay"]
        until(lambda: wanted in self._listed(self.two), "node2 hears of the network")
        self.one.netplug("network", "ls", show=True)
        self.two.netplug("network", "ls", show=True)
        self.check("node2 has the network that node1 made", wanted in self._listed(self.two), " ".join(wanted))

    def _listed(self, node: Node) -> list[list[str]]:
        return [line.split()[:3] for line in node.host.netplug("network", "ls", check=True).stdout.splitlines()]

    def containers(self) -> None:
        self.say("A container on each node, and no name twice")
        port = f"{PUBLISHED}:80"
        self.one.netplug("run", "-d", "--name", "test1", "--network", NETWORK, "-p", port, "host", "sh", "-c", serve("test1"), show=True)
        refused = self.two.netplug("run", "-d", "--name", "test1", "--network", NETWORK, *IDLE, check=False, show=True)
        sentence = f"endpoint with name test1 already exists in network {NETWORK}"
        self.check("node2 may not have a test1 too", refused.returncode != 0 and sentence in refused.stderr, sentence)
        self.two.netplug("rm", "test1")
        self.two.netplug("run", "-d", "--name", "test2", "--network", NETWORK, *IDLE, show=True)
        first, second = self.one.address("test1", NETWORK), self.two.address("test2", NETWORK)
        self.check("each has an address of its own", first != second, f"test1 {first}, test2 {second}")
        self.one.netplug("exec", "test1", "ip", "-brief", "address", show=True)
        self.one.netplug("network", "inspect", NETWORK, show=True)
        until(lambda: greeting("test1") in self.two.fetch("test2", "test1"), "test1 serves test2")

    def names(self) -> None:
        self.say("They find each other by name")
        for node, own, other in ((self.one, "test1", "test2"), (self.two, "test2", "test1")):
            ping = node.netplug("exec", own, "ping", "-c", "2", "-i", "0.2", "-W", "2", other, check=False, show=True)
            self.check(f"{own} on {node.name} pings {other} by its name", ping.returncode == 0, line_of(ping.stdout, "rtt"))

    def ways(self) -> None:
        self.say("The way in, and the way out")
        published = f"{self.one.host.address}:{PUBLISHED}"
        self.check(
            "the published port answers from outside", greeting("test1") in fetch(self.lan.outside, published), f"http://{published}/"
        )
        for node, container in ((self.one, "test1"), (self.two, "test2")):
            caller = node.inside(container, "busybox", "nc", "-w", "2", INTERNET_ADDRESS, str(ECHO_PORT)).stdout.strip()
            seen = f"the internet saw {caller or 'nobody'}"
            self.check(f"{container} goes out with {node.name}'s address", caller == node.host.address, seen)

    def shared(self) -> None:
        self.say("What the nodes share")
        argv = ("get", "--prefix", "/netplug/v1", "--keys-only")
        self.stage.typed(("etcdctl", *argv), "etcd")
        keys = self.etcd.ctl(*argv).split()
        self.stage.output("\n".join(keys))
        last = {"/".join((key.split("/")[3], key.rpartition("/")[2])) for key in keys}
        wanted = {f"network-names/{NETWORK}", "endpoint-names/test1", "endpoint-names/test2", "nodes/node1", "alive/node2"}
        self.check("names, addresses and nodes are keys in etcd", wanted <= last, f"{len(keys)} keys")

    def kernel(self) -> None:
        self.say("What the network is made of on node1")
        place = self.one.overlay()
        self.one.root("ip", "-brief", "link", namespace=place)
        self.one.root("ip", "-d", "link", "show", "type", "bridge", namespace=place)
        tunnel = self.one.root("ip", "-d", "link", "show", "type", "vxlan", namespace=place)
        forwarding = self.one.root("bridge", "fdb", namespace=place)
        self.one.root("ip", "neigh", namespace=place)
        self.check("a VXLAN tunnel is a port of the network's bridge", "vxlan id" in tunnel and "master br0" in tunnel)
        mac, far = self.two.inspect("test2")["NetworkSettings"]["Networks"][NETWORK]["MacAddress"], self.two.host.address
        entry = line_of("\n".join(line for line in forwarding.splitlines() if " self static" in line), mac)
        self.check("it knows that test2 is behind node2", f"dst {far}" in entry, f"{mac} dst {far}")

    def daemon_dies(self) -> None:
        self.say("node2's daemon dies, and nobody notices")
        before = self.two.running()
        traffic = Traffic(self)
        with traffic:
            self.stage.typed(("kill", "-9", str(self.two.host.daemon.pid if self.two.host.daemon else "")), "node2")
            self.two.host.kill9()
            time.sleep(0.5)  # some traffic without a daemon
            traffic.look()
            self.two.start()
            time.sleep(0.5)  # and some with the new one
        traffic.check("without a daemon")
        self.check("the new daemon knows every container", self.two.running() == before, f"{len(before)} running")

    def store_stops(self) -> None:
        self.say("etcd is stopped, and traffic goes on")
        create = ("network", "create", "-d", "overlay", "other")
        traffic = Traffic(self)
        with traffic:
            self.stage.typed(("kill", str(self.etcd.process.pid if self.etcd.process else "")), "etcd")
            self.etcd.stop()
            started = time.monotonic()
            refused = self.one.netplug(*create, check=False, show=True)
            took = time.monotonic() - started
            traffic.look()
        traffic.check("without etcd")
        self.check("a change says why it cannot be made, soon", refused.returncode != 0 and took < PATIENCE, f"after {took:.1f} s")
        self._start_etcd()
        until(lambda: self.one.host.netplug(*create).returncode == 0, "node1 makes networks again")
        until(lambda: ["other", "overlay"] in [line[1:] for line in self._listed(self.two)], "node2 hears of the other network")
        self.check("with etcd back, networks are made and seen again", True, "other is on both nodes")

    def remove(self) -> None:
        self.say("Taken down again")
        place, refused = self.one.overlay(), self.two.netplug("network", "rm", NETWORK, check=False, show=True)
        self.check("a network in use on any node stays", refused.returncode != 0 and "active endpoints" in refused.stderr)
        self.one.netplug("rm", "-f", "test1")
        self.two.netplug("rm", "-f", "test2")
        gone = self.one.root("ls", place.rpartition("/")[0])
        self.check("without a container of it, node1 has nothing of the network", place.rpartition("/")[2] not in gone)
        self.two.netplug("network", "rm", NETWORK, "other", show=True)
        until(lambda: not {NETWORK, "other"} & {line[1] for line in self._listed(self.one)}, "node1 hears that the networks are gone")
        keys = self.etcd.ctl("get", "--prefix", "/netplug/v1", "--keys-only").split()
        left = [key for key in keys if key.split("/")[3] not in ("nodes", "alive", "pools")]
        self.check("and etcd has nothing of it", not left, ", ".join(left))

    def what_to_try(self) -> tuple[str, ...]:
        one, two = self.one.host, self.two.host
        return (
            f"alias node1='env NETPLUG_HOST=unix://{one.socket} netplug' node2='env NETPLUG_HOST=unix://{two.socket} netplug'",
            "node1 network inspect demo",
            "node2 ps",
            "node1 exec test1 ping -c1 test2",
            "node2 run --rm --network demo host busybox wget -qO- http://test1/",
            f"nsenter --net={self.one.overlay()} bridge fdb",
            f"ip netns exec {one.namespace.name} tcpdump -ni uplink udp port 4789",
            f"ip netns exec {self.etcd.namespace.name} env ETCDCTL_API=3 etcdctl --endpoints {self.etcd.endpoint} get --prefix /netplug/v1",
        )


class Traffic:
    """Pings from node to node, questions for the other's name, and one look at the published page; then what became of them."""

    def __init__(self, demo: ClusterDemo) -> None:
        self._demo = demo
        place = demo.two.namespace("test2")
        self._pings, self._questions = Flood(demo.one.address("test1", NETWORK), place), Lookups("test1", place)
        self._page = ""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._pings)
            stack.enter_context(self._questions)
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def look(self) -> None:
        self._page = fetch(self._demo.lan.outside, f"{self._demo.one.host.address}:{PUBLISHED}")

    def check(self, meanwhile: str) -> None:
        pings, questions, check = self._pings, self._questions, self._demo.check
        seen = f"{pings.sent} sent, {len(pings.lost)} lost"
        check(f"no ping from node to node was lost {meanwhile}", not pings.lost and pings.sent > 10, seen)
        asked = f"{questions.asked} asked, {questions.answered} answered"
        check(f"every name was answered {meanwhile}", questions.asked == questions.answered > 10, asked)
        check(f"the published port answered {meanwhile}", greeting("test1") in self._page)


def run(keep: bool) -> int:
    """Build, check, show, and clean up unless `keep`; 1 when a check failed."""
    return demo_stage.perform(lambda console: _play(keep, console), keep, (*demo_stage.TOOLS, *demo_etcd.TOOLS))


def _play(keep: bool, console: Console) -> int:
    stage = Stage(console)
    with contextlib.ExitStack() as stack:
        lan = stack.enter_context(Lan("netplug-demo"))
        etcd = stack.enter_context(Etcd(lan))
        # A name server that refuses at once: names that nobody has must not cost the resolver's patience.
        hosts = [stack.enter_context(Host(lan, resolv_conf=f"nameserver {OUTSIDE_ADDRESS}\n")) for _ in range(2)]
        one, two = (Node(stage, host, f"node{number}", etcd.store) for number, host in enumerate(hosts, 1))
        demo = ClusterDemo(stage, lan, etcd, one, two)
        console.print(_machines(etcd, one, two))
        chapters = [demo.start, demo.network, demo.containers, demo.names, demo.ways, demo.shared, demo.kernel]
        chapters += [demo.daemon_dies, demo.store_stops]
        with serving(lan.outside, ECHO_PORT):
            for chapter in chapters if keep else (*chapters, demo.remove):
                chapter()
        places = [*((host.namespace, host.directory) for host in hosts), (etcd.namespace, etcd.directory)]
        if keep:
            demo_stage.keep(places, [lan.switch, lan.outside])
            stack.pop_all()
    if not keep:
        stage.clean((namespace.path, directory) for namespace, directory in places)
    console.print()
    console.print(stage.checked())
    if keep:
        stage.try_this(demo.what_to_try())
    return stage.verdict()


def _machines(etcd: Etcd, *nodes: Node) -> Table:
    table = Table(title="Three machines, each a network namespace", title_justify="left")
    for column in ("", "address", "namespace"):
        table.add_column(column)
    table.add_row("etcd", etcd.address, etcd.namespace.name)
    for node in nodes:
        table.add_row(node.name, node.host.address, node.host.namespace.name)
    return table
