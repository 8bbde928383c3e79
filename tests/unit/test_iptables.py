"""What the iptables backend makes of ops, and of what the programs print: no kernel needed."""

from __future__ import annotations

import pytest

from netplug.errors import InvalidArgument
from netplug.kernel.firewall import BACKENDS, backend
from netplug.kernel.firewall.elements import Elements, Place
from netplug.kernel.firewall.iptables_bridge import BASE, CLEAR, EMPTY
from netplug.kernel.firewall.iptables_chains import addition, changes, clearing, document, gaps, read_listing, read_rules, repair
from netplug.kernel.firewall.iptables_rules import SANDBOX, TABLES, Table, rules, text_of
from netplug.plan import AllowPeer, Direct, DnsRedirect, Guard, Isolate, Masquerade, Op, Publish

CHAINS = Table("ip", "filter", (("FORWARD", "-j NETPLUG-FORWARD"),), {"NETPLUG-USER": (), "NETPLUG-FORWARD": ("-j NETPLUG-USER",)})
PLACE = Place("ip filter NETPLUG-FORWARD", "-i br0")
STATE: Elements = {PLACE: "-j NETPLUG-NETWORKS"}
WHOLE = {
    "FORWARD": ["-j NETPLUG-FORWARD"],
    "NETPLUG-USER": ["-s 192.0.2.1/32 -j DROP"],
    "NETPLUG-FORWARD": ["-j NETPLUG-USER", "-i br0 -j NETPLUG-NETWORKS"],
}


def lines(op: Op, accept_mark: str = "") -> list[str]:
    return [f"{place.set.rpartition(' ')[0]}: {addition(place, value)}" for place, value in rules(op, accept_mark).items()]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        pytest.param(
            Masquerade(subnet="172.20.0.0/16", bridge="br0"),
            ["ip nat: -A NETPLUG-POSTROUTING -s 172.20.0.0/16 ! -o br0 -j MASQUERADE"],
            id="masquerade",
        ),
        pytest.param(
            Masquerade(subnet="fd20::/64", source="fd99::1"),
            ["ip6 nat: -A NETPLUG-POSTROUTING -s fd20::/64 -j SNAT --to-source fd99::1"],
            id="fixed-source-IPv6",
        ),
        pytest.param(
            Publish(protocol="tcp", host_port=8080, address="172.20.0.2", port=80),
            ["ip nat: -A NETPLUG -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.20.0.2:80"],
            id="published",
        ),
        pytest.param(
            Publish(protocol="udp", host_port=53, address="172.20.0.2", port=5353, host_ip="127.0.0.1"),
            ["ip nat: -A NETPLUG -d 127.0.0.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 172.20.0.2:5353"],
            id="published-on-one",
        ),
        pytest.param(
            Publish(protocol="sctp", host_port=8080, address="fd20::2", port=80, host_ip="::"),
            ["ip6 nat: -A NETPLUG -p sctp -m sctp --dport 8080 -j DNAT --to-destination [fd20::2]:80"],
            id="published-IPv6",
        ),
        pytest.param(
            Publish(protocol="tcp", host_port=8000, address="172.20.0.2", port=8000, count=11),
            ["ip nat: -A NETPLUG -p tcp -m tcp --dport 8000:8010 -j DNAT --to-destination 172.20.0.2"],
            id="range",
        ),
        pytest.param(
            Publish(protocol="tcp", host_port=19000, address="fd20::2", port=9000, count=2),
            [
                "ip6 nat: -A NETPLUG -p tcp -m tcp --dport 19000 -j DNAT --to-destination [fd20::2]:9000",
                "ip6 nat: -A NETPLUG -p tcp -m tcp --dport 19001 -j DNAT --to-destination [fd20::2]:9001",
            ],
            id="shifted-range",
        ),
        pytest.param(
            Direct(protocol="tcp", address="172.20.0.2", port=80, count=3),
            ["ip filter: -A NETPLUG-DIRECT -d 172.20.0.2/32 -p tcp -m tcp --dport 80:82 -j NETPLUG-ACCEPT"],
            id="direct",
        ),
        pytest.param(
            AllowPeer(client="172.20.0.2", server="172.20.0.3", protocol="udp", port=53),
            ["ip filter: -A NETPLUG-LINKED -s 172.20.0.2/32 -d 172.20.0.3/32 -p udp -m udp --dport 53 -j NETPLUG-ACCEPT"],
            id="link",
        ),
        pytest.param(
            DnsRedirect(udp_port=40001, tcp_port=40002),
            [
                "ip nat: -A NETPLUG_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:40001",
                "ip nat: -A NETPLUG_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:40002",
            ],
            id="names",
        ),
        pytest.param(Guard(link="veth1", bridge="br0", bridge_mac="02:42:ac:14:00:01", icc=False), [], id="inside-a-bridge"),
    ],
)
def test_iptables_rules_of_an_op(op: Op, expected: list[str]) -> None:
    assert lines(op) == expected


NETWORK = """\
ip filter: -A NETPLUG-FORWARD -i br0 -j NETPLUG-NETWORKS
ip filter: -A NETPLUG-FORWARD -o br0 -j NETPLUG-NETWORKS
ip filter: -A NETPLUG-ICC -i br0 -o br0 -j NETPLUG-ACCEPT
ip filter: -A NETPLUG-IN -o br0 -j NETPLUG-IN-NAT
ip filter: -I NETPLUG-TRUSTED -i br0 -j RETURN
ip filter: -A NETPLUG-TRUSTED -i tun0 -o br0 -j NETPLUG-ACCEPT
ip filter: -A NETPLUG-ISOLATION -i br0 -j DROP
ip nat: -I NETPLUG-POSTROUTING -o br0 -j RETURN
ip6 filter: -A NETPLUG-FORWARD -i br0 -j NETPLUG-NETWORKS
ip6 filter: -A NETPLUG-FORWARD -o br0 -j NETPLUG-NETWORKS
ip6 filter: -A NETPLUG-ICC -i br0 -o br0 -j NETPLUG-ACCEPT
ip6 filter: -A NETPLUG-IN -o br0 -j NETPLUG-IN-ROUTED
ip6 filter: -I NETPLUG-TRUSTED -i br0 -j RETURN
ip6 filter: -A NETPLUG-TRUSTED -i tun0 -o br0 -j NETPLUG-ACCEPT
ip6 filter: -A NETPLUG-ISOLATION -i br0 -j DROP
ip6 nat: -I NETPLUG-POSTROUTING -o br0 -j RETURN
ip nat: -A NETPLUG-HAIRPIN -s 172.20.0.0/16 -d 172.20.0.0/16 -m conntrack --ctstate DNAT -j MASQUERADE
ip nat: -A NETPLUG-HAIRPIN -s 127.0.0.0/8 -o br0 -j MASQUERADE
ip filter: -A NETPLUG-MARKED -o br0 -m mark --mark 0x1/0x3 -j NETPLUG-ACCEPT
ip6 filter: -A NETPLUG-MARKED -o br0 -m mark --mark 0x1/0x3 -j NETPLUG-ACCEPT
"""


def test_iptables_rules_of_a_network() -> None:
    """In both IP versions, whichever the network has."""
    op = Isolate(bridge="br0", subnets=("172.20.0.0/16",), mode6="routed", trusted=("tun0",))

    assert lines(op, accept_mark="1/3") == NETWORK.splitlines()


def test_iptables_rules_of_an_internal_network_without_icc() -> None:
    found = lines(Isolate(bridge="br0", subnets=(), internal=True, icc=False))

    assert "ip filter: -A NETPLUG-INTERNAL -i br0 -j DROP" in found
    assert "ip filter: -A NETPLUG-INTERNAL -o br0 -j DROP" in found
    assert "ip filter: -A NETPLUG-ICC -i br0 -o br0 -j NETPLUG-LINKED" in found
    assert not [line for line in found if "NETPLUG-IN " in line]


def test_iptables_rules_go_into_chains_that_there_are() -> None:
    ops: list[Op] = [
        Isolate(bridge="br0", subnets=("172.20.0.0/16", "fd20::/64"), icc=False, trusted=("tun0",)),
        Isolate(bridge="br1", subnets=(), internal=True),
        Masquerade(subnet="fd20::/64"),
        Publish(protocol="tcp", host_port=1, address="fd20::2", port=1),
        Direct(protocol="tcp", address="fd20::2", port=1),
        AllowPeer(client="fd20::2", server="fd20::3", protocol="tcp", port=1),
        DnsRedirect(udp_port=1, tcp_port=2),
    ]
    chains = {f"{table.family} {table.name} {chain}": fixed for table in (*TABLES, SANDBOX) for chain, fixed in table.chains.items()}
    names = {chain.split(" ")[2] for chain in chains}

    for op in ops:
        for place, value in rules(op, "0x1").items():
            assert place.set in chains
            assert value.removeprefix("-j ").split(" ")[0] in names | {"DROP", "RETURN", "MASQUERADE", "SNAT", "DNAT"}
    for rule in (rule for fixed in chains.values() for rule in fixed):
        assert rule.rpartition("-j ")[2].split(" ")[0] in names | {"ACCEPT", "DROP", "RETURN", "MARK"}


@pytest.mark.parametrize("name", ["br+", "a b", 'a"b', "a'b", "a\\b", "!x", "-x", ""])
def test_iptables_cannot_name_every_interface(name: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot be used in iptables rules"):
        rules(Isolate(bridge=name, subnets=()))


@pytest.mark.parametrize(
    "op",
    [
        Publish(protocol="tcp", host_port=1, address="172.20.0.2", port=1, host_ip="::1"),
        Masquerade(subnet="172.20.0.0/16", source="fd99::1"),
    ],
)
def test_iptables_nat_keeps_the_ip_version(op: Op) -> None:
    with pytest.raises(InvalidArgument, match="NAT does not change the IP version"):
        rules(op)


def test_iptables_listing() -> None:
    text = """\
# Generated by iptables-save
*filter
:FORWARD DROP [1:2]
:NETPLUG-USER - [0:0]
:NETPLUG-FORWARD - [0:0]
-A FORWARD -j NETPLUG-FORWARD
-A NETPLUG-FORWARD -j NETPLUG-USER
-A NETPLUG-FORWARD -i br0 -j NETPLUG-NETWORKS
-A NETPLUG-FORWARD
COMMIT
"""
    chains = read_listing(text)["filter"]

    assert chains["NETPLUG-FORWARD"] == ["-j NETPLUG-USER", "-i br0 -j NETPLUG-NETWORKS", ""]
    assert read_rules(CHAINS, chains) == STATE | {Place("ip filter NETPLUG-FORWARD", ""): ""}


def test_iptables_rules_are_read_back_as_they_were_written() -> None:
    state = rules(Isolate(bridge="br0", subnets=("172.20.0.0/16",))) | rules(Masquerade(subnet="172.20.0.0/16", bridge="br0"))
    for table in TABLES:
        here = {place: value for place, value in state.items() if place.set.startswith(f"{table.family} {table.name} ")}
        written = [line for line in repair(table, {}, here) if not line.startswith("-I ")]  # the jumps are in built-in chains
        chains = read_listing(document({table.name: written}))[table.name]
        assert read_rules(table, chains) == here


def test_iptables_repair_of_nothing() -> None:
    assert repair(CHAINS, {}, STATE, ["-s 192.0.2.1/32 -j DROP"]) == [
        ":NETPLUG-USER - [0:0]",
        ":NETPLUG-FORWARD - [0:0]",
        "-A NETPLUG-FORWARD -j NETPLUG-USER",
        "-A NETPLUG-FORWARD -i br0 -j NETPLUG-NETWORKS",
        "-I FORWARD -j NETPLUG-FORWARD",
        "-A NETPLUG-USER -s 192.0.2.1/32 -j DROP",
    ]
    assert gaps(CHAINS, {}, STATE) == ["our chains in ip filter"]


def test_iptables_repair_of_what_is_whole() -> None:
    assert repair(CHAINS, WHOLE, STATE, ["-j DROP"]) == []
    assert gaps(CHAINS, WHOLE, STATE) == []


@pytest.mark.parametrize(
    ("damage", "expected", "words"),
    [
        pytest.param({"FORWARD": []}, ["-I FORWARD -j NETPLUG-FORWARD"], ["rule -j NETPLUG-FORWARD in ip filter FORWARD"], id="jump"),
        pytest.param(
            {"FORWARD": ["-j NETPLUG-FORWARD", "-j DROP", "-j NETPLUG-FORWARD"]},
            ["-D FORWARD -j NETPLUG-FORWARD", "-D FORWARD -j NETPLUG-FORWARD", "-I FORWARD -j NETPLUG-FORWARD"],
            [],
            id="two-jumps",
        ),
        pytest.param(
            {"NETPLUG-FORWARD": ["-j NETPLUG-USER"]},
            [
                ":NETPLUG-FORWARD - [0:0]",
                "-A NETPLUG-FORWARD -j NETPLUG-USER",
                "-A NETPLUG-FORWARD -i br0 -j NETPLUG-NETWORKS",
            ],
            ["rule -i br0 -j NETPLUG-NETWORKS in ip filter NETPLUG-FORWARD"],
            id="rule",
        ),
        pytest.param(
            {"NETPLUG-FORWARD": ["-i br0 -j NETPLUG-NETWORKS", "-j NETPLUG-USER"]},
            [
                ":NETPLUG-FORWARD - [0:0]",
                "-A NETPLUG-FORWARD -j NETPLUG-USER",
                "-A NETPLUG-FORWARD -i br0 -j NETPLUG-NETWORKS",
            ],
            [],
            id="order",
        ),
        pytest.param({"NETPLUG-USER": []}, [], [], id="emptied-by-the-administrator"),
    ],
)
def test_iptables_repair(damage: dict[str, list[str]], expected: list[str], words: list[str]) -> None:
    assert repair(CHAINS, WHOLE | damage, STATE, ["-s 192.0.2.1/32 -j DROP"]) == expected
    assert gaps(CHAINS, WHOLE | damage, STATE) == words


def test_iptables_clearing() -> None:
    chains = WHOLE | {"FORWARD": ["-j NETPLUG-FORWARD", "-j ACCEPT"], "mine": ["-s 192.0.2.1/32 -j NETPLUG-USER", "-j NETPLUG-OTHER"]}

    assert clearing(CHAINS, chains) == [
        ":NETPLUG-USER - [0:0]",
        ":NETPLUG-FORWARD - [0:0]",
        "-D FORWARD -j NETPLUG-FORWARD",
        "-D mine -s 192.0.2.1/32 -j NETPLUG-USER",
        "-X NETPLUG-USER",
        "-X NETPLUG-FORWARD",
    ]


def test_iptables_changes() -> None:
    """What is let in is judged first: `filter` comes before `nat`."""
    old = rules(Publish(protocol="tcp", host_port=1, address="172.20.0.2", port=2))
    new = rules(Publish(protocol="tcp", host_port=1, address="172.20.0.3", port=2)) | STATE

    found = changes(list(old), old, new)

    assert document(found["ip"]) == (
        "*filter\n-A NETPLUG-FORWARD -i br0 -j NETPLUG-NETWORKS\nCOMMIT\n"
        "*nat\n-D NETPLUG -p tcp -m tcp --dport 1 -j DNAT --to-destination 172.20.0.2:2\n"
        "-A NETPLUG -p tcp -m tcp --dport 1 -j DNAT --to-destination 172.20.0.3:2\nCOMMIT\n"
    )
    assert list(found) == ["ip"]
    assert text_of(PLACE, STATE[PLACE]) == "-i br0 -j NETPLUG-NETWORKS"
    assert document({"nat": []}) == ""


def test_the_bridge_table_of_the_iptables_backend() -> None:
    """It takes from the other backend's rules what concerns the bridge, and no more."""
    assert BASE.count("table bridge netplug {") == 2
    assert "inet netplug" not in BASE + EMPTY + CLEAR
    assert BASE.count("{") == BASE.count("}")
    assert "chain icc {\n" in BASE
    assert "flush map bridge netplug ports\n" in EMPTY
    assert CLEAR == "add table bridge netplug\ndelete table bridge netplug\n"


def test_there_is_a_backend_of_each_name_iptables_among_them() -> None:
    assert [backend(name).name for name in BACKENDS] == list(BACKENDS)
    with pytest.raises(InvalidArgument, match="there is nftables, iptables, none"):
        backend("ipchains")
