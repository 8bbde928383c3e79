"""From what a daemon says of a container or a network to sockets on links.

A daemon may have another network and other mounts than we: its namespaces are entered by way of its process, `/proc/<pid>/ns/net` and
`/proc/<pid>/root/<path>`. Links are looked for here, at the moment when they are opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from netplug.capture import filters
from netplug.capture.pcapng import Interface
from netplug.errors import Conflict, KernelError
from netplug.kernel import addresses, facts, links, namespaces
from netplug.kernel.netlink import Socket
from netplug.kernel.tap import Tap
from netplug.plan import HOST

MEMORY = 64 << 20
"""Bytes for packets that wait, of all points together; each has a quarter of a megabyte at least, and 16 at most."""
MOST = 512
"""Points of one capture: their memory is the kernel's, and nobody else can have it meanwhile."""

Said = Mapping[str, Any]
"""A point in the daemon's words."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A link of a namespace, found and not opened yet."""

    namespace: str
    inode: int
    index: int
    name: str
    about: str
    dns: tuple[int, ...] = ()
    tunnel: tuple[str, int, int] | None = None
    """The node's address, VNI and UDP port: only such frames."""

    @property
    def identity(self) -> tuple[int, int]:
        """Of the namespace and of the link in it."""
        return self.inode, self.index


class Open(NamedTuple):
    """A tap, and what its packets are known by."""

    tap: Tap
    interface: Interface


def seats(points: Sequence[Said], pid: int, prefix: str = "", only: Sequence[str] = ()) -> list[Seat]:
    """All links of these points that are up, in that order; `only` these links. Conflict where none is left."""
    found = [seat for point in points for seat in _seats(point, pid, prefix)]
    found = list({seat.identity: seat for seat in reversed(found)}.values())[::-1]
    names = {seat.name.rpartition("/")[2] for seat in found}
    if missing := [name for name in only if name not in names]:
        raise Conflict(f"there is no interface {', '.join(missing)} that is up: there are {', '.join(sorted(names)) or 'none'}")
    if not found:
        raise Conflict("no interface is up there")
    return [seat for seat in found if not only or seat.name.rpartition("/")[2] in only]


def open_taps(found: Sequence[Seat], expression: str, snaplen: int, beside: int = 0) -> list[Open]:
    """All of them, or none: what fails closes those that were opened. `beside`: so many are open already."""
    count = len(found) + beside
    if count > MOST:
        raise Conflict(f"there are {count} interfaces, and {MOST} can be captured on at once: name some (--interface)")
    opened: list[Open] = []
    try:
        for seat in found:
            tap = Tap(seat.namespace, seat.index, MEMORY // count)
            words = filters.in_tunnel(expression, *seat.tunnel[1:]) if seat.tunnel else expression
            opened.append(Open(tap, Interface(seat.name, seat.about, tap.linktype, snaplen, seat.dns, words)))
            program = filters.program(expression, tap.linktype, snaplen)
            tap.open(filters.tunnelled(program, *seat.tunnel) if seat.tunnel else program)
    except BaseException:
        for one in opened:
            one.tap.close()
        raise
    return opened


def _seats(point: Said, pid: int, prefix: str) -> Iterator[Seat]:
    place = _path(str(point["Namespace"]), pid)
    about, owner, dns = str(point["About"]), str(point["Owner"]), tuple(point["DNS"])
    if dns:
        about += f"; DNS at 127.0.0.11 is on port {' and '.join(map(str, dns))} here"
    tunnel = (str(point["Address"]), int(point["VNI"]), int(point["Port"])) if point["VNI"] else None
    try:
        with namespaces.entered(place), Socket() as netlink:
            inode = os.stat("/proc/thread-self/ns/net").st_ino
            for link in _links(netlink, point):
                if link.up:
                    yield Seat(place, inode, link.index, "/".join(filter(None, (prefix, owner, link.name))), about, dns, tunnel)
    except KernelError as error:
        if error.errno in namespaces.MISSING:
            raise Conflict(f"{about}: there is no network namespace at {place}") from None
        raise


def _links(netlink: Socket, point: Said) -> Sequence[links.Link]:
    there = links.dump(netlink)
    if name := str(point["Link"]):
        return [there[name]] if name in there else []
    if address := str(point["Address"]):
        having = {one.index for one in addresses.dump(netlink) if str(one.address.ip) == address}
        return [link for link in there.values() if link.index in having]
    if point["Namespace"] != HOST:
        return sorted(there.values(), key=lambda link: (not link.loopback, link.name))
    return [there[name] for name in _uplinks() if name in there]


def _uplinks() -> list[str]:
    """By which the host reaches the rest of the world; without a default route, whatever it has routes by that is not ours."""
    routes = [route for route in facts.host_routes() if route.link and not route.ours]
    return list(dict.fromkeys(route.link for route in routes if route.default)) or list(dict.fromkeys(route.link for route in routes))


def ended(namespace: str, inode: int) -> bool:
    """Whether the path leads to another namespace by now, or to none. The end of the daemon by whose process it leads says nothing."""
    try:
        return os.stat(namespace).st_ino != inode
    except OSError:
        return not namespace.startswith("/proc/") or os.path.exists("/".join(namespace.split("/")[:3]))


def _path(namespace: str, pid: int) -> str:
    if namespace == HOST:
        return f"/proc/{pid}/ns/net"
    if os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino:
        return namespace
    # /var/run is an absolute link on many hosts: below another root it would lead back to our own /run.
    return f"/proc/{pid}/root{namespace.removeprefix('/var') if namespace.startswith('/var/run/') else namespace}"
