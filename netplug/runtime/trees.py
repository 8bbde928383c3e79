"""Folders that hold what a container or a tarball put there: read them and delete them without being led astray.

A container decides what its symbolic links say, and the `host` image is a mount of `/`. So nothing here joins paths and hopes: reading
resolves links inside the root, deleting never follows a link and never crosses into another mount.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from netplug.errors import NetplugError
from netplug.runtime import mounts
from netplug.runtime.syscalls import AT_FDCWD, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2


def open_inside(root: Path, path: str, flags: int = os.O_RDONLY) -> int:
    """Open `path` as a process whose root directory is `root` would; OSError as os.open raises it."""
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(folder, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(folder)


def read_inside(root: Path, path: str, limit: int = 1 << 20) -> str:
    """A small text file of a root file system; `""` if it is not there or is no regular file."""
    try:
        descriptor = open_inside(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, limit).decode(errors="replace")
    finally:
        os.close(descriptor)


def exists_inside(root: Path, path: str) -> bool:
    try:
        os.close(open_inside(root, path, os.O_PATH))
    except OSError:
        return False
    return True


def remove_tree(path: Path) -> None:
    """Delete a folder of ours with all that is in it; fine if it is gone.

    Refuses, before anything is deleted, if something is mounted on it or below it. What gets mounted meanwhile is not entered either.
    """
    below = mounts.at_or_below(path)
    if below:
        raise NetplugError(f"will not delete {path}: {below[0]} is mounted")
    remove_plain_tree(path)


def remove_plain_tree(path: Path) -> None:
    """The same for a folder where nothing is ever mounted, without looking; a mount would stop it half-way, unentered."""
    with contextlib.suppress(FileNotFoundError):
        top = openat2(AT_FDCWD, str(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, 0)
        try:
            _empty(top)
        finally:
            os.close(top)
        path.rmdir()


def _empty(top: int) -> None:
    """Delete everything in an open folder. Folders inside folders are first moved up into `top`, so that no depth is too deep."""
    while True:
        folders = _delete_files(top)
        if not folders:
            return
        for name in folders:
            _flatten(top, name)


def _flatten(top: int, name: str) -> None:
    """Remove the folder `name` of `top`, after its own folders were removed or moved up beside it under new names."""
    folder = openat2(top, name, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
    try:
        for child in _delete_files(folder):
            try:
                os.rmdir(child, dir_fd=folder)
            except OSError:
                os.rename(child, f".netplug-{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _delete_files(folder: int) -> list[str]:
    """Delete what is no folder; the names of the folders."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            # A conmon that ends takes its sockets away itself.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in found if is_folder]
