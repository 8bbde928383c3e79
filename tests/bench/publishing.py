"""What published ports cost: to publish them with many there, to go through them, to start many containers with some each."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from netplug.cli.demo_hosts import end_processes
from tests.bench.engines import Engine, Netplug, container, create_container, inside, network, remove_container, timed
from tests.bench.traffic import iperf_out
from tests.hosts import Api, Lan, Namespace, command

ROOT = Path(__file__).parents[2]
FIRST_PORT = 10000
LIST = "iptables list"
WITH, WITHOUT, LEAST = "with rules", "without", "least"
BARE = "bare sockets"
LEAST_RULES = """
table ip least {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.88.0.0/24 oifname "uplink" masquerade
    }
}
"""
"""Of anybody who lets containers out behind the host's address."""
CONTAINERS, PORTS_EACH = 64, 10
RANGE = range(20000, 30000)


@dataclass
class Publishing:
    per_port: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    """Milliseconds per port, by who publishes and how many ports there were before."""
    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Connections per second to the `first` and the `last` of the ports."""
    starts: dict[str, list[float]] = field(default_factory=dict)
    """Seconds until CONTAINERS containers with PORTS_EACH ports each run, all started at once."""
    range: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds of a connect that publishes RANGE, and of its sockets alone (BARE)."""
    through: dict[str, list[float]] = field(default_factory=dict)
    """Gbit/s from a container out, WITH our rules, WITHOUT any, and with the LEAST that NAT takes."""


def ports_from(first: int, count: int) -> dict[int, int]:
    """Container port -> host port, every second number: nothing here is a range."""
    return {1 + number: FIRST_PORT + 2 * number for number in range(first, first + count)}


def per_port(
    engine: Engine, steps: list[int], batch: int, rounds: int, tick: Callable[[str], None], bare: Engine | None = None
) -> dict[int, list[float]]:
    """The time of a connect that publishes `batch` ports, by the number of ports that are there.

    `bare`: a host of the same engine, where none are there, in turns with each step.
    """
    found: dict[int, list[float]] = {step: [] for step in steps}
    with contextlib.ExitStack() as stack:
        for side in filter(None, (engine, bare)):
            stack.enter_context(network(side.api, "ports"))
        if bare is not None:
            stack.enter_context(container(bare.api, "probe", "ports", ports=ports_from(0, batch)))
        there = 0
        for step in steps:
            while there < step:
                ports = ports_from(there + batch, min(batch, step - there))
                stack.enter_context(container(engine.api, f"fill{there}", "ports", ports=ports))
                there += len(ports)
            with container(engine.api, "probe", "ports", ports=ports_from(0, batch)):
                turn = [(engine, step)] if bare is None or not step else [(engine, step), (bare, 0)]
                for number in range(rounds):
                    for side, count in turn if number % 2 else reversed(turn):
                        found[count].append(_publishing(side.api, batch))
            tick(f"{engine.name}: a batch of {batch} ports with {step:,} there")
    return found


def _publishing(api: Api, batch: int) -> float:
    """Milliseconds per port."""
    api.call("POST", "/networks/ports/disconnect", {"Container": "probe"})
    return timed(api.call, "POST", "/networks/ports/connect", {"Container": "probe"}) / batch


class IptablesList:
    """The plain way that courses show: a host with one DNAT rule per port, in a list."""

    def __init__(self, lan: Lan, name: str) -> None:
        self._stack = contextlib.ExitStack()
        self.lan, self.address = lan, lan.free_address()
        with self._stack:
            self.host, self.server = self._namespace(f"{name}-list"), self._namespace(f"{name}-server")
            lan.plug(self.host, "list", self.address)
            self.host.ip("link", "add", "inner", "type", "veth", "peer", "name", "uplink", "netns", self.server.name)
            for place, link, address in ((self.host, "inner", "10.77.0.1/24"), (self.server, "uplink", "10.77.0.2/24")):
                place.ip("address", "add", address, "dev", link)
                place.ip("link", "set", link, "up")
            self.server.ip("route", "add", "default", "via", "10.77.0.1")
            self.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
            self._stack = self._stack.pop_all()

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._stack.callback(namespace.remove)
        return namespace

    def add(self, ports: dict[int, int]) -> float:
        """One rule per port, all in one run of iptables-restore; milliseconds per rule."""
        rules = [f"-A PREROUTING -p tcp --dport {outer} -j DNAT --to-destination 10.77.0.2:{inner}" for inner, outer in ports.items()]
        text = "\n".join(("*nat", *rules, "COMMIT", ""))
        return timed(self._restore, text) / len(ports)

    def _restore(self, text: str) -> None:
        subprocess.run(self.host.argv("iptables-restore", "--noflush"), input=text, text=True, check=True, timeout=120)

    def flush(self) -> None:
        self.host.run("iptables", "-t", "nat", "-F")

    def close(self) -> None:
        self._stack.close()


def list_per_port(lan: Lan, steps: list[int], batch: int, rounds: int) -> dict[int, list[float]]:
    """As `per_port`, for a list of iptables rules."""
    found: dict[int, list[float]] = {}
    with contextlib.closing(IptablesList(lan, f"{lan.outside.name}-p")) as rules:
        for step, _ in itertools.product(steps, range(rounds)):
            rules.flush()
            if step:
                rules.add(ports_from(batch, step))
            found.setdefault(step, []).append(rules.add(ports_from(0, batch)))
    return found


def rates(engine: Netplug, count: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Connections per second from outside to the first and to the last of `count` ports, ours and those of an iptables list."""
    with contextlib.ExitStack() as stack:
        api = engine.api
        stack.enter_context(network(api, "ports"))
        server = stack.enter_context(container(api, "server", "ports", ports=ports_from(0, count)))
        rules = stack.enter_context(contextlib.closing(IptablesList(engine.lan, f"{engine.lan.outside.name}-r")))
        rules.add(ports_from(0, count))
        sides = {"netplug": (engine.host.namespace, engine.address), LIST: (rules.host, rules.address)}
        inner = [str(port) for port in (1, count)]
        stack.enter_context(_serving(inside(server), inner))
        stack.enter_context(_serving(rules.server.argv(), inner))
        outer = list(ports_from(0, count).values())
        found: dict[str, dict[str, list[float]]] = {name: {"first": [], "last": []} for name in sides}
        ends = [("first", outer[0]), ("last", outer[-1])]
        for number, (name, (namespace, address)) in itertools.product(range(rounds), sides.items()):
            # Who goes first takes turns: the second finds the machine warmer, or the kernel busy with what the first has left.
            for which, port in ends if number % 2 else reversed(ends):
                namespace.run("conntrack", "-F", check=False)
                found[name][which].append(_ask(engine.lan.outside, address, port))
    return found


@contextlib.contextmanager
def _serving(enter: list[str], ports: list[str]) -> Iterator[None]:
    argv = [*enter, sys.executable, "-m", "tests.bench.connections", "serve", *ports]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{argv} did not start")
            yield
        finally:
            end_processes([server.pid])


def _ask(namespace: Namespace, address: str, port: int, seconds: float = 1.0) -> float:
    argv = namespace.argv(sys.executable, "-m", "tests.bench.connections", "ask", address, str(port), str(seconds))
    return float(command(*argv, cwd=ROOT).stdout)


def starts(engine: Engine) -> float:
    """Seconds until all containers run, each asked for by a client of its own at the same moment."""
    names = [f"start{number}" for number in range(CONTAINERS)]
    with network(engine.api, "starts"):
        try:
            for number, name in enumerate(names):
                create_container(engine.api, name, "starts", ports=ports_from(number * PORTS_EACH, PORTS_EACH))
            started = time.perf_counter()
            _all_at_once(engine, names, _start)
            return time.perf_counter() - started
        finally:
            _all_at_once(engine, names, remove_container)


def _start(api: Api, name: str) -> None:
    api.call("POST", f"/containers/{name}/start")


def _all_at_once(engine: Engine, names: list[str], action: Callable[[Api, str], None]) -> None:
    def one(name: str) -> None:
        with contextlib.closing(Api(engine.api.path, timeout=600)) as api:
            action(api, name)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(one, names))


def port_range(engine: Engine, rounds: int) -> list[float]:
    """Milliseconds of a connect that publishes a range of ports, same numbers inside."""
    samples = []
    with network(engine.api, "range"), container(engine.api, "probe", "range", ports={port: port for port in RANGE}):
        for _ in range(rounds):
            engine.api.call("POST", "/networks/range/disconnect", {"Container": "probe"})
            samples.append(timed(engine.api.call, "POST", "/networks/range/connect", {"Container": "probe"}))
        published = engine.api.call("GET", "/containers/probe/json")["NetworkSettings"]["Ports"]
        if sum(1 for bindings in published.values() if bindings) != len(RANGE):
            raise RuntimeError(f"{engine.name} has not published all of {RANGE}")
    return samples


def bare_range(place: Namespace, rounds: int) -> list[float]:
    """Milliseconds to open and bind a socket for each port of the range, and nothing else."""
    argv = place.argv(sys.executable, "-m", "tests.bench.sockets", str(RANGE[0]), str(len(RANGE)), str(rounds))
    said = subprocess.run(argv, cwd=ROOT, check=True, text=True, capture_output=True, timeout=120).stdout
    return [float(line) for line in said.split()]


def through(lan: Lan, rounds: int, seconds: int) -> dict[str, list[float]]:
    """Gbit/s out of a container, in turns: through all our rules, NAT too; the least that NAT takes; none, for which the other end
    routes back.
    """
    found: dict[str, list[float]] = {WITH: [], LEAST: [], WITHOUT: []}
    with contextlib.closing(Netplug(lan, "--no-heal")) as engine, network(engine.api, "one", "10.88.0.0/24"):
        lan.outside.ip("route", "replace", "10.88.0.0/24", "via", engine.address)
        with container(engine.api, "client", "one") as client:
            host = engine.host.namespace
            texts = {WITH: host.run("nft", "list", "ruleset").stdout, LEAST: LEAST_RULES, WITHOUT: ""}
            for number in range(rounds):
                # Who goes first takes turns too: what a run leaves behind may cost the next one something.
                for which in texts if number % 2 else reversed(texts):
                    host.run("nft", "flush", "ruleset")
                    subprocess.run(host.argv("nft", "-f", "-"), input=texts[which], text=True, check=True, timeout=30)
                    found[which].append(iperf_out(lan, inside(client), seconds))
    return found
