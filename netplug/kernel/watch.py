"""Hears what others take away, in the host's namespace and in the sandboxes'.

Two netlink sockets hear all namespaces that have a number in ours (NETLINK_LISTEN_ALL_NSID, netlink(7)); `follow` gives a sandbox one.
Most of what we do ourselves is kept away by filters in the kernel: what comes rather than goes, and transactions of our own nftables
contexts. The rest of ours is for those to drop who know the records.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import struct
from collections import defaultdict
from collections.abc import Callable

from netplug.kernel import bpf, losses, netlink
from netplug.kernel.firewall import processes
from netplug.kernel.losses import UNKNOWN, Loss
from netplug.kernel.namespaces import open_descriptor
from netplug.kernel.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Message, Refused
from netplug.kernel.syscalls import asked
from netplug.plan import HOST

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 1, 8
_SO_RCVBUFFORCE = 33
_BUFFER = 16 << 20
_USERSOCK = 2
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_FAMILY = bytes(4)  # struct rtgenmsg
_NSID = struct.Struct("=i")

_READS_PER_TURN = 100
"""After so many datagrams the loop may do something else: a bridge that goes with a thousand ports tells of each."""
_MOST_PORTS = 8
"""So many sockets of our own the filter knows; by others' messages we read the pid."""


class Watch:
    """Of the namespace in which `start` is called, and of those that are followed."""

    def __init__(self) -> None:
        self.lost: Callable[[Loss], None] = lambda loss: None
        """Called with each loss."""
        self._paths: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._open: dict[str, list[bytes]] = defaultdict(list)
        """What has been heard of a transaction; whose it was is told last."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        with asked("listen for what others change"):
            self._pid = _own_pid()
            # A process's first socket of a family has the pid for its port; the filter learns of others as they are seen.
            self._ports = [self._pid]
            self._lookup = netlink.Socket()
            self._routes = _listener(NETLINK_ROUTE, losses.ROUTE_GROUPS, losses.ROUTE_FILTER)
            self._tables = _listener(NETLINK_NETFILTER, losses.NFT_GROUPS, losses.nft_filter(self._ports))
        self._loop.add_reader(self._routes, self._read, self._routes, self._take_route)
        self._loop.add_reader(self._tables, self._read, self._tables, self._take_table)

    def close(self) -> None:
        for listener in (self._routes, self._tables):
            self._loop.remove_reader(listener)
            listener.close()
        self._lookup.close()

    def follow(self, path: str) -> None:
        """Hear of the namespace at `path` too; nothing happens where there is none."""
        try:
            descriptor = open_descriptor(path)
        except OSError:
            return
        try:
            number = self._number(descriptor)
        finally:
            os.close(descriptor)
        if number is not None:
            self.forget(path)
            self._paths[number], self._numbers[path] = path, number

    def forget(self, path: str) -> None:
        number = self._numbers.pop(path, None)
        if number is not None and self._paths.get(number) == path:
            del self._paths[number]

    def _number(self, descriptor: int) -> int | None:
        """What our namespace calls that one; it gets a number if it has none, as a veth's other end does by itself."""
        wanted = netlink.number(_NETNSA_FD, descriptor)
        try:
            number = self._known_number(wanted)
            if number is None:
                self._lookup.send([Message(_RTM_NEWNSID, _FAMILY + netlink.attribute(_NETNSA_NSID, _NSID.pack(-1)) + wanted)])
                number = self._known_number(wanted)
        except Refused:
            return None  # a file that is no namespace
        return number

    def _known_number(self, wanted: bytes) -> int | None:
        answer = self._lookup.get(Message(_RTM_GETNSID, _FAMILY + wanted))
        (number,) = _NSID.unpack(netlink.find_attribute(answer, len(_FAMILY), _NETNSA_NSID))
        return int(number) if number >= 0 else None

    def _read(self, listener: socket.socket, take: Callable[[str, bytes], None]) -> None:
        for _ in range(_READS_PER_TURN):
            try:
                data, notes, _, _ = listener.recvmsg(1 << 16, 64)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._open.clear()
                self.lost(UNKNOWN)
                continue
            number = _number(notes)
            namespace = HOST if number is None else self._paths.get(number)
            if namespace is not None:
                take(namespace, data)

    def _take_route(self, namespace: str, data: bytes) -> None:
        for message in netlink.parse(data):
            if message.port != self._pid and (loss := losses.route_loss(namespace, message)) is not None:
                self.lost(loss)

    def _take_table(self, namespace: str, data: bytes) -> None:
        if not losses.ends_transaction(data):
            self._open[namespace].append(data)
            return
        transaction = self._open.pop(namespace, [])
        port, pid, name = losses.author(data)
        if pid == self._pid or os.path.exists(f"/proc/self/task/{pid}"):  # the kernel tells threads apart
            if namespace == HOST:  # in a sandbox each change has a socket of its own
                self._learn(port)
        elif not processes.is_ours(pid):
            for loss in losses.table_losses(namespace, transaction, f"{name} (pid {pid})"):
                self.lost(loss)

    def _learn(self, port: int) -> None:
        """A socket of ours that the filter did not know."""
        if port not in self._ports:
            self._ports = [self._pid, *self._ports[1:][1 - _MOST_PORTS :], port]
            bpf.attach(self._tables, losses.nft_filter(self._ports))


def _listener(family: int, groups: tuple[int, ...], program: bpf.Program) -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        listener.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
        bpf.attach(listener, program)
        # Not the port that the kernel would choose: that is our pid, by which the filter knows our nftables contexts.
        listener.bind((random.randrange(1 << 31, 1 << 32), 0))
        for group in groups:
            listener.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except BaseException:
        listener.close()
        raise
    return listener


def _number(notes: list[tuple[int, int, bytes]]) -> int | None:
    """Which namespace a datagram is about; None: the socket's own."""
    for level, kind, value in notes:
        if (level, kind) == (_SOL_NETLINK, _LISTEN_ALL_NSID):
            return int(_NSID.unpack(value)[0])
    return None


def _own_pid() -> int:
    """As the machine counts, also in a pid namespace: what the kernel calls a process's first netlink socket of a family."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _USERSOCK) as probe:
        probe.bind((0, 0))
        return int(probe.getsockname()[0])
