"""What the user has made on the host before a network comes to use it."""

from __future__ import annotations

from netplug.kernel import addresses, links
from netplug.kernel.netlink import Socket
from netplug.kernel.syscalls import asked
from netplug.model import FoundLink


def users_link(name: str) -> FoundLink | None:
    """The link of that name in the calling thread's namespace, unless it is one of ours."""
    with asked(f"look at {name}"), Socket() as netlink:
        link = links.find(netlink, name)
        if link is None or link.ours:
            return None
        own = [str(one.address) for one in addresses.dump(netlink) if one.index == link.index]
    return FoundLink(name=name, kind=link.kind, mac=link.mac, addresses=tuple(own))
