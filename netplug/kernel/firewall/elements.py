"""What changes in the firewall: each op is a few elements of the sets and maps that `ruleset` declares. Pure.

An element is named as nft names it: its set (`inet netplug pub4any`) and its key (`tcp . 8080`); its value (`172.20.0.2 . 80`) is `""` in a
set. `Elements` is a whole state; `judge` compares one with what is asked for.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from netplug.errors import InvalidArgument, KernelError
from netplug.kernel.firewall.ruleset import RESOLVER, RESOLVER_PORT
from netplug.plan import AllowPeer, Direct, DnsRedirect, GatewayMode, Guard, Isolate, Masquerade, Op, Publish, Reach, Remove, Step

PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
VERDICTS: dict[GatewayMode, str] = {"nat": "goto in_nat", "routed": "goto in_routed", "nat-unprotected": "goto in_open"}
_PER_COMMAND = 1000
"""Elements in one command: explained, a command is one argument of a shell's, which takes 128 KiB."""


class Place(NamedTuple):
    """Where an element is; there is one element at most."""

    set: str
    key: str


Elements: TypeAlias = dict[Place, str]


def elements(op: Op) -> Elements:
    """The elements that make `op` true."""
    match op:
        case Isolate():
            return _network(op)
        case Masquerade():
            return _masqueraded(op)
        case Guard():
            return _guarded(op)
        case AllowPeer(client=client, server=server, protocol=protocol, port=port):
            key = f"{client} . {server} . {protocol} . {port}"
            return {_versioned(f"{family} netplug links", client, key): "" for family in ("bridge", "inet")}
        case Publish():
            return _published(op)
        case Direct(protocol=protocol, address=address, port=port, count=count):
            suffix = "r" if count > 1 else ""
            return {_inet("direct", address, f"{address} . {protocol} . {_ports(port, count)}", suffix): ""}
        case Reach(link=link, remote=remote, subnet=subnet):
            return {_inet("reach", subnet, f"{_interface(link)} . {_prefix(remote)} . {_prefix(subnet)}"): ""}
        case DnsRedirect(udp_port=udp, tcp_port=tcp):
            ports = (("udp", udp), ("tcp", tcp))
            asked = {Place("ip netplug dns", f"{RESOLVER} . {protocol} . {RESOLVER_PORT}"): str(port) for protocol, port in ports}
            back = str(RESOLVER_PORT)
            return asked | {Place("ip netplug answers", f"{RESOLVER} . {protocol} . {port}"): back for protocol, port in ports}
        case _:
            raise InvalidArgument(f"{type(op).__name__} is no change of the firewall")


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction has to do, and which of the steps it makes a difference to."""

    delete: list[Place]
    add: Elements
    """All that was asked for and is not taken away by a later step. Also what is thought to be there: adding it again costs little, and
    puts back what somebody else has deleted."""
    steps: list[Step]

    def text(self) -> str:
        """The commands of the transaction; `""` if there is nothing to do."""
        return "\n".join(deletions(self.delete) + additions(self.add))

    def update(self, state: Elements) -> None:
        """`state` after the transaction."""
        for place in self.delete:
            state.pop(place, None)
        state.update(self.add)


def judge(state: Mapping[Place, str], steps: Sequence[Step], *, overwrite: bool = False, of: Callable[[Op], Elements] = elements) -> Change:
    """What the steps, in order, would do to `state`, where an op is made true by what `of` says.

    An element that is there with another value is KernelError (EEXIST), or with `overwrite` gets the new one. `Remove` takes only what has
    the op's own value: a port that leads elsewhere by now is somebody else's.
    """
    after: dict[Place, str | None] = {}
    changing: list[Step] = []
    for step in steps:
        removing = isinstance(step, Remove)
        differs = False
        for place, value in of(step.op if isinstance(step, Remove) else step).items():
            present = after[place] if place in after else state.get(place)
            if removing:
                if present != value:
                    continue
                after[place] = None
            else:
                if present not in (None, value) and not overwrite:
                    raise KernelError(errno.EEXIST, _words(step), f"{place.key} in {place.set} leads to {present} already, not to {value}")
                after[place] = value
            differs |= present != after[place]
        if differs:
            changing.append(step)
    return Change(
        delete=[place for place, value in after.items() if place in state and state[place] != value],
        add={place: value for place, value in after.items() if value is not None},
        steps=changing,
    )


def additions(state: Mapping[Place, str]) -> list[str]:
    """nft commands, one per set."""
    texts = ((place.set, f"{place.key} : {value}" if value else place.key) for place, value in state.items())
    return _commands("add", texts)


def deletions(places: Iterable[Place]) -> list[str]:
    return _commands("delete", places)


def _network(op: Isolate) -> Elements:
    bridge = _interface(op.bridge)
    found = {
        Place("inet netplug bridges", bridge): "",
        Place(f"inet netplug {'self' if op.icc else 'apart'}", f"{bridge} . {bridge}"): "",
    }
    if op.internal:
        found[Place("inet netplug internal", bridge)] = ""
    else:
        found[Place("inet netplug net_in", f"ipv4 . {bridge}")] = VERDICTS[op.mode4]
        found[Place("inet netplug net_in", f"ipv6 . {bridge}")] = VERDICTS[op.mode6]
    for interface in op.trusted:
        found[Place("inet netplug trusted", f"{_interface(interface)} . {bridge}")] = ""
    for subnet in op.subnets:
        prefix = _prefix(subnet)
        found[_inet("same", subnet, f"{prefix} . {prefix}")] = ""
    return found


def _masqueraded(op: Masquerade) -> Elements:
    if not op.source:
        return {_inet("masq", op.subnet, _prefix(op.subnet)): ""}
    if _version(op.source) != _version(op.subnet):
        raise InvalidArgument(f"cannot give {op.subnet} the source {op.source}: NAT does not change the IP version")
    return {_inet("snat", op.subnet, _prefix(op.subnet)): op.source}


def _guarded(op: Guard) -> Elements:
    port = _interface(op.link)
    found: Elements = {}
    if op.antispoof:
        chain = "guard" if op.icc else "guard_icc"
        mac = op.mac.lower()
        found[Place("bridge netplug epmac", f"{port} . {mac}")] = ""
        for address in (*op.addresses, link_local(mac)):
            place = _versioned("bridge netplug ep", address, f"{port} . {mac} . {address}")
            if ":" not in address:
                found[place] = "accept" if op.icc else "goto icc"
            else:
                found[place] = ""
                number = f"{int.from_bytes(socket.inet_pton(socket.AF_INET6, address)):#x}"
                found[Place("bridge netplug nd", f"{port} . {mac} . {number}")] = ""
    elif op.icc:
        return {}
    else:
        chain = "icc"
    if not op.icc:
        found[Place("bridge netplug gw", f"{port} . {op.bridge_mac.lower()}")] = ""
    found[Place("bridge netplug ports", port)] = f"goto {chain}"
    return found


def link_local(mac: str) -> str:
    """The address that a kernel gives an interface with that MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + bytes(6) + identifier)


def _published(op: Publish) -> Elements:
    """One element; but a range whose ports get other numbers has no form of its own, and takes one for each port.

    A range and a single port in it are in different maps, and no conflict here: the sockets that hold host ports decide whose they are.
    """
    wildcard = op.host_ip in ("", "0.0.0.0", "::")
    if op.host_ip and _version(op.host_ip) != _version(op.address):
        raise InvalidArgument(f"cannot publish {op.address} on {op.host_ip}: NAT does not change the IP version")
    suffix, start = ("any", op.protocol) if wildcard else ("", f"{op.host_ip} . {op.protocol}")
    if op.count > 1 and op.host_port == op.port:
        return {_inet("pub", op.address, f"{start} . {_ports(op.port, op.count)}", f"{suffix}r"): op.address}
    return {
        _inet("pub", op.address, f"{start} . {op.host_port + offset}", suffix): f"{op.address} . {op.port + offset}"
        for offset in range(op.count)
    }


def _ports(first: int, count: int) -> str:
    return f"{first}-{first + count - 1}" if count > 1 else f"{first}"


def _inet(name: str, address: str, key: str, suffix: str = "") -> Place:
    return _versioned(f"inet netplug {name}", address, key, suffix)


def _versioned(name: str, address: str, key: str, suffix: str = "") -> Place:
    return Place(f"{name}{_version(address)}{suffix}", key)


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _prefix(subnet: str) -> str:
    """nft prints a subnet of one address without its length."""
    return subnet.removesuffix("/128" if ":" in subnet else "/32")


def _interface(name: str) -> str:
    """Quoted. nft has no way to write a `"`, and takes a `*` at the end for any ending."""
    if '"' in name or "*" in name or "\\" in name:
        raise InvalidArgument(f"interface name {name!r} cannot be used in firewall rules")
    return f'"{name}"'


def _words(step: Step) -> str:
    match step:
        case Publish(protocol=protocol, host_ip=host_ip, host_port=port, count=count):
            host_ip = f"[{host_ip}]" if ":" in host_ip else host_ip or "0.0.0.0"
            return f"publish {host_ip}:{_ports(port, count)}/{protocol}"
        case _:
            return type(step).__name__


def _commands(verb: str, texts: Iterable[tuple[str, str]]) -> list[str]:
    by_set: dict[str, list[str]] = {}
    for name, text in texts:
        by_set.setdefault(name, []).append(text)
    return [f"{verb} element {name} {{ {', '.join(part)} }}" for name, found in by_set.items() for part in _parts(found)]


def _parts(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _PER_COMMAND):
        yield texts[start : start + _PER_COMMAND]
