"""The iptables backend and the kernel's tables, seen through the programs that people use. Each test in a namespace of its own."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug import faults
from netplug.errors import InvalidArgument, KernelError
from netplug.kernel import namespaces
from netplug.kernel.firewall import backend, clean_up_others
from netplug.kernel.firewall.iptables import Iptables
from netplug.kernel.firewall.iptables_bridge import BridgeTable
from netplug.kernel.firewall.iptables_programs import Programs
from netplug.plan import HOST, AllowPeer, Direct, DnsRedirect, FirewallOp, Guard, Isolate, Masquerade, Publish, Remove
from tests.kernel.firewall_rules import removal

NETWORK: list[FirewallOp] = [
    Isolate(bridge="br-one", subnets=("172.20.0.0/24", "fd20::/64")),
    Masquerade(subnet="172.20.0.0/24", bridge="br-one"),
    Masquerade(subnet="fd20::/64", bridge="br-one", source="fd99::1"),
    Isolate(bridge="br-two", subnets=("10.0.0.1/32",), mode4="routed", icc=False, trusted=("tun0",)),
    Isolate(bridge="br-three", subnets=("10.3.0.0/16",), internal=True),
    Guard(link="veth1", bridge="br-two", bridge_mac="02:42:AC:14:00:01", icc=False),
    AllowPeer(client="10.0.0.2", server="10.0.0.3", protocol="tcp", port=80),
]
WEB = Publish(protocol="tcp", host_port=8080, address="172.20.0.2", port=80)
ELSEWHERE = Publish(protocol="tcp", host_port=8080, address="172.20.0.3", port=80)
DIRECT = Direct(protocol="tcp", address="172.20.0.2", port=80)
PORTS: list[FirewallOp] = [
    WEB,
    DIRECT,
    Publish(protocol="udp", host_port=53, address="172.20.0.2", port=5353, host_ip="127.0.0.1"),
    Publish(protocol="tcp", host_port=8000, address="172.20.0.2", port=8000, count=11),
    Publish(protocol="sctp", host_port=8080, address="fd20::2", port=80),
    Publish(protocol="tcp", host_port=8080, address="fd20::2", port=80, host_ip="fd99::1", count=3),
    Direct(protocol="udp", address="fd20::2", port=80, count=2),
]
DNS = DnsRedirect(udp_port=40001, tcp_port=40002)
REFUSED = Masquerade(subnet="172.29.0.0/16", source="nonsense")
"""The programs refuse it, not we."""
VARIANTS = ("nft", "legacy")

_numbers = itertools.count()


@pytest.fixture
def host() -> Iterator[str]:
    """The namespace that the test runs in."""
    path = f"/run/netns/i{os.getpid()}-h{next(_numbers)}"
    namespaces.create(path)
    try:
        with namespaces.entered(path):
            yield path
    finally:
        namespaces.remove(path)


@pytest.fixture
def sandbox() -> Iterator[str]:
    path = f"/run/netns/i{os.getpid()}-s{next(_numbers)}"
    namespaces.create(path)
    try:
        yield path
    finally:
        namespaces.remove(path)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def firewall(host: str, variant: str) -> Iptables:
    firewall = Iptables(variant=variant)
    firewall.start()
    return firewall


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10).stdout


def saved(variant: str) -> list[str]:
    """Everything in the tables of both IP versions and in the table of the bridge, without counters and dates."""
    lines: list[str] = []
    for program in (f"iptables-{variant}-save", f"ip6tables-{variant}-save"):
        text = "".join(line.split(" [")[0].strip() + "\n" for line in run(program).splitlines() if not line.startswith("#"))
        lines += "COMMIT\n".join(sorted(text.split("COMMIT\n"))).splitlines()  # legacy tables are listed as they were made
    return [*lines, *bridge_table().splitlines()]


def bridge_table() -> str:
    done = subprocess.run(["nft", "-s", "list", "table", "bridge", "netplug"], capture_output=True, text=True, timeout=10)
    return done.stdout


def ours(variant: str) -> list[str]:
    return [line for line in saved(variant) if "NETPLUG" in line or "netplug" in line]


def paste(commands: list[str]) -> None:
    """Type them into a shell, as a reader of --explain does."""
    subprocess.run(["sh", "-e"], input="\n".join(commands) + "\n", check=True, text=True, timeout=60)


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


def test_iptables_is_missed_with_a_remedy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(InvalidArgument, match=r"needs iptables.*install iptables, or use --firewall-backend nftables"):
        backend("iptables").start()


@pytest.mark.parametrize("old", ["nftables", "iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("new", ["nftables", "iptables", "none"])
def test_switch_from_a_backend_to_another_with_iptables(host: str, sandbox: str, old: str, new: str) -> None:
    """Nothing of the old one stays, in sandboxes neither; what is somebody else's does."""
    tool, _, variant = old.partition("-")
    before = Iptables(variant=variant) if variant else backend(tool)
    before.start()
    before.apply(HOST, [*NETWORK, WEB])
    before.apply(sandbox, [DNS])
    run("nft", "add", "table", "inet", "other")
    if variant:
        run(old, "-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP")

    after = Iptables(variant=variant) if tool == new and variant else backend(new)
    after.start()
    after.replace([*NETWORK, WEB])
    after.apply(sandbox, [DNS])
    words = clean_up_others(new, [sandbox, "/run/netns/no-such"])

    same = tool == new
    assert bool(words) == (not same)
    remains = {"nftables": ("inet netplug", "bridge netplug"), "iptables": ("bridge netplug",), "none": ()}[new]
    assert netplug_tables() == set(remains)
    kept_variant = (variant or "nft") if new == "iptables" else ""
    for other in VARIANTS:
        assert bool([line for line in saved(other) if "NETPLUG" in line]) == (other == kept_variant)
    if variant:
        assert "-A FORWARD -s 192.0.2.1/32 -j DROP" in saved(variant)
    assert "table inet other" in run("nft", "list", "tables")
    with namespaces.entered(sandbox):
        assert netplug_tables() == (set() if new == "iptables" else {"ip netplug"})
        for other in VARIANTS:
            assert bool([line for line in saved(other) if "NETPLUG" in line]) == (other == kept_variant)
    assert clean_up_others(new, [sandbox]) == []


def netplug_tables() -> set[str]:
    return {line.removeprefix("table ") for line in run("nft", "list", "tables").splitlines() if line.endswith(" netplug")}


def test_cleaning_up_starts_no_process_where_there_is_no_iptables(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend("nftables").start()
    monkeypatch.setenv("PATH", "/nowhere")

    assert clean_up_others("nftables") == []


def test_no_backend_of_iptables_nor_nftables(host: str, sandbox: str, caplog: pytest.LogCaptureFixture) -> None:
    """`--iptables=false`: names work, all else is left to the administrator, who is told so."""
    firewall = backend("none")
    with caplog.at_level(logging.WARNING):
        firewall.start()

    assert firewall.apply(HOST, [*NETWORK, WEB]) == []
    firewall.replace([*NETWORK, WEB])
    assert firewall.heal() == []
    assert firewall.explain(HOST, [*NETWORK, WEB]) == []
    assert all(line.startswith("# ") for line in firewall.explain_base())
    assert run("nft", "list", "ruleset") == ""
    assert firewall.apply(sandbox, [DNS]) == [DNS]
    with namespaces.entered(sandbox):
        assert netplug_tables() == {"ip netplug"}
    assert len([record for record in caplog.records if "masquerade" in record.message and "DNAT" in record.message]) == 1
