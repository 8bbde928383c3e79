"""Which subnets the host reaches, and finding and putting back routes."""

from __future__ import annotations

import socket

import pytest

from netplug.kernel import links, routes
from netplug.kernel.netlink import Socket
from netplug.plan import LINK_GROUP, Route
from tests.kernel.inside import command, in_host, ip


@in_host
def test_subnets_of_the_host():
    """Addresses and routes in all tables; no default route, whole or in halves, nothing of our own links."""
    command("ip", "link", "add", "uplink", "up", "type", "veth", "peer", "name", "far")
    command("ip", "link", "set", "far", "up")
    command("ip", "link", "add", "br-ours", "up", "group", str(LINK_GROUP), "type", "bridge")
    for address, name in (("192.0.2.9/24", "uplink"), ("10.1.0.1/32", "uplink"), ("172.18.0.1/16", "br-ours")):
        command("ip", "address", "add", address, "dev", name)
    command("ip", "address", "add", "10.3.0.1", "peer", "10.3.0.2/32", "dev", "uplink")
    for route in ("default", "0.0.0.0/1", "128.0.0.0/1", "10.99.0.0/16"):
        command("ip", "route", "add", route, "via", "192.0.2.1")
    command("ip", "route", "add", "blackhole", "10.98.0.0/16")
    command("ip", "route", "add", "10.97.0.0/16", "via", "192.0.2.1", "table", "77")
    command("ip", "route", "add", "10.96.0.0/16", "nexthop", "via", "192.0.2.1", "nexthop", "via", "192.0.2.2")
    command("ip", "route", "add", "10.95.0.0/16", "dev", "br-ours")

    assert routes.host_subnets() == [
        "10.1.0.1/32",
        "10.3.0.2/32",
        "10.96.0.0/16",
        "10.97.0.0/16",
        "10.98.0.0/16",
        "10.99.0.0/16",
        "127.0.0.0/8",
        "192.0.2.0/24",
    ]
    known = ["10.1.0.1/32", "10.96.0.0/16", "10.98.0.0/16", "10.99.0.0/16", "127.0.0.0/8", "203.0.113.0/24"]
    assert routes.host_subnets(known=known) == ["10.3.0.2/32", "10.97.0.0/16", "192.0.2.0/24"]


@in_host
def test_a_bridge_that_is_out_of_use_has_no_subnets():
    command("ip", "link", "add", "br-ours", "up", "type", "bridge")
    command("ip", "address", "add", "10.50.0.1/24", "dev", "br-ours")
    index = socket.if_nametoindex("br-ours")
    with Socket() as netlink:
        netlink.send(links.retire(index))
    command("ip", "link", "set", links.retired(index), "group", "0")  # it is known without a look at the link

    assert routes.host_subnets() == ["127.0.0.0/8"]


@in_host
def test_ipv6_subnets_of_the_host():
    """As for IPv4; nothing link-local, loopback or multicast, and no default route in the pieces that VPNs write."""
    for name in ("uplink", "lab0"):
        command("ip", "link", "add", name, "up", "type", "veth", "peer", "name", f"far-{name}")
        command("ip", "link", "set", f"far-{name}", "up")
    command("ip", "link", "add", "br-ours", "up", "group", str(LINK_GROUP), "type", "bridge")
    for address, name in (("fd01::1/64", "uplink"), ("fd02::9/128", "uplink"), ("fd03::1/64", "br-ours"), ("fd04::1/64", "lab0")):
        command("ip", "address", "add", address, "dev", name, "nodad")
    for route in ("default", "2000::/3", "fc00::/7", "::/1", "fd05::/48"):
        command("ip", "route", "add", route, "via", "fd01::2")
    command("ip", "-6", "route", "add", "blackhole", "fd06::/64")
    command("ip", "-6", "route", "add", "fd07::/64", "via", "fd01::2", "table", "77")
    command("ip", "-6", "route", "add", "fe80:1::/32", "dev", "uplink")
    command("ip", "-6", "route", "add", "ff05::/16", "dev", "uplink")

    assert routes.host_subnets(beside={"lab0"}) == [
        "127.0.0.0/8",
        "fd01::/64",
        "fd02::9/128",
        "fd05::/48",
        "fd06::/64",
        "fd07::/64",
    ]


@in_host
def test_a_host_without_routes():
    assert routes.host_subnets() == ["127.0.0.0/8"]


@pytest.mark.parametrize(
    ("family", "added", "wanted"),
    [
        (
            "-4",
            "default via 192.0.2.1 dev uplink proto dhcp src 192.0.2.9 mtu 1400",
            Route(destination="default", gateway="192.0.2.7", link="uplink"),
        ),
        (
            "-4",
            "10.9.0.0/16 nexthop via 192.0.2.1 weight 1 nexthop via 192.0.2.2 weight 3",
            Route(destination="10.9.0.0/16", link="uplink"),
        ),
        ("-4", "blackhole 10.9.0.0/16", Route(destination="10.9.0.0/16", link="uplink")),
        ("-4", "10.9.0.0/16 via 203.0.113.1 dev uplink onlink", Route(destination="10.9.0.0/16", link="uplink")),
        ("-6", "default via fd00::1 dev uplink proto static", Route(destination="default", gateway="fd00::7", link="uplink")),
        ("-6", "fd09::/64 via fd00::1 dev uplink src fd00::9", Route(destination="fd09::/64", link="uplink")),
    ],
)
@in_host
def test_a_replaced_route_is_put_back_as_it_was(family: str, added: str, wanted: Route):
    command("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far")
    for link in ("far", "uplink"):  # without addresses that the kernel gives them when it has time
        command("ip", "link", "set", link, "up", "addrgenmode", "none")
    command("ip", "address", "add", "192.0.2.9/24", "dev", "uplink")
    command("ip", "address", "add", "fd00::9/64", "dev", "uplink", "nodad")
    # Beside it, other metrics and other destinations, which are not what the route replaces.
    command("ip", family, "route", "add", "blackhole", "default", "metric", "4000")
    command("ip", family, "route", "add", *added.split())
    before = ip(family, "route")
    with Socket() as netlink:
        found = routes.find(netlink, wanted)
        uplink = links.find(netlink, "uplink")
        assert found is not None
        assert uplink is not None
        assert not found.leads_as(wanted, uplink.index)

        netlink.request(routes.replace(wanted, uplink.index))
        assert ip(family, "route") != before
        replaced = routes.find(netlink, wanted)
        assert replaced is not None
        assert replaced.leads_as(wanted, uplink.index)

        netlink.request(found.put_back())

    assert sorted(ip(family, "route"), key=str) == sorted(before, key=str)
