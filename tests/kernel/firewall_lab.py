"""A host with networks, containers and a neighbour on its LAN, made by plain `ip` commands, for tests with real packets.

            out 10.99.0.2 ── up0  10.99.0.1, .3  h
            vpn 10.98.0.2 ── up1  10.98.0.1      ├─ brA 172.20.0.1/24  a1 .2  a2 .3
                                                 ├─ brB 172.21.0.1/24  b1 .2
                                                 ├─ brC 172.22.0.1/24  c1 .2  c2 .3  c3 .4
                                                 └─ brI 172.23.0.1/24  i1 .2  i2 .3

The same in IPv6: the LAN is fd99::/64, behind the tunnel is fd98::/64, the networks are fd20::/64 to fd23::/64. A container's MAC is made
of its IPv4 address. `out` and `vpn` have routes to the containers by way of the host, so that nothing but the firewall keeps them from it.
"""

from __future__ import annotations

import itertools
import os
import selectors
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from netplug.kernel.namespaces import entered, open_socket
from netplug.model import Protocol, mac_of

BLOCKED_AFTER = 0.3
"""Seconds without an answer that count as blocked."""
ANSWERED_WITHIN = 3.0
"""Seconds in which an answer must come; on a quiet machine it takes a millisecond."""

NETWORKS = {"A": ("a1", "a2"), "B": ("b1",), "C": ("c1", "c2", "c3"), "I": ("i1", "i2")}
PREFIX = {network: f"172.{number}.0" for number, network in enumerate(NETWORKS, 20)}
PREFIX6 = {network: f"fd{number}:" for number, network in enumerate(NETWORKS, 20)}
SUBNETS = {network: (f"{PREFIX[network]}.0/24", f"{PREFIX6[network]}:/64") for network in NETWORKS}
MAC = {network: f"02:42:ac:00:00:{number:02x}" for number, network in enumerate(NETWORKS, 1)}
"""Of each bridge."""
UPLINK_MAC = "02:42:ac:00:00:99"

_HOSTS = [(network, number, name) for network, names in NETWORKS.items() for number, name in enumerate(names, 2)]
Addresses: TypeAlias = Mapping[str, str]
ADDRESS: Addresses = {
    "h": "10.99.0.1",
    "h2": "10.99.0.3",
    "out": "10.99.0.2",
    "vpn": "10.98.0.2",
    **{f"gateway{network}": f"{prefix}.1" for network, prefix in PREFIX.items()},
    **{name: f"{PREFIX[network]}.{number}" for network, number, name in _HOSTS},
}
"""IPv4 addresses: `h` and `h2` are the host's on the LAN, `gatewayA` is that of the bridge of network A."""
ADDRESS6: Addresses = {
    "h": "fd99::1",
    "h2": "fd99::3",
    "out": "fd99::2",
    "vpn": "fd98::2",
    **{f"gateway{network}": f"{prefix}:1" for network, prefix in PREFIX6.items()},
    **{name: f"{PREFIX6[network]}:{number}" for network, number, name in _HOSTS},
}
CONTAINERS = {name: network for network, _, name in _HOSTS}
NAMES = ("h", "out", "vpn", *CONTAINERS)
KINDS: dict[Protocol, socket.SocketKind] = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

_numbers = itertools.count()


class Lab:
    """Namespaces by their short names; servers stay open until the lab is closed."""

    def __init__(self, *, bridge_nf: int) -> None:
        self.bridge_nf = bridge_nf
        self._prefix = f"f{os.getpid()}-{next(_numbers)}-"
        self._names: list[str] = []
        self._servers: dict[tuple[str, str, int], socket.socket] = {}
        try:
            self._build(bridge_nf)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for server in self._servers.values():
            server.close()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", self._prefix + name], check=False, timeout=10)

    @staticmethod
    def mac(container: str) -> str:
        return mac_of(ADDRESS[container], "")

    def path(self, name: str) -> str:
        return f"/run/netns/{self._prefix}{name}"

    def nft(self, text: str, name: str = "h") -> str:
        with entered(self.path(name)):
            return subprocess.run(["nft", "-f", "-"], input=text, check=True, timeout=10, capture_output=True, text=True).stdout

    def serve(self, name: str, *ports: int, address: str = "::") -> None:
        """TCP and UDP servers, by default on all addresses of both IP versions; in place of those that are there."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for (protocol, kind), port in itertools.product(KINDS.items(), ports):
            if (earlier := self._servers.pop((name, protocol, port), None)) is not None:
                earlier.close()
            server = self._servers[name, protocol, port] = open_socket(self.path(name), family, kind)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            server.settimeout(ANSWERED_WITHIN)
            if protocol == "tcp":
                server.listen(64)

    def source(self, protocol: str, client: str, address: str, port: int, server: str, server_port: int = 80) -> str:
        """Who the server sees when the client talks to `address`:`port`. The answer is read too: TimeoutError if one of them fails."""
        with self._connect(protocol, client, address, port, ANSWERED_WITHIN) as asking:
            answering = self._servers[server, protocol, server_port]
            if protocol == "udp":
                asking.send(b"question")
                _, peer = answering.recvfrom(100)
                answering.sendto(b"answer", peer)
            else:
                answered, peer = answering.accept()
                with answered:
                    answered.send(b"answer")
                    assert asking.recv(100) == b"answer"
                    return plain(peer)
            assert asking.recv(100) == b"answer"
            return plain(peer)

    def sources(self, client: str, address: str, port: int, server: str, server_port: int = 80) -> set[str]:
        """Who the server sees by TCP and by UDP."""
        return {self.source(protocol, client, address, port, server, server_port) for protocol in KINDS}

    def answered(self, *flows: tuple[str, str, int], within: float = BLOCKED_AFTER) -> list[tuple[str, str, str, int]]:
        """Those of the flows (client, address, port), by TCP and UDP and all at once, that are not met by silence."""
        cases = [(protocol, *flow) for flow in flows for protocol in KINDS]
        with self.servers_answering(), ThreadPoolExecutor(len(cases)) as threads:
            silences = threads.map(lambda case: self._silent(case, within), cases)
            return [case for case, silent in zip(cases, silences, strict=True) if not silent]

    def _silent(self, case: tuple[str, str, str, int], within: float) -> bool:
        """No connection, no datagram, not even an error."""
        protocol, client, address, port = case
        try:
            with self._connect(protocol, client, address, port, within) as asking:
                if protocol == "udp":
                    asking.send(b"question")
                    asking.recv(100)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def receives(self, name: str, port: int, within: float) -> bytes:
        """The next datagram that a server gets; `b""` if none comes."""
        server = self._servers[name, "udp", port]
        server.settimeout(within)
        try:
            return server.recv(100)
        except TimeoutError:
            return b""
        finally:
            server.settimeout(ANSWERED_WITHIN)

    def refused(self, protocol: str, client: str, address: str, port: int) -> bool:
        """Whether the host itself says that nobody listens there."""
        try:
            with self._connect(protocol, client, address, port, ANSWERED_WITHIN) as asking:
                asking.send(b"question")
                asking.recv(100)
        except ConnectionRefusedError:
            return True
        return False

    def pings(self, client: str, address: str, within: float = ANSWERED_WITHIN) -> bool:
        """Whether an echo request is answered."""
        with entered(self.path(client)):
            return subprocess.run(["ping", "-n", "-q", "-c1", f"-W{within}", address], stdout=subprocess.DEVNULL).returncode == 0

    def stream(self, client: str, address: str, port: int, server: str, server_port: int = 80) -> tuple[socket.socket, socket.socket]:
        """Both ends of a TCP connection."""
        asking = self._connect("tcp", client, address, port, ANSWERED_WITHIN)
        answering, _ = self._servers[server, "tcp", server_port].accept()
        answering.settimeout(BLOCKED_AFTER)
        return asking, answering

    def _connect(self, protocol: str, client: str, address: str, port: int, timeout: float) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        asking = open_socket(self.path(client), family, KINDS[protocol])
        try:
            asking.settimeout(timeout)
            asking.connect((address, port))
        except BaseException:
            asking.close()
            raise
        return asking

    @contextmanager
    def servers_answering(self) -> Iterator[None]:
        """Servers take connections and send datagrams back by themselves."""
        reading, writing = os.pipe()
        with ThreadPoolExecutor(1) as thread:
            done = thread.submit(_answer, list(self._servers.values()), reading)
            try:
                yield
            finally:
                os.close(writing)
                done.result(ANSWERED_WITHIN)
                os.close(reading)

    def _build(self, bridge_nf: int) -> None:
        for name in NAMES:
            subprocess.run(["ip", "netns", "add", self._prefix + name], check=True, timeout=10)
            self._names.append(name)
            # A link-local address that waits for duplicate-address detection asks for no neighbour: no IPv6 for a second or two.
            self.set("net/ipv6/conf/default/accept_dad", 0, name)
        self.ip("h", *self._host_commands())
        for name, number in (("out", 99), ("vpn", 98)):
            self.ip(name, "link set lo up", "link set eth0 up", *_addressed(f"10.{number}.0.2/24", f"fd{number}::2/64"),
                     f"route add 172.16.0.0/12 via 10.{number}.0.1", f"route add fd20::/14 via fd{number}::1")  # fmt: skip
        for name, network in CONTAINERS.items():
            self.ip(name, "link set lo up", "link set eth0 up", *_addressed(f"{ADDRESS[name]}/24", f"{ADDRESS6[name]}/64"),
                     f"route add default via {PREFIX[network]}.1", f"route add default via {PREFIX6[network]}:1")  # fmt: skip
        for key in ("ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"):  # a refusal must not be taken for silence
            self.set(f"net/{key}", 0)
        self.set("net/ipv4/ip_forward", 1)
        self.set("net/ipv6/conf/all/forwarding", 1)
        for network in NETWORKS:
            self.set(f"net/ipv4/conf/br{network}/route_localnet", 1)
        for version in ("ip", "ip6"):
            self.set(f"net/bridge/bridge-nf-call-{version}tables", bridge_nf)

    def _host_commands(self) -> Iterator[str]:
        yield "link set lo up"
        for link, peer, mac, number in (("up0", "out", UPLINK_MAC, 99), ("up1", "vpn", "02:42:ac:00:00:98", 98)):
            yield f"link add {link} up address {mac} type veth peer name eth0 netns {self._prefix}{peer}"
            yield from _addressed(f"10.{number}.0.1/24", f"fd{number}::1/64", link)
        yield f"addr add {ADDRESS['h2']}/24 dev up0"
        yield f"addr add {ADDRESS6['h2']}/64 dev up0 nodad preferred_lft 0"  # else it would be the source, as the latest
        for network, names in NETWORKS.items():
            yield f"link add br{network} address {MAC[network]} type bridge"
            yield f"link set br{network} up"
            yield from _addressed(f"{PREFIX[network]}.1/24", f"{PREFIX6[network]}:1/64", f"br{network}")
            for name in names:
                peer = f"peer name eth0 address {self.mac(name)} netns {self._prefix}{name}"
                yield f"link add v-{name} up master br{network} type veth {peer}"
                yield f"link set v-{name} type bridge_slave hairpin on"

    def ip(self, name: str, *commands: str) -> None:
        subprocess.run(["ip", "-n", self._prefix + name, "-batch", "-"], input="\n".join(commands), check=True, timeout=20, text=True)

    def set(self, key: str, value: int, name: str = "h") -> None:
        with entered(self.path(name)):
            Path("/proc/sys", key).write_text(str(value))


def _addressed(address: str, address6: str, link: str = "eth0") -> tuple[str, str]:
    return f"addr add {address} brd + dev {link}", f"addr add {address6} dev {link} nodad"


def plain(peer: tuple[str, int]) -> str:
    return peer[0].removeprefix("::ffff:")


def _answer(servers: Sequence[socket.socket], stop: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ)
        for server in servers:
            selector.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if not isinstance(key.fileobj, socket.socket):
                    return
                if key.fileobj.type == socket.SOCK_STREAM:
                    key.fileobj.accept()[0].close()
                else:
                    data, peer = key.fileobj.recvfrom(100)
                    key.fileobj.sendto(data, peer)
