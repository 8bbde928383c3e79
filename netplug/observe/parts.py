"""Parts of the kernel, and what each is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from netplug.observe.situation import Finding, Situation, error, ok, warning

CHECK = "kernel"
_NEEDED = {
    "veth": "no container gets an interface",
    "bridge": "no bridge network can be made",
    "nftables inet": "the nftables backend has no NAT and no filter (Linux 5.2 and newer have it)",
    "nftables nat": "the nftables backend cannot publish ports or masquerade",
    "nftables intervals": "the nftables backend cannot hold subnets (Linux 5.6 and newer can)",
    "nftables conntrack": "the nftables backend cannot tell answers from requests",
    "nftables bridge": "icc=false and anti-spoofing do not hold inside a bridge",
    "namespace cookies": "sandboxes cannot be told apart after a restart (Linux 5.14 and newer can)",
}
_USEFUL = {
    "conntrack": "tracked flows of ports that are gone cannot be forgotten (CONFIG_NF_CT_NETLINK)",
    "vxlan": "overlay networks over several hosts cannot be made (CONFIG_VXLAN)",
    "macvlan": "macvlan networks cannot be made (CONFIG_MACVLAN)",
    "ipvlan": "ipvlan networks cannot be made (CONFIG_IPVLAN)",
    "vlan": "parents such as eth0.100 cannot be made for macvlan and ipvlan (CONFIG_VLAN_8021Q)",
    "dummy": "macvlan and ipvlan networks without a parent cannot be made (CONFIG_DUMMY, or CONFIG_IFB in its place)",
    "sctp": "ports of SCTP cannot be held (CONFIG_IP_SCTP)",
    "iptables legacy": "of use only where iptables is iptables-legacy",
}
_SILENT = frozenset({"iptables legacy"})
_INSTEAD = {"dummy": "ifb"}
"""What is used where the other is missing."""


def check(situation: Situation, there: Mapping[str, bool | None]) -> Iterator[Finding]:
    nftables = situation.settings.backend == "nftables"
    for name, meaning in {**_NEEDED, **_USEFUL}.items():
        match there.get(name):
            case True:
                continue
            case None:
                if name not in _SILENT:
                    yield warning(CHECK, f"{name}: could not be tried, for want of a program", "install nftables")
            case False if name in _SILENT or there.get(_INSTEAD.get(name, "")):
                continue
            case False if name in _NEEDED and (nftables or not name.startswith("nftables")):
                yield error(CHECK, f"{name} is missing: {meaning}", "use a kernel that has it, or load its module")
            case False:
                yield warning(CHECK, f"{name} is missing: {meaning}", "nothing to do, unless you need it")
    present = [name for name, found in there.items() if found]
    yield ok(CHECK, f"there: {', '.join(present)}")
