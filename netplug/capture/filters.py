"""Filters in tcpdump's language (pcap-filter(7)), compiled by libpcap into programs that the kernel runs.

libpcap is loaded when a filter is given, not before; without it packets are captured all the same, unfiltered.
"""

from __future__ import annotations

import ctypes
import ipaddress
import re
import struct
from collections.abc import Callable
from functools import cache

from netplug.errors import InvalidArgument, Unavailable
from netplug.kernel import bpf
from netplug.kernel.tap import ETHERNET, WHOLE

_LIBRARY = "libpcap.so.0.8"
_DLT = {101: 12}
"""What libpcap calls a linktype inside, where it is another number: LINKTYPE_RAW."""
_ANY_NETMASK = 0xFFFFFFFF

_ABSOLUTE, _INDIRECT, _HEADER_LENGTH = 0x20, 0x40, 0xA0
_LOAD, _LOAD_X, _CLASS, _MODE = 0x00, 0x01, 0x07, 0xE0
_JUMP_ONE, _RETURN_NOTHING = struct.pack("=HBBI", 0x05, 0, 0, 1), bpf.returned(0)
_INSTRUCTION = struct.Struct("=HBBI")

_IPV4, _IPV6, _UDP, _FIRST_BYTE = 0x0800, 0x86DD, 17, 0x45
_FRAGMENT, _VNI_IS_THERE = 0x1FFF, 0x08
_ETHERNET, _UDP_VXLAN = 14, 16
_IP = {4: 20, 6: 40}
"""Bytes of an IP header that has no options."""

Matcher = Callable[[bytes, int], bool]
"""Whether a packet of that length, with as many of its bytes as were kept, is wanted."""


class _Program(ctypes.Structure):
    """struct bpf_program (pcap/bpf.h)."""

    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.c_void_p)]


class _Header(ctypes.Structure):
    """struct pcap_pkthdr (pcap/pcap.h)."""

    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long), ("kept", ctypes.c_uint32), ("length", ctypes.c_uint32)]


def program(expression: str, linktype: int = ETHERNET, snaplen: int = WHOLE) -> bytes:
    """For the kernel: keeps `snaplen` bytes of each packet that the expression (`""`: any) is true of.

    InvalidArgument with libpcap's reason; Unavailable without libpcap.
    """
    if not expression:
        return bpf.returned(snaplen)
    compiled = _compiled(expression, linktype, snaplen)
    return ctypes.string_at(compiled.instructions, compiled.length * _INSTRUCTION.size)


def matcher(expression: str, linktype: int = ETHERNET) -> Matcher:
    """The same for packets that are read from a file."""
    if not expression:
        return lambda data, length: True
    compiled, library = _compiled(expression, linktype, WHOLE), _library()

    def matches(data: bytes, length: int) -> bool:
        return bool(library.pcap_offline_filter(ctypes.byref(compiled), ctypes.byref(_Header(0, 0, len(data), length)), data))

    return matches


def in_tunnel(expression: str, vni: int, port: int) -> str:
    """What `tunnelled` does, in words that libpcap 1.11 understands."""
    return " and ".join(filter(None, (f"udp dst port {port} and vxlan {vni}", f"({expression})" if expression else "")))


def is_of_tunnel(words: str) -> bool:
    """Whether what was captured by this filter are frames of a tunnel."""
    return re.match(r"udp dst port \d+ and vxlan \d+", words) is not None


def content(frame: bytes) -> bytes:
    """The frame that a frame of a tunnel carries."""
    return frame[_ETHERNET + _IP[6 if frame[12:14] == _IPV6.to_bytes(2) else 4] + _UDP_VXLAN :]


def tunnelled(inner: bytes, underlay: str, vni: int, port: int) -> bytes:
    """A program for the link of a node's address `underlay`: of frames in the tunnel `vni`, it keeps those whose content `inner` keeps.

    The inner frame begins where the outer headers end, always at the same byte (no node of ours sends IP options): so `inner` is the
    same program with that number added to wherever it looks. What it counts as a packet's length is the outer one.
    """
    version = ipaddress.ip_address(underlay).version
    udp = _ETHERNET + _IP[version]
    outer = [bpf.load_half(12), bpf.equal(_IPV4 if version == 4 else _IPV6, "", "drop")]
    if version == 4:
        outer += [bpf.load_byte(14), bpf.equal(_FIRST_BYTE, "", "drop"), bpf.load_half(20), bpf.has(_FRAGMENT, "drop")]
    outer += [bpf.load_byte(23 if version == 4 else 20), bpf.equal(_UDP, "", "drop")]
    outer += [bpf.load_half(udp + 2), bpf.equal(port, "", "drop"), bpf.load_byte(udp + 8), bpf.has(_VNI_IS_THERE, "", "drop")]
    outer += [bpf.load_word(udp + 12), bpf.equal(vni << 8, "", "drop")]
    # An assembled program ends in two returns, `keep` and `drop`: the first is made a jump over the second, to the inner program.
    return bpf.assemble(outer)[: -2 * _INSTRUCTION.size] + _JUMP_ONE + _RETURN_NOTHING + _moved(inner, udp + _UDP_VXLAN)


def _moved(packed: bytes, offset: int) -> bytes:
    moved = b""
    for code, then, otherwise, value in _INSTRUCTION.iter_unpack(packed):
        mode, kind = code & _MODE, code & _CLASS
        looks = (kind == _LOAD and mode in (_ABSOLUTE, _INDIRECT)) or (kind == _LOAD_X and mode == _HEADER_LENGTH)
        moved += _INSTRUCTION.pack(code, then, otherwise, value + offset if looks else value)
    return moved


def _compiled(expression: str, linktype: int, snaplen: int) -> _Program:
    library = _library()
    handle = library.pcap_open_dead(_DLT.get(linktype, linktype), snaplen)
    try:
        compiled = _Program()
        if library.pcap_compile(handle, ctypes.byref(compiled), expression.encode(), 1, _ANY_NETMASK):
            reason = library.pcap_geterr(handle).decode(errors="replace")
            raise InvalidArgument(f'filter "{expression}": {reason} (see pcap-filter(7))')
        return compiled
    finally:
        library.pcap_close(handle)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise Unavailable("a filter needs libpcap, which is not here: apt install libpcap0.8") from None
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
    library.pcap_compile.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32]
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = [ctypes.c_void_p]
    library.pcap_close.argtypes = [ctypes.c_void_p]
    library.pcap_offline_filter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
    return library
