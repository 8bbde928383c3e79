"""How much goes through: DNS queries per second (dnsperf), gigabits per second (iperf3)."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator

from netplug.cli.demo_hosts import end_processes
from tests.bench.engines import Engine, container, inside, network
from tests.hosts import INTERNET_ADDRESS, Lan, Namespace, command

RESOLVER = "127.0.0.11"
IPERF_PORT = 5201
CONGESTION_CONTROL = "reno"
"""Every kernel has it, and it sends what the path takes. BBR, some machines' default, paces itself: to a third of that."""


def resolver_rate(engine: Engine, seconds: int) -> float:
    """A queries per second for a container's name, asked from a container's namespace."""
    with network(engine.api, "one"), container(engine.api, "web", "one"), container(engine.api, "client", "one") as client:
        return _dnsperf(inside(client), seconds)


def dnsmasq_rate(namespace: Namespace, seconds: int) -> float:
    """The same questions to dnsmasq, which knows the name from its command line."""
    with dnsmasq(namespace, RESOLVER, "--host-record=web,172.18.0.2"):
        return _dnsperf(namespace.argv(), seconds)


def dnsmasq(namespace: Namespace, address: str, *options: str) -> contextlib.AbstractContextManager[None]:
    """A name server that knows what its options say, and refuses all else at once."""
    common = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
        "--log-facility=-",
        "--bind-interfaces",
    ]
    argv = namespace.argv("dnsmasq", *common, f"--listen-address={address}", *options)
    return _server(argv, "started", stderr=True)


def _dnsperf(enter: list[str], seconds: int) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".queries") as queries:
        queries.write("web A\n" * 1000)
        queries.flush()
        ask = [*enter, "dnsperf", "-s", RESOLVER, "-d", queries.name]
        said = command(*ask, "-l", str(seconds), timeout=seconds + 30).stdout
    codes = re.findall(r"Response codes:\s+(.*)", said)
    if not codes or not re.fullmatch(r"NOERROR \d+ \(100\.00%\)", codes[0]):
        raise RuntimeError(f"not every answer was NOERROR: {said}")
    return float(re.findall(r"Queries per second:\s+([\d.]+)", said)[0])


def rates(engine: Engine, seconds: int) -> dict[str, float]:
    """Gigabits per second: container to container, from outside to a published port, from a container out through the host."""
    api = engine.api
    with (
        network(api, "one"),
        container(api, "server", "one", ports={IPERF_PORT: IPERF_PORT}) as server,
        container(api, "client", "one") as client,
    ):
        address = server["NetworkSettings"]["Networks"]["one"]["IPAddress"]
        with iperf_server(inside(server)):
            between = iperf(inside(client), address, seconds)
            published = iperf(engine.lan.outside.argv(), engine.address, seconds)
        with iperf_server(engine.lan.outside.argv()):
            out = iperf(inside(client), INTERNET_ADDRESS, seconds)
    return {"between": between, "published": published, "out": out}


def iperf_out(lan: Lan, enter: list[str], seconds: int) -> float:
    """Gbit/s from where `enter` leads to the internet."""
    with iperf_server(lan.outside.argv()):
        return iperf(enter, INTERNET_ADDRESS, seconds)


def iperf_server(enter: list[str]) -> contextlib.AbstractContextManager[None]:
    return _server([*enter, "iperf3", "-s", "-p", str(IPERF_PORT), "--forceflush"], "Server listening")


@contextlib.contextmanager
def _server(argv: list[str], ready: str, *, stderr: bool = False) -> Iterator[None]:
    """A server that runs during the block; it is up when it has said `ready`."""
    streams = {"stderr" if stderr else "stdout": subprocess.PIPE}
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, text=True, **streams)  # type: ignore[call-overload]
    output = server.stderr if stderr else server.stdout
    try:
        while ready not in (line := output.readline()):
            if not line:
                raise RuntimeError(f"{argv} did not start")
        yield
    finally:
        end_processes([server.pid])
        server.wait()
        output.close()


def iperf(enter: list[str], address: str, seconds: int) -> float:
    """Gbit/s of one TCP stream."""
    stream = ["-p", str(IPERF_PORT), "-t", str(seconds), "-C", CONGESTION_CONTROL]
    said = command(*enter, "iperf3", "-J", "-c", address, *stream, timeout=seconds + 20).stdout
    return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9
