"""What the firewall is to let pass, lead elsewhere, or refuse. How, is the business of `netplug.kernel.firewall`."""

from __future__ import annotations

from typing import Literal

from netplug.model import Protocol
from netplug.plan.op import FirewallOp

GatewayMode = Literal["nat", "nat-unprotected", "routed"]


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
