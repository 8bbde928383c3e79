"""Links that an engine takes into its container's namespace: whether it has done with them, and what they are called there."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from netplug.errors import KernelError
from netplug.kernel import addresses, links, namespaces
from netplug.kernel.netlink import Socket
from netplug.kernel.syscalls import asked


def find(namespace: str, mac: str, wanted: Collection[str]) -> str:
    """The name of the link there that is up and has all these addresses (with prefixes), or without any, that MAC; `""`: not yet."""
    try:
        with namespaces.entered(namespace), asked("look for a link"), Socket() as netlink:
            up = {link.index: link for link in links.dump(netlink).values() if link.up and not link.loopback}
            assigned = {(one.index, str(one.address)) for one in addresses.dump(netlink)}
    except KernelError as error:
        if error.errno in namespaces.MISSING:
            return ""
        raise
    plain = [str(ipaddress.ip_interface(text)) for text in wanted]
    for index, link in up.items():
        if all((index, text) in assigned for text in plain) and (plain or link.mac == mac):
            return link.name
    return ""


def inside(namespace: str) -> tuple[int, frozenset[str]]:
    """The namespace's cookie, and the names of its links; 0 and none where there is no such namespace."""
    try:
        with namespaces.entered(namespace), asked("look for links"):
            return namespaces.own_cookie(), frozenset(name for _, name in socket.if_nameindex())
    except KernelError as error:
        if error.errno in namespaces.MISSING:
            return 0, frozenset()
        raise


def present(name: str) -> bool:
    """Whether the host has a link of that name."""
    with asked("look for a link"), Socket() as netlink:
        return links.find(netlink, name) is not None
