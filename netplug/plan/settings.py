"""What links that are there are set to, what leads by them, and what goes out by them once."""

from __future__ import annotations

import shlex

from netplug.model import Protocol
from netplug.plan.op import ROUTE_PROTOCOL, Op


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


class Ask(Op, frozen=True, kw_only=True):
    """Changes nothing: what another process has to be asked before the rest of the plan can be known (`Effectful`), in words."""

    what: str

    def explain(self) -> tuple[str, ...]:
        return (f"# {self.what}",)


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
