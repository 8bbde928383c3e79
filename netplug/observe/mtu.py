"""MTU traps: packets of a network that are larger than its way out, or than its own bridge, takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netplug.kernel.facts import HostLink
from netplug.model import Network
from netplug.observe.situation import MTU, Finding, Situation, mtu_of, ok, warning

CHECK = "mtu"
BRIDGE_NAME = "com.docker.network.bridge.name"


def check(situation: Situation, links: Sequence[HostLink], uplinks: Sequence[HostLink], room: int = 0) -> Iterator[Finding]:
    """`room`: of a tunnel to another node, as in `Underlay`; 0: this host has none."""
    if not uplinks:
        yield ok(CHECK, "this host has no way out")
        return
    narrow = min(uplinks, key=lambda link: link.mtu)
    findings = [finding for network in situation.networks for finding in of_network(network, links, uplinks, room)]
    if situation.wanted.mtu:
        findings += _compared(f"an MTU of {situation.wanted.mtu}", situation.wanted.mtu, narrow, "")
    elif not situation.running:
        mtu = situation.settings.mtu
        findings += _compared(
            f"the default bridge's MTU of {mtu or 1500}", mtu or 1500, narrow, f"start the daemon with --mtu {narrow.mtu}"
        )
    yield from findings or [ok(CHECK, f"the way out, {narrow.name}, takes {narrow.mtu}; no network needs more")]


def of_network(network: Network, links: Sequence[HostLink], uplinks: Sequence[HostLink], room: int = 0) -> Iterator[Finding]:
    mtu = mtu_of(network)
    if network.scope == "global":
        yield from _in_tunnel(network, mtu, room)
        return
    bridge = next((link for link in links if link.name == bridge_name(network)), None)
    if bridge is not None and bridge.mtu < mtu and not (network.options.get(MTU) is None and bridge.ours):
        found = f"the bridge {bridge.name} of network {network.name} takes {bridge.mtu}, its containers send {mtu}: larger packets are lost"
        yield warning(CHECK, found, f"ip link set {bridge.name} mtu {mtu}, or make the network with --opt {MTU}={bridge.mtu}")
    if uplinks and concerned(network):
        narrow = min(uplinks, key=lambda link: link.mtu)
        option = f"--mtu {narrow.mtu} for the daemon" if network.predefined else f"--opt {MTU}={narrow.mtu}"
        yield from _compared(f"network {network.name}'s MTU of {mtu}", mtu, narrow, f"make it with {option}")


def concerned(network: Network) -> bool:
    """Whether its packets take the host's way out."""
    return bool(network.pools) and not network.internal and network.scope != "global"


def _in_tunnel(network: Network, mtu: int, room: int) -> Iterator[Finding]:
    """Without an option it takes what room there is."""
    if room and MTU in network.options and mtu > room:
        found = f"network {network.name}'s MTU of {mtu} is above the {room} that a tunnel to another node has room for"
        yield warning(CHECK, f"{found}: larger packets go in pieces, or are lost", f"make it with --opt {MTU}={room}")


def _compared(what: str, mtu: int, uplink: HostLink, remedy: str) -> list[Finding]:
    if mtu <= uplink.mtu:
        return []
    found = f'{what} is above the {uplink.mtu} of the way out, {uplink.name}: where nobody answers "too big", large packets are lost'
    return [warning(CHECK, found, remedy or f"use --opt {MTU}={uplink.mtu}")]


def bridge_name(network: Network) -> str:
    """Of the bridge that the network has if it is a bridge network."""
    return network.options.get(BRIDGE_NAME, "") or f"br-{network.id:.12}"
