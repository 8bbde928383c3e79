"""Addresses that a network's packets are to leave the host with (`com.docker.network.host_ipv4`, `host_ipv6`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from netplug.model import Network
from netplug.observe.situation import Finding, warning

OPTIONS = ("com.docker.network.host_ipv4", "com.docker.network.host_ipv6")


def of_network(network: Network, local: Callable[[str], bool]) -> Iterator[Finding]:
    """One that the host does not have is no error: the routers before it may send it here nevertheless."""
    for option in OPTIONS:
        address = network.options.get(option, "") if network.driver == "bridge" else ""
        if address and not local(address):
            found = f"{address} is not an address of this host: what leaves network {network.name} with it may get no answer"
            yield warning("addresses", found, f"add it to a link of this host, or make the network with another --opt {option}")
