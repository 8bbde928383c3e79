"""What netplug keeps: networks, endpoints, sandboxes, ports. Frozen data, stored as JSON.

Addresses are text in canonical form: `10.0.0.2`, or `10.0.0.2/24` where the prefix belongs to it; `""` means none. Ids are 64 hex
digits; the first 12 are what people see. Times are RFC 3339 in UTC with nanoseconds, as Docker prints them.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import socket
import time
from functools import lru_cache
from typing import Literal

import msgspec

from netplug.errors import InvalidArgument

Protocol = Literal["tcp", "udp", "sctp"]
Family = Literal[4, 6]
"""IP version."""
BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
"""What Go's strconv.ParseBool, and so Docker, reads."""


def new_id() -> str:
    """64 random hex digits, never all decimal in the first 12 (a hostname of digits only confuses resolvers)."""
    while True:
        candidate = _random(32).hex()
        if not candidate[:12].isdigit():
            return candidate


_store = bytearray()


def _random(count: int) -> bytes:
    """The kernel is asked for many at a time: each question lets the interpreter's lock go, and other threads are slow to give it back."""
    if len(_store) < count:
        _store.extend(os.urandom(64 * count))
    found = bytes(_store[-count:])
    del _store[-count:]
    return found


os.register_at_fork(after_in_child=_store.clear)


def now() -> str:
    """The time as `2026-01-31T12:00:00.123456789Z`."""
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{fraction:09d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}"


def mac_of(address: str, identity: str) -> str:
    """`02:42:` and the IPv4 address, or four bytes hashed from the IPv6 one; without an address, of the endpoint's id.

    So a new owner of an address has its old MAC too, and nobody's neighbour cache is wrong.
    """
    if not address:
        tail = bytes.fromhex(identity[:8])
    else:
        plain = address.partition("/")[0]
        if ":" in plain:
            tail = hashlib.sha256(socket.inet_pton(socket.AF_INET6, plain)).digest()[:4]
        else:
            tail = socket.inet_pton(socket.AF_INET, plain)
    return "02:42:" + tail.hex(":")


def usual_mac(endpoint: Endpoint) -> str:
    """The MAC that an endpoint has unless the user chose another."""
    return mac_of(endpoint.address or endpoint.address6, endpoint.id)


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of everything that is stored."""


class PoolConfig(Record, frozen=True, kw_only=True):
    """One address pool of a network: the subnet, the part of it that containers get, its gateway and reserved addresses."""

    subnet: str
    ip_range: str = ""
    gateway: str = ""
    auxiliary: dict[str, str] = {}
    handle: str = ""
    """What the IPAM driver calls it, where that is another process."""


class FoundLink(Record, frozen=True, kw_only=True):
    """A link that the user had made before the network came to use it, as it was then. It stays when the network goes."""

    name: str
    kind: str = "bridge"
    """As the kernel calls it; `""` for hardware and `lo`."""
    mac: str = ""
    addresses: tuple[str, ...] = ()
    """With their prefixes."""


class Network(Record, frozen=True, kw_only=True):
    """A named L2/L3 segment. `options` and `labels` are the user's, unchanged; drivers read their options from there."""

    id: str
    name: str
    driver: str
    created: str
    scope: Literal["local", "global"] = "local"
    ipv4: bool = True
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    predefined: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = {}
    pools: tuple[PoolConfig, ...] = ()
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    found: tuple[FoundLink, ...] = ()
    vni: int = 0
    """The number that its frames carry between nodes (RFC 7348); 0: none."""
    finder: str = ""
    """Where its driver comes from (`netplug.registry`); `""`: it is installed under its name."""
    ipam_finder: str = ""
    """The same of its IPAM driver (`netplug.addressing`)."""


class PortBinding(Record, frozen=True, kw_only=True):
    """A host port that leads to a container port; with `count`, so many in a row (`host_port + n` leads to `port + n`).

    A sandbox has them as they were asked for: `host_ip` `""` means every host address of each IP version that the container has, and
    `host_port` 0 that the choice is ours. An endpoint has them as they are: one per IP version, with `0.0.0.0` or `::` written out.
    """

    protocol: Protocol
    port: int
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0
    """The last of the ports to choose from, where a range of host ports was given for one container port; else 0."""
    count: int = 1
    preferred: int = 0
    """Where the choice is ours: the host port that it had last, taken again if it is free."""

    def __str__(self) -> str:
        host_ip = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or "0.0.0.0"
        host, port = str(self.host_port), str(self.port)
        if self.count > 1:
            host, port = f"{host}-{self.host_port + self.count - 1}", f"{port}-{self.port + self.count - 1}"
        return f"{host_ip}:{host}->{port}/{self.protocol}"


class StaticRoute(Record, frozen=True, kw_only=True):
    """To a CIDR, by a gateway or (`""`) straight by the link."""

    destination: str
    gateway: str = ""


class Attachment(Record, frozen=True, kw_only=True):
    """What a driver that acts outside the kernel has answered for an endpoint: with it, the driver's plan is made again at any time.

    Addresses carry their prefixes, gateways do not; what the endpoint had before it was asked for is not repeated.
    """

    link: str = ""
    """What is to be moved from the host into the sandbox; `""`: nothing."""
    interface: str = ""
    """What it is to be called there; `""`: `prefix` and a number."""
    prefix: str = ""
    mac: str = ""
    address: str = ""
    address6: str = ""
    gateway: str = ""
    gateway6: str = ""
    routes: tuple[StaticRoute, ...] = ()
    exit: bool = False
    """It leads nowhere, and does not mind that the sandbox gets a way out beside it."""


class Endpoint(Record, frozen=True, kw_only=True):
    """One attachment of one sandbox to one network.

    `address` carries its prefix (`172.18.0.2/16`), `gateway` does not; `address6` and `gateway6` are their IPv6 twins. `host_interface`
    is the end that stays in the host's namespace. `names` are what the resolver answers with this address: container name, aliases,
    short id. One of a global network says where it is: its `node` in that node's `incarnation`, reached at `vtep`.
    """

    id: str
    network: str
    sandbox: str
    created: str
    container_name: str = ""
    interface: str = ""
    host_interface: str = ""
    address: str = ""
    gateway: str = ""
    address6: str = ""
    gateway6: str = ""
    mac: str = ""
    names: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    gateway_priority: int = 0
    static_address: bool = False
    static_address6: bool = False
    links: tuple[str, ...] = ()
    """Ids of sandboxes whose exposed ports this endpoint may reach also where `icc` is off."""
    options: dict[str, str] = {}
    implied: bool = False
    """Nobody asked for it: it is the way out for other networks of the sandbox."""
    node: str = ""
    """The node's name; `""`: this host."""
    incarnation: str = ""
    vtep: str = ""
    """The node's address in the underlay, IPv4 or IPv6."""
    attachment: Attachment | None = None


class Node(Record, frozen=True, kw_only=True):
    """A host in a cluster, as it says of itself."""

    name: str
    address: str
    """In the underlay."""
    identity: str
    """Of its state directory: made once, at the daemon's first start."""
    incarnation: str
    started: str
    version: str = ""
    port: int = 0
    """UDP port that it sends to and listens at, where a network has none of its own; 0: an earlier version, which does not say."""


class Reachable(Record, frozen=True, kw_only=True):
    """A network of one node whose containers those of other nodes reach by their own addresses, as its node publishes it."""

    node: str
    network: str
    """Its name there."""
    created: str
    """When the network was: of two that overlap, the older one is reached."""
    subnets: tuple[str, ...]
    via: tuple[str, ...]
    """The node's addresses on its LAN, one of an IP version at most."""


class DnsConfig(Record, frozen=True, kw_only=True):
    """What the user said about names for one container: `--dns`, `--dns-search`, `--dns-option`, `--add-host`."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    """Lines `name:address`, in the order given."""


class Sandbox(Record, frozen=True, kw_only=True):
    """A container's network namespace, known by path, cookie and incarnation (never by pid or inode alone).

    `kind`: `own` (we made the namespace), `given` (an engine made it), `host` (the host's own: no endpoint, no resolver), `engine` (an
    engine makes it after it has asked us for links, takes these in and gives them their addresses: until then its cookie is 0).
    """

    id: str
    created: str
    name: str
    namespace: str
    cookie: int
    incarnation: str
    kind: Literal["own", "given", "host", "engine"] = "own"
    engine: str = ""
    """Whose it is, where it is none of the runtime's: `docker`."""
    container: str = ""
    """What that engine calls the container, once we know: its id."""
    hostname: str = ""
    dns: DnsConfig = DnsConfig()
    ports: tuple[PortBinding, ...] = ()
    """What is to be published for this sandbox, as asked for; its gateway endpoint carries what came of it."""
    exposed: tuple[str, ...] = ()
    """Ports that it serves, published or not: `80/tcp`."""
    resolver_udp: int = 0
    resolver_tcp: int = 0
    """The ports in the sandbox where the resolver listens; 127.0.0.11:53 leads there. 0: no resolver."""


def flag(options: dict[str, str], option: str, *, default: bool = False) -> bool:
    """The `default` where it is not there or empty; InvalidArgument where it is none of `BOOLEANS`."""
    text = options.get(option, "")
    if not text:
        return default
    if text not in BOOLEANS:
        raise InvalidArgument(f'invalid value for {option}: "{text}" is neither true nor false')
    return BOOLEANS[text]


def encode(record: Record) -> bytes:
    """The stored form."""
    return msgspec.json.encode(record)
