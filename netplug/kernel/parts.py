"""Which parts this kernel has, tried out in a network namespace that is thrown away; the host's is never touched.

A part that lies ready as a module and is not loaded yet counts as there, untried: loading `dummy`, for one, makes a `dummy0` on the host.
"""

from __future__ import annotations

import errno
import platform
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from netplug.errors import KernelError
from netplug.kernel import links, namespaces
from netplug.kernel.netlink import NETLINK_NETFILTER, NLM_F_CREATE, NLM_F_EXCL, Message, Refused, Socket, attribute, nested, text
from netplug.kernel.syscalls import asked, unshare_network

LINK_KINDS = {
    "veth": "veth",
    "bridge": "bridge",
    "vxlan": "vxlan",
    "macvlan": "macvlan",
    "ipvlan": "ipvlan",
    "vlan": "8021q",
    "dummy": "dummy",
    "ifb": "ifb",
}
"""By kind: the module that has it."""
_NFT = {
    "nftables inet": "add table inet p; add chain inet p c { type filter hook forward priority -10; };"
    " add rule inet p c fib daddr type local",
    "nftables bridge": "add table bridge p; add chain bridge p c { type filter hook prerouting priority -310; }",
    "nftables nat": "add table inet p; add chain inet p c { type nat hook postrouting priority 100; }; add rule inet p c masquerade",
    "nftables intervals": "add table inet p; add set inet p s { type ipv4_addr . ipv4_addr; flags interval; }",
    "nftables conntrack": "add table inet p; add chain inet p c { type filter hook forward priority 0; };"
    " add rule inet p c ct status dnat ct state established accept",
}
_GET_FLOWS = 0x101  # subsystem NFNL_SUBSYS_CTNETLINK (1) << 8, IPCTNL_MSG_CT_GET
_FLOWS = struct.Struct("=BBH")
_CTNETLINK = frozenset({errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL})


def parts() -> dict[str, bool | None]:
    """By name, whether the kernel has it; None where that could not be tried, for want of a program."""
    with ThreadPoolExecutor(1, thread_name_prefix="netplug-parts") as thread:
        return thread.submit(_try_all).result()


def _try_all() -> dict[str, bool | None]:
    """In a thread of its own, which ends with the namespace it makes."""
    with asked("make a network namespace to try the kernel in (are you root?)"):
        unshare_network()
    ready = _modules()
    tries: dict[str, Callable[[], bool | None]] = {kind: partial(_link, kind) for kind in LINK_KINDS}
    tries |= {name: partial(_nft, rules) for name, rules in _NFT.items()}
    tries |= {"conntrack": _conntrack, "iptables legacy": _legacy, "sctp": _sctp, "namespace cookies": _cookies}
    modules = {**LINK_KINDS, "sctp": "sctp", "iptables legacy": "ip_tables", "conntrack": "nf_conntrack_netlink"}
    return {name: True if _waits(modules.get(name, ""), ready) else attempt() for name, attempt in tries.items()}


def _modules() -> frozenset[str]:
    """Names of the modules that could be loaded (modprobe(8)); without `-`, which file names have and names have not."""
    try:
        listing = (Path("/lib/modules") / platform.release() / "modules.dep").read_text()
    except OSError:
        return frozenset()
    return frozenset(Path(line.partition(":")[0]).name.partition(".ko")[0].replace("-", "_") for line in listing.splitlines())


def _waits(module: str, ready: frozenset[str]) -> bool:
    return module in ready and not (Path("/sys/module") / module).exists()


def _link(kind: str) -> bool:
    """A kind that the kernel does not know is EOPNOTSUPP; one that it knows may still miss its parent or its number."""
    described = nested(links.IFLA_LINKINFO, attribute(links.INFO_KIND, kind.encode()))
    body = links.header() + text(links.IFLA_IFNAME, f"p-{kind}") + described
    with Socket() as netlink:
        try:
            netlink.request(Message(links.RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL))
        except Refused as refused:
            return refused.errno != errno.EOPNOTSUPP
    return True


def _nft(rules: str) -> bool | None:
    return _succeeds("nft", f"flush ruleset; {rules}")


def _legacy() -> bool | None:
    return _succeeds("iptables-legacy", "-t", "nat", "-S")


def _succeeds(program: str, *arguments: str) -> bool | None:
    found = shutil.which(program)
    return None if found is None else subprocess.run([found, *arguments], capture_output=True, timeout=20, check=False).returncode == 0


def _conntrack() -> bool:
    try:
        with Socket(NETLINK_NETFILTER) as netlink:
            netlink.dump(Message(_GET_FLOWS, _FLOWS.pack(socket.AF_INET, 0, 0)))
    except OSError as error:
        if error.errno not in _CTNETLINK:
            raise
        return False
    return True


def _sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def _cookies() -> bool:
    try:
        return namespaces.cookie("") is not None
    except KernelError:
        return False
