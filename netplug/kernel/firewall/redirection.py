"""What of the redirection of names is in a sandbox, read by raw netlink (linux/netfilter/nf_tables.h).

A restart looks at every sandbox; libnftables takes 0.6 ms for what two small dumps tell in 0.1.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator

from netplug.kernel.firewall.elements import PROTOCOLS, Elements, Place, elements
from netplug.kernel.firewall.ruleset import SANDBOX_PRIORITY
from netplug.kernel.netlink import Message, Refused, Socket, attribute, find_attribute, find_nested, nested, parse_attributes, text
from netplug.plan import DnsRedirect

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GETCHAIN, _GETRULE, _GETSETELEM = _SUBSYSTEM | 4, _SUBSYSTEM | 7, _SUBSYSTEM | 13
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_USE = 1, 3, 4, 6
"""The last is how many rules there are."""
_HOOK_PRIORITY = 2
_PRIORITY = struct.Struct("!i")
_RULE_TABLE, _RULE_CHAIN = 1, 2
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM = 1
_ELEM_KEY, _ELEM_DATA = 1, 2
_DATA_VALUE = 1
_INFO = struct.Struct("=BBH")  # family, version, resource
_KEY = struct.Struct("!4sB3xH2x")
_VALUE = struct.Struct("!H")
_IPV4 = _INFO.pack(socket.AF_INET, 0, 0)
_ATTRIBUTE = struct.Struct("=HH")
_TABLE = "netplug"
_NAMES = ("output", "input")
_MAPS = ("dns", "answers")
_QUESTIONS = f"ip {_TABLE} dns"
_CHAINS = [Message(_GETCHAIN, _IPV4 + text(_CHAIN_TABLE, _TABLE) + text(_CHAIN_NAME, name)) for name in _NAMES]
_NUMBERS = {name: number for number, name in PROTOCOLS.items()}


def installed(netlink: Socket) -> Elements:
    """The elements of both maps, read by a NETLINK_NETFILTER socket; none where a rule that uses them is missing, or comes too late."""
    try:
        if _priorities(netlink) != dict.fromkeys(_NAMES, SANDBOX_PRIORITY):
            return {}
        if not all(netlink.dump(Message(_GETRULE, _IPV4 + text(_RULE_TABLE, _TABLE) + text(_RULE_CHAIN, name))) for name in _NAMES):
            return {}
        return {place: value for name in _MAPS for body in netlink.dump(_elements_of(name)) for place, value in _elements(name, body)}
    except Refused as refused:
        if refused.errno != errno.ENOENT:
            raise
        return {}


def holds(netlink: Socket, op: DnsRedirect) -> bool:
    """Whether all is there that makes it true, asked in one system call."""
    wanted = [(_question(place), _VALUE.pack(int(value))) for place, value in elements(op).items()]
    try:
        told = netlink.ask([*_CHAINS, *(question for question, _ in wanted)])
    except Refused as refused:
        if refused.errno != errno.ENOENT:
            raise
        return False
    chains, values = told[: len(_CHAINS)], told[len(_CHAINS) :]
    return all(_leads(chain) for (chain,) in chains) and all(
        _value(body) == value for (_, value), (body,) in zip(wanted, values, strict=True)
    )


def pruned(state: Elements) -> Elements:
    """Without the answers from ports that no question is led to any more."""
    led = {f"{place.key.rpartition(' . ')[0]} . {port}" for place, port in state.items() if place.set == _QUESTIONS}
    return {place: value for place, value in state.items() if place.set == _QUESTIONS or place.key in led}


def udp_ports(state: Elements) -> list[int]:
    """Where the sandbox's resolver listens."""
    return [int(port) for place, port in state.items() if place.set == _QUESTIONS and " udp " in place.key]


def _value(body: bytes) -> bytes:
    """Of the one element that is told."""
    return find_nested(body, _INFO.size, _LIST_ELEMENTS, _LIST_ELEM, _ELEM_DATA, _DATA_VALUE)


def _elements_of(name: str, more: bytes = b"") -> Message:
    return Message(_GETSETELEM, _IPV4 + text(_LIST_TABLE, _TABLE) + text(_LIST_SET, name) + more)


def _question(place: Place) -> Message:
    """That asks for one element."""
    element = nested(_LIST_ELEM, nested(_ELEM_KEY, attribute(_DATA_VALUE, _pack_key(place))))
    return _elements_of(place.set.rpartition(" ")[2], nested(_LIST_ELEMENTS, element))


def _pack_key(place: Place) -> bytes:
    address, protocol, port = place.key.split(" . ")
    return _KEY.pack(socket.inet_aton(address), _NUMBERS[protocol], int(port))


def _leads(chain: bytes) -> bool:
    """Whether it is asked early enough, and has a rule."""
    priority = find_nested(chain, _INFO.size, _CHAIN_HOOK, _HOOK_PRIORITY)
    return priority == _PRIORITY.pack(SANDBOX_PRIORITY) and any(find_attribute(chain, _INFO.size, _CHAIN_USE))


def _priorities(netlink: Socket) -> dict[str, int]:
    """Of our chains, by name. A kernel before 6.4 tells all chains of the family, whatever table is asked for."""
    hooked = {}
    for body in netlink.dump(Message(_GETCHAIN, _IPV4 + text(_CHAIN_TABLE, _TABLE))):
        found = parse_attributes(body, _INFO.size)
        if found.get(_CHAIN_TABLE) == b"netplug\0" and _CHAIN_HOOK in found:
            priority = parse_attributes(found[_CHAIN_HOOK])[_HOOK_PRIORITY]
            hooked[found[_CHAIN_NAME].rstrip(b"\0").decode()] = int(_PRIORITY.unpack(priority)[0])
    return hooked


def _elements(name: str, body: bytes) -> Iterator[tuple[Place, str]]:
    listed = parse_attributes(body, _INFO.size).get(_LIST_ELEMENTS, b"")
    for element in _each(listed):
        found = parse_attributes(element)
        address, protocol, port = _KEY.unpack_from(parse_attributes(found[_ELEM_KEY])[_DATA_VALUE])
        (value,) = _VALUE.unpack_from(parse_attributes(found[_ELEM_DATA])[_DATA_VALUE])
        key = f"{ipaddress.IPv4Address(address)} . {PROTOCOLS.get(protocol, protocol)} . {port}"
        yield Place(f"ip {_TABLE} {name}", key), str(value)


def _each(listed: bytes) -> Iterator[bytes]:
    """The values of a list, whose attributes all have one type."""
    offset = 0
    while offset + 4 <= len(listed):
        length, _ = _ATTRIBUTE.unpack_from(listed, offset)
        if length < 4:
            return
        yield listed[offset + 4 : offset + length]
        offset += (length + 3) & ~3
