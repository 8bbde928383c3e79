"""/etc/hosts and /etc/hostname of a container, by Docker's rules."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from io import FileIO
from pathlib import Path

from netplug.errors import InvalidArgument

LOCAL = (("127.0.0.1", "localhost"),)
LOCAL6 = (
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("ff00::0", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
Line = tuple[str, str]
"""An address, and the names it has, parted by spaces."""


def hosts(*parts: Iterable[Line], ipv6: bool = True) -> str:
    """The file: the local names, then the given lines in order. Without `ipv6` no line has an IPv6 address."""
    lines = [*LOCAL, *LOCAL6, *(line for part in parts for line in part)]
    return "".join(f"{address}\t{names}\n" for address, names in lines if ipv6 or ":" not in address)


def own_lines(addresses: Iterable[str], hostname: str, domainname: str) -> list[Line]:
    """The container's own name at each of its addresses: the full name, and the part before the first dot."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    short = full.partition(".")[0]
    names = full if short == full else f"{full} {short}"
    return [(address.partition("/")[0], names) for address in addresses if address]


def extra_lines(entries: Sequence[str], gateways: Callable[[], Sequence[str]]) -> list[Line]:
    """`--add-host name:address`; `gateways` says what `host-gateway` stands for. InvalidArgument for what is no such pair."""
    lines: list[Line] = []
    for entry in entries:
        name, separator, address = entry.partition(":")
        if not separator or not name or not address:
            raise InvalidArgument(f'bad format for add-host: "{entry}"')
        lines += [(one, name) for one in (gateways() if address == "host-gateway" else (address,))]
    return lines


def write_in_place(path: Path, text: str) -> bool:
    """Give the file this content, keeping its inode: a container has it bind-mounted. True if that changed it.

    Nor is it emptied first: ext4 would have whoever closes it afterwards wait until its blocks are on their way to the disk.
    """
    data = text.encode()
    try:
        with open(path, "r+b", buffering=0) as file:
            if file.read() == data:
                return False
            _overwrite(file, data)
    except FileNotFoundError:
        path.write_bytes(data)
        path.chmod(0o644)
    return True


def _overwrite(file: FileIO, data: bytes) -> None:
    file.seek(0)
    if file.write(data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    file.truncate()


class ManagedFile:
    """A hosts file whose lines we know: lines that were added in the container are kept when ours change."""

    def __init__(self, path: Path) -> None:
        self.path, self._ours = path, path.with_name(f"{path.name}.ours")

    def write(self, text: str) -> None:
        """A fresh file, whatever was in it."""
        write_in_place(self.path, text)
        write_in_place(self._ours, text)

    def refresh(self, text: str) -> None:
        """Our lines become these."""
        data = text.encode()
        try:
            with open(self._ours, "r+b", buffering=0) as ours:
                before = ours.read()
                if before == data:
                    return
                with open(self.path, "r+b", buffering=0) as file:
                    known = {*before.splitlines(), *data.splitlines()}
                    foreign = [line + b"\n" for line in file.read().splitlines() if line not in known]
                    _overwrite(file, data + b"".join(foreign))
                _overwrite(ours, data)
        except FileNotFoundError:
            return
