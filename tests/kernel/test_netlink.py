"""The netlink socket against the real kernel: every message is answered for."""

from __future__ import annotations

import errno

import pytest

from netplug.errors import KernelError
from netplug.kernel import addresses, links, routes
from netplug.kernel.netlink import Refused, Socket
from netplug.kernel.syscalls import asked
from netplug.plan import LINK_GROUP, Address, Route, Veth
from tests.kernel.inside import addresses as shown_addresses
from tests.kernel.inside import command, in_host, ip, link


@in_host
def test_a_batch_goes_on_past_a_refused_message():
    command("ip", "link", "add", "kbr", "up", "type", "bridge")
    index = link("kbr")["ifindex"]
    with Socket() as netlink:
        answers = netlink.send(
            [
                addresses.add(Address(link="kbr", address="10.1.0.1/24"), index),
                addresses.add(Address(link="kbr", address="10.1.0.1/24"), index),
                routes.add(Route(destination="10.9.0.0/16", gateway="192.0.2.1", link="kbr"), index),
                addresses.add(Address(link="kbr", address="10.2.0.1/24"), index),
                links.delete(999_999),
            ]
        )

    assert [answer and (answer.errno, answer.strerror) for answer in answers] == [
        None,
        (errno.EEXIST, "ipv4: Address already assigned"),
        (errno.ENETUNREACH, "Nexthop has invalid gateway"),
        None,
        (errno.ENODEV, "No such device"),
    ]
    assert shown_addresses("kbr") == {"10.1.0.1/24", "10.2.0.1/24"}


@in_host
@pytest.mark.parametrize("refused", [(), (0,), (2,), (4,), (1, 3), (0, 4), (0, 1, 2, 3, 4)], ids=str)
def test_each_message_has_its_own_answer(refused: tuple[int, ...]):
    """Only the last is asked for an ack; a refusal comes unasked, and the next batch hears nothing of it."""
    command("ip", "link", "add", "kbr", "up", "type", "bridge")
    index = link("kbr")["ifindex"]
    there = Address(link="kbr", address="10.9.0.1/24")
    wanted = [there if position in refused else Address(link="kbr", address=f"10.{position}.0.1/24") for position in range(5)]
    with Socket() as netlink:
        netlink.request(addresses.add(there, index))
        answers = netlink.send([addresses.add(op, index) for op in wanted])
        again = netlink.send([addresses.delete(op, index) for op in wanted if op != there])

    assert [position for position, answer in enumerate(answers) if answer is not None] == list(refused)
    assert {answer.errno for answer in answers if answer is not None} <= {errno.EEXIST}
    assert set(again) <= {None}
    assert shown_addresses("kbr") == {"10.9.0.1/24"}


@in_host
def test_thousands_of_messages_in_one_call():
    """More than one send takes, and more acks than the usual receive buffer holds; refusals stay with their messages."""
    command("ip", "link", "add", "kbr", "type", "bridge")
    index = link("kbr")["ifindex"]
    wanted = [Address(link="kbr", address=f"10.{number >> 8}.{number & 255}.1/24") for number in range(5000)]
    for position in (0, 777, 4998):
        wanted[position + 1] = wanted[position]
    with Socket() as netlink:
        answers = netlink.send([addresses.add(op, index) for op in wanted])

    assert [position for position, answer in enumerate(answers) if answer is not None] == [1, 778, 4999]
    assert len(shown_addresses("kbr")) == 4997


@in_host
def test_links_are_read_as_ip_shows_them():
    command("ip", "link", "add", "kbr", "group", str(LINK_GROUP), "up", "type", "bridge")
    command("ip", "link", "set", "kbr", "alias", "what it is")
    command("ip", "link", "add", "near", "master", "kbr", "up", "type", "veth", "peer", "name", "far")
    command("ip", "link", "set", "near", "type", "bridge_slave", "hairpin", "on")
    with Socket() as netlink:
        dumped = links.dump(netlink)
        single = links.find(netlink, "near")
        by_index = links.find(netlink, dumped["near"].index)
        missing = [links.find(netlink, "nothing"), links.find(netlink, 999_999), links.find(netlink, "a name that no link can have")]

    expected = {one["ifname"]: one for one in ip("link")}
    assert dumped.keys() == expected.keys()
    for name, shown in dumped.items():
        assert shown.index == expected[name]["ifindex"]
        assert shown.up is ("UP" in expected[name]["flags"])
        assert shown.kind == expected[name].get("linkinfo", {}).get("info_kind", "")
    assert (dumped["kbr"].group, dumped["kbr"].alias, dumped["kbr"].ours) == (LINK_GROUP, "what it is", True)
    assert (dumped["near"].master, dumped["near"].hairpin, dumped["near"].ours) == (dumped["kbr"].index, True, False)
    assert single == by_index == dumped["near"]
    assert missing == [None, None, None]


@in_host
def test_a_dump_of_many_links_is_whole():
    """It comes in several datagrams."""
    made = set()
    messages = []
    for number in range(100):
        op = Veth(name=f"near{number}", peer=f"far{number}", peer_namespace="", mac="02:42:00:00:00:01")
        made |= {op.name, op.peer}
        messages += links.new_veth(op, links.choose_index(), links.choose_index(), None, 0)
    with Socket() as netlink:
        assert set(netlink.send(messages)) == {None}
        assert set(links.dump(netlink)) == {"lo", *made}


@in_host
def test_a_refusal_becomes_a_kernel_error_at_the_boundary():
    with Socket() as netlink:
        with pytest.raises(Refused):
            netlink.request(links.delete(999_999))
        with pytest.raises(KernelError) as raised, asked("delete a link"):
            netlink.request(links.delete(999_999))

    assert (raised.value.errno, raised.value.operation, str(raised.value)) == (
        errno.ENODEV,
        "delete a link",
        "delete a link: No such device",
    )
