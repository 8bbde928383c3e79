"""The rules that never change, as nft reads them.

Everything that comes and goes (networks, ports, icc=false) is an element of a set or map below, so the rules say once what a network *is*,
and a packet's way through them is as long with 5,000 published ports as with one. Two tables:

- `inet netplug`: all that is routed; NAT and filter;
- `bridge netplug`: what stays inside one bridge and so never meets `inet`, unless br_netfilter's bridge-nf-call-iptables is 1. It looks at
  prerouting before br_netfilter does (-310), so the result is the same with 0 and 1, and we never touch that sysctl.

`BASE` first declares, then empties each chain of ours (not `user`), then fills them: loaded again, in one transaction, it leaves elements
and `user` as they are. A 4 or 6 in a name is the IP version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TABLES = ("inet netplug", "bridge netplug")

BASE = """\
table inet netplug {
	# A network is a bridge; one element each.
	set bridges { type ifname; }
	set self { type ifname . ifname; }  # the same bridge twice: its containers may talk to one another (icc)
	set internal { type ifname; }
	map net_in { type ifname : verdict; }  # how it may be reached from elsewhere
	set masq4 { type ipv4_addr; flags interval; }
	set masq6 { type ipv6_addr; flags interval; }
	set same4 { type ipv4_addr . ipv4_addr; flags interval; }  # a subnet twice
	set same6 { type ipv6_addr . ipv6_addr; flags interval; }
	# A published port: host address and port -> container's; without host address in the maps "any".
	map pub4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	map pub6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
	map pub4any { type inet_proto . inet_service : ipv4_addr . inet_service; }
	map pub6any { type inet_proto . inet_service : ipv6_addr . inet_service; }
	# A container's port that may be reached by the container's own address from outside.
	set direct4 { type ipv4_addr . inet_proto . inet_service; }
	set direct6 { type ipv6_addr . inet_proto . inet_service; }

	chain user { }  # the administrator's: asked first, never emptied
	chain raw { type filter hook prerouting priority raw; policy accept; }
	chain prerouting { type nat hook prerouting priority dstnat; policy accept; }
	chain output { type nat hook output priority -100; policy accept; }
	chain publish { }
	chain forward { type filter hook forward priority filter - 10; policy accept; }
	chain ours { }
	chain in_nat { }
	chain ok { }
	chain postrouting { type nat hook postrouting priority srcnat; policy accept; }
}
table bridge netplug {
	map ports { type ifname : verdict; }  # a bridge port -> goto icc
	set gw { type ifname . ether_addr; }  # a bridge port . the MAC of its bridge

	chain user { }  # the administrator's: asked first, never emptied
	chain prerouting { type filter hook prerouting priority -310; policy accept; }
	chain icc { }
}

flush chain inet netplug raw
flush chain inet netplug prerouting
flush chain inet netplug output
flush chain inet netplug publish
flush chain inet netplug forward
flush chain inet netplug ours
flush chain inet netplug in_nat
flush chain inet netplug ok
flush chain inet netplug postrouting
flush chain bridge netplug prerouting
flush chain bridge netplug icc

table inet netplug {
	# Frames for 127.0.0.0/8 from a wire (CVE-2020-8558). Before conntrack, where our own replies still carry the bridge's address; and
	# before DNAT, which would make them routable.
	chain raw {
		iifname != "lo" ip daddr 127.0.0.0/8 drop
		iifname != "lo" ip saddr 127.0.0.0/8 drop
	}
	chain prerouting {
		fib daddr type local goto publish
	}
	chain output {
		fib daddr type local goto publish
	}
	chain publish {
		meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @pub4any
		meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @pub4
		meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . th dport map @pub6any
		meta l4proto { tcp, udp, sctp } dnat ip6 to ip6 daddr . meta l4proto . th dport map @pub6
	}
	chain forward {
		jump user
		iifname @bridges goto ours
		oifname @bridges goto ours
	}
	chain ours {
		ct state established,related goto ok
		iifname . oifname @self goto ok
		iifname @internal drop
		oifname @internal drop
		oifname vmap @net_in
		ct state invalid drop  # it would leave without NAT
		goto ok
	}
	chain in_nat {
		ct status dnat goto ok  # it came by a host address
		iifname @bridges drop  # another network, by the container's address
		ip daddr . meta l4proto . th dport @direct4 goto ok
		ip6 daddr . meta l4proto . th dport @direct6 goto ok
		drop
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
		ip saddr @masq4 masquerade
		ip6 saddr @masq6 masquerade
	}
}
table bridge netplug {
	chain prerouting {
		jump user
		iifname vmap @ports
	}
	# icc=false. To the host is fine: table inet judges that. This family has no conntrack here.
	chain icc {
		ether type arp accept
		iifname . ether daddr @gw accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
		drop
	}
}
"""

SANDBOX_TABLE = "ip netplug"

SANDBOX = """\
table ip netplug {
	map dns { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	chain output { type nat hook output priority -100; policy accept; }
}
flush chain ip netplug output
flush map ip netplug dns
table ip netplug {
	chain output {
		meta l4proto { tcp, udp } dnat ip to ip daddr . meta l4proto . th dport map @dns
	}
}
"""
"""In a container's namespace: its resolver's address leads to the ports where the resolver really listens. Loading empties the map."""


def _emptying() -> Iterator[str]:
    table = ""
    for line in BASE.splitlines():
        if found := re.match(r"table (\w+ \w+) {", line):
            table = found[1]
        elif found := re.match(r"\t(set|map) (\w+) ", line):
            yield f"flush {found[1]} {table} {found[2]}\n"


EMPTY = "".join(_emptying())
"""Takes all elements out of the sets and maps of BASE."""

CLEAR = "".join(f"add table {table}\ndelete table {table}\n" for table in TABLES)
"""Takes everything away, also what is not there: `add` makes it so that `delete` cannot fail (nft 1.0.6 has no `destroy`)."""
