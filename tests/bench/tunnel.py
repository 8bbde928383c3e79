"""What goes through a tunnel between two hosts: gigabits per second and the time of a ping, beside one that is made by hand.

By hand is the same shape: a container on a bridge, the bridge in a namespace with a VXLAN link, made with `ip` alone.

`offload`: the links between the hosts take what the kernel gives them, up to 64 KiB at once, as a network card that knows VXLAN does.
`software`: they take single packets only, with checksums in them, as a card does that knows nothing.
"""

from __future__ import annotations

import contextlib
import re
import statistics
from collections.abc import Iterator, Sequence

from tests.bench.cluster import SPAN, Pair
from tests.bench.engines import container, inside
from tests.bench.traffic import iperf, iperf_server
from tests.hosts import ApiError, Lan, Namespace, command

BY_HAND = "by hand"
PINGS = 300
_FEATURES = ("tx", "sg", "tso", "gso", "gro")


def rates(pair: Pair, seconds: int) -> dict[str, list[float]]:
    """Between two containers of an engine: `offload` and `software` in Gbit/s, `ping` in milliseconds (a median)."""
    with pair.span(), container(pair.one.api, "server", SPAN) as server, container(pair.two.api, "client", SPAN) as client:
        address = server["NetworkSettings"]["Networks"][SPAN]["IPAddress"]
        if not address:
            raise ApiError(500, f"{pair.name} has started a container without its network")
        return _measure(inside(server), inside(client), address, [pair.one.namespace, pair.two.namespace], seconds)


def rates_by_hand(lan: Lan, seconds: int) -> dict[str, list[float]]:
    with _by_hand(lan) as (hosts, server, client):
        return _measure(server.argv(), client.argv(), "10.99.0.1", hosts, seconds)


def _measure(server: list[str], client: list[str], address: str, hosts: Sequence[Namespace], seconds: int) -> dict[str, list[float]]:
    ping = _ping(client, address)
    with iperf_server(server):
        offload = iperf(client, address, seconds)
        with _without_offload(hosts):
            software = iperf(client, address, seconds)
    return {"offload": [offload], "software": [software], "ping": [ping]}


def _ping(enter: list[str], address: str) -> float:
    said = command(*enter, "ping", "-n", "-c", str(PINGS), "-i", "0.002", address).stdout
    return statistics.median(float(time) for time in re.findall(r" time=([\d.]+) ms", said))


@contextlib.contextmanager
def _without_offload(hosts: Sequence[Namespace]) -> Iterator[None]:
    def switch(to: str) -> None:
        for host in hosts:
            host.run("ethtool", "-K", "uplink", *(word for feature in _FEATURES for word in (feature, to)))

    switch("off")
    try:
        yield
    finally:
        switch("on")


@contextlib.contextmanager
def _by_hand(lan: Lan) -> Iterator[tuple[list[Namespace], Namespace, Namespace]]:
    """Two hosts, and a container on each: 10.99.0.1 and 10.99.0.2."""
    with contextlib.ExitStack() as stack:

        def namespace(name: str) -> Namespace:
            made = Namespace(f"{lan.label}-{name}")
            stack.callback(made.remove)
            return made

        addresses = [lan.free_address(), lan.free_address()]
        hosts, containers = [], []
        for number, (own, other) in enumerate((addresses, addresses[::-1]), 1):
            host, middle, inner = (namespace(f"{kind}{number}") for kind in ("host", "net", "inner"))
            lan.plug(host, f"hand{own.rpartition('.')[2]}", own)
            tunnel = ("type", "vxlan", "id", "4242", "local", own, "remote", other, "dstport", "4789")
            host.ip("link", "add", "vx0", "netns", middle.name, "mtu", "1450", "up", *tunnel)
            middle.ip("link", "add", "br0", "mtu", "1450", "up", "type", "bridge")
            middle.ip("link", "set", "vx0", "master", "br0")
            peer = ("type", "veth", "peer", "name", "eth0", "mtu", "1450", "netns", inner.name)
            middle.ip("link", "add", "port0", "mtu", "1450", "master", "br0", "up", *peer)
            inner.ip("address", "add", f"10.99.0.{number}/24", "dev", "eth0")
            inner.ip("link", "set", "eth0", "up")
            hosts.append(host)
            containers.append(inner)
        yield hosts, containers[0], containers[1]
