"""The iptables backend's rules, as data: those that never change (`TABLES`), and what each op adds to them (`rules`). Pure.

A rule is a `Place` and a value, as an element of the other backend is: the place is the chain it stands in (`ip nat NETPLUG`) and what it
matches (`-p tcp -m tcp --dport 8080`), the value what it does (`-j DNAT --to-destination 172.20.0.2:80`). All text is spelled as
`iptables-save` prints it, so that a listing can be compared with it. Two rules of one chain that come and go never stand in each other's
way: what has an order stands in chains of its own, which are asked in turn.

    nat     PREROUTING, OUTPUT   to an address of the host: NETPLUG, one DNAT for each published port
            POSTROUTING          NETPLUG-HAIRPIN, NETPLUG-POSTROUTING: masquerading, by network
    filter  FORWARD              NETPLUG-FORWARD: NETPLUG-USER, and what goes in or out of a network to NETPLUG-NETWORKS
    raw     PREROUTING           NETPLUG-PREROUTING

What a network is, is decided in NETPLUG-NETWORKS, in the order of its rules; each way ends in ACCEPT or DROP.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from netplug.errors import InvalidArgument
from netplug.kernel.firewall.elements import Elements, Place
from netplug.kernel.firewall.ruleset import RESOLVER, parse_mark
from netplug.plan import AllowPeer, Direct, DnsRedirect, GatewayMode, Isolate, Masquerade, Op, Publish, Reach

FAMILIES = ("ip", "ip6")
USER = "NETPLUG-USER"
SANDBOX_CHAIN = "NETPLUG_OUTPUT"
"""In a container: named as the courses' DOCKER_OUTPUT is."""
MODES: dict[GatewayMode, str] = {"nat": "NETPLUG-IN-NAT", "routed": "NETPLUG-IN-ROUTED", "nat-unprotected": "NETPLUG-IN-OPEN"}

_ACCEPT = "-j NETPLUG-ACCEPT"
_DNATED = "-m conntrack --ctstate DNAT"
_PING = {"ip": "-p icmp -m icmp --icmp-type 8", "ip6": "-p ipv6-icmp -m icmp6 --icmpv6-type 128"}
_DISCOVERY = (133, 135, 136, 131, 143)
"""ICMPv6 without which there is no neighbour: router and neighbour solicitation, advertisement, multicast listener reports."""


class Table(NamedTuple):
    """What of a table is ours whatever networks there are."""

    family: str
    name: str
    jumps: tuple[tuple[str, str], ...]
    """The built-in chain, and the rule in it that leads to ours."""
    chains: dict[str, tuple[str, ...]]
    """Our chains, and the rules at their heads."""


SANDBOX = Table("ip", "nat", (("OUTPUT", f"-d {RESOLVER}/32 -j {SANDBOX_CHAIN}"),), {SANDBOX_CHAIN: ()})
"""In a container's namespace: its resolver's address leads to the ports where the resolver really listens."""

_NAT_JUMPS = (
    ("PREROUTING", "-m addrtype --dst-type LOCAL -j NETPLUG"),
    ("OUTPUT", "-m addrtype --dst-type LOCAL -j NETPLUG"),
    ("POSTROUTING", "-j NETPLUG-HAIRPIN"),
    ("POSTROUTING", "-j NETPLUG-POSTROUTING"),
)
_NAT: dict[str, tuple[str, ...]] = {"NETPLUG": (), "NETPLUG-HAIRPIN": (), "NETPLUG-POSTROUTING": ()}
# Frames for 127.0.0.0/8 from a wire. Before conntrack, where our own replies still carry the bridge's address; and before DNAT, which
# would make them routable.
_LOOPBACK: dict[str, tuple[str, ...]] = {
    "NETPLUG-PREROUTING": (
        "-d 127.0.0.0/8 ! -i lo -m comment --comment CVE-2020-8558 -j DROP",
        "-s 127.0.0.0/8 ! -i lo -m comment --comment CVE-2020-8558 -j DROP",
    )
}


def _filter(family: str) -> dict[str, tuple[str, ...]]:
    return {
        USER: (),
        "NETPLUG-FORWARD": (f"-j {USER}",),
        "NETPLUG-NETWORKS": (
            f"-m conntrack --ctstate RELATED,ESTABLISHED {_ACCEPT}",
            "-j NETPLUG-MARKED",
            "-j NETPLUG-ICC",
            "-j NETPLUG-INTERNAL",
            "-j NETPLUG-TRUSTED",
            "-j NETPLUG-IN",
            '-m conntrack --ctstate INVALID -m comment --comment "would leave without NAT" -j DROP',
            _ACCEPT,
        ),
        "NETPLUG-MARKED": (),
        "NETPLUG-ICC": (),
        "NETPLUG-LINKED": tuple(f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} {_ACCEPT}" for kind in _DISCOVERY) if family == "ip6" else (),
        "NETPLUG-INTERNAL": (),
        "NETPLUG-TRUSTED": (),
        "NETPLUG-IN": (),
        "NETPLUG-IN-NAT": (f"{_DNATED} {_ACCEPT}", "-j NETPLUG-ISOLATION", "-j NETPLUG-DIRECT", "-j DROP"),
        "NETPLUG-IN-ROUTED": ("-j NETPLUG-ISOLATION", f"{_PING[family]} {_ACCEPT}", "-j NETPLUG-IN-NAT"),
        "NETPLUG-IN-OPEN": (f"{_DNATED} {_ACCEPT}", "-j NETPLUG-ISOLATION", _ACCEPT),
        "NETPLUG-ISOLATION": (),
        "NETPLUG-DIRECT": (),
        "NETPLUG-ACCEPT": ('-m comment --comment "for other tools" -j MARK --set-xmark 0x1000/0x1000', "-j ACCEPT"),
    }


_FORWARD_JUMP = (("FORWARD", "-j NETPLUG-FORWARD"),)
TABLES = (
    Table("ip", "raw", (("PREROUTING", "-j NETPLUG-PREROUTING"),), _LOOPBACK),
    Table("ip", "filter", _FORWARD_JUMP, _filter("ip")),
    Table("ip", "nat", _NAT_JUMPS, _NAT),
    Table("ip6", "filter", _FORWARD_JUMP, _filter("ip6")),
    # A packet from ::1 cannot leave the host, DNAT or not; a forwarder may listen there.
    Table("ip6", "nat", _NAT_JUMPS, {**_NAT, "NETPLUG": ("-d ::1/128 -j RETURN",)}),
)


def rules(op: Op, accept_mark: str = "") -> Elements:
    """The rules that make `op` true, without what iptables cannot see: frames that stay inside a bridge.

    Packets to a network that carry `accept_mark` (`MARK[/MASK]`) are let in, whoever sent them.
    """
    match op:
        case Isolate():
            return dict(_network(op)) | dict(_marked(op, accept_mark))
        case Masquerade():
            return _masquerade(op)
        case Publish():
            return dict(_published(op))
        case Direct(protocol=protocol, address=address, port=port, count=count):
            match = f"-d {_host(address)} {_ports(protocol, port, count)}"
            return {_place(address, "filter", "NETPLUG-DIRECT", match): _ACCEPT}
        case AllowPeer(client=client, server=server, protocol=protocol, port=port):
            match = f"-s {_host(client)} -d {_host(server)} {_ports(protocol, port)}"
            return {_place(server, "filter", "NETPLUG-LINKED", match): _ACCEPT}
        case Reach():
            return _reached(op)
        case DnsRedirect(udp_port=udp, tcp_port=tcp):
            return {
                Place(f"ip nat {SANDBOX_CHAIN}", f"-d {RESOLVER}/32 {_ports(protocol, 53)}"): f"-j DNAT --to-destination {RESOLVER}:{port}"
                for protocol, port in (("udp", udp), ("tcp", tcp))
            }
        case _:
            return {}


def needs_ipv6(op: Op) -> bool:
    """Whether there is anything of IPv6 in it."""
    match op:
        case Isolate(subnets=subnets):
            return any(":" in subnet for subnet in subnets)
        case (
            Masquerade(subnet=address)
            | Reach(subnet=address)
            | Publish(address=address)
            | Direct(address=address)
            | AllowPeer(server=address)
        ):
            return ":" in address
        case _:
            return False


def goes_first(place: Place, value: str) -> bool:
    """What leaves a chain for all others: a packet to another network keeps its source, one from there is trusted nowhere."""
    return value == "-j RETURN"


def chain_of(place: Place) -> tuple[str, str, str]:
    """Family, table, chain."""
    family, table, chain = place.set.split(" ")
    return family, table, chain


def text_of(place: Place, value: str) -> str:
    """The rule, without its chain."""
    return f"{place.key} {value}" if place.key else value


def _network(op: Isolate) -> Iterator[tuple[Place, str]]:
    """In both families, whichever the network has: a container that gives itself an address of the other is judged too."""
    bridge = _interface(op.bridge)
    for family, mode in zip(FAMILIES, (op.mode4, op.mode6), strict=True):
        yield Place(f"{family} filter NETPLUG-FORWARD", f"-i {bridge}"), "-j NETPLUG-NETWORKS"
        yield Place(f"{family} filter NETPLUG-FORWARD", f"-o {bridge}"), "-j NETPLUG-NETWORKS"
        # With icc=false what table bridge let pass, and nothing else, where br_netfilter shows us what stays on the bridge.
        yield Place(f"{family} filter NETPLUG-ICC", f"-i {bridge} -o {bridge}"), _ACCEPT if op.icc else "-j NETPLUG-LINKED"
        if op.internal:
            yield Place(f"{family} filter NETPLUG-INTERNAL", f"-i {bridge}"), "-j DROP"
            yield Place(f"{family} filter NETPLUG-INTERNAL", f"-o {bridge}"), "-j DROP"
        else:
            yield Place(f"{family} filter NETPLUG-IN", f"-o {bridge}"), f"-j {MODES[mode]}"
        yield Place(f"{family} filter NETPLUG-TRUSTED", f"-i {bridge}"), "-j RETURN"
        for trusted in op.trusted:
            yield Place(f"{family} filter NETPLUG-TRUSTED", f"-i {_interface(trusted)} -o {bridge}"), _ACCEPT
        yield Place(f"{family} filter NETPLUG-ISOLATION", f"-i {bridge}"), "-j DROP"
        yield Place(f"{family} nat NETPLUG-POSTROUTING", f"-o {bridge}"), "-j RETURN"
    for subnet in map(_subnet, op.subnets):
        # Same bridge, by a published port: the answer must come back through us. Not by interface: br_netfilter hides it here.
        yield _place(subnet, "nat", "NETPLUG-HAIRPIN", f"-s {subnet} -d {subnet} {_DNATED}"), "-j MASQUERADE"
    # The host by 127.0.0.1; a container cannot answer that.
    yield Place("ip nat NETPLUG-HAIRPIN", f"-s 127.0.0.0/8 -o {bridge}"), "-j MASQUERADE"


def _marked(op: Isolate, accept_mark: str) -> Iterator[tuple[Place, str]]:
    if accept_mark:
        mark, mask = parse_mark(accept_mark)
        text = f"{mark:#x}" if mask == 0xFFFFFFFF else f"{mark:#x}/{mask:#x}"
        for family in FAMILIES:
            yield Place(f"{family} filter NETPLUG-MARKED", f"-o {_interface(op.bridge)} -m mark --mark {text}"), _ACCEPT


def _masquerade(op: Masquerade) -> Elements:
    if op.source and (":" in op.source) != (":" in op.subnet):
        raise InvalidArgument(f"cannot give {op.subnet} the source {op.source}: NAT does not change the IP version")
    subnet = _subnet(op.subnet)
    elsewhere = f" ! -o {_interface(op.bridge)}" if op.bridge else ""
    place = _place(subnet, "nat", "NETPLUG-POSTROUTING", f"-s {subnet}{elsewhere}")
    return {place: f"-j SNAT --to-source {op.source}" if op.source else "-j MASQUERADE"}


def _reached(op: Reach) -> Elements:
    subnet, remote, link = _subnet(op.subnet), _subnet(op.remote), _interface(op.link)
    return {
        _place(subnet, "filter", "NETPLUG-TRUSTED", f"-s {remote} -d {subnet} -i {link} -o {_interface(op.bridge)}"): _ACCEPT,
        _place(subnet, "nat", "NETPLUG-POSTROUTING", f"-s {subnet} -d {remote} -o {link}"): "-j RETURN",
    }


def _published(op: Publish) -> Iterator[tuple[Place, str]]:
    """One rule; for a range whose ports get other numbers one for each, because DNAT's own way to say that is not in every iptables."""
    given = ""
    if op.host_ip not in ("", "0.0.0.0", "::"):
        if (":" in op.host_ip) != (":" in op.address):
            raise InvalidArgument(f"cannot publish {op.address} on {op.host_ip}: NAT does not change the IP version")
        given = f"-d {_host(op.host_ip)} "
    address = f"[{op.address}]" if ":" in op.address else op.address
    if op.count > 1 and op.host_port == op.port:
        match = f"{given}{_ports(op.protocol, op.port, op.count)}"
        yield _place(op.address, "nat", "NETPLUG", match), f"-j DNAT --to-destination {op.address}"
        return
    for number in range(op.count):
        match = f"{given}{_ports(op.protocol, op.host_port + number)}"
        yield _place(op.address, "nat", "NETPLUG", match), f"-j DNAT --to-destination {address}:{op.port + number}"


def _place(address: str, table: str, chain: str, match: str) -> Place:
    return Place(f"{'ip6' if ':' in address else 'ip'} {table} {chain}", match)


def _ports(protocol: str, first: int, count: int = 1) -> str:
    return f"-p {protocol} -m {protocol} --dport {first}" + (f":{first + count - 1}" if count > 1 else "")


def _host(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _subnet(text: str) -> str:
    return str(ipaddress.ip_network(text, strict=False))


def _interface(name: str) -> str:
    """iptables takes a `+` at the end for any ending, and cannot read back what it prints for a blank or a quote."""
    if not re.fullmatch(r"[^\s\"'\\!+-][^\s\"'\\]*", name) or name.endswith("+"):
        raise InvalidArgument(f"interface name {name!r} cannot be used in iptables rules: rename it, or use --firewall-backend nftables")
    return name
