"""The few system calls for mounts and paths that Python does not have, with errno turned into KernelError or OSError.

Numbers from include/uapi/asm-generic/unistd.h: calls above 423 have one number on every architecture.
"""

from __future__ import annotations

import ctypes
import os

from netplug.errors import KernelError

MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 0x01, 0x02, 0x04, 0x10

_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
AT_FDCWD, _AT_EMPTY_PATH, _MOVE_MOUNT_F_EMPTY_PATH = -100, 0x1000, 4
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_RDONLY, _MS_PRIVATE = 1, 1 << 18
_AT_SYMLINK_NOFOLLOW, _STATX_ATTR_MOUNT_ROOT = 0x100, 0x2000

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _MountAttr(ctypes.Structure):
    _fields_ = [("set", ctypes.c_uint64), ("clear", ctypes.c_uint64), ("propagation", ctypes.c_uint64), ("userns_fd", ctypes.c_uint64)]


def openat2(folder: int, path: str, flags: int, resolve: int) -> int:
    """Open `path` below an open folder under the kernel's own rules of resolution (openat2(2)); OSError as os.open raises it."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    result = _libc.syscall(_OPENAT2, folder, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), path)
    return int(result)


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode()):
        raise KernelError(ctypes.get_errno(), f"mount {kind} on {target}")


def bind_read_only(source: str, target: str) -> None:
    """Bind `source` (without the mounts below it) on `target`, read-only and private from the first moment on.

    A bind mount by mount(2) is writable until it is remounted; here the copy of the tree is made read-only before it is put in place.
    """
    tree = _libc.syscall(_OPEN_TREE, AT_FDCWD, os.fsencode(source), ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC))
    if tree < 0:
        raise KernelError(ctypes.get_errno(), f"open_tree {source}")
    try:
        attributes = _MountAttr(_MOUNT_ATTR_RDONLY, 0, _MS_PRIVATE, 0)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        if _libc.syscall(_MOUNT_SETATTR, tree, b"", ctypes.c_uint(_AT_EMPTY_PATH), ctypes.byref(attributes), size):
            raise KernelError(ctypes.get_errno(), f"mount_setattr of {source}")
        flags = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
        if _libc.syscall(_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), flags):
            raise KernelError(ctypes.get_errno(), f"move_mount of {source} to {target}")
    finally:
        os.close(tree)


def unmount(target: str) -> None:
    if _libc.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW):
        raise KernelError(ctypes.get_errno(), f"umount {target}")


def is_mount_point(path: str) -> bool:
    """Whether something is mounted right there; also true for bind mounts within one file system. statx(2), Linux 5.8."""
    result = (ctypes.c_uint64 * 32)()
    if _libc.statx(AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, 0, ctypes.byref(result)):
        return False
    # struct statx: two 32-bit words (mask, block size), then the attributes.
    return bool(result[1] & _STATX_ATTR_MOUNT_ROOT)
