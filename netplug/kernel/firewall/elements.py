"""What changes in the firewall: each op is a few elements of the sets and maps that `ruleset` declares. Pure.

An element is named as nft names it: its set (`inet netplug pub4any`) and its key (`tcp . 8080`); its value (`172.20.0.2 . 80`) is `""` in a
set. `Elements` is a whole state; `judge` compares one with what is asked for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from netplug.errors import InvalidArgument, KernelError
from netplug.plan import Direct, DnsRedirect, Guard, Isolate, Masquerade, Op, Publish, Remove, Step

RESOLVER = "127.0.0.11"
PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


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
        case Masquerade(subnet=subnet):
            return {_inet("masq", subnet, _prefix(subnet)): ""}
        case Guard(link=link, bridge_mac=mac):
            port = _interface(link)
            return {
                Place("bridge netplug ports", port): "goto icc",
                Place("bridge netplug gw", f"{port} . {mac.lower()}"): "",
            }
        case Publish():
            return _published(op)
        case Direct(protocol=protocol, address=address, port=number):
            return {_inet("direct", address, f"{address} . {protocol} . {number}"): ""}
        case DnsRedirect(udp_port=udp, tcp_port=tcp):
            return {
                Place("ip netplug dns", f"{RESOLVER} . {protocol} . 53"): f"{RESOLVER} . {port}"
                for protocol, port in (("udp", udp), ("tcp", tcp))
            }
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


def judge(state: Mapping[Place, str], steps: Sequence[Step], *, overwrite: bool = False) -> Change:
    """What the steps, in order, would do to `state`.

    An element that is there with another value is KernelError (EEXIST), or with `overwrite` gets the new one. `Remove` takes only what has
    the op's own value: a port that leads elsewhere by now is somebody else's.
    """
    after: dict[Place, str | None] = {}
    changing: list[Step] = []
    for step in steps:
        removing = isinstance(step, Remove)
        differs = False
        for place, value in elements(step.op if isinstance(step, Remove) else step).items():
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


def from_json(listing: dict[str, Any]) -> Elements:
    """The elements in what `nft -j list table` prints (libnftables-json(5))."""
    found: Elements = {}
    for item in listing["nftables"]:
        for kind in ("set", "map"):
            if kind in item:
                _read_set(item[kind], kind, found)
    return found


def _network(op: Isolate) -> Elements:
    bridge = _interface(op.bridge)
    found = {Place("inet netplug bridges", bridge): ""}
    if op.icc:
        found[Place("inet netplug self", f"{bridge} . {bridge}")] = ""
    if op.internal:
        found[Place("inet netplug internal", bridge)] = ""
    else:
        found[Place("inet netplug net_in", bridge)] = "goto in_nat"
    for subnet in op.subnets:
        prefix = _prefix(subnet)
        found[_inet("same", subnet, f"{prefix} . {prefix}")] = ""
    return found


def _published(op: Publish) -> Elements:
    target = f"{op.address} . {op.port}"
    if op.host_ip in ("", "0.0.0.0", "::"):
        return {_inet("pub", op.address, f"{op.protocol} . {op.host_port}", "any"): target}
    if (":" in op.host_ip) != (":" in op.address):
        raise InvalidArgument(f"cannot publish {op.address} on {op.host_ip}: NAT does not change the IP version")
    return {_inet("pub", op.address, f"{op.host_ip} . {op.protocol} . {op.host_port}"): target}


def _inet(name: str, address: str, key: str, suffix: str = "") -> Place:
    return Place(f"inet netplug {name}{6 if ':' in address else 4}{suffix}", key)


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
        case Publish(protocol=protocol, host_ip=host_ip, host_port=port):
            return f"publish {host_ip or '0.0.0.0'}:{port}/{protocol}"
        case _:
            return type(step).__name__


def _commands(verb: str, texts: Iterable[tuple[str, str]]) -> list[str]:
    by_set: dict[str, list[str]] = {}
    for name, text in texts:
        by_set.setdefault(name, []).append(text)
    return [f"{verb} element {name} {{ {', '.join(found)} }}" for name, found in by_set.items()]


def _read_set(item: dict[str, Any], kind: str, found: Elements) -> None:
    name = f"{item['family']} {item['table']} {item['name']}"
    types = item["type"] if isinstance(item["type"], list) else [item["type"]]
    for element in item.get("elem", ()):
        key, value = element if kind == "map" else (element, None)
        found[Place(name, _read_key(key, types))] = "" if value is None else _read_value(value)


def _read_key(key: Any, types: list[str]) -> str:
    if isinstance(key, dict) and "elem" in key:  # it has a comment, a counter or a time-out
        key = key["elem"]["val"]
    parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
    return " . ".join(_read_part(part, kind) for part, kind in zip(parts, types, strict=True))


def _read_part(part: Any, kind: str) -> str:
    match part:
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{first}-{last}"
    if kind == "ifname":
        return f'"{part}"'
    return PROTOCOLS.get(part, str(part)) if kind == "inet_proto" else str(part)


def _read_value(value: Any) -> str:
    match value:
        case {"concat": parts}:
            return " . ".join(str(part) for part in parts)
        case {"goto": {"target": chain}}:
            return f"goto {chain}"
        case _:
            return str(value)
