"""Ports, addresses and MACs in the forms that `docker run` takes, also on networks that are joined; who reaches them, by packets."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from netplug.cli.demo_ends import program
from netplug.kernel import syscalls
from tests.engines.dockerd import Pair
from tests.engines.test_docker import SERVE, from_outside, make, own, reaches

BOTH = ("--ipv6", "--subnet", "10.9.0.0/24", "--subnet", "fd09::/64")
EVERYWHERE = (("80/udp", 8081), ("90/tcp", 8090), ("91/tcp", 8091))
WEB = ("10.9.0.77", "fd09::77")


def namespace(pair: Pair, container: str) -> str:
    """Of a container of the engine's."""
    return f"/proc/{pair.inspect(container)['State']['Pid']}/ns/net"


class Target(NamedTuple):
    address: str
    port: int
    udp: bool = False

    def answers(self, caller: str) -> bool:
        """Whether something there does, to somebody in that network namespace."""
        syscalls.visit_network(syscalls.Descriptor(caller))
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM if self.udp else socket.SOCK_STREAM) as client, contextlib.suppress(OSError):
            client.settimeout(1)
            client.connect((self.address, self.port))
            client.send(b"x")
            return client.recv(100) != b""
        return False


def reached(callers: dict[str, str], targets: list[Target]) -> dict[Target, set[str]]:
    """By whom each is. Each of a thread of its own, which lives in the caller's namespace from then on."""
    with contextlib.ExitStack() as stack:
        asking = {
            (target, name): stack.enter_context(ThreadPoolExecutor(1)).submit(target.answers, path)
            for target in targets
            for name, path in callers.items()
        }
        return {target: {name for name in callers if asking[target, name].result()} for target in targets}


@contextlib.contextmanager
def serving(place: str, *ports: int) -> Iterator[None]:
    """By TCP and UDP, IPv4 and IPv6."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            argv = ["nsenter", f"--net={place}", *program("serve", "::", str(port))]
            server = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE))
            stack.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
        yield


def test_who_reaches_which_port(pair: Pair) -> None:
    make(pair, "demo", *BOTH)
    make(pair, "far")
    published = ("127.0.0.1:8080:80", "8081:80/udp", "8090-8091:90-91", f"{pair.address}:8085:80")
    ports = [word for one in published for word in ("-p", one)]
    pair.run_container("web", "--network", "demo", "--ip", WEB[0], "--ip6", WEB[1], *ports)
    pair.run_container("near", "--network", "demo")
    pair.run_container("away", "--network", "far")
    callers = {"lan": pair.lan.outside.path, "host": pair.namespace.path}
    callers |= {name: namespace(pair, name) for name in ("near", "away")}
    everybody = set(callers)
    ipv6 = everybody - {"away"}  # which has none
    expected = {
        Target("127.0.0.1", 8080): {"host"},
        Target(pair.address, 8080): set(),
        Target(pair.address6, 8080): set(),
        Target(pair.address, 8081, udp=True): everybody,
        Target(pair.address6, 8081, udp=True): ipv6,
        Target(pair.address, 8081): set(),
        Target(pair.address, 8090): everybody,
        Target(pair.address6, 8091): ipv6,
        Target(pair.address, 8092): set(),
        Target(pair.address, 8085): everybody,
        Target(pair.address6, 8085): set(),
        Target(WEB[0], 80): {"host", "near"},
        Target(WEB[1], 80, udp=True): {"host", "near"},
    }
    pair.lan.outside.ip("route", "add", "10.9.0.0/24", "via", pair.address)
    pair.lan.outside.ip("route", "add", "fd09::/64", "via", pair.address6)
    try:
        with serving(namespace(pair, "web"), 80, 90, 91):
            assert reached(callers, list(expected)) == expected
        assert pair.docker("port", "web").stdout == "", "Docker knows ports of its own drivers only"
        everywhere = [f"{port} -> {host}" for port, number in EVERYWHERE for host in (f"0.0.0.0:{number}", f"[::]:{number}")]
        told = ["80/tcp -> 127.0.0.1:8080", f"80/tcp -> {pair.address}:8085", *everywhere]
        assert sorted(pair.netplug("port", "web", check=True).stdout.splitlines()) == sorted(told)
    finally:
        pair.lan.outside.ip("route", "del", "10.9.0.0/24")
        pair.lan.outside.ip("route", "del", "fd09::/64")


def test_addresses_of_both_versions_and_a_mac(pair: Pair) -> None:
    """Of a container that starts, and of one that runs and had no IPv6: it reaches itself, too."""
    own(pair, "mine", make(pair, "demo", *BOTH))
    pair.run_container("web", "--network", "demo", "--ip", WEB[0], "--ip6", WEB[1], "--mac-address", "02:42:01:02:03:04")
    pair.run_container("db")
    pair.docker("network", "connect", "--ip", "10.9.0.88", "--ip6", "fd09::88", "demo", "db")

    assert "link/ether 02:42:01:02:03:04" in pair.docker_exec("web", "ip", "link", "show", "eth0").stdout
    for address in (*WEB, "10.9.0.88", "fd09::88"):
        assert reaches(pair, "db", address)
        assert pair.inside("mine", "ping", "-c", "1", "-W", "3", address).returncode == 0
    refused = pair.docker("run", "--network", "demo", "--ip6", WEB[1], "bench", "true", check=False)
    assert f"Address already in use: {WEB[1]}" in refused.stderr


@pytest.mark.parametrize(
    ("ipam", "address"),
    [(("--ipam-driver", "null"), ()), (("--ipam-driver", "netplug", *BOTH), ("--ip", WEB[0], "--ip6", WEB[1]))],
)
def test_a_dual_stack_network_is_joined_with_both(pair: Pair, ipam: tuple[str, ...], address: tuple[str, ...]) -> None:
    pair.netplug("network", "create", *BOTH, "ours", check=True)
    own(pair, "mine", "ours")
    pair.docker("network", "create", "--driver", "netplug", *ipam, "-o", "netplug.network=ours", "theirs")
    pair.run_container("web", "--network", "theirs", *address, "-p", "8080:80", argv=SERVE)

    told = pair.inspect("web")["NetworkSettings"]["Networks"]["theirs"]
    found = (told["IPAddress"], told["GlobalIPv6Address"])
    assert found == (WEB if address else ("10.9.0.3", "fd09::3"))
    for one in found:
        assert pair.inside("mine", "ping", "-c", "1", "-W", "3", one).returncode == 0
    assert reaches(pair, "web", pair.container_address6("mine", "ours"))
    assert reaches(pair, "web", "2001:db8:113::1"), "the way out"
    for one in (pair.address, pair.address6):
        assert from_outside(pair, 8080, one) == "served"


def test_a_macvlan_network_is_joined(pair: Pair) -> None:
    """Its containers are on the LAN behind its parent, with addresses and MACs of their own; ports are theirs, none of the host's."""
    outside = pair.lan.outside
    pair.namespace.ip("link", "add", "lower", "type", "veth", "peer", "name", "upper", "netns", outside.name)
    try:
        pair.namespace.ip("link", "set", "lower", "up")
        outside.ip_batch("link set upper up", "address add 10.7.0.1/24 dev upper")
        pair.netplug("network", "create", "-d", "macvlan", "-o", "parent=lower", "--subnet", "10.7.0.0/24", "ours", check=True)
        own(pair, "mine", "ours")
        pair.docker("network", "create", "-d", "netplug", "--ipam-driver", "null", "-o", "netplug.network=ours", "theirs")
        pair.run_container("web", "--network", "theirs", "--mac-address", "02:42:01:02:03:04", "-p", "8080:80", argv=SERVE)
        pair.run_container("late")
        pair.docker("network", "connect", "theirs", "late")

        assert reaches(pair, "web", "mine")
        for name in ("web", "late"):
            assert reaches(pair, name, "10.7.0.1")
        assert from_outside(pair, 80, "10.7.0.3") == "served"
        assert "02:42:01:02:03:04" in outside.ip("neigh", "show", "10.7.0.3").stdout
        assert from_outside(pair, 8080) == ""
        assert pair.netplug("port", "web", check=True).stdout == ""
        pair.clean()
    finally:
        pair.namespace.ip("link", "del", "lower")
