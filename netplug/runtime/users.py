"""Who a container's process runs as: `name`, `uid`, `name:group`, `uid:gid`, looked up in the root file system's own passwd and group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from netplug.errors import InvalidArgument
from netplug.runtime.trees import read_inside

_LAST = 2**31 - 1


@dataclass(frozen=True)
class User:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def lookup(root: Path, user: str) -> User:
    """InvalidArgument, in Docker's words, if a name is not there. Numbers need no entry. `""` is root."""
    name, _, group = (user or "0").partition(":")
    passwd = _fields(read_inside(root, "/etc/passwd"), 7)
    groups = _fields(read_inside(root, "/etc/group"), 4)
    entry = next((line for line in passwd if name in (line[0], line[2])), None)
    if entry is None and not name.isdecimal():
        raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")
    uid = _in_range(int(entry[2]) if entry else int(name))
    gid = _in_range(_group(groups, group) if group else int(entry[3]) if entry else 0)
    # An explicit group replaces the user's own list of groups, as in Docker.
    more = () if group or not entry else tuple(int(line[2]) for line in groups if entry[0] in line[3].split(","))
    # Its own group is in the list too: a program that changes its group must not shake off what that group is refused (CVE-2022-36109).
    return User(uid=uid, gid=gid, groups=tuple(dict.fromkeys((gid, *more))), home=entry[5] if entry and entry[5] else "/")


def _in_range(number: int) -> int:
    if number > _LAST:
        raise InvalidArgument(f"uids and gids must be in range 0-{_LAST}")
    return number


def _group(groups: list[list[str]], group: str) -> int:
    entry = next((line for line in groups if group in (line[0], line[2])), None)
    if entry is None and not group.isdecimal():
        raise InvalidArgument(f"unable to find group {group}: no matching entries in group file")
    return int(entry[2]) if entry else int(group)


def _fields(text: str, count: int) -> list[list[str]]:
    """Lines with the right number of fields and a number in the third; others are passed over, as libc does."""
    lines = [line.split(":") for line in text.splitlines()]
    good = [line for line in lines if len(line) == count and line[2].isdecimal()]
    return [line for line in good if count != 7 or line[3].isdecimal()]
