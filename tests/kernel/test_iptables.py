"""The iptables backend and the kernel's tables, seen through the programs that people use. Each test in a namespace of its own."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug import faults
from netplug.errors import InvalidArgument, KernelError
from netplug.kernel import namespaces
from netplug.kernel.firewall.iptables import Iptables
from netplug.kernel.firewall.iptables_bridge import BridgeTable
from netplug.kernel.firewall.iptables_programs import Programs
from netplug.plan import HOST, DnsRedirect, Guard, Isolate, Publish, Remove
from tests.kernel.firewall_rules import removal
from tests.kernel.iptables_lab import (
    DIRECT,
    DNS,
    ELSEWHERE,
    NETWORK,
    PORTS,
    REFUSED,
    VARIANTS,
    WEB,
    bridge_table,
    ours,
    own_namespace,
    paste,
    run,
    saved,
)


@pytest.fixture
def host() -> Iterator[str]:
    """The namespace that the test runs in."""
    with own_namespace() as path, namespaces.entered(path):
        yield path


@pytest.fixture
def sandbox() -> Iterator[str]:
    with own_namespace() as path:
        yield path


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def firewall(host: str, variant: str) -> Iptables:
    firewall = Iptables(variant=variant)
    firewall.start()
    return firewall


NAT = """\
-P PREROUTING ACCEPT
-P INPUT ACCEPT
-P OUTPUT ACCEPT
-P POSTROUTING ACCEPT
-N NETPLUG
-N NETPLUG-HAIRPIN
-N NETPLUG-POSTROUTING
-A PREROUTING -m addrtype --dst-type LOCAL -j NETPLUG
-A OUTPUT -m addrtype --dst-type LOCAL -j NETPLUG
-A POSTROUTING -j NETPLUG-HAIRPIN
-A POSTROUTING -j NETPLUG-POSTROUTING
-A NETPLUG -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.20.0.2:80
-A NETPLUG -d 127.0.0.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 172.20.0.2:5353
-A NETPLUG -p tcp -m tcp --dport 8000:8010 -j DNAT --to-destination 172.20.0.2
-A NETPLUG-HAIRPIN -s 172.20.0.0/24 -d 172.20.0.0/24 -m conntrack --ctstate DNAT -j MASQUERADE
-A NETPLUG-HAIRPIN -s 127.0.0.0/8 -o br-one -j MASQUERADE
-A NETPLUG-POSTROUTING -o br-one -j RETURN
-A NETPLUG-POSTROUTING -s 172.20.0.0/24 ! -o br-one -j MASQUERADE
"""


def test_iptables_reads_as_a_course_shows_it(firewall: Iptables, variant: str) -> None:
    firewall.apply(HOST, [*NETWORK[:3], *PORTS])

    assert run(f"iptables-{variant}", "-t", "nat", "-S") == NAT
    assert run(f"iptables-{variant}", "-S", "FORWARD") == "-P FORWARD ACCEPT\n-A FORWARD -j NETPLUG-FORWARD\n"
    assert "! -o br-one -j SNAT --to-source fd99::1\n" in run(f"ip6tables-{variant}", "-t", "nat", "-S")


def test_iptables_starting_twice_changes_nothing(firewall: Iptables, variant: str) -> None:
    firewall.apply(HOST, [*NETWORK, *PORTS])
    run(f"iptables-{variant}", "-A", "NETPLUG-USER", "-s", "192.0.2.1", "-j", "DROP")
    before = saved(variant)

    firewall.start()
    firewall.replace([*NETWORK, *PORTS])

    assert saved(variant) == before
    assert firewall.heal() == []


def test_iptables_a_new_daemon_knows_what_is_there(firewall: Iptables, variant: str) -> None:
    firewall.apply(HOST, [*NETWORK, *PORTS])

    second = Iptables(variant=variant)
    second.start()

    assert second.apply(HOST, [*NETWORK, *PORTS]) == []
    assert second.apply(HOST, removal([*NETWORK, *PORTS])) == removal([*NETWORK, *PORTS])
    assert not [line for line in ours(variant) if "br-" in line or "DNAT --to" in line or "veth1" in line]


def test_iptables_says_what_it_changed(firewall: Iptables) -> None:
    assert firewall.apply(HOST, [WEB]) == [WEB]
    assert firewall.apply(HOST, [WEB, DIRECT]) == [DIRECT]
    assert firewall.apply(HOST, [Remove(op=WEB), Remove(op=WEB)]) == [Remove(op=WEB)]
    assert firewall.apply(HOST, [Remove(op=DIRECT), WEB, Remove(op=WEB), DIRECT]) == [Remove(op=DIRECT), WEB, Remove(op=WEB), DIRECT]


def test_iptables_moves_a_port(firewall: Iptables, variant: str) -> None:
    firewall.apply(HOST, [WEB])

    assert firewall.apply(HOST, [Remove(op=WEB), ELSEWHERE]) == [Remove(op=WEB), ELSEWHERE]
    assert [line for line in ours(variant) if "--dport 8080" in line] == [
        "-A NETPLUG -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.20.0.3:80"
    ]


def test_iptables_conflict_changes_nothing(firewall: Iptables, variant: str) -> None:
    firewall.apply(HOST, [WEB])
    before = saved(variant)

    with pytest.raises(KernelError, match=r"publish 0\.0\.0\.0:8080/tcp") as raised:
        firewall.apply(HOST, [DIRECT, ELSEWHERE])

    assert raised.value.errno == errno.EEXIST
    assert saved(variant) == before


def test_iptables_refusal_changes_nothing(firewall: Iptables, variant: str) -> None:
    """Whatever was done before it: in the table of the bridge, in another table, by the other IP version's program."""
    firewall.apply(HOST, [*NETWORK[:2], WEB])
    before = saved(variant)

    with pytest.raises(KernelError, match="nonsense"):
        firewall.apply(HOST, [Remove(op=WEB), *NETWORK[2:], REFUSED, *PORTS[3:]])

    assert saved(variant) == before
    assert firewall.heal() == []
    assert firewall.apply(HOST, [Remove(op=WEB), *PORTS]) == [Remove(op=WEB), *PORTS]


def test_iptables_refusal_of_everything_changes_nothing(firewall: Iptables, variant: str) -> None:
    firewall.apply(HOST, [*NETWORK, WEB])
    before = saved(variant)

    with pytest.raises(KernelError, match="nonsense"):
        firewall.replace([DIRECT, REFUSED])
    with pytest.raises(KernelError, match="8080/tcp"):
        firewall.replace([WEB, ELSEWHERE])

    assert saved(variant) == before
    assert firewall.apply(HOST, [DIRECT]) == [DIRECT]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(["-F"], id="F"),
        pytest.param(["-t nat -F"], id="nat-F"),
        pytest.param(["-F", "-X"], id="F-X"),
        pytest.param(["-t nat -D NETPLUG -p tcp --dport 8080 -j DNAT --to-destination 172.20.0.2:80"], id="rule"),
        pytest.param(["-D FORWARD -j NETPLUG-FORWARD"], id="jump"),
        pytest.param(["-t raw -F NETPLUG-PREROUTING"], id="raw"),
        pytest.param(["-F NETPLUG-NETWORKS", "-A NETPLUG-NETWORKS -j ACCEPT"], id="fixed-rules"),
    ],
)
def test_iptables_heals(firewall: Iptables, variant: str, damage: list[str]) -> None:
    """What somebody takes away comes back, with the administrator's rules, and the words say what it was."""
    firewall.apply(HOST, [*NETWORK, *PORTS])
    run(f"iptables-{variant}", "-A", "NETPLUG-USER", "-s", "192.0.2.1", "-j", "DROP")
    run(f"iptables-{variant}", "-A", "INPUT", "-s", "192.0.2.2", "-j", "DROP")
    assert firewall.heal() == []
    before = saved(variant)

    for command in damage:
        run(f"iptables-{variant}", *command.split())
    if damage[0] == "-F":  # the administrator's own rule does not come back: it is none of ours
        run(f"iptables-{variant}", "-A", "INPUT", "-s", "192.0.2.2", "-j", "DROP")
    words = firewall.heal()

    assert words
    assert sorted(saved(variant)) == sorted(before)
    assert firewall.heal() == []


def test_iptables_words_of_healing(firewall: Iptables, variant: str) -> None:
    firewall.apply(HOST, [WEB])
    run(f"iptables-{variant}", "-t", "nat", "-F", "NETPLUG")
    run(f"ip6tables-{variant}", "-D", "FORWARD", "-j", "NETPLUG-FORWARD")

    assert firewall.heal() == [
        "rule -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.20.0.2:80 in ip nat NETPLUG",
        "rule -j NETPLUG-FORWARD in ip6 filter FORWARD",
    ]


def test_iptables_heals_the_table_of_the_bridge(firewall: Iptables) -> None:
    firewall.apply(HOST, NETWORK)
    run("nft", "add", "rule", "bridge", "netplug", "user", "ether", "type", "ip", "drop")
    assert firewall.heal() == []
    before = bridge_table()

    run("nft", "delete", "table", "bridge", "netplug")
    assert firewall.heal()
    assert bridge_table() == before

    run("nft", "flush", "map", "bridge", "netplug", "ports")
    assert firewall.heal() == ['"veth1" in bridge netplug ports']
    assert bridge_table() == before


def test_iptables_administrator_may_empty_his_chain(firewall: Iptables, variant: str) -> None:
    run(f"iptables-{variant}", "-A", "NETPLUG-USER", "-s", "192.0.2.1", "-j", "DROP")
    assert firewall.heal() == []
    run(f"iptables-{variant}", "-F", "NETPLUG-USER")
    run(f"iptables-{variant}", "-t", "nat", "-F")

    assert firewall.heal()
    assert run(f"iptables-{variant}", "-S", "NETPLUG-USER") == "-N NETPLUG-USER\n"


@pytest.mark.parametrize("damage", ["iptables", "bridge"])
def test_iptables_changes_go_on_after_a_flush(firewall: Iptables, variant: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has healed yet: the change finds it, and puts everything back first."""
    peer = Guard(link="veth2", bridge="br-two", bridge_mac="02:42:ac:14:00:01", icc=False)
    firewall.apply(HOST, [*NETWORK, *PORTS, peer])
    before = saved(variant)
    if damage == "bridge":
        run("nft", "delete", "table", "bridge", "netplug")
    else:
        for command in ("-t nat -F", "-t nat -X", "-F", "-X"):
            run(f"iptables-{variant}", *command.split())

    with caplog.at_level(logging.WARNING):
        firewall.apply(HOST, [Remove(op=WEB), ELSEWHERE, Remove(op=peer)])
    firewall.apply(HOST, [Remove(op=ELSEWHERE), WEB, peer])

    assert "putting our firewall rules back" in caplog.text
    assert sorted(saved(variant)) == sorted(before)


def test_iptables_replace(firewall: Iptables, variant: str) -> None:
    """What stays keeps its counters."""
    firewall.apply(HOST, [*NETWORK, ELSEWHERE])
    run(f"iptables-{variant}", "-A", "NETPLUG-USER", "-s", "192.0.2.1", "-j", "DROP")
    run(f"iptables-{variant}", "-A", "NETPLUG-NETWORKS", "-j", "DROP")

    firewall.replace([NETWORK[0], WEB, DIRECT, DIRECT])

    expected = Iptables(variant=variant)
    lines = saved(variant)
    assert "-A NETPLUG-USER -s 192.0.2.1/32 -j DROP" in lines
    assert "-A NETPLUG-NETWORKS -j DROP" not in lines
    assert not [line for line in lines if "br-two" in line or "172.20.0.3" in line or "veth1" in line]
    expected.start()
    assert expected.apply(HOST, [NETWORK[0], WEB, DIRECT]) == []


def test_iptables_replace_with_many(firewall: Iptables, variant: str) -> None:
    ports = [Publish(protocol="tcp", host_port=port, address="172.20.0.2", port=port) for port in range(1, 2001)]

    firewall.replace(ports)

    assert len([line for line in ours(variant) if "DNAT --to" in line]) == 2000
    assert firewall.apply(HOST, ports[:100]) == []
    assert firewall.heal() == []


def test_iptables_clear(firewall: Iptables, variant: str) -> None:
    firewall.apply(HOST, NETWORK)
    run(f"iptables-{variant}", "-N", "mine")
    run(f"iptables-{variant}", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "mine")
    run(f"iptables-{variant}", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "NETPLUG-USER")

    firewall.clear()
    firewall.clear()

    assert ours(variant) == []
    assert "-A FORWARD -s 192.0.2.1/32 -j mine" in saved(variant)
    assert firewall.apply(HOST, [WEB]) == [WEB]
    assert firewall.heal() == []


SANDBOX_NAT = """\
-P PREROUTING ACCEPT
-P INPUT ACCEPT
-P OUTPUT ACCEPT
-P POSTROUTING ACCEPT
-N NETPLUG_OUTPUT
-A OUTPUT -d 127.0.0.11/32 -j NETPLUG_OUTPUT
-A NETPLUG_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:40001
-A NETPLUG_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:40002
"""


def test_iptables_resolver_redirect(firewall: Iptables, variant: str, sandbox: str) -> None:
    moved = DnsRedirect(udp_port=40003, tcp_port=40004)

    def listed() -> str:
        with namespaces.entered(sandbox):
            return run(f"iptables-{variant}", "-t", "nat", "-S")

    assert firewall.apply(sandbox, [DNS]) == [DNS]
    assert listed() == SANDBOX_NAT
    assert firewall.apply(sandbox, [DNS]) == []
    assert firewall.apply(sandbox, [moved]) == [moved]
    assert listed() == SANDBOX_NAT.replace("40001", "40003").replace("40002", "40004")
    assert firewall.apply(sandbox, [Remove(op=DNS)]) == []
    assert firewall.apply(sandbox, [Remove(op=moved), Remove(op=moved)]) == [Remove(op=moved)]
    assert firewall.apply(sandbox, [Remove(op=moved)]) == []
    assert "NETPLUG" not in listed()


@pytest.mark.parametrize("damage", ["-F OUTPUT", "-F NETPLUG_OUTPUT", "-F"])
def test_iptables_resolver_redirect_comes_back(firewall: Iptables, variant: str, sandbox: str, damage: str) -> None:
    firewall.apply(sandbox, [DNS])
    with namespaces.entered(sandbox):
        run(f"iptables-{variant}", "-t", "nat", *damage.split())

    assert firewall.apply(sandbox, [DNS]) == [DNS]
    with namespaces.entered(sandbox):
        assert run(f"iptables-{variant}", "-t", "nat", "-S") == SANDBOX_NAT


def test_iptables_resolver_redirect_where_the_namespace_is_gone(firewall: Iptables, sandbox: str) -> None:
    namespaces.remove(sandbox)

    assert firewall.apply(sandbox, [Remove(op=DNS)]) == []
    with pytest.raises(KernelError) as raised:
        firewall.apply(sandbox, [DNS])
    assert raised.value.errno == errno.ENOENT

    Path(sandbox).touch()  # a file where a namespace was mounted
    assert firewall.apply(sandbox, [Remove(op=DNS)]) == []


def test_iptables_explained_commands_do_the_same(firewall: Iptables, variant: str, sandbox: str) -> None:
    """Pasted into a shell in another namespace they end in the same rules."""
    made = [*NETWORK, *PORTS]
    removed = [*removal([NETWORK[4], WEB]), ELSEWHERE, *removal([NETWORK[5]])]
    firewall.apply(HOST, made)
    firewall.apply(HOST, removed)
    expected = saved(variant)

    with namespaces.entered(sandbox):
        paste([*firewall.explain_base(), *firewall.explain(HOST, made), *firewall.explain(HOST, removed)])
        assert saved(variant) == expected


def test_iptables_explained_commands_for_a_sandbox_do_the_same(firewall: Iptables, host: str, variant: str, sandbox: str) -> None:
    firewall.clear()
    firewall.apply(sandbox, [DNS])
    with namespaces.entered(sandbox):
        expected = saved(variant)

    paste(firewall.explain(host, [DNS]))
    assert [line for line in saved(variant) if "NETPLUG" in line] == [line for line in expected if "NETPLUG" in line]
    paste(firewall.explain(host, [Remove(op=DNS)]))
    assert ours(variant) == []


def test_iptables_one_step_per_run_while_faults_are_enabled(firewall: Iptables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "enabled", True)
    faults.arm(0)

    firewall.apply(HOST, [WEB, DIRECT, Remove(op=DIRECT)])

    assert faults.passed == ["iptables.before", "iptables.after"] * 3


def test_iptables_failure_is_undone_while_faults_are_enabled(firewall: Iptables, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    firewall.apply(HOST, [WEB])
    before = saved(variant)
    monkeypatch.setattr(faults, "enabled", True)

    with pytest.raises(KernelError):
        firewall.apply(HOST, [WEB, DIRECT, ELSEWHERE])

    assert saved(variant) == before


def test_iptables_without_nat_for_ipv6(host: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said only when IPv6 is wanted."""
    restore = Programs.restore

    def lacking(self: Programs, family: str, document: str) -> None:
        if family == "ip6":
            raise KernelError(errno.EIO, "ip6tables-restore", "can't initialize ip6tables table `nat'")
        restore(self, family, document)

    monkeypatch.setattr(Programs, "restore", lacking)
    firewall = Iptables(variant=variant)
    firewall.start()
    network = Isolate(bridge="br-one", subnets=("172.20.0.0/24",))

    assert firewall.apply(HOST, [network, WEB]) == [network, WEB]
    assert firewall.heal() == []
    for op in (NETWORK[0], NETWORK[2], PORTS[4], PORTS[6]):
        with pytest.raises(InvalidArgument, match=r"IPv6 needs ip6tables with table nat.*can't initialize"):
            firewall.apply(HOST, [op])


def test_iptables_without_nftables(host: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept is not promised."""

    def lacking(self: BridgeTable) -> None:
        raise KernelError(errno.EPROTONOSUPPORT, "open an nftables context")

    monkeypatch.setattr(BridgeTable, "read", lacking)
    firewall = Iptables(variant=variant)
    firewall.start()
    harmless = Guard(link="veth1", bridge="br-two", bridge_mac="02:42:ac:14:00:01")

    assert firewall.apply(HOST, [*NETWORK[:4], harmless, NETWORK[6], WEB]) == [*NETWORK[:4], NETWORK[6], WEB]
    assert firewall.heal() == []
    with pytest.raises(InvalidArgument, match=r"icc=false and anti-spoofing need nftables.*Protocol not supported"):
        firewall.apply(HOST, [NETWORK[5]])


def test_iptables_variant_is_where_the_hosts_rules_are(host: str) -> None:
    """Ours alone say nothing: they may be left over."""
    Iptables(variant="legacy").start()
    assert Programs().variant == ""
    run("iptables-legacy", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
    assert (Programs().variant, Programs().kind) == ("legacy", "legacy")
    for _ in range(2):
        run("iptables-nft", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")
    assert Programs().variant == ""
