"""Packets of one link, copied to whoever may see them: packet(7). Nothing is changed by it, the link is not even made promiscuous.

So each packet is seen where it really passes: a bridge's own link has what the host takes part in, its ports have what their containers do.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from typing import NamedTuple

from netplug.kernel import bpf, namespaces
from netplug.kernel.syscalls import asked

ETHERNET, RAW_IP = 1, 101
"""LINKTYPE_ETHERNET, LINKTYPE_RAW (https://www.tcpdump.org/linktypes.html): what a packet begins with."""
WHOLE = 262144
"""Bytes that hold every packet: with segmentation left to the hardware, there are some of far more than the MTU."""

_ETH_P_ALL = 3
_SIOCGIFNAME, _SIOCGIFHWADDR = 0x8910, 0x8927
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS_NEW = 33, 64
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 6, 8, 23
_PACKET_OUTGOING = 4
_AUXDATA = struct.Struct("=IIIHHHH")  # status, length, captured, mac, net, vlan_tci, vlan_tpid
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_TIME, _STATISTICS = struct.Struct("=qq"), struct.Struct("=II")
_ANCILLARY = socket.CMSG_SPACE(_TIME.size) + socket.CMSG_SPACE(_AUXDATA.size)
_BUFFER = 16 << 20
"""Bytes that wait for us, at most; they are used only as packets do wait."""
_ENDED = frozenset({errno.ENETDOWN, errno.ENODEV, errno.ENXIO})


class Seen(NamedTuple):
    """A packet: when (nanoseconds since 1970, by the kernel), its bytes as far as they were kept, its length, whether it goes out."""

    time: int
    data: bytes
    length: int
    outgoing: bool


class Tap:
    """Opened in the namespace at a path, it stays there; what came before `open` has returned may be missing."""

    def __init__(self, namespace: str, index: int) -> None:
        """KernelError where there is no such link."""
        self.namespace, self.index = namespace, index
        self._buffer = bytearray(WHOLE)
        self._view = memoryview(self._buffer)
        with namespaces.entered(namespace), asked("open a packet socket"):
            self.name = socket.if_indextoname(index)
            self._kind = self._hardware()
            self.linktype = ETHERNET if self._kind in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK) else RAW_IP
            # Protocol 0: no packet passes before the filter is there.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW if self.linktype == ETHERNET else socket.SOCK_DGRAM, 0)

    def open(self, program: bytes) -> None:
        """Packets come from now on that the program keeps, as many bytes of each as it returns."""
        to = self._socket
        with asked(f"capture on {self.name}"):
            bpf.attach_assembled(to, program)
            to.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            to.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS_NEW, 1)
            to.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            if self._kind == _ARPHRD_LOOPBACK:
                # Each packet would be seen twice, as it leaves and as it comes in.
                to.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            to.setblocking(False)
            to.bind((self.name, _ETH_P_ALL))

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, most: int) -> tuple[list[Seen], bool]:
        """What waits, at most so many; and whether that was all. KernelError once where the link went down or is gone."""
        found: list[Seen] = []
        with asked(f"capture on {self.name}"):
            for _ in range(most):
                try:
                    # MSG_TRUNC is not asked for: the length on the wire comes with the auxiliary data.
                    size, ancillary, _, sender = self._socket.recvmsg_into([self._buffer], _ANCILLARY)
                except BlockingIOError:
                    return found, True
                found.append(self._seen(size, ancillary, sender[2]))
        return found, False

    def _seen(self, size: int, ancillary: list[tuple[int, int, bytes]], kind: int) -> Seen:
        time, length, tag = 0, size, b""
        for level, what, content in ancillary:
            if level == socket.SOL_SOCKET and what == _SO_TIMESTAMPNS_NEW:
                seconds, nanoseconds = _TIME.unpack_from(content)
                time = seconds * 1_000_000_000 + nanoseconds
            elif level == _SOL_PACKET and what == _PACKET_AUXDATA:
                status, length, _, _, _, tci, tpid = _AUXDATA.unpack_from(content)
                if status & _VLAN_VALID:
                    tag = struct.pack("!HH", tpid if status & _VLAN_TPID_VALID else 0x8100, tci)
        data = bytes(self._view[:size])
        if tag:  # the kernel has taken it out
            data, length = data[:12] + tag + data[12:], length + len(tag)
        return Seen(time, data, length, kind == _PACKET_OUTGOING)

    def counts(self) -> tuple[int, int]:
        """Packets that the filter kept, and how many of these were dropped for want of room, since this was asked last."""
        kept, dropped = _STATISTICS.unpack(self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
        return kept, dropped

    def exists(self) -> bool:
        """Whether its link is still there. The namespace need not be known by its path any more."""
        try:
            fcntl.ioctl(self._socket, _SIOCGIFNAME, struct.pack("16sI20x", b"", self.index))
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()

    def _hardware(self) -> int:
        """ARPHRD_… of the link (netdevice(7))."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, _SIOCGIFHWADDR, struct.pack("16s24x", self.name.encode()))
        return int(struct.unpack_from("=H", answer, 16)[0])


def is_end(code: int) -> bool:
    """Whether a read failed because the link is down or gone."""
    return code in _ENDED
