"""Notifications that tell of something taken away, as `Loss`, and the filters that let no others through.

Formats: rtnetlink(7), linux/netconf.h, linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from netplug.kernel import bpf, links, netlink
from netplug.kernel.netlink import Reply
from netplug.plan import DOOMED_GROUP, HOST, RETIRED_GROUP, ROUTE_PROTOCOL

Kind: TypeAlias = Literal["link", "port", "address", "route", "sysctl", "table", "unknown"]
"""A port is a link that has left its bridge, or whose bridge has gone."""


class Loss(NamedTuple):
    """What seems to have gone or changed. It may be back by now, or have been ours to take: look before you act."""

    namespace: str
    """Its path, as it was followed; or `HOST`."""
    kind: Kind
    name: str
    """The link's name; the address; the route's gateway, or its destination where it has none; the sysctl's key; `inet netplug`."""
    by: str = ""
    """`nft (pid 4711)`; `""` where the kernel does not tell."""


UNKNOWN = Loss(HOST, "unknown", "")
"""The kernel had more to tell than a socket can hold: anything may have gone."""

ROUTE_GROUPS = (1, 5, 7, 9, 11, 24, 25)
"""RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV4_NETCONF, _IPV6_NETCONF."""
NFT_GROUPS = (7,)
"""NFNLGRP_NFTABLES."""

_RTM_DELADDR, _RTM_DELROUTE, _RTM_NEWNETCONF = 21, 25, 80
_IFA_ADDRESS, _IFA_LOCAL, _RTA_DST, _RTA_GATEWAY = 1, 2, 1, 5
_TABLE_MAIN, _PROTOCOL_KERNEL = 254, 2
_FORWARDING: dict[int, str] = {socket.AF_INET: "net.ipv4.ip_forward", socket.AF_INET6: "net.ipv6.conf.all.forwarding"}

_NEWGEN, _NEWSETELEM, _DELSETELEM = 15, 12, 14
_NFGENMSG = 4
"""Size of struct nfgenmsg: family, version, resource."""
_TABLE, _GEN_PROC_PID, _GEN_PROC_NAME = 1, 2, 3
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
OUR_TABLE = "netplug"

# Offsets in a datagram: nlmsghdr (linux/netlink.h), then ifinfomsg, rtmsg or netconfmsg with its first attribute.
_TYPE, _PORT, _IFI_FLAGS, _IFI_CHANGE, _IFI_ATTRIBUTES, _RTM_TABLE, _RTM_PROTOCOL, _NETCONF_INDEX = 4, 12, 24, 28, 32, 20, 21, 24
_ALL = 0xFFFFFFFF
_LARGEST_PID = 1 << 22
"""PID_MAX_LIMIT (linux/threads.h). A process's first socket has its pid for a port number, further ones have numbers above."""

ROUTE_FILTER: bpf.Program = (
    bpf.load_half(_TYPE),
    bpf.equal(bpf.half(links.RTM_DELLINK), "gone"),
    bpf.equal(bpf.half(_RTM_DELADDR), "keep"),
    bpf.equal(bpf.half(links.RTM_NEWLINK), "link"),
    bpf.equal(bpf.half(_RTM_DELROUTE), "route"),
    bpf.equal(bpf.half(_RTM_NEWNETCONF), "forwarding", "drop"),
    "link",  # one that went down; one that is being made tells all bits as changed
    bpf.load_word(_IFI_FLAGS),
    bpf.has(bpf.word(links.IFF_UP), "drop"),
    bpf.load_word(_IFI_CHANGE),
    bpf.equal(_ALL, "drop"),
    bpf.has(bpf.word(links.IFF_UP), "", "drop"),
    "gone",  # but for those that we have given up ourselves
    *bpf.load_number(links.IFLA_GROUP, _IFI_ATTRIBUTES, missing="keep"),
    bpf.equal(bpf.word(DOOMED_GROUP), "drop"),
    bpf.equal(bpf.word(RETIRED_GROUP), "drop", "keep"),
    "route",  # of the main table, ours or made by the kernel for an address
    bpf.load_byte(_RTM_TABLE),
    bpf.equal(_TABLE_MAIN, "", "drop"),
    bpf.load_byte(_RTM_PROTOCOL),
    bpf.equal(ROUTE_PROTOCOL, "keep"),
    bpf.equal(_PROTOCOL_KERNEL, "keep", "drop"),
    "forwarding",  # of the whole namespace (NETCONFA_IFINDEX_ALL): every new link tells of its own
    bpf.load_word(_NETCONF_INDEX),
    bpf.equal(_ALL, "keep", "drop"),
)


def nft_filter(own_ports: Iterable[int]) -> bpf.Program:
    """All but what came by our own sockets."""
    return (bpf.load_word(_PORT), *(bpf.equal(bpf.word(port), "drop") for port in own_ports))


def route_loss(namespace: str, message: Reply) -> Loss | None:
    """What a message that passed ROUTE_FILTER is about."""
    kind, body = message.kind, message.body
    if kind in (links.RTM_DELLINK, links.RTM_NEWLINK):
        return Loss(namespace, "port" if body[0] == socket.AF_BRIDGE else "link", links.parse_name(body))
    if kind == _RTM_DELADDR:
        packed = netlink.find_attribute(body, 8, _IFA_LOCAL) or netlink.find_attribute(body, 8, _IFA_ADDRESS)
        return Loss(namespace, "address", _address(packed), _process(message.port))
    if kind == _RTM_DELROUTE:
        return Loss(namespace, "route", _route(body), _process(message.port))
    return Loss(namespace, "sysctl", _FORWARDING[body[0]]) if body and body[0] in _FORWARDING else None


def ends_transaction(data: bytes) -> bool:
    """Whether a datagram is the one that says whose transaction it was; it comes last and alone."""
    return data[_TYPE] == _NEWGEN


def author(generation: bytes) -> tuple[int, int, str]:
    """The socket, pid and name of the process behind a transaction."""
    message = netlink.parse(generation)[0]
    found = netlink.parse_attributes(message.body, _NFGENMSG)
    return message.port, int.from_bytes(found.get(_GEN_PROC_PID, b"")), netlink.parse_text(found.get(_GEN_PROC_NAME, b""))


def table_losses(namespace: str, transaction: Iterable[bytes], by: str) -> list[Loss]:
    """The tables that a transaction has touched. Elements are of interest in ours only: some tools add one for each attacker they see."""
    tables: dict[str, None] = {}
    for data in transaction:
        for message in netlink.parse(data):
            name = netlink.parse_text(netlink.find_attribute(message.body, _NFGENMSG, _TABLE))
            if name == OUR_TABLE or message.kind & 0xFF not in (_NEWSETELEM, _DELSETELEM):
                tables[f"{_FAMILIES.get(message.body[0], '')} {name}"] = None
    return [Loss(namespace, "table", table, by) for table in tables]


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed) if len(packed) in (4, 16) else ""


def _route(body: bytes) -> str:
    if gateway := netlink.find_attribute(body, 12, _RTA_GATEWAY):
        return _address(gateway)
    return f"{_address(netlink.find_attribute(body, 12, _RTA_DST))}/{body[1]}"


def _process(port: int) -> str:
    if not 0 < port <= _LARGEST_PID:
        return ""
    try:
        return f"{Path(f'/proc/{port}/comm').read_text().strip()} (pid {port})"
    except OSError:
        return f"pid {port}"
