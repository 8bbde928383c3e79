"""What a driver wants of the kernel, as data: one `Op` is one change, a `Plan` is an ordered tuple of them.

Links are named, never numbered. Every op says the network namespace it acts in by path; `HOST` (`""`) is the one the daemon runs in.
`Remove(op=...)` takes back what `op` made, so that a driver writes each fact once. `explain()` gives the commands that do the same
by hand; firewall ops have no text of their own here, because one room (`netplug.kernel.firewall`) owns the rules.

Marks that say what is ours: links carry `LINK_GROUP`, routes and neighbours `ROUTE_PROTOCOL`, rules live in our own tables.
"""

from __future__ import annotations

import shlex
import zlib
from typing import Literal, TypeAlias

import msgspec

from netplug.model import Protocol

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

GatewayMode = Literal["nat", "nat-unprotected", "routed"]
MacvlanMode = Literal["bridge", "private", "vepa", "passthru"]
IpvlanMode = Literal["l2", "l3", "l3s"]
IpvlanFlag = Literal["bridge", "private", "vepa"]


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


class Fdb(Op, frozen=True, kw_only=True):
    """Frames to `mac` go through the VXLAN link to the node at `vtep`, wherever they went before.

    Its removal leaves an entry alone that leads elsewhere by now.
    """

    link: str
    mac: str
    vtep: str

    def explain(self) -> tuple[str, ...]:
        return self._shell(f"bridge fdb replace {self.mac} dev {self.link} dst {self.vtep} self master static")

    def explain_removal(self) -> tuple[str, ...]:
        return self._shell(f"bridge fdb del {self.mac} dev {self.link} dst {self.vtep} self master")


class Neighbour(Op, frozen=True, kw_only=True):
    """Who asks for `address` is told `mac`, without the question leaving the node.

    Its removal leaves an entry alone that says another MAC by now; with `vtep`, also one whose MAC leads to another node by now: a MAC
    made from the address is that of every owner.
    """

    link: str
    address: str
    mac: str
    vtep: str = ""

    def explain(self) -> tuple[str, ...]:
        return self._shell(f"ip neigh replace {self.address} lladdr {self.mac} dev {self.link} nud permanent protocol {ROUTE_PROTOCOL}")

    def explain_removal(self) -> tuple[str, ...]:
        return self._shell(f"ip neigh del {self.address} dev {self.link}")


class LinkUp(Op, frozen=True, kw_only=True):
    """`mac` and `alias` are set with it; a link that is up already keeps its own."""

    link: str
    mac: str = ""
    alias: str = ""

    def explain(self) -> tuple[str, ...]:
        mac = f" address {self.mac}" if self.mac else ""
        alias = f" alias {shlex.quote(self.alias)}" if self.alias else ""
        return self._shell(f"ip link set {self.link}{mac}{alias} up")

    def explain_removal(self) -> tuple[str, ...]:
        return self._shell(f"ip link set {self.link} down")


class Address(Op, frozen=True, kw_only=True):
    """`address` with its prefix on `link`; IPv4 gets its broadcast address, IPv6 no duplicate-address detection."""

    link: str
    address: str

    def explain(self) -> tuple[str, ...]:
        kind = "nodad" if ":" in self.address else "brd +"
        return self._shell(f"ip addr add {self.address} {kind} dev {self.link}")

    def explain_removal(self) -> tuple[str, ...]:
        return self._shell(f"ip addr del {self.address} dev {self.link}")


class Route(Op, frozen=True, kw_only=True):
    """A route in the main table, replacing one to the same destination. `destination` is a CIDR or `default`."""

    destination: str
    link: str
    gateway: str = ""

    def explain(self) -> tuple[str, ...]:
        via = f" via {self.gateway}" if self.gateway else ""
        family = "-6 " if ":" in self.destination + self.gateway else ""
        return self._shell(f"ip {family}route replace {self.destination}{via} dev {self.link} proto {ROUTE_PROTOCOL}")

    def explain_removal(self) -> tuple[str, ...]:
        family = "-6 " if ":" in self.destination + self.gateway else ""
        return self._shell(f"ip {family}route del {self.destination} dev {self.link} proto {ROUTE_PROTOCOL}")


class Sysctl(Op, frozen=True, kw_only=True):
    """A network sysctl by its dotted key; a dot inside an interface name is written `/`, as sysctl(8) does."""

    key: str
    value: str

    def explain(self) -> tuple[str, ...]:
        return self._shell(f"sysctl -qw {self.key}={shlex.quote(self.value)}")


class Announce(Op, frozen=True, kw_only=True):
    """Neighbours that knew the address under another MAC learn this one at once.

    By gratuitous ARP (RFC 5227 section 3) or by an unsolicited neighbour advertisement (RFC 4861 section 7.2.6).
    """

    link: str
    address: str
    mac: str

    def explain(self) -> tuple[str, ...]:
        if ":" not in self.address:
            return self._shell(f"arping -q -U -c 1 -I {self.link} {self.address}")
        # No common tool sends one, but the kernel does for all addresses of a link whose MAC is set, even to what it was.
        notify = f"sysctl -qw net.ipv6.conf.{self.link.replace('.', '/')}.ndisc_notify"
        return self._shell(f"{notify}=1", f"ip link set {self.link} address {self.mac}", f"{notify}=0")


class FlushFlows(Op, frozen=True, kw_only=True):
    """Forget tracked flows to `count` host ports from `port` on: their NAT was decided before the port led where it leads now.

    Those that were led to `address`; without one, those to wherever else they went. Containers' own way out to such ports stays.
    """

    protocol: Protocol
    port: int
    count: int = 1
    address: str = ""

    def explain(self) -> tuple[str, ...]:
        led = f" --reply-src {self.address}" if self.address else ""
        if self.count == 1:
            return self._shell(f"conntrack -D -p {self.protocol} --orig-port-dst {self.port}{led} >/dev/null 2>&1 || true")
        each = f"for port in $(seq {self.port} {self.port + self.count - 1}); do"
        return self._shell(f"sh -c '{each} conntrack -D -p {self.protocol} --orig-port-dst $port{led}; done' >/dev/null 2>&1 || true")

    def explain_removal(self) -> tuple[str, ...]:
        return self.explain()


class ForgetFlows(Op, frozen=True, kw_only=True):
    """Forget tracked flows between two subnets: what was decided on their first packets (source, and whether they pass) holds no more."""

    subnet: str
    remote: str

    def explain(self) -> tuple[str, ...]:
        family = " -f ipv6" if ":" in self.subnet else ""
        pairs = (self.subnet, self.remote), (self.remote, self.subnet)
        return self._shell(*(f"conntrack -D{family} -s {one} -d {other} >/dev/null 2>&1 || true" for one, other in pairs))

    def explain_removal(self) -> tuple[str, ...]:
        return self.explain()


class Isolate(FirewallOp, frozen=True, kw_only=True):
    """A network behind `bridge` with these subnets: reachable as its gateway modes say, never from another network.

    `mode4` and `mode6` are `nat` (from outside by published ports only), `routed` (published ports and ping by the containers' own
    addresses) or `nat-unprotected` (everything by their own addresses, published ports too). `internal`: not at all, and nothing goes
    out. `trusted` are interfaces of the host behind which everybody reaches the containers by their own addresses. With `icc=False` its
    containers do not reach one another by way of the host either (`Guard` closes the bridge, but a frame to the host's MAC may carry a
    neighbour's address).
    """

    bridge: str
    subnets: tuple[str, ...]
    mode4: GatewayMode = "nat"
    mode6: GatewayMode = "nat"
    internal: bool = False
    icc: bool = True
    trusted: tuple[str, ...] = ()


class Masquerade(FirewallOp, frozen=True, kw_only=True):
    """Traffic out of `subnet` to anywhere but our bridges takes `source`, or (`""`) the address of the interface it leaves by.

    `bridge` is the network's own, for a backend whose rule names it.
    """

    subnet: str
    source: str = ""
    bridge: str = ""


class Guard(FirewallOp, frozen=True, kw_only=True):
    """What the bridge port `link` may send.

    With `antispoof` nothing but what comes from `mac` and one of `addresses` (IPv4, IPv6; the link-local one made of the MAC besides), in
    ARP and neighbour discovery too. With `icc=False` to the host and beyond, but not to its neighbours (save for `AllowPeer`).
    """

    link: str
    bridge: str
    bridge_mac: str
    mac: str = ""
    addresses: tuple[str, ...] = ()
    antispoof: bool = False
    icc: bool = True


class AllowPeer(FirewallOp, frozen=True, kw_only=True):
    """A link under `icc=false`: `client` reaches `port` of `server` (addresses of two containers on one bridge)."""

    client: str
    server: str
    protocol: Protocol
    port: int


class Publish(FirewallOp, frozen=True, kw_only=True):
    """`host_port` on `host_ip` (`""`: every address of the host) leads to `address`:`port`; so do the `count - 1` ports behind it."""

    protocol: Protocol
    host_port: int
    address: str
    port: int
    host_ip: str = ""
    count: int = 1


class Direct(FirewallOp, frozen=True, kw_only=True):
    """`port` (and the `count - 1` behind it) may be reached by the container's own `address` from outside: published, without NAT."""

    protocol: Protocol
    address: str
    port: int
    count: int = 1


class Reach(FirewallOp, frozen=True, kw_only=True):
    """Containers of `subnet`, behind `bridge`, and those of `remote`, on the host that `link` leads to, reach one another by their own
    addresses: let in whatever the gateway mode, and let out with their source kept. By that link and between those two only.
    """

    bridge: str
    subnet: str
    remote: str
    link: str


class DnsRedirect(FirewallOp, frozen=True, kw_only=True):
    """In a sandbox: 127.0.0.11:53 leads to the resolver's sockets on these ports."""

    udp_port: int
    tcp_port: int


AnyOp: TypeAlias = (
    Netns
    | Bridge
    | Veth
    | Parent
    | Dummy
    | Vlan
    | Macvlan
    | Ipvlan
    | Vxlan
    | Fdb
    | Neighbour
    | LinkUp
    | Address
    | Route
    | Sysctl
    | Announce
    | FlushFlows
    | ForgetFlows
    | Isolate
    | Masquerade
    | Guard
    | AllowPeer
    | Publish
    | Direct
    | Reach
    | DnsRedirect
)


class Remove(Op, frozen=True, kw_only=True):
    """Take back what `op` made. What is not there any more is no error."""

    op: AnyOp

    def explain(self) -> tuple[str, ...]:
        return self.op.explain_removal()

    def explain_removal(self) -> tuple[str, ...]:
        return self.op.explain()


Step: TypeAlias = AnyOp | Remove
Plan: TypeAlias = tuple[Step, ...]


def removal(plan: Plan) -> Plan:
    """The plan that takes `plan` back, last step first."""
    return tuple(step.op if isinstance(step, Remove) else Remove(op=step, namespace=step.namespace) for step in reversed(plan))
