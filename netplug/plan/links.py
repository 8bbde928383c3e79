"""Namespaces, and the links that are made in them."""

from __future__ import annotations

import shlex
from typing import Literal

from netplug.plan.op import LINK_GROUP, LinkOp, Op, PlacedOp, StackedOp, inside

MacvlanMode = Literal["bridge", "private", "vepa", "passthru"]
IpvlanMode = Literal["l2", "l3", "l3s"]
IpvlanFlag = Literal["bridge", "private", "vepa"]


class Netns(Op, frozen=True, kw_only=True):
    """A network namespace kept alive by a bind mount on `path`, with `lo` up."""

    path: str

    def explain(self) -> tuple[str, ...]:
        path = shlex.quote(self.path)
        folder = shlex.quote(self.path.rsplit("/", 1)[0])
        return (
            f"mkdir -p {folder} && touch {path} && unshare --net={path} true",
            inside(self.path, "ip link set lo up"),
        )

    def explain_removal(self) -> tuple[str, ...]:
        return (f"umount {shlex.quote(self.path)} && rm {shlex.quote(self.path)}",)


class Bridge(LinkOp, frozen=True, kw_only=True):
    """A bridge, up. One that is there already, made by the user, is used as it is and never removed by us.

    `given`: it was there when the network was made. Its MAC (`mac`) is held fast; a bridge otherwise takes the least of its ports'.
    """

    mac: str
    mtu: int = 0
    alias: str = ""
    given: bool = False

    def explain(self) -> tuple[str, ...]:
        if self.given:
            return self._shell(f"ip link set {self.name} address {self.mac} up")
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        return self._shell(
            f"ip link add {self.name} group {LINK_GROUP} address {self.mac}{mtu} type bridge",
            f"ip link set {self.name} alias {shlex.quote(self.alias)} up",
        )


class Veth(LinkOp, frozen=True, kw_only=True):
    """A veth pair: `name` here, up and (if given) a hairpin port of `master`; `peer` born in `peer_namespace` under its final name."""

    peer: str
    peer_namespace: str
    mac: str
    mtu: int = 0
    master: str = ""
    alias: str = ""

    def explain(self) -> tuple[str, ...]:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        master = f" master {self.master}" if self.master else ""
        # One queue per end is enough for software, and quicker to make.
        queues = " numtxqueues 1 numrxqueues 1"
        # From another namespace, the host's is known by its first process.
        place = f" netns {shlex.quote(self.peer_namespace) if self.peer_namespace else 1}" if self.peer_namespace != self.namespace else ""
        peer = f"peer name {self.peer}{queues} address {self.mac}{mtu}{place}"
        hairpin = " type bridge_slave hairpin on" if self.master else ""
        # A bridge port needs no address; with an MTU below IPv6's least it has no IPv6 to say this of.
        plain = " addrgenmode none" if self.master and not 0 < self.mtu < 1280 else ""
        return self._shell(
            f"ip link add {self.name}{queues} group {LINK_GROUP}{mtu}{master} type veth {peer}",
            f"ip link set {self.name} alias {shlex.quote(self.alias)}{plain}{hairpin}",
            f"ip link set {self.name} up",
        )


class Parent(Op, frozen=True, kw_only=True):
    """Changes nothing: makes sure that links of the kind `carries` can be put on the link `name`."""

    name: str
    carries: Literal["macvlan", "ipvlan"]
    mtu: int = 0
    """What they are to have, and the parent must take; 0: as it has itself."""

    def explain(self) -> tuple[str, ...]:
        return self._shell(f"ip link show {self.name} >/dev/null")


class Dummy(LinkOp, frozen=True, kw_only=True):
    """A link that leads nowhere, up: a parent for links that are to reach one another and nobody else.

    A kernel without `dummy` gives an `ifb`, which drops what is sent through it just so.
    """

    mtu: int = 0
    alias: str = ""

    def explain(self) -> tuple[str, ...]:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        add = inside(self.namespace, f"ip link add {self.name} group {LINK_GROUP}{mtu} type")
        return (
            f"{add} dummy 2>/dev/null || {add} ifb",
            *self._shell(f"ip link set {self.name} alias {shlex.quote(self.alias)} up"),
        )


class Vlan(LinkOp, frozen=True, kw_only=True):
    """VLAN `tag` of `parent`, up. One that is there already (made by the user) is used as it is and never removed by us."""

    parent: str
    tag: int
    alias: str = ""

    def explain(self) -> tuple[str, ...]:
        return self._shell(
            f"ip link add link {self.parent} name {self.name} group {LINK_GROUP} type vlan id {self.tag}",
            f"ip link set {self.name} alias {shlex.quote(self.alias)} up",
        )


class Macvlan(StackedOp, frozen=True, kw_only=True):
    """A link with a MAC of its own."""

    mac: str
    mode: MacvlanMode = "bridge"

    def explain(self) -> tuple[str, ...]:
        return self._born(f"address {self.mac} type macvlan mode {self.mode}")


class Ipvlan(StackedOp, frozen=True, kw_only=True):
    """A link with the MAC of its parent and addresses of its own."""

    mode: IpvlanMode = "l2"
    flag: IpvlanFlag = "bridge"

    def explain(self) -> tuple[str, ...]:
        return self._born(f"type ipvlan mode {self.mode} {self.flag}")


class Vxlan(PlacedOp, frozen=True, kw_only=True):
    """The end of a tunnel, up, a port of `master`: frames go out from `local` in UDP, to where `Fdb` says, and nowhere else.

    What is asked for by ARP or neighbour discovery it answers itself (`Neighbour`). Its socket is in the op's own namespace, the
    underlay's, for good: that is where it must be made from.
    """

    vni: int
    local: str
    port: int = 4789
    master: str = ""

    def explain(self) -> tuple[str, ...]:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        place = shlex.quote(self.link_namespace)
        kind = f"type vxlan id {self.vni} local {self.local} dstport {self.port} nolearning proxy"
        master = (inside(self.link_namespace, f"ip link set {self.name} master {self.master}"),) if self.master else ()
        return (*self._shell(f"ip link add {self.name} netns {place} group {LINK_GROUP}{mtu} up {kind}"), *master)


class Adopt(Op, frozen=True, kw_only=True):
    """The link `source`, which somebody else has made here, moved into `link_namespace` and called `name` there.

    It stays somebody else's: it gets no mark of ours, and removing this op takes it back to where it came from, down, by its old name.
    """

    source: str
    name: str
    link_namespace: str

    def explain(self) -> tuple[str, ...]:
        return self._shell(f"ip link set {self.source} netns {shlex.quote(self.link_namespace)} name {self.name}")

    def explain_removal(self) -> tuple[str, ...]:
        # The shell that runs this is on the host, and so is its pid.
        home = shlex.quote(self.namespace) if self.namespace else "$$"
        return (
            inside(self.link_namespace, f"ip link set {self.name} down"),
            inside(self.link_namespace, f"ip link set {self.name} netns {home} name {self.source}"),
        )
