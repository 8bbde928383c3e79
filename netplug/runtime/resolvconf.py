"""/etc/resolv.conf of a container, by Docker's rules.

On the default bridge a container asks the host's servers itself, except those that it cannot reach: on the host's loopback, and by IPv6
where it has none. On every other network it asks 127.0.0.11. What the user says with `--dns`, `--dns-search` and `--dns-option` goes first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netplug.model import DnsConfig
from netplug.resolver.upstream import PUBLIC, PUBLIC6
from netplug.runtime.hosts import write_in_place

RESOLVER = "127.0.0.11"


@dataclass(frozen=True)
class ResolvConf:
    """What a resolv.conf says (resolv.conf(5)): servers in order; of several search lines the last one holds."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> ResolvConf:
        servers: list[str] = []
        search: list[str] = []
        options: list[str] = []
        for line in text.splitlines():
            keyword, *values = line.split("#")[0].split(";")[0].split() or [""]
            if keyword == "nameserver":
                servers += values[:1]
            elif keyword in ("search", "domain"):
                search = values
            elif keyword == "options":
                options += values
        return cls(tuple(servers), tuple(search), tuple(options))

    def to_text(self) -> str:
        lines = [f"search {' '.join(self.search)}"] if self.search and self.search != (".",) else []
        lines += [f"nameserver {server}" for server in self.servers]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "".join(f"{line}\n" for line in lines)


def container(host: ResolvConf, dns: DnsConfig, *, resolver: bool, ipv6: bool) -> ResolvConf:
    """`resolver`: the container is on a network whose names 127.0.0.11 answers. `ipv6`: it has an IPv6 address of a network."""
    search = dns.search or host.search
    options = dns.options or host.options
    if resolver:
        chosen = any(option.startswith("ndots:") for option in dns.options)
        kept = tuple(option for option in options if chosen or not option.startswith("ndots:"))
        return ResolvConf((RESOLVER,), search, kept if chosen else (*kept, "ndots:0"))
    reachable = tuple(server for server in host.servers if not _loopback(server) and (ipv6 or ":" not in server))
    return ResolvConf(dns.servers or reachable or PUBLIC + (PUBLIC6 if ipv6 else ()), search, options)


def defaults(dns: DnsConfig, servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> DnsConfig:
    """The container's own settings, with the daemon's where it has none."""
    return DnsConfig(
        servers=dns.servers or tuple(servers),
        search=dns.search or tuple(search),
        options=dns.options or tuple(options),
        extra_hosts=dns.extra_hosts,
    )


def _loopback(server: str) -> bool:
    return server.startswith("127.") or server.partition("%")[0] == "::1"


class ManagedFile:
    """A resolv.conf that we keep up to date for as long as nobody else has changed it. Beside it lie the hashes of what we wrote."""

    def __init__(self, path: Path) -> None:
        self.path, self._hashes = path, path.with_name(f"{path.name}.hash")

    def write(self, text: str) -> None:
        # The hash of the old text stays valid: a daemon that dies between the two writes still knows its own file.
        old = self._known()[-1:]
        self._hashes.write_text("\n".join([*old, _digest(text)]))
        write_in_place(self.path, text)

    def refresh(self, text: str) -> bool:
        """Write, unless the file was changed in the container. True if it is still ours."""
        try:
            current = self.path.read_bytes()
        except FileNotFoundError:
            return False
        if hashlib.sha256(current).hexdigest() not in self._known():
            return False
        if current != text.encode():
            self.write(text)
        return True

    def _known(self) -> list[str]:
        try:
            return self._hashes.read_text().split()
        except FileNotFoundError:
            return []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
