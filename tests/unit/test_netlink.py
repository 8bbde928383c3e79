"""Packing and parsing of netlink messages, by pyroute2's eyes; no root."""

from __future__ import annotations

import errno
import struct

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netplug.errors import KernelError
from netplug.kernel import addresses, announce, links, routes, sysctl
from netplug.kernel.netlink import (
    Message,
    Refused,
    _batches,
    _refusal,
    attribute,
    nested,
    number,
    parse,
    parse_attributes,
    parse_number,
    parse_text,
    text,
)
from netplug.plan import LINK_GROUP, ROUTE_PROTOCOL, Address, Bridge, Route, Veth


def decoded(kind: type, message: Message) -> object:
    """The body of our message, decoded by pyroute2."""
    data = struct.pack("=IHHII", 16 + len(message.body), message.kind, message.flags, 1, 0) + message.body
    result = kind(data)
    result.decode()
    return result


def test_attributes_are_read_as_they_were_written():
    data = number(1, 4711) + text(2, "eth0") + nested(3, attribute(1, b"abc"))

    found = parse_attributes(data)

    assert parse_number(found[1]) == 4711
    assert parse_text(found[2]) == "eth0"
    assert parse_attributes(found[3]) == {1: b"abc"}


def test_attributes_start_on_four_byte_boundaries():
    assert len(attribute(1, b"abcde")) == 12
    assert struct.unpack_from("=HH", attribute(1, b"abcde")) == (9, 1)


@pytest.mark.parametrize("data", [b"", b"\1", b"\0\0\0\0", b"\2\0\1\0" * 3])
def test_broken_attributes_end_the_list(data: bytes):
    assert parse_attributes(data) == {}


def test_several_messages_in_one_datagram():
    one = struct.pack("=IHHII", 17, 16, 2, 7, 0) + b"x\0\0\0"
    two = struct.pack("=IHHII", 18, 3, 0, 8, 0) + b"yz\0\0"

    assert [(reply.kind, reply.flags, reply.sequence, reply.body) for reply in parse(one + two)] == [(16, 2, 7, b"x"), (3, 0, 8, b"yz")]


def test_an_ack_without_error_is_no_refusal():
    (reply,) = parse(struct.pack("=IHHIIi16x", 36, 2, 0x100, 1, 0, 0))

    assert _refusal(reply) is None


def test_the_explanation_of_the_kernel_is_kept():
    explanation = text(1, "Nexthop has invalid gateway")
    body = struct.pack("=i16x", -errno.ENETUNREACH) + explanation
    (reply,) = parse(struct.pack("=IHHII", 16 + len(body), 2, 0x300, 1, 0) + body)

    refused = _refusal(reply)

    assert isinstance(refused, Refused)
    assert (refused.errno, refused.strerror) == (errno.ENETUNREACH, "Nexthop has invalid gateway")


def test_large_batches_are_split_by_size_and_by_number():
    small, large = Message(1, b""), Message(1, bytes(40_000))

    assert [len(batch) for batch in _batches([small] * 4500)] == [2000, 2000, 500]
    assert [len(batch) for batch in _batches([large] * 3)] == [1, 1, 1]
    assert list(_batches([])) == []


def test_a_veth_with_its_far_end_in_one_message():
    op = Veth(name="veth1", peer="eth0", peer_namespace="/x", mac="02:42:0a:00:00:02", mtu=1400, master="br0", alias="netplug:a/b")

    new, dress, up = links.new_veth(op, 2_000_000, 3_000_000, 7, 42)

    message = decoded(ifinfmsg, new)
    assert (message["index"], message["flags"] & 1, message["change"]) == (2_000_000, 0, 0)
    assert message.get_attr("IFLA_IFNAME") == "veth1"
    assert message.get_attr("IFLA_GROUP") == LINK_GROUP
    assert message.get_attr("IFLA_MASTER") == 42
    assert message.get_attr("IFLA_MTU") == 1400
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert (peer["index"], peer["flags"]) == (3_000_000, 0)
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "02:42:0a:00:00:02"
    assert peer.get_attr("IFLA_MTU") == 1400
    assert peer.get_attr("IFLA_NET_NS_FD") == 7
    second = decoded(ifinfmsg, dress)
    assert second.get_attr("IFLA_IFALIAS") == "netplug:a/b"
    assert second.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_KIND") == "bridge"
    third = decoded(ifinfmsg, up)
    assert (third["index"], third["flags"], third["change"]) == (2_000_000, 1, 1)


def test_a_bridge():
    new, up = links.new_bridge(Bridge(name="br0", mac="02:42:00:00:00:01", alias="netplug:a"), 5_000_000)

    message = decoded(ifinfmsg, new)
    assert message.get_attr("IFLA_ADDRESS") == "02:42:00:00:00:01"
    assert message.get_attr("IFLA_GROUP") == LINK_GROUP
    assert message.get_attr("IFLA_MTU") is None
    assert message.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "bridge"
    second = decoded(ifinfmsg, up)
    assert (second["index"], second["flags"], second.get_attr("IFLA_IFALIAS")) == (5_000_000, 1, "netplug:a")


@pytest.mark.parametrize(
    ("address", "family", "broadcast", "flags"),
    [
        ("172.18.0.2/16", 2, "172.18.255.255", 0),
        ("10.0.0.0/31", 2, None, 0),
        ("10.0.0.1/32", 2, None, 0),
        ("fd00::2/64", 10, None, 2),
    ],
)
def test_addresses(address: str, family: int, broadcast: str | None, flags: int):
    """IPv4 with its broadcast address where there is one, IPv6 without duplicate-address detection."""
    message = decoded(ifaddrmsg, addresses.add(Address(link="eth0", address=address), 9))

    local, prefix = address.split("/")
    assert (message["family"], message["prefixlen"], message["index"], message["flags"]) == (family, int(prefix), 9, flags)
    assert (message.get_attr("IFA_LOCAL"), message.get_attr("IFA_BROADCAST")) == (local, broadcast)


@pytest.mark.parametrize(
    ("route", "destination", "prefix", "family", "scope"),
    [
        (Route(destination="default", link="eth0", gateway="10.0.0.1"), None, 0, 2, 0),
        (Route(destination="default", link="eth0", gateway="fd00::1"), None, 0, 10, 0),
        (Route(destination="10.1.0.0/16", link="eth0"), "10.1.0.0", 16, 2, 253),
        (Route(destination="fd01::/64", link="eth0"), "fd01::", 64, 10, 0),
    ],
)
def test_routes(route: Route, destination: str | None, prefix: int, family: int, scope: int):
    message = decoded(rtmsg, routes.add(route, 9))

    assert (message["family"], message["dst_len"], message["scope"]) == (family, prefix, scope)
    assert (message["proto"], message["table"], message["type"]) == (ROUTE_PROTOCOL, 254, 1)
    assert (message.get_attr("RTA_DST"), message.get_attr("RTA_OIF")) == (destination, 9)
    assert message.get_attr("RTA_GATEWAY") == (route.gateway or None)


def test_a_gratuitous_arp_request():
    """RFC 5227: sender and target address are the same, the target's hardware address is empty."""
    frame = announce.announcement("10.0.0.2", "02:42:0a:00:00:02")

    assert frame.hex() == "ffffffffffff02420a0000020806000108000604000102420a0000020a0000020000000000000a000002"


@pytest.mark.parametrize("key", ["kernel.hostname", "net.ipv4..x", "net.//.x", "", "net.ipv4.conf.//.//"])
def test_only_network_sysctls_are_touched(key: str):
    with pytest.raises(KernelError, match="not the key of a network sysctl"):
        sysctl.read(key)
