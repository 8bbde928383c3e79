"""What a failed or restored step is called."""

from __future__ import annotations

import pytest

from netplug.kernel.outcome import describe
from netplug.plan import (
    Address,
    Announce,
    AnyOp,
    Bridge,
    Direct,
    DnsRedirect,
    Fdb,
    FlushFlows,
    Guard,
    Isolate,
    LinkUp,
    Masquerade,
    Neighbour,
    Netns,
    Publish,
    Remove,
    Route,
    Sysctl,
    Veth,
    Vxlan,
)

FLUSH = FlushFlows(protocol="udp", port=53)
SYSCTL = Sysctl(key="net.ipv4.ip_forward", value="1")
ANNOUNCE = Announce(link="eth0", address="10.0.0.2", mac="")


@pytest.mark.parametrize(
    ("op", "making", "removing"),
    [
        (Netns(path="/run/n"), "create network namespace /run/n", "remove network namespace /run/n"),
        (Bridge(name="br0", mac=""), "create bridge br0", "delete br0"),
        (Veth(name="veth1", peer="eth0", peer_namespace="/run/n", mac=""), "create veth veth1 with eth0 in /run/n", "delete veth1"),
        (Vxlan(name="vx-1", link_namespace="/run/n", vni=4097, local="192.0.2.1"), "create VXLAN vx-1 with VNI 4097", "delete vx-1"),
        (
            Fdb(link="vx-1", mac="02:42:0a:00:00:02", vtep="192.0.2.2"),
            "add forwarding of 02:42:0a:00:00:02 to 192.0.2.2 on vx-1",
            "remove forwarding of 02:42:0a:00:00:02 to 192.0.2.2 on vx-1",
        ),
        (
            Neighbour(link="vx-1", address="10.0.0.2", mac="02:42:0a:00:00:02"),
            "add neighbour 10.0.0.2 with 02:42:0a:00:00:02 on vx-1",
            "remove neighbour 10.0.0.2 with 02:42:0a:00:00:02 on vx-1",
        ),
        (LinkUp(link="eth0"), "set eth0 up", "set eth0 down"),
        (Address(link="eth0", address="10.0.0.2/8"), "add 10.0.0.2/8 to eth0", "remove 10.0.0.2/8 from eth0"),
        (
            Route(destination="default", gateway="10.0.0.1", link="eth0"),
            "add route default via 10.0.0.1 on eth0",
            "remove route default via 10.0.0.1 on eth0",
        ),
        (Route(destination="10.1.0.0/16", link="eth0"), "add route 10.1.0.0/16 on eth0", "remove route 10.1.0.0/16 on eth0"),
        (SYSCTL, "set sysctl net.ipv4.ip_forward=1", "set sysctl net.ipv4.ip_forward=1"),
        (ANNOUNCE, "announce 10.0.0.2 on eth0", "announce 10.0.0.2 on eth0"),
        (FLUSH, "flush tracked udp flows to port 53", "flush tracked udp flows to port 53"),
        (Isolate(bridge="br0", subnets=()), "add isolation of br0", "remove isolation of br0"),
        (Masquerade(subnet="10.0.0.0/8"), "add masquerading of 10.0.0.0/8", "remove masquerading of 10.0.0.0/8"),
        (
            Guard(link="veth1", bridge="br0", bridge_mac="", icc=False),
            "add block between veth1 and its neighbours",
            "remove block between veth1 and its neighbours",
        ),
        (
            Publish(protocol="tcp", host_port=8080, address="10.0.0.2", port=80),
            "publish port 0.0.0.0:8080/tcp to 10.0.0.2:80",
            "unpublish port 0.0.0.0:8080/tcp to 10.0.0.2:80",
        ),
        (
            Direct(protocol="tcp", address="10.0.0.2", port=80),
            "add direct access to 10.0.0.2:80/tcp",
            "remove direct access to 10.0.0.2:80/tcp",
        ),
        (DnsRedirect(udp_port=1, tcp_port=2), "add redirection of names", "remove redirection of names"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_op_has_a_name(op: AnyOp, making: str, removing: str):
    assert describe(op) == making
    assert describe(Remove(op=op)) == removing
