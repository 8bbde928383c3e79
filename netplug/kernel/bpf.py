"""Classic BPF programs on sockets (linux/filter.h): what the kernel need not wake us for.

A program is a sequence of instructions and labels; `"keep"` and `"drop"` are labels that every program has at its end. A load takes bytes
for network order, while netlink's numbers are in the host's: constants to compare with go through `half` and `word`.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

_SO_ATTACH_FILTER = 26
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x30, 0x28, 0x20, 0x15, 0x45, 0x06
_SET, _SET_INDEX, _COPY_TO_INDEX, _LOAD_WORD_AT_INDEX = 0x00, 0x01, 0x07, 0x40
_FIND_ATTRIBUTE = 0xFFFFF000 + 12  # SKF_AD_OFF + SKF_AD_NLATTR: where there is one of the type in X, from A on; 0: nowhere
_KEEP_ALL = 0xFFFFFFFF


class Instruction(NamedTuple):
    code: int
    value: int
    then: str = ""
    """Label to go on at where a comparison holds, `otherwise` where it does not; `""`: the next instruction."""
    otherwise: str = ""


Program: TypeAlias = Sequence[Instruction | str]
"""A string is a label. Jumps lead forwards only."""


def load_byte(offset: int) -> Instruction:
    return Instruction(_LOAD_BYTE, offset)


def load_half(offset: int) -> Instruction:
    return Instruction(_LOAD_HALF, offset)


def load_word(offset: int) -> Instruction:
    return Instruction(_LOAD_WORD, offset)


def load_number(kind: int, start: int, missing: str) -> tuple[Instruction, ...]:
    """The 32-bit value of the first netlink attribute of that type from `start` on; where there is none, on at that label."""
    return (
        Instruction(_SET, start),
        Instruction(_SET_INDEX, kind),
        Instruction(_LOAD_WORD, _FIND_ATTRIBUTE),
        equal(0, missing),
        Instruction(_COPY_TO_INDEX, 0),
        Instruction(_LOAD_WORD_AT_INDEX, 4),
    )


def equal(value: int, then: str = "", otherwise: str = "") -> Instruction:
    """Whether what was loaded last is `value`."""
    return Instruction(_JUMP_EQUAL, value, then, otherwise)


def has(bits: int, then: str = "", otherwise: str = "") -> Instruction:
    """Whether any of `bits` is set in it."""
    return Instruction(_JUMP_SET, bits, then, otherwise)


def returned(count: int) -> bytes:
    """A program, assembled, that keeps the first so many bytes of everything."""
    return struct.pack("=HBBI", _RETURN, 0, 0, count)


half = socket.htons
word = socket.htonl


def assemble(program: Program) -> bytes:
    """As an array of `struct sock_filter`."""
    lines = [*program, "keep", Instruction(_RETURN, _KEEP_ALL), "drop", Instruction(_RETURN, 0)]
    places: dict[str, int] = {}
    code: list[Instruction] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(code)
        else:
            code.append(line)

    def jump(position: int, label: str) -> int:
        return places[label] - position - 1 if label else 0

    return b"".join(
        struct.pack("=HBBI", line.code, jump(at, line.then), jump(at, line.otherwise), line.value) for at, line in enumerate(code)
    )


def attach(to: socket.socket, program: Program) -> None:
    """In place of any program that is there."""
    attach_assembled(to, assemble(program))


def attach_assembled(to: socket.socket, packed: bytes) -> None:
    buffer = ctypes.create_string_buffer(packed, len(packed))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(packed) // 8, ctypes.addressof(buffer)))
