"""What comes back of the nftables backend's tables when somebody else was at them, and what is left alone."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from netplug.errors import KernelError
from netplug.kernel import namespaces
from netplug.kernel.firewall import Firewall, backend
from netplug.kernel.firewall.libnftables import Context
from netplug.plan import HOST, Direct, FirewallOp, Guard, Isolate, Masquerade, Publish, Remove
from tests.kernel.nft_tables import elements, load, nft, ruleset

WEB = Publish(protocol="tcp", host_port=8080, address="172.20.0.2", port=80)
MANY = [Publish(protocol="udp", host_port=port, address="172.20.0.2", port=port) for port in range(1, 101)]
OPS: list[FirewallOp] = [
    Isolate(bridge="br0", subnets=("172.20.0.0/24", "fd20::/64"), icc=False),
    Masquerade(subnet="172.20.0.0/24"),
    Guard(link="veth1", bridge="br0", bridge_mac="02:42:ac:14:00:01", mac="02:42:ac:14:00:02", addresses=("fd20::2",), antispoof=True),
    WEB,
    *MANY,
    Publish(protocol="tcp", host_port=9000, address="172.20.0.2", port=9000, count=100),
]
OLD = """
table inet netplug {
    set bridges { type ifname; elements = { "br0" }; }
    map net_in { type ifname : verdict; elements = { "br0" : drop }; }
    map pub4any { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 8080 : 172.20.0.2 . 80 }; }
    chain user { tcp dport 99 drop; }
    chain forward { type filter hook forward priority filter - 10; policy accept; jump user; oifname vmap @net_in; }
    chain gone { }
}
table bridge netplug {
    set gw { type ifname; }
    chain user { }
}
"""

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def host() -> Iterator[None]:
    path = f"/run/netns/f{os.getpid()}-h{next(_numbers)}"
    namespaces.create(path)
    try:
        with namespaces.entered(path):
            yield
    finally:
        namespaces.remove(path)


@pytest.fixture
def firewall() -> Firewall:
    firewall = backend("nftables")
    firewall.start()
    firewall.replace(OPS)
    return firewall


def contents() -> list[str]:
    """The ruleset, whichever table was made first."""
    return sorted(json.dumps(item, sort_keys=True) for item in ruleset())


def rule(chain: str, text: str) -> str:
    """The handle of a rule."""
    found = re.search(rf"{re.escape(text)}.*# handle (\d+)", nft("-a", "list", "chain", *chain.split()))
    assert found is not None
    return found[1]


def forbid_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: Any, **__: Any) -> bool:
        raise AssertionError("the tables were read")

    monkeypatch.setattr(Context, "list", look)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param("flush ruleset", ["our firewall tables"], id="ruleset"),
        pytest.param("delete table bridge netplug", ["table bridge netplug"], id="table"),
        pytest.param("flush chain inet netplug forward", ["chain inet netplug forward"], id="chain"),
        pytest.param("insert rule inet netplug forward accept", ["chain inet netplug forward"], id="rule-of-theirs"),
        pytest.param("chain inet netplug forward { policy drop; }", ["chain inet netplug forward"], id="policy"),
        pytest.param("add table inet netplug { flags dormant; }", ["table inet netplug"], id="dormant"),
        pytest.param("delete element inet netplug pub4any { tcp . 8080 }", ["tcp . 8080 in inet netplug pub4any"], id="element"),
        pytest.param("flush map inet netplug pub4any", ["101 elements of inet netplug pub4any"], id="elements"),
        pytest.param("flush map inet netplug pub4anyr", ["tcp . 9000-9099 in inet netplug pub4anyr"], id="range"),
        pytest.param(
            "delete element inet netplug pub4any { tcp . 8080 }; add element inet netplug pub4any { tcp . 8080 : 172.20.0.9 . 80 }",
            ["tcp . 8080 in inet netplug pub4any"],
            id="element-leads-elsewhere",
        ),
    ],
)
def test_what_is_taken_comes_back(firewall: Firewall, change: str, words: list[str]) -> None:
    before = contents()
    nft(change)
    taken = contents()
    assert taken != before

    assert firewall.damage() == words
    assert contents() == taken
    assert firewall.heal() == words
    assert contents() == before
    assert firewall.damage() == firewall.heal() == []


def test_a_deleted_rule_comes_back(firewall: Firewall) -> None:
    """Where it was: the order of rules is part of what they say."""
    before = ruleset()
    nft("delete", "rule", "inet", "netplug", "in_nat", "handle", rule("inet netplug in_nat", "iifname @bridges drop"))

    assert firewall.heal() == ["chain inet netplug in_nat"]
    assert ruleset() == before


@pytest.mark.parametrize(
    "declared",
    [
        "set bridges { type ipv4_addr; }",
        "chain forward { type filter hook forward priority 5; }",
        "chain ours { type filter hook input priority 5; }",
    ],
)
def test_tables_declared_otherwise_are_made_anew(firewall: Firewall, declared: str) -> None:
    nft("add", "rule", "inet", "netplug", "user", "tcp", "dport", "99", "drop")
    assert firewall.heal() == []
    before = contents()
    nft(f"delete table inet netplug; table inet netplug {{ {declared}; }}")

    assert firewall.heal()
    assert contents() == before


def test_what_others_have_is_no_reason(firewall: Firewall) -> None:
    """Their tables; in ours chain `user`, and what it leads to."""
    nft("add table ip other; add chain ip other forward { type filter hook forward priority 0; policy drop; }")
    nft("add chain inet netplug mine; add rule inet netplug mine drop; add rule inet netplug user jump mine")
    nft("add set inet netplug theirs { type ipv4_addr; elements = { 192.0.2.1 }; }")
    nft("add element inet netplug pub4any { tcp . 1 : 172.20.0.9 . 80 }")
    before = contents()

    assert firewall.heal() == []
    assert contents() == before


def test_the_administrators_rules_come_back(firewall: Firewall) -> None:
    """As they were when we last looked."""
    nft('add rule inet netplug user ip saddr { 192.0.2.1, 192.0.2.7-192.0.2.9 } tcp dport 80 counter drop comment "my own"')
    nft("add rule inet netplug user limit rate 10/second accept; add rule bridge netplug user ether type 0x88cc drop")
    assert firewall.heal() == []
    before = contents()

    for change in ("flush ruleset", "delete table inet netplug", "flush table inet netplug"):
        nft(change)
        assert firewall.heal()
        assert contents() == before


def test_the_administrators_rules_come_back_with_the_next_change(firewall: Firewall) -> None:
    nft("add rule inet netplug user tcp dport 99 drop")
    assert firewall.heal() == []
    nft("flush ruleset")

    firewall.apply(HOST, [Direct(protocol="tcp", address="172.20.0.2", port=80)])

    assert "tcp dport 99 drop" in nft("list", "chain", "inet", "netplug", "user")
    assert firewall.heal() == []


def test_rules_that_the_administrator_takes_away_stay_away(firewall: Firewall) -> None:
    nft("add rule inet netplug user tcp dport 99 drop")
    assert firewall.heal() == []

    nft("flush chain inet netplug user; flush chain inet netplug ours")
    assert firewall.heal() == ["chain inet netplug ours"]
    assert "dport" not in nft("list", "chain", "inet", "netplug", "user")

    nft("flush ruleset")
    assert firewall.heal() == ["our firewall tables"]
    assert "dport" not in nft("list", "chain", "inet", "netplug", "user")


def test_rules_that_need_what_is_gone_are_told(firewall: Firewall, caplog: pytest.LogCaptureFixture) -> None:
    """A set of the administrator's own in our table is lost, and what refers to it; our own rules come back all the same."""
    before = contents()
    nft("add set inet netplug mine { type ipv4_addr; }; add rule inet netplug user ip saddr @mine drop")
    assert firewall.heal() == []
    nft("flush ruleset")

    with caplog.at_level(logging.ERROR):
        assert firewall.heal() == ["our firewall tables"]

    assert "ip saddr @mine drop" in caplog.text
    assert contents() == before


def test_nothing_is_read_where_nobody_else_was(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through our own changes too: so it may be called after every one."""
    assert firewall.heal() == []
    forbid_looking(monkeypatch)

    firewall.apply(HOST, [Remove(op=WEB)])
    firewall.apply(HOST, [Remove(op=WEB)])
    firewall.replace(OPS)
    with pytest.raises(KernelError):
        firewall.replace([*OPS, Masquerade(subnet="172.20.0.0/25")])
    assert firewall.heal() == []

    nft("add table ip other")
    with pytest.raises(AssertionError, match="the tables were read"):
        firewall.heal()


def test_a_change_between_two_of_ours_is_noticed(firewall: Firewall) -> None:
    assert firewall.heal() == []
    firewall.apply(HOST, [Remove(op=WEB)])
    nft("flush chain inet netplug ours")
    firewall.apply(HOST, [WEB])

    assert firewall.heal() == ["chain inet netplug ours"]


def test_what_we_took_away_stays_away(firewall: Firewall) -> None:
    firewall.apply(HOST, [Remove(op=WEB)])
    nft("flush ruleset")
    assert firewall.heal() == ["our firewall tables"]
    assert "8080" not in nft("list", "map", "inet", "netplug", "pub4any")

    firewall.clear()
    assert firewall.heal() == []
    assert nft("list", "ruleset") == ""


def test_before_anything_was_loaded_there_is_nothing_to_heal() -> None:
    assert backend("nftables").heal() == []
    assert nft("list", "ruleset") == ""


def test_another_versions_tables() -> None:
    """They protect what they know until all networks are known, and are then exchanged at once; chain `user` stays."""
    new = backend("nftables")
    new.start()
    new.replace(OPS)
    nft("add rule inet netplug user tcp dport 99 drop")
    expected = contents()
    load("flush ruleset" + OLD)
    old = contents()

    firewall = backend("nftables")
    firewall.start()
    assert contents() == old
    assert firewall.heal() == []

    firewall.replace(OPS)
    assert contents() == expected
    assert firewall.heal() == []
    assert firewall.apply(HOST, OPS) == []


def test_a_change_meets_another_versions_tables() -> None:
    load(OLD)
    firewall = backend("nftables")
    firewall.start()

    assert firewall.apply(HOST, [WEB]) == [WEB]
    assert set(elements()) == {"pub4any"}
    assert "tcp dport 99 drop" in nft("list", "chain", "inet", "netplug", "user")
