"""What the firewall makes of ops, as text: no kernel needed."""

from __future__ import annotations

import errno
import json

import pytest

from netplug.errors import InvalidArgument, KernelError
from netplug.kernel.firewall import backend
from netplug.kernel.firewall.elements import Elements, Place, additions, deletions, elements, judge, link_local
from netplug.kernel.firewall.listing import Listing, read
from netplug.kernel.firewall.ruleset import BASE, EMPTY, base, parse_mark
from netplug.plan import (
    HOST,
    AllowPeer,
    Bridge,
    Direct,
    DnsRedirect,
    FirewallOp,
    Guard,
    Isolate,
    Masquerade,
    Op,
    Publish,
    Remove,
    Step,
)

WEB = Publish(protocol="tcp", host_port=8080, address="172.20.0.2", port=80)
ELSEWHERE = Publish(protocol="tcp", host_port=8080, address="172.20.0.3", port=80)
PLACE = Place("inet netplug pub4any", "tcp . 8080")


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        pytest.param(
            Isolate(bridge="br0", subnets=("172.20.0.0/24", "fd20::/64")),
            [
                'add element inet netplug bridges { "br0" }',
                'add element inet netplug self { "br0" . "br0" }',
                'add element inet netplug net_in { ipv4 . "br0" : goto in_nat, ipv6 . "br0" : goto in_nat }',
                "add element inet netplug same4 { 172.20.0.0/24 . 172.20.0.0/24 }",
                "add element inet netplug same6 { fd20::/64 . fd20::/64 }",
            ],
            id="network",
        ),
        pytest.param(
            Isolate(bridge="br0", subnets=("10.0.0.1/32",), internal=True, icc=False),
            [
                'add element inet netplug bridges { "br0" }',
                'add element inet netplug apart { "br0" . "br0" }',
                'add element inet netplug internal { "br0" }',
                "add element inet netplug same4 { 10.0.0.1 . 10.0.0.1 }",
            ],
            id="internal-without-icc",
        ),
        pytest.param(
            Isolate(bridge="br0", subnets=(), mode4="routed", mode6="nat-unprotected", trusted=("tun0", "tun1")),
            [
                'add element inet netplug bridges { "br0" }',
                'add element inet netplug self { "br0" . "br0" }',
                'add element inet netplug net_in { ipv4 . "br0" : goto in_routed, ipv6 . "br0" : goto in_open }',
                'add element inet netplug trusted { "tun0" . "br0", "tun1" . "br0" }',
            ],
            id="modes-and-trusted",
        ),
        pytest.param(Masquerade(subnet="172.20.0.0/24"), ["add element inet netplug masq4 { 172.20.0.0/24 }"], id="masquerade"),
        pytest.param(Masquerade(subnet="fd20::/64"), ["add element inet netplug masq6 { fd20::/64 }"], id="masquerade-IPv6"),
        pytest.param(
            Masquerade(subnet="172.20.0.0/24", source="10.99.0.3"),
            ["add element inet netplug snat4 { 172.20.0.0/24 : 10.99.0.3 }"],
            id="fixed-source",
        ),
        pytest.param(
            Masquerade(subnet="fd20::/64", source="fd99::3"),
            ["add element inet netplug snat6 { fd20::/64 : fd99::3 }"],
            id="fixed-source-IPv6",
        ),
        pytest.param(
            Guard(link="veth1", bridge="br0", bridge_mac="02:42:AC:14:00:01", icc=False),
            [
                'add element bridge netplug gw { "veth1" . 02:42:ac:14:00:01 }',
                'add element bridge netplug ports { "veth1" : goto icc }',
            ],
            id="peers",
        ),
        pytest.param(
            Guard(
                link="veth1",
                bridge="br0",
                bridge_mac="02:42:ac:14:00:01",
                mac="02:42:AC:14:00:02",
                addresses=("172.20.0.2", "fd20::2"),
                antispoof=True,
            ),
            [
                'add element bridge netplug epmac { "veth1" . 02:42:ac:14:00:02 }',
                'add element bridge netplug ep4 { "veth1" . 02:42:ac:14:00:02 . 172.20.0.2 : accept }',
                'add element bridge netplug ep6 { "veth1" . 02:42:ac:14:00:02 . fd20::2, '
                '"veth1" . 02:42:ac:14:00:02 . fe80::42:acff:fe14:2 }',
                'add element bridge netplug nd { "veth1" . 02:42:ac:14:00:02 . 0xfd200000000000000000000000000002, '
                '"veth1" . 02:42:ac:14:00:02 . 0xfe800000000000000042acfffe140002 }',
                'add element bridge netplug ports { "veth1" : goto guard }',
            ],
            id="antispoof",
        ),
        pytest.param(
            Guard(
                link="veth1",
                bridge="br0",
                bridge_mac="02:42:ac:14:00:01",
                mac="02:42:ac:14:00:02",
                addresses=("172.20.0.2",),
                antispoof=True,
                icc=False,
            ),
            [
                'add element bridge netplug epmac { "veth1" . 02:42:ac:14:00:02 }',
                'add element bridge netplug ep4 { "veth1" . 02:42:ac:14:00:02 . 172.20.0.2 : goto icc }',
                'add element bridge netplug ep6 { "veth1" . 02:42:ac:14:00:02 . fe80::42:acff:fe14:2 }',
                'add element bridge netplug nd { "veth1" . 02:42:ac:14:00:02 . 0xfe800000000000000042acfffe140002 }',
                'add element bridge netplug gw { "veth1" . 02:42:ac:14:00:01 }',
                'add element bridge netplug ports { "veth1" : goto guard_icc }',
            ],
            id="antispoof-and-peers",
        ),
        pytest.param(Guard(link="veth1", bridge="br0", bridge_mac="02:42:ac:14:00:01"), [], id="no-guard-needed"),
        pytest.param(
            AllowPeer(client="172.20.0.2", server="172.20.0.3", protocol="tcp", port=80),
            [
                "add element bridge netplug links4 { 172.20.0.2 . 172.20.0.3 . tcp . 80 }",
                "add element inet netplug links4 { 172.20.0.2 . 172.20.0.3 . tcp . 80 }",
            ],
            id="link",
        ),
        pytest.param(
            AllowPeer(client="fd20::2", server="fd20::3", protocol="udp", port=53),
            [
                "add element bridge netplug links6 { fd20::2 . fd20::3 . udp . 53 }",
                "add element inet netplug links6 { fd20::2 . fd20::3 . udp . 53 }",
            ],
            id="link-IPv6",
        ),
        pytest.param(WEB, ["add element inet netplug pub4any { tcp . 8080 : 172.20.0.2 . 80 }"], id="published"),
        pytest.param(
            Publish(protocol="udp", host_port=53, address="172.20.0.2", port=5353, host_ip="127.0.0.1"),
            ["add element inet netplug pub4 { 127.0.0.1 . udp . 53 : 172.20.0.2 . 5353 }"],
            id="published-on-one",
        ),
        pytest.param(
            Publish(protocol="sctp", host_port=1, address="172.20.0.2", port=2, host_ip="0.0.0.0"),
            ["add element inet netplug pub4any { sctp . 1 : 172.20.0.2 . 2 }"],
            id="published-0.0.0.0",
        ),
        pytest.param(
            Publish(protocol="tcp", host_port=8080, address="fd20::2", port=80, host_ip="::"),
            ["add element inet netplug pub6any { tcp . 8080 : fd20::2 . 80 }"],
            id="published-IPv6",
        ),
        pytest.param(
            Publish(protocol="tcp", host_port=8080, address="fd20::2", port=80, host_ip="fd99::1"),
            ["add element inet netplug pub6 { fd99::1 . tcp . 8080 : fd20::2 . 80 }"],
            id="published-on-one-IPv6",
        ),
        pytest.param(
            Direct(protocol="tcp", address="172.20.0.2", port=80),
            ["add element inet netplug direct4 { 172.20.0.2 . tcp . 80 }"],
            id="direct",
        ),
        pytest.param(
            Publish(protocol="tcp", host_port=1, address="172.20.0.2", port=1, count=10000),
            ["add element inet netplug pub4anyr { tcp . 1-10000 : 172.20.0.2 }"],
            id="range",
        ),
        pytest.param(
            Publish(protocol="tcp", host_port=8000, address="fd20::2", port=8000, host_ip="fd99::1", count=2),
            ["add element inet netplug pub6r { fd99::1 . tcp . 8000-8001 : fd20::2 }"],
            id="range-on-one-IPv6",
        ),
        pytest.param(
            Publish(protocol="tcp", host_port=9000, address="172.20.0.2", port=80, count=2),
            ["add element inet netplug pub4any { tcp . 9000 : 172.20.0.2 . 80, tcp . 9001 : 172.20.0.2 . 81 }"],
            id="shifted-range",
        ),
        pytest.param(
            Direct(protocol="tcp", address="fd20::2", port=80, count=3),
            ["add element inet netplug direct6r { fd20::2 . tcp . 80-82 }"],
            id="direct-range",
        ),
        pytest.param(
            DnsRedirect(udp_port=40001, tcp_port=40002),
            [
                "add element ip netplug dns { 127.0.0.11 . udp . 53 : 40001, 127.0.0.11 . tcp . 53 : 40002 }",
                "add element ip netplug answers { 127.0.0.11 . udp . 40001 : 53, 127.0.0.11 . tcp . 40002 : 53 }",
            ],
            id="dns",
        ),
    ],
)
def test_elements(op: FirewallOp, expected: list[str]) -> None:
    assert additions(elements(op)) == expected


def test_deletions_name_keys_only() -> None:
    assert deletions(elements(WEB)) == ["delete element inet netplug pub4any { tcp . 8080 }"]


@pytest.mark.parametrize(
    "op",
    [
        pytest.param(Isolate(bridge='br"', subnets=()), id="quote"),
        pytest.param(Isolate(bridge="br*", subnets=()), id="wildcard"),
        pytest.param(Isolate(bridge="br0", subnets=(), trusted=("tun+*",)), id="wildcard-trusted"),
        pytest.param(Publish(protocol="tcp", host_port=1, address="172.20.0.2", port=1, host_ip="fd99::1"), id="IP-versions"),
        pytest.param(Publish(protocol="tcp", host_port=1, address="172.20.0.2", port=1, host_ip="::"), id="IP-versions-wildcard"),
        pytest.param(Masquerade(subnet="fd20::/64", source="10.99.0.1"), id="IP-versions-source"),
        pytest.param(Bridge(name="br0", mac="02:42:00:00:00:01"), id="no-firewall-op"),
    ],
)
def test_refused(op: Op) -> None:
    with pytest.raises(InvalidArgument):
        elements(op)


def test_what_is_there_is_no_change_but_is_asserted_again() -> None:
    change = judge({PLACE: "172.20.0.2 . 80"}, [WEB])

    assert change.steps == []
    assert change.add == {PLACE: "172.20.0.2 . 80"}


def test_what_is_gone_is_no_change() -> None:
    change = judge({}, [Remove(op=WEB)])

    assert (change.steps, change.text()) == ([], "")


def test_a_port_that_leads_elsewhere_is_an_error_that_names_it() -> None:
    with pytest.raises(KernelError, match=r"publish 0\.0\.0\.0:8080/tcp: .* leads to 172\.20\.0\.2 \. 80 already") as raised:
        judge({}, [WEB, ELSEWHERE])

    assert raised.value.errno == errno.EEXIST


def test_removal_leaves_what_leads_elsewhere() -> None:
    change = judge({PLACE: "172.20.0.3 . 80"}, [Remove(op=WEB)])

    assert (change.steps, change.delete) == ([], [])


def test_moving_a_port() -> None:
    state: Elements = {PLACE: "172.20.0.2 . 80"}
    steps: list[Step] = [Remove(op=WEB), ELSEWHERE]

    change = judge(state, steps)
    change.update(state)

    assert change.steps == steps
    assert change.text() == (
        "delete element inet netplug pub4any { tcp . 8080 }\nadd element inet netplug pub4any { tcp . 8080 : 172.20.0.3 . 80 }"
    )
    assert state == {PLACE: "172.20.0.3 . 80"}


def test_making_and_taking_back_comes_to_nothing() -> None:
    change = judge({}, [WEB, Remove(op=WEB)])

    assert (len(change.steps), change.text()) == (2, "")


def test_overwriting() -> None:
    change = judge({PLACE: "172.20.0.2 . 80"}, [ELSEWHERE], overwrite=True)

    assert (change.steps, change.delete, change.add) == ([ELSEWHERE], [PLACE], {PLACE: "172.20.0.3 . 80"})


def test_reading_what_nft_prints() -> None:
    listing = """{"nftables": [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "netplug", "handle": 1}},
        {"map": {"family": "inet", "name": "pub4any", "table": "netplug", "type": ["inet_proto", "inet_service"],
            "map": "ipv4_addr . inet_service",
            "elem": [[{"concat": [6, 8080]}, {"concat": ["172.20.0.2", 80]}],
                     [{"elem": {"val": {"concat": ["udp", 53]}, "comment": "by hand"}}, {"concat": ["172.20.0.2", 53]}]]}},
        {"map": {"family": "inet", "name": "net_in", "table": "netplug", "type": "ifname", "map": "verdict",
            "elem": [["br0", {"goto": {"target": "in_nat"}}], ["br1", {"drop": null}]]}},
        {"set": {"family": "bridge", "name": "nd", "table": "netplug", "type": ["ifname", "integer"],
            "elem": [{"concat": ["pa1", 2]}, {"concat": ["pa1", "0xfd200000000000000000000000000002"]}]}},
        {"set": {"family": "inet", "name": "masq4", "table": "netplug", "type": "ipv4_addr", "flags": ["interval"],
            "elem": ["10.0.0.1", {"prefix": {"addr": "172.20.0.0", "len": 24}}, {"range": ["10.1.0.0", "10.1.0.2"]}]}},
        {"set": {"family": "inet", "name": "same4", "table": "netplug", "type": ["ipv4_addr", "ipv4_addr"], "flags": ["interval"],
            "elem": [{"concat": [{"prefix": {"addr": "172.20.0.0", "len": 24}}, {"prefix": {"addr": "172.20.0.0", "len": 24}}]}]}},
        {"set": {"family": "bridge", "name": "gw", "table": "netplug", "type": ["ifname", "ether_addr"]}},
        {"chain": {"family": "inet", "table": "netplug", "name": "user", "handle": 1}},
        {"rule": {"family": "inet", "table": "netplug", "chain": "user", "handle": 9, "expr": [{"drop": null}]}},
        {"chain": {"family": "inet", "table": "netplug", "name": "mine", "handle": 2}},
        {"chain": {"family": "inet", "table": "netplug", "name": "ok", "handle": 3}},
        {"rule": {"family": "inet", "table": "netplug", "chain": "ok", "handle": 8, "expr": [{"accept": null}]}}]}"""
    found = Listing()

    read(json.loads(listing), found)

    assert found.users == {"inet netplug": [{"family": "inet", "table": "netplug", "chain": "user", "expr": [{"drop": None}]}]}
    assert found.chains == {
        ("inet netplug", "ok"): [
            {"family": "inet", "table": "netplug", "name": "ok"},
            {"family": "inet", "table": "netplug", "chain": "ok", "expr": [{"accept": None}]},
        ]
    }
    assert found.elements == {
        PLACE: "172.20.0.2 . 80",
        Place("inet netplug pub4any", "udp . 53"): "172.20.0.2 . 53",
        Place("inet netplug net_in", '"br0"'): "goto in_nat",
        Place("inet netplug net_in", '"br1"'): "{'drop': None}",
        Place("bridge netplug nd", '"pa1" . 0x2'): "",
        Place("bridge netplug nd", '"pa1" . 0xfd200000000000000000000000000002'): "",
        Place("inet netplug masq4", "10.0.0.1"): "",
        Place("inet netplug masq4", "172.20.0.0/24"): "",
        Place("inet netplug masq4", "10.1.0.0-10.1.0.2"): "",
        Place("inet netplug same4", "172.20.0.0/24 . 172.20.0.0/24"): "",
    }


def test_loading_never_empties_the_administrators_chains() -> None:
    assert "flush chain inet netplug ours\n" in BASE
    assert "flush chain inet netplug user" not in BASE
    assert "flush chain bridge netplug user" not in BASE
    assert "flush map inet netplug pub4any\n" in EMPTY
    assert EMPTY.count("\n") == BASE.count(" { type ") + BASE.count(" { typeof ") - BASE.count(" hook ")


def test_a_command_is_never_longer_than_a_shell_takes() -> None:
    commands = additions(elements(Publish(protocol="tcp", host_port=1, address="172.20.0.2", port=2, count=10000)))

    assert len(commands) == 10
    assert max(map(len, commands)) < 1 << 16


@pytest.mark.parametrize(
    ("text", "rule"),
    [("1", "& 0xffffffff == 0x1"), ("0x100/0x300", "& 0x300 == 0x100"), ("0x80000000", "& 0xffffffff == 0x80000000")],
)
def test_accepted_mark(text: str, rule: str) -> None:
    assert base(text).replace(f"\t\toifname @bridges meta mark {rule} goto ok\n", "", 1) == BASE
    assert base("") == BASE


@pytest.mark.parametrize("text", ["", "x", "0", "0/0", "0/1", "-1", "1/", "/1", "0x100000000", "1/0x100000000", "3/1", "1/2", "1; drop"])
def test_a_mark_that_no_packet_or_every_packet_carries(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid --bridge-accept-fwmark"):
        parse_mark(text)


def test_link_local_address() -> None:
    assert link_local("02:42:ac:14:00:02") == "fe80::42:acff:fe14:2"


def test_explain() -> None:
    firewall = backend("nftables")

    assert firewall.explain(
        HOST, [WEB, Direct(protocol="tcp", address="172.20.0.2", port=80), Remove(op=Masquerade(subnet="10.0.0.0/8"))]
    ) == [
        "nft add element inet netplug pub4any '{ tcp . 8080 : 172.20.0.2 . 80 }'",
        "nft add element inet netplug direct4 '{ 172.20.0.2 . tcp . 80 }'",
        "nft delete element inet netplug masq4 '{ 10.0.0.0/8 }'",
    ]
    assert firewall.explain(HOST, []) == []


def test_explain_inside_a_sandbox() -> None:
    firewall = backend("nftables")
    op = DnsRedirect(udp_port=40001, tcp_port=40002)

    [made] = firewall.explain("/run/my netns", [op])
    assert made.startswith("nsenter --net='/run/my netns' nft -f - <<'EOF'\ntable ip netplug\n")
    assert made.endswith("@th,240,16 40001 @th,32,16 set 39948 @th,240,16 set 53\nEOF")
    assert firewall.explain("/run/x", [Remove(op=op)]) == ["nsenter --net=/run/x nft delete table ip netplug"]


def test_ops_belong_in_their_namespace() -> None:
    firewall = backend("nftables")

    with pytest.raises(InvalidArgument, match="DnsRedirect does not belong in the host"):
        firewall.apply(HOST, [DnsRedirect(udp_port=1, tcp_port=2)])
    with pytest.raises(InvalidArgument, match="Publish does not belong in namespace /run/x"):
        firewall.apply("/run/x", [WEB])


def test_unknown_backend() -> None:
    with pytest.raises(InvalidArgument, match='unknown firewall backend "ebtables": there is nftables'):
        backend("ebtables")
