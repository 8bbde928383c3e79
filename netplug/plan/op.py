"""What every op has in common, and the marks that say in the kernel what is ours."""

from __future__ import annotations

import shlex
import zlib

import msgspec

HOST = ""
LINK_GROUP = 28783
"""IFLA_GROUP of every link we make (0x706f, "po")."""
DOOMED_GROUP = 28784
"""IFLA_GROUP of links that wait for the reaper."""
RETIRED_GROUP = 28785
"""IFLA_GROUP of bridges that are out of use and wait to be deleted when there is time."""
ROUTE_PROTOCOL = 112
"""Protocol of our routes and neighbours; free in /etc/iproute2/rt_protos."""

IPV6_FORWARDING = "net.ipv6.conf.all.forwarding"
"""Sysctl of a host that routes IPv6. With it, links take no more router advertisements unless their accept_ra is 2."""


def inside(namespace: str, command: str) -> str:
    """`command`, run in that namespace."""
    return f"nsenter --net={shlex.quote(namespace)} {command}" if namespace else command


class Op(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One change of the kernel."""

    namespace: str = HOST

    def explain(self) -> tuple[str, ...]:
        """Shell commands that make this change."""
        raise TypeError(f"{type(self).__name__} is explained by its backend")

    def explain_removal(self) -> tuple[str, ...]:
        """Shell commands that take it back; empty where it goes with something else."""
        return ()

    def _shell(self, *commands: str) -> tuple[str, ...]:
        return tuple(inside(self.namespace, command) for command in commands)


class FirewallOp(Op, frozen=True, kw_only=True):
    """A change in the firewall; all of one namespace go into one transaction."""


class LinkOp(Op, frozen=True, kw_only=True):
    """A link `name` in the op's own namespace."""

    name: str

    def explain_removal(self) -> tuple[str, ...]:
        return self._shell(f"ip link del {self.name}")


class PlacedOp(Op, frozen=True, kw_only=True):
    """A link `name` in `link_namespace`, where its removal acts, that has its other side in the op's own."""

    name: str
    link_namespace: str
    mtu: int = 0

    def explain_removal(self) -> tuple[str, ...]:
        return (inside(self.link_namespace, f"ip link del {self.name}"),)


class StackedOp(PlacedOp, frozen=True, kw_only=True):
    """A placed link on a `parent`."""

    parent: str

    def _born(self, kind: str) -> tuple[str, ...]:
        """Made under a name that is free here, then moved: before Linux 6.13 a link could not be born elsewhere under a name taken here."""
        passing = f"np{zlib.crc32(f'{self.link_namespace}/{self.name}'.encode()):08x}"
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        place = f" netns {shlex.quote(self.link_namespace)}" if self.link_namespace != self.namespace else ""
        return self._shell(
            f"ip link add link {self.parent} name {passing} group {LINK_GROUP}{mtu} {kind}",
            f"ip link set {passing}{place} name {self.name}",
        )
