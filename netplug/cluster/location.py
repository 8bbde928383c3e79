"""Where a cluster's store is: `etcd://HOST:PORT[,HOST:PORT…][/PREFIX]`, the scheme once or, as etcdctl has it, before each member.

What is read as something else than its writer meant makes a second, empty cluster without a word: so it is refused, with the reason.
"""

from __future__ import annotations

import ipaddress
import re

from netplug.errors import InvalidArgument

_NEEDED = "etcd://HOST:PORT[,HOST:PORT…][/PREFIX] is needed"
_SCHEMES = ("etcd", "etcds")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def parse(text: str) -> tuple[list[str], str]:
    """`etcd://10.0.0.1:2379,10.0.0.2/lab` -> the members and `/lab`. InvalidArgument says what is wrong, and no password."""
    if "@" in text:  # a password may stand before it, so nothing of the text is said
        raise InvalidArgument("invalid --store: no user and no @ belong into it; give --store-user NAME[:PASSWORD]")
    try:
        members, prefix = _split(text)
        for member in members:
            _check_member(member)
        _check_prefix(prefix)
    except ValueError as error:
        raise InvalidArgument(f"invalid --store {text}: {error}") from None
    return list(dict.fromkeys(members)), prefix.removesuffix("/")


def _split(text: str) -> tuple[list[str], str]:
    """The members, without scheme, and what follows the last one. ValueError."""
    for character in "?#":
        if character in text:
            raise ValueError(f"it has no options, so {character} has no meaning in it; leave it out")
    scheme, *_ = text.partition("://")
    pieces = [_without_scheme(piece.strip(), scheme) for piece in text.removeprefix(f"{scheme}://").split(",")]
    if scheme not in _SCHEMES or not all(pieces):
        raise ValueError(_NEEDED)
    if any("/" in piece for piece in pieces[:-1]):
        raise ValueError("there is one prefix for all members; write it once, after the last one")
    last, slash, prefix = pieces[-1].partition("/")
    if not last:
        raise ValueError(_NEEDED)
    return [*pieces[:-1], last], slash + prefix


def _without_scheme(piece: str, scheme: str) -> str:
    own, separator, rest = piece.rpartition("://")
    if not separator:
        return piece
    if own not in _SCHEMES:
        raise ValueError(f"{own}:// is not needed before a member; write {scheme}://{rest}")
    if own != scheme:
        raise ValueError(f"{own}:// and {scheme}:// do not go together; write one of them before all members")
    return rest


def _check_member(member: str) -> None:
    port = _port_of_ipv6(member) if member.startswith("[") else _port_of_name(member)
    if port is not None and not (re.fullmatch(r"\d{1,5}", port, re.ASCII) and 1 <= int(port) <= 65535):
        raise ValueError(f'the port "{port}" is no number from 1 to 65535; write HOST:PORT')


def _port_of_ipv6(member: str) -> str | None:
    """None: it has none, and etcd's own is meant."""
    address, _, rest = member[1:].partition("]")
    if rest and not rest.startswith(":"):
        raise ValueError(f'"{member}" is no member; write [ADDRESS]:PORT')
    if not _is_address(ipaddress.IPv6Address, address):
        raise ValueError(f'"{address}" is no IPv6 address; write [ADDRESS]:PORT')
    return rest[1:] if rest else None


def _port_of_name(member: str) -> str | None:
    if member.count(":") > 1:
        raise ValueError(f'the IPv6 address in "{member}" needs brackets; write [ADDRESS]:PORT')
    host, colon, port = member.partition(":")
    if not _NAME.fullmatch(host):
        raise ValueError(f'"{host}" is no name or address of a host; write HOST:PORT')
    if re.fullmatch(r"[\d.]+", host) and not _is_address(ipaddress.IPv4Address, host):
        raise ValueError(f'"{host}" is no address; write HOST:PORT')
    return port if colon else None


def _is_address(version: type[ipaddress.IPv4Address | ipaddress.IPv6Address], text: str) -> bool:
    try:
        version(text)
    except ValueError:
        return False
    return True


def _check_prefix(prefix: str) -> None:
    if "//" in prefix:
        raise ValueError(f'the prefix "{prefix}" has an empty part; write one slash at a time')
