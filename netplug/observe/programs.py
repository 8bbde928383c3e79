"""Programs and libraries that the daemon needs, and whether they are new enough."""

from __future__ import annotations

import ctypes.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from netplug.observe.situation import Finding, Situation, error, ok, warning

CHECK = "programs"


class Program(NamedTuple):
    """`found`: its path, `""` where it is not installed."""

    found: str
    version: tuple[int, ...] = ()


class Need(NamedTuple):
    """`oldest` is the oldest version that is tried with this netplug."""

    purpose: str
    package: str
    oldest: tuple[int, ...]
    needed: bool = True


LIBRARY = "libnftables"
_ARGUMENTS = {"conntrack": ("--version",), "ip": ("-V",)}


def needs(situation: Situation) -> dict[str, Need]:
    settings = situation.settings
    found = {
        settings.runtime: Need("runs containers", settings.runtime, (1, 1)),
        "conmon": Need("keeps containers while the daemon is away", "conmon", (2, 1)),
        "nft": Need("prints what --explain says; nothing is changed through it", "nftables", (1, 0, 6), needed=False),
        "conntrack": Need("is what --explain says; nothing is changed through it", "conntrack", (1, 4), needed=False),
    }
    if settings.backend == "nftables":
        found[LIBRARY] = Need("loads the rules", "libnftables1", ())
    if settings.backend == "iptables":
        found["iptables"] = Need("loads the rules", "iptables", (1, 8, 7))
        found["ip6tables"] = Need("loads the rules of IPv6", "iptables", (1, 8, 7))
    return found


def look(wanted: Mapping[str, Need]) -> dict[str, Program]:
    """What is installed of them; each program is asked for its version."""
    return {name: _library() if name == LIBRARY else _program(name) for name in wanted}


def check(wanted: Mapping[str, Need], programs: Mapping[str, Program]) -> Iterator[Finding]:
    good = []
    for name, need in wanted.items():
        program = programs[name]
        if not program.found:
            remedy = f"install {need.package}"
            yield (error if need.needed else warning)(CHECK, f"{name} is not installed; it {need.purpose}", remedy)
        elif program.version and program.version < need.oldest:
            old, least = ".".join(map(str, program.version)), ".".join(map(str, need.oldest))
            yield warning(CHECK, f"{name} is {old}; nothing before {least} is tested", f"install a newer {need.package}")
        else:
            good.append(f"{name} {'.'.join(map(str, program.version))}".strip())
    if good:
        yield ok(CHECK, ", ".join(good))


def _library() -> Program:
    return Program(ctypes.util.find_library("nftables") or "")


def _program(name: str) -> Program:
    path = shutil.which(name)
    if path is None:
        return Program("")
    arguments = _ARGUMENTS.get(name.rpartition("/")[2], ("--version",))
    try:
        said = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Program(path)
    return Program(path, version_in(said.stdout or said.stderr))


def version_in(text: str) -> tuple[int, ...]:
    """The first number with dots in it; `()` where there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
