"""A host with networks, containers and a neighbour on its LAN, made by plain `ip` commands, for tests with real packets.

            out 10.99.0.2 ── 10.99.0.1, .3  h
                                            ├─ brA 172.20.0.1/24  a1 .2  a2 .3   (IPv6: fd20::/64, LAN fd99::/64)
                                            ├─ brB 172.21.0.1/24  b1 .2
                                            ├─ brC 172.22.0.1/24  c1 .2  c2 .3   icc=false (IPv6: fd22::/64)
                                            └─ brI 172.23.0.1/24  i1 .2  i2 .3   internal

`out` has routes to the containers by way of the host, so that nothing but the firewall keeps it from them.
"""

from __future__ import annotations

import itertools
import os
import selectors
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from netplug.kernel.namespaces import entered, open_socket

BLOCKED_AFTER = 0.3
"""Seconds without an answer that count as blocked."""
ANSWERED_WITHIN = 3.0
"""Seconds in which an answer must come; on a quiet machine it takes a millisecond."""

NETWORKS = {"A": ("172.20.0", ("a1", "a2")), "B": ("172.21.0", ("b1",)), "C": ("172.22.0", ("c1", "c2")), "I": ("172.23.0", ("i1", "i2"))}
IPV6 = {"A": "fd20", "C": "fd22"}
CONTAINERS = {name: f"{prefix}.{number}" for prefix, names in NETWORKS.values() for number, name in enumerate(names, 2)}
MAC = {network: f"02:42:ac:00:00:{number:02x}" for number, network in enumerate(NETWORKS, 1)}
"""Of each bridge."""
UPLINK_MAC = "02:42:ac:00:00:99"
ADDRESS = {"h": "10.99.0.1", "out": "10.99.0.2", **CONTAINERS}
ETH_P_IP = 0x0800
"""linux/if_ether.h; in the socket module from Python 3.12."""
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

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

    def path(self, name: str) -> str:
        return f"/run/netns/{self._prefix}{name}"

    def nft(self, text: str, name: str = "h") -> str:
        with entered(self.path(name)):
            return subprocess.run(["nft", "-f", "-"], input=text, check=True, timeout=10, capture_output=True, text=True).stdout

    def serve(self, name: str, *ports: int, address: str = "::") -> None:
        """TCP and UDP servers, by default on all addresses of both IP versions."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for (protocol, kind), port in itertools.product(KINDS.items(), ports):
            server = open_socket(self.path(name), family, kind)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            server.settimeout(ANSWERED_WITHIN)
            if protocol == "tcp":
                server.listen(64)
            self._servers[name, protocol, port] = server

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
        for name in ADDRESS:
            subprocess.run(["ip", "netns", "add", self._prefix + name], check=True, timeout=10)
            self._names.append(name)
            # A link-local address that waits for duplicate-address detection asks for no neighbour: no IPv6 for a second or two.
            self.set("net/ipv6/conf/default/accept_dad", 0, name)
        self.ip("h", *self._host_commands())
        self.ip("out", "link set lo up", "link set eth0 up", "addr add 10.99.0.2/24 dev eth0", "addr add fd99::2/64 dev eth0 nodad",
                 "route add 172.16.0.0/12 via 10.99.0.1", "route add fd20::/64 via fd99::1")  # fmt: skip
        for prefix, names in NETWORKS.values():
            for name in names:
                self.ip(
                    name,
                    "link set lo up",
                    "link set eth0 up",
                    f"addr add {CONTAINERS[name]}/24 dev eth0",
                    f"route add default via {prefix}.1",
                )
        for network, prefix in IPV6.items():
            for number, name in enumerate(NETWORKS[network][1], 2):
                self.ip(name, f"addr add {prefix}::{number}/64 dev eth0 nodad", f"route add default via {prefix}::1")
        self.set("net/ipv4/ip_forward", 1)
        self.set("net/ipv6/conf/all/forwarding", 1)
        for network in NETWORKS:
            self.set(f"net/ipv4/conf/br{network}/route_localnet", 1)
        for version in ("ip", "ip6"):
            self.set(f"net/bridge/bridge-nf-call-{version}tables", bridge_nf)

    def _host_commands(self) -> Iterator[str]:
        yield "link set lo up"
        yield f"link add up0 up address {UPLINK_MAC} type veth peer name eth0 netns {self._prefix}out"
        yield "addr add 10.99.0.1/24 dev up0"
        yield "addr add 10.99.0.3/24 dev up0"
        yield "addr add fd99::1/64 dev up0 nodad"
        for network, (prefix, names) in NETWORKS.items():
            yield f"link add br{network} address {MAC[network]} type bridge"
            yield f"link set br{network} up"
            yield f"addr add {prefix}.1/24 brd + dev br{network}"
            for name in names:
                yield f"link add v-{name} up master br{network} type veth peer name eth0 netns {self._prefix}{name}"
                yield f"link set v-{name} type bridge_slave hairpin on"
        for network, prefix in IPV6.items():
            yield f"addr add {prefix}::1/64 dev br{network} nodad"

    def ip(self, name: str, *commands: str) -> None:
        subprocess.run(["ip", "-n", self._prefix + name, "-batch", "-"], input="\n".join(commands), check=True, timeout=20, text=True)

    def set(self, key: str, value: int, name: str = "h") -> None:
        with entered(self.path(name)):
            Path("/proc/sys", key).write_text(str(value))


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


@contextmanager
def wire(lab: Lab, name: str) -> Iterator[socket.socket]:
    """A packet socket (packet(7)) on `eth0` of `name`: IPv4 frames as they come and go."""
    with open_socket(lab.path(name), socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)) as found:
        found.bind(("eth0", ETH_P_IP))
        yield found


def send_to_host(lab: Lab, attacker: str, packet: bytes) -> None:
    """Put an IPv4 packet on the wire by hand, in a frame for the host's MAC."""
    target = bytes.fromhex((UPLINK_MAC if attacker == "out" else MAC["A"]).replace(":", ""))
    with wire(lab, attacker) as sender:
        sender.send(target + sender.getsockname()[4] + struct.pack("!H", ETH_P_IP) + packet)


def comes_by(wire: socket.socket, packet: bytes, within: float) -> bool:
    """Whether a TCP packet with the addresses, ports and flags of `packet` is seen."""
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            seen = wire.recv(2000)[14:]
        except TimeoutError:
            return False
        if (seen[9], seen[12:24], seen[33]) == (socket.IPPROTO_TCP, packet[12:24], packet[33]):
            return True
    return False


def tcp_packet(source: str, source_port: int, target: str, port: int, flags: int) -> bytes:
    """An IPv4 packet with a TCP header (RFC 791, RFC 9293)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, flags, 1000, 0, 0)
    tcp = tcp[:16] + _checksum(addresses + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp)) + tcp) + tcp[18:]
    return _ip_header(addresses, socket.IPPROTO_TCP, len(tcp)) + tcp


def udp_packet(source: str, source_port: int, target: str, port: int, data: bytes) -> bytes:
    """An IPv4 packet with a datagram, without its checksum (RFC 768 allows that)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    udp = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    return _ip_header(addresses, socket.IPPROTO_UDP, len(udp)) + udp


def _ip_header(addresses: bytes, protocol: int, length: int) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, protocol, 0) + addresses
    return header[:10] + _checksum(header) + header[12:]


def _checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
