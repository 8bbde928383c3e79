"""Packets of one link, copied to whoever may see them: packet(7). Nothing is changed by it, the link is not even made promiscuous.

So each packet is seen where it really passes: a bridge's own link has what the host takes part in, its ports have what their containers do.
The kernel writes packets into a ring of blocks that we have mapped (TPACKET_V3, Documentation/networking/packet_mmap.rst) and hands a
block over when it is full, or after `PATIENCE`.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import select
import socket
import struct
from typing import NamedTuple

from netplug.kernel import bpf, namespaces
from netplug.kernel.syscalls import asked

ETHERNET, RAW_IP = 1, 101
"""LINKTYPE_ETHERNET, LINKTYPE_RAW (https://www.tcpdump.org/linktypes.html): what a packet begins with."""
WHOLE = 262144
"""Bytes that hold every packet: with segmentation left to the hardware, there are some of far more than the MTU."""
PATIENCE = 0.02
"""Seconds after which a block is looked at, and handed over if nothing has been added to it since the look before."""

_BLOCK = 1 << 17
_LEAST, _MOST = 2, 128
"""Blocks of a ring. They are the kernel's memory for as long as the tap is open."""

_ETH_P_ALL = 3
_SIOCGIFNAME, _SIOCGIFHWADDR = 0x8910, 0x8927
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _PACKET_IGNORE_OUTGOING = 263, 5, 6, 10, 23
_TPACKET_V3 = 2
_PACKET_OUTGOING = 4
_FRAME = 2048
"""No limit in this version, but it must be said."""
_REQUEST = struct.Struct("=IIIIIII")  # block size, blocks, frame size, frames, patience (ms), private bytes, features
_BLOCK_HEAD = struct.Struct("=8xIII")  # version, offset of private bytes; status, packets, offset of the first one
_STATUS = struct.Struct("=I")  # the block head's, 8 bytes into it
_HEAD = struct.Struct("=IIIIIIHHIIH2x8x10xB")  # next, s, ns, kept, length, status, mac, net, hash, tci, tpid; sockaddr_ll up to its type
_KERNEL, _USER = 0, 1
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_STATISTICS = struct.Struct("=III")  # packets, drops, freezes
_ENDED = frozenset({errno.ENETDOWN, errno.ENODEV, errno.ENXIO})


class Seen(NamedTuple):
    """A packet: when (nanoseconds since 1970, by the kernel), its bytes as far as they were kept, its length, whether it goes out."""

    time: int
    data: bytes
    length: int
    outgoing: bool


class Tap:
    """A packet socket; made in the namespace at a path, it stays there."""

    def __init__(self, namespace: str, index: int, memory: int) -> None:
        """`memory`: bytes for packets that wait to be read. KernelError where there is no such link."""
        self.namespace, self.index = namespace, index
        self._blocks = min(max(memory // _BLOCK, _LEAST), _MOST)
        self._next = 0
        with namespaces.entered(namespace), asked("open a packet socket"):
            self.name = socket.if_indextoname(index)
            self._kind = self._hardware()
            self.linktype = ETHERNET if self._kind in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK) else RAW_IP
            # Protocol 0: no packet passes before the filter is there.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW if self.linktype == ETHERNET else socket.SOCK_DGRAM, 0)
        self._ring: mmap.mmap | None = None

    def open(self, program: bytes) -> None:
        """Packets come from now on that the program keeps, as many bytes of each as it returns."""
        to, size = self._socket, self._blocks * _BLOCK
        with asked(f"capture on {self.name}"):
            bpf.attach_assembled(to, program)
            to.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            request = _REQUEST.pack(_BLOCK, self._blocks, _FRAME, size // _FRAME, int(PATIENCE * 1000), 0, 0)
            to.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
            self._ring = mmap.mmap(to.fileno(), size)
            if self._kind == _ARPHRD_LOOPBACK:
                # Each packet would be seen twice, as it leaves and as it comes in.
                to.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            to.bind((self.name, _ETH_P_ALL))

    def fileno(self) -> int:
        """Readable when a block is there, or an error."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Seen], bool]:
        """The packets of one block, if one is there; and whether another is. KernelError once where the link went down or is gone."""
        assert self._ring is not None
        with asked(f"capture on {self.name}"):
            if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "")
        at = self._next * _BLOCK
        status, count, first = _BLOCK_HEAD.unpack_from(self._ring, at)
        if not status & _USER:
            return [], False
        found = self._packets(at + first, count)
        _STATUS.pack_into(self._ring, at + 8, _KERNEL)
        self._next = (self._next + 1) % self._blocks
        return found, self._filled()[0]

    def waiting(self) -> bool:
        """Whether there are packets that were not read, in a block that is still open or in one that is handed over."""
        handed_over, count = self._filled()
        return handed_over or count > 0

    def wait(self, seconds: float) -> None:
        """Until a block is handed over, but so long at most."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.poll(seconds * 1000)

    def counts(self) -> tuple[int, int]:
        """Packets that the filter kept, and how many of these were dropped for want of room, since this was asked last."""
        kept, dropped, _ = _STATISTICS.unpack(self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
        return kept, dropped

    def exists(self) -> bool:
        """Whether its link is still there. The namespace need not be known by its path any more."""
        try:
            fcntl.ioctl(self._socket, _SIOCGIFNAME, struct.pack("16sI20x", b"", self.index))
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._ring is not None:
            self._ring.close()
        self._socket.close()

    def _filled(self) -> tuple[bool, int]:
        """Of the block that is to be read next: whether it is ours, and how many packets it has."""
        assert self._ring is not None
        status, count, _ = _BLOCK_HEAD.unpack_from(self._ring, self._next * _BLOCK)
        return bool(status & _USER), count

    def _packets(self, at: int, count: int) -> list[Seen]:
        ring, found = self._ring, []
        assert ring is not None
        for _ in range(count):
            behind, seconds, nanoseconds, kept, length, status, mac, _, _, tci, tpid, kind = _HEAD.unpack_from(ring, at)
            data = ring[at + mac : at + mac + kept]
            if status & _VLAN_VALID:  # the kernel has taken it out
                tag = struct.pack("!HH", tpid if status & _VLAN_TPID_VALID else 0x8100, tci)
                data, length = data[:12] + tag + data[12:], length + len(tag)
            found.append(Seen(seconds * 1_000_000_000 + nanoseconds, data, length, kind == _PACKET_OUTGOING))
            at += behind
        return found

    def _hardware(self) -> int:
        """ARPHRD_… of the link (netdevice(7))."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, _SIOCGIFHWADDR, struct.pack("16s24x", self.name.encode()))
        return int(struct.unpack_from("=H", answer, 16)[0])


def is_end(code: int) -> bool:
    """Whether a read failed because the link is down or gone."""
    return code in _ENDED
