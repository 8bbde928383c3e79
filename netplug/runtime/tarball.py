"""Unpack a root file system from a stream, safely, and count what was in it.

GNU tar does the unpacking: it takes leading slashes off, refuses names with `..`, and makes symbolic links only after everything else, so
that no member is written through one. Its input must be of the kind that it is told, since it cannot seek in a pipe: the magic decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from netplug.errors import InvalidArgument, Unavailable
from netplug.runtime.programs import ENVIRONMENT, content, ended, memory_file
from netplug.runtime.trees import remove_tree
from netplug.runtime.waiting import writable

_MAGIC = {b"\x1f\x8b": "--gzip", b"\xfd7zXZ\x00": "--xz", b"BZh": "--bzip2", b"\x28\xb5\x2f\xfd": "--zstd"}
_PROGRAMS = {"--gzip": "gzip", "--xz": "xz", "--bzip2": "bzip2", "--zstd": "zstd"}


@dataclass(frozen=True)
class Unpacked:
    folder: Path
    digest: str
    """SHA-256 of the stream, in hex."""
    size: int
    """Bytes of all files."""


async def unpack(stream: AsyncIterator[bytes], parent: Path) -> Unpacked:
    """Into a new folder below `parent`, which is gone again after an error."""
    folder = parent / f"incoming-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o755)
    try:
        digest = await _extract(stream, folder)
        return Unpacked(folder, digest, await asyncio.to_thread(size, folder))
    except BaseException:
        remove_tree(folder)
        raise


async def _extract(stream: AsyncIterator[bytes], folder: Path) -> str:
    digest = hashlib.sha256()
    head = b""
    async for chunk in stream:
        head += chunk
        if len(head) >= 512:
            break
    if not head:
        raise InvalidArgument("the tarball is empty")
    with memory_file() as errors:
        child = _tar(_compression(head), folder, errors)
        assert child.stdin is not None
        try:
            await _feed(child.stdin.fileno(), head, digest)
            async for chunk in stream:
                await _feed(child.stdin.fileno(), chunk, digest)
        except BrokenPipeError:
            # tar has given up, and says why; or it has seen the end of the archive and does not want what follows.
            pass
        finally:
            child.stdin.close()
            code = await ended(child)
        if code:
            raise InvalidArgument(f"the tarball cannot be unpacked: {_first_line(content(errors))}")
    async for chunk in stream:
        digest.update(chunk)
    return digest.hexdigest()


def _tar(compression: list[str], folder: Path, errors: int) -> subprocess.Popen[bytes]:
    options = ["--extract", "--file=-", f"--directory={folder}", "--preserve-permissions", "--same-owner", "--numeric-owner"]
    options += ["--xattrs", "--xattrs-include=*", "--delay-directory-restore", "--warning=no-timestamp"]
    try:
        return subprocess.Popen(
            ["tar", *options, *compression], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors
        )
    except FileNotFoundError as error:
        raise Unavailable("tar is not installed") from error


def _compression(head: bytes) -> list[str]:
    return [option for magic, option in _MAGIC.items() if head.startswith(magic)]


async def _feed(descriptor: int, data: bytes, digest: hashlib._Hash) -> None:
    digest.update(data)
    os.set_blocking(descriptor, False)
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            await writable(descriptor)


def size(folder: Path) -> int:
    """Bytes of all regular files, links counted once, no link followed."""
    total, seen = 0, set[int]()
    stack = [folder]
    while stack:
        with contextlib.suppress(PermissionError), os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False) and entry.inode() not in seen:
                    seen.add(entry.inode())
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _first_line(text: str) -> str:
    return text.partition("\n")[0].removeprefix("tar: ") or "tar gave no reason"
