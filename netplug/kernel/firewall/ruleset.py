"""The rules that never change, as nft reads them.

Everything that comes and goes (networks, ports, containers, links) is an element of a set or map below, so the rules say once what a
network *is*, and a packet's way through them is as long with 5,000 published ports as with one. Two tables:

- `inet netplug`: all that is routed; NAT and filter;
- `bridge netplug`: what stays inside one bridge and so never meets `inet`, unless br_netfilter's bridge-nf-call-iptables is 1. It looks at
  prerouting before br_netfilter does (-310), so the result is the same with 0 and 1, and we never touch that sysctl.

`base()` first declares, then empties each chain of ours (not `user`), then fills them: loaded again, in one transaction, it leaves elements
and `user` as they are. A 4 or 6 in a name is the IP version, `any` a host port on all addresses, `r` a range of ports.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from netplug.errors import InvalidArgument
from netplug.plan import LINK_GROUP

TABLES = ("inet netplug", "bridge netplug")
USER = "user"
"""The administrator's chain, in each of the two."""

_DECLARED = """\
table inet netplug {
	# A network is a bridge; one element each.
	set bridges { type ifname; }
	set self { type ifname . ifname; }  # the same bridge twice: its containers may talk to one another (icc)
	set apart { type ifname . ifname; }  # the same bridge twice: they may not, save for links
	set internal { type ifname; }
	set trusted { type ifname . ifname; }  # an interface of the host . a bridge: everybody behind the one reaches the other
	# A link . a subnet behind another host there . one of ours: their containers reach one another by their own addresses.
	set reach4 { type ifname . ipv4_addr . ipv4_addr; flags interval; }
	set reach6 { type ifname . ipv6_addr . ipv6_addr; flags interval; }
	map net_in { type nf_proto . ifname : verdict; }  # how it may be reached from elsewhere
	set masq4 { type ipv4_addr; flags interval; }
	set masq6 { type ipv6_addr; flags interval; }
	map snat4 { type ipv4_addr : ipv4_addr; flags interval; }  # a subnet -> the source it takes outside
	map snat6 { type ipv6_addr : ipv6_addr; flags interval; }
	set same4 { type ipv4_addr . ipv4_addr; flags interval; }  # a subnet twice
	set same6 { type ipv6_addr . ipv6_addr; flags interval; }
	# A published port: host address and port -> container's. Deleting from an interval map takes ten times as long as from another, and
	# more, so those are for ranges alone; they keep the port's number. A given address and any clash in one interval map, hence two.
	map pub4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map pub6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
	map pub4any { type inet_proto . inet_service : ipv4_addr . inet_service; }
	map pub6any { type inet_proto . inet_service : ipv6_addr . inet_service; }
	map pub4r { type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }
	map pub6r { type ipv6_addr . inet_proto . inet_service : ipv6_addr; flags interval; }
	map pub4anyr { type inet_proto . inet_service : ipv4_addr; flags interval; }
	map pub6anyr { type inet_proto . inet_service : ipv6_addr; flags interval; }
	# A container's port that may be reached by the container's own address from outside.
	set direct4 { type ipv4_addr . inet_proto . inet_service; }
	set direct6 { type ipv6_addr . inet_proto . inet_service; }
	set direct4r { type ipv4_addr . inet_proto . inet_service; flags interval; }
	set direct6r { type ipv6_addr . inet_proto . inet_service; flags interval; }
	set links4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }  # client . server . its port
	set links6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service; }

	chain user { }  # the administrator's: asked first, never emptied
	chain raw { type filter hook prerouting priority raw; policy accept; }
	chain prerouting { type nat hook prerouting priority dstnat; policy accept; }
	chain output { type nat hook output priority -100; policy accept; }
	chain publish { }
	chain forward { type filter hook forward priority filter - 10; policy accept; }
	chain ours { }
	chain linked { }
	chain in_nat { }
	chain in_routed { }
	chain in_open { }
	chain ok { }
	chain postrouting { type nat hook postrouting priority srcnat; policy accept; }
}
table bridge netplug {
	map ports { type ifname : verdict; }  # a bridge port -> goto guard, icc or guard_icc
	set gw { type ifname . ether_addr; }  # a bridge port . the MAC of its bridge
	# Who a bridge port may say that it is.
	set epmac { type ifname . ether_addr; }
	map ep4 { type ifname . ether_addr . ipv4_addr : verdict; }  # and how it goes on from there: accept, or goto icc
	set ep6 { type ifname . ether_addr . ipv6_addr; }
	set nd { typeof iifname . ether saddr . @th,64,128; }  # ep6 again, as a number: nft 1.0.6 has no name for a discovery's target
	set links4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
	set links6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service; }

	chain user { }  # the administrator's: asked first, never emptied
	chain prerouting { type filter hook prerouting priority -310; policy accept; }
	chain guard { }
	chain guard_icc { }
	chain icc { }
}
"""

_RULES = """\
table inet netplug {
	# Frames for 127.0.0.0/8 from a wire (CVE-2020-8558). Before conntrack, where our own replies still carry the bridge's address; and
	# before DNAT, which would make them routable.
	chain raw {
		ip daddr 127.0.0.0/8 iifname != "lo" drop
		ip saddr 127.0.0.0/8 iifname != "lo" drop
	}
	chain prerouting {
		fib daddr type local goto publish
	}
	chain output {
		fib daddr type local goto publish
	}
	chain publish {
		ip6 daddr ::1 return  # a packet from ::1 cannot leave the host, DNAT or not; a forwarder may listen there
		meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @pub4any
		meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @pub4
		meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @pub4anyr
		meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @pub4r
		meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . th dport map @pub6any
		meta l4proto { tcp, udp, sctp } dnat ip6 to ip6 daddr . meta l4proto . th dport map @pub6
		meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . th dport map @pub6anyr
		meta l4proto { tcp, udp, sctp } dnat ip6 to ip6 daddr . meta l4proto . th dport map @pub6r
	}
	chain forward {
		jump user
		# Most packets are of known connections through links of ours: comparing a number is quicker than a lookup, by 0.1 us.
		iifgroup {group} ct state established,related goto ok
		oifgroup {group} ct state established,related goto ok
		iifname @bridges goto ours
		oifname @bridges goto ours
	}
	chain ours {
		ct state established,related goto ok
		iifname . oifname @self goto ok
		iifname . oifname @apart jump linked
		iifname @internal drop
		oifname @internal drop
		iifname . oifname @trusted iifname != @bridges goto ok
		iifname . ip saddr . ip daddr @reach4 goto ok
		iifname . ip6 saddr . ip6 daddr @reach6 goto ok
		meta nfproto . oifname vmap @net_in
		ct state invalid drop  # it would leave without NAT
		goto ok
	}
	# icc=false, where br_netfilter shows us what stays on the bridge too: what table bridge let pass, and nothing else.
	chain linked {
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report } goto ok
		ip saddr . ip daddr . meta l4proto . th dport @links4 goto ok
		ip6 saddr . ip6 daddr . meta l4proto . th dport @links6 goto ok
	}
	chain in_nat {
		ct status dnat goto ok  # it came by a host address
		iifname @bridges drop  # another network, by the container's address
		ip daddr . meta l4proto . th dport @direct4 goto ok
		ip6 daddr . meta l4proto . th dport @direct6 goto ok
		ip daddr . meta l4proto . th dport @direct4r goto ok
		ip6 daddr . meta l4proto . th dport @direct6r goto ok
		drop
	}
	chain in_routed {
		iifname @bridges drop
		icmp type echo-request goto ok
		icmpv6 type echo-request goto ok
		goto in_nat
	}
	chain in_open {
		ct status dnat goto ok
		iifname @bridges drop
		goto ok
	}
	chain ok {
		meta mark set meta mark | 0x1000 accept  # the bit tells other tools' tables that we said yes
	}
	chain postrouting {
		# Same bridge, by a published port: the answer must come back through us. Not by interface: br_netfilter hides it here.
		ct status dnat ip saddr . ip daddr @same4 masquerade
		ct status dnat ip6 saddr . ip6 daddr @same6 masquerade
		ip saddr 127.0.0.0/8 oifname @bridges masquerade  # the host, by 127.0.0.1
		oifname @bridges return  # between networks the source is kept
		oifname . ip daddr . ip saddr @reach4 return  # and to those behind other hosts
		oifname . ip6 daddr . ip6 saddr @reach6 return
		snat ip to ip saddr map @snat4
		snat ip6 to ip6 saddr map @snat6
		ip saddr @masq4 masquerade
		ip6 saddr @masq6 masquerade
	}
}
table bridge netplug {
	chain prerouting {
		jump user
		ether type ip iifname . ether saddr . ip saddr vmap @ep4  # most packets are done here, after one lookup
		iifname vmap @ports
	}
	# Comes back only if the sender is who it says it is: in its frames, in ARP, in neighbour discovery.
	chain guard {
		icmpv6 type nd-neighbor-advert iifname . ether saddr . @th,64,128 != @nd drop
		icmpv6 type nd-router-advert drop  # it would make itself its neighbours' router
		ether type ip6 iifname . ether saddr . ip6 saddr @ep6 return
		iifname . ether saddr != @epmac drop
		ether type arp iifname . arp saddr ether . arp saddr ip vmap @ep4
		# Before it uses an address it asks whether anybody has it (RFC 5227, RFC 4862), and joins the groups that it must hear.
		ether type arp arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether @epmac return
		ether type ip6 ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . ether saddr . @th,64,128 @nd return
		ether type ip6 ip6 saddr :: icmpv6 type { nd-router-solicit, mld-listener-report, mld2-listener-report } return
		drop
	}
	chain guard_icc {
		jump guard
		goto icc
	}
	# icc=false. To the host is fine: table inet judges that. This family has no conntrack here, so links are known by their ports alone.
	# What is dropped is counted: elsewhere nobody would see that it came. The counters begin anew when the rules are loaded.
	chain icc {
		ether type arp accept
		iifname . ether daddr @gw accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-report, mld2-listener-report } accept
		ip saddr . ip daddr . meta l4proto . th dport @links4 accept
		ip6 saddr . ip6 daddr . meta l4proto . th dport @links6 accept
		tcp flags & (syn | ack) == syn counter drop  # a server answers its client, and opens nothing
		ip daddr . ip saddr . meta l4proto . th sport @links4 accept
		ip6 daddr . ip6 saddr . meta l4proto . th sport @links6 accept
		counter drop
	}
}
"""


class Typed(NamedTuple):
    """A set or map as it is declared."""

    table: str
    name: str
    key: tuple[str, ...]
    value: tuple[str, ...]
    """Empty for a set."""
    interval: bool


def declared_types() -> Iterator[Typed]:
    table = ""
    for line in _DECLARED.splitlines():
        if found := re.match(r"table (\w+ \w+) {", line):
            table = found[1]
        elif found := re.match(r"\t(?:set|map) (\w+) { type ([^:;]+?)(?: : ([^;]+))?;(.*)", line):
            yield Typed(
                table,
                found[1],
                tuple(found[2].split(" . ")),
                tuple((found[3] or "").split(" . ")) if found[3] else (),
                "interval" in found[4],
            )
        elif found := re.match(r"\tset (\w+) { typeof iifname \. ether saddr \. @th,64,128; }", line):
            yield Typed(table, found[1], ("ifname", "ether_addr", "number"), (), interval=False)


class _Declaration(NamedTuple):
    table: str
    kind: str
    name: str


def _declarations() -> Iterator[_Declaration]:
    table = ""
    for line in _DECLARED.splitlines():
        if found := re.match(r"table (\w+ \w+) {", line):
            table = found[1]
        elif found := re.match(r"\t(set|map|chain) (\w+) ", line):
            yield _Declaration(table, found[1], found[2])


_ALL = tuple(_declarations())
CHAINS = frozenset((found.table, found.name) for found in _ALL if found.kind == "chain" and found.name != USER)
SETS = frozenset(f"{found.table} {found.name}" for found in _ALL if found.kind != "chain")
"""Sets and maps, as `Place.set` names them."""

EMPTY = "".join(f"flush {found.kind} {found.table} {found.name}\n" for found in _ALL if found.kind != "chain")
"""Takes all elements out of the sets and maps."""

CLEAR = "".join(f"add table {table}\ndelete table {table}\n" for table in TABLES)
"""Takes everything away, also what is not there: `add` makes it so that `delete` cannot fail (nft 1.0.6 has no `destroy`)."""


_GROUP = "{group}"
_ESTABLISHED = "\tchain ours {\n\t\tct state established,related goto ok\n"


def base(accept_mark: str = "") -> str:
    """The rules. Packets that carry `accept_mark` (`MARK[/MASK]`) are let into every network, internal ones too, whoever sent them."""
    flushes = "".join(f"flush chain {found.table} {found.name}\n" for found in _ALL if found.kind == "chain" and found.name != USER)
    rules = _RULES.replace(_GROUP, str(LINK_GROUP))
    if accept_mark:
        mark, mask = parse_mark(accept_mark)
        marked = f"\t\toifname @bridges meta mark & {mask:#x} == {mark:#x} goto ok\n"
        rules = rules.replace(_ESTABLISHED, _ESTABLISHED + marked)
    return f"{_DECLARED}\n{flushes}\n{rules}"


def parse_mark(text: str) -> tuple[int, int]:
    """Mark and mask of `MARK[/MASK]`, decimal or hexadecimal; InvalidArgument where no packet can carry it, or every unmarked one does."""
    first, slash, second = text.partition("/")
    try:
        mark, mask = int(first, 0), int(second, 0) if slash else 0xFFFFFFFF
    except ValueError:
        mark = mask = 0
    if not 0 < mark <= mask <= 0xFFFFFFFF or mark & ~mask:
        raise InvalidArgument(f'invalid --bridge-accept-fwmark "{text}": MARK or MARK/MASK is needed, as in 0x1 or 0x100/0x300, and not 0')
    return mark, mask


BASE = base()

RESOLVER, RESOLVER_PORT = "127.0.0.11", 53
SANDBOX_TABLE = "ip netplug"

SANDBOX_PRIORITY = -300
"""Before conntrack (-200), and so before the rule that an engine has for that address in its containers (-100)."""
SANDBOX = """\
table ip netplug
delete table ip netplug
table ip netplug {
	map dns { type ipv4_addr . inet_proto . inet_service : inet_service; }
	map answers { type ipv4_addr . inet_proto . inet_service : inet_service; }
	chain output {
		type filter hook output priority raw; policy accept;
		oif != "lo" accept
		udp dport set ip daddr . meta l4proto . udp dport map @dns
		tcp dport set ip daddr . meta l4proto . tcp dport map @dns
	}
	chain input {
		type filter hook input priority raw; policy accept;
		iif != "lo" accept
		udp sport set ip saddr . meta l4proto . udp sport map @answers
		tcp sport set ip saddr . meta l4proto . tcp sport map @answers
	}
}
"""
"""In a container's namespace: its resolver's address leads to the ports where the resolver really listens. Loading empties the maps.

The ports are written over, there and back, without NAT: NAT has every packet of the container tracked, which costs its streams 3 % and a
small packet 0.3 us. A question is changed before whatever tracks connections sees it, an answer after: so both are of one connection.
A chain's kind and priority cannot be changed, and earlier versions had others: so the table is made anew, in one transaction.
"""


def refusal(port: int) -> str:
    """The command that makes a question fail at once while nobody listens on that UDP port.

    The kernel's refusal quotes the question as it came, to another port than was asked, and would be nobody's. So the quoted port is put
    right, and the difference into the word that ICMP leaves unused: by which the checksum stays true.
    """
    quoted = f"@th,192,32 {int(ipaddress.IPv4Address(RESOLVER)):#x} @th,240,16 {port}"
    put = f"@th,32,16 set {port - RESOLVER_PORT} @th,240,16 set {RESOLVER_PORT}"
    return f"add rule {SANDBOX_TABLE} input icmp type destination-unreachable icmp code port-unreachable {quoted} {put}"
