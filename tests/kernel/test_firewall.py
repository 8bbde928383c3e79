"""The nftables backend and the kernel's tables, seen through the `nft` command. Each test in a namespace of its own."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netplug import faults
from netplug.errors import KernelError
from netplug.kernel import namespaces
from netplug.kernel.firewall import Firewall, backend
from netplug.plan import HOST, AllowPeer, Direct, DnsRedirect, FirewallOp, Guard, Isolate, Masquerade, Publish, Remove
from tests.kernel.firewall_rules import removal as removals
from tests.kernel.nft_tables import elements, nft, paste, ruleset

NETWORK: list[FirewallOp] = [
    Isolate(bridge="br-one", subnets=("172.20.0.0/24", "fd20::/64")),
    Masquerade(subnet="172.20.0.0/24"),
    Masquerade(subnet="fd20::/64"),
    Isolate(bridge="br two!", subnets=("172.21.0.0/24",), internal=True),
    Isolate(bridge="tcp", subnets=("10.0.0.1/32",), icc=False),
    Guard(link="veth1", bridge="tcp", bridge_mac="02:42:AC:14:00:01", icc=False),
    Isolate(bridge="br-3", subnets=("172.22.0.0/24",), mode4="routed", mode6="nat-unprotected", trusted=("tun0", "wg.1")),
    Masquerade(subnet="172.22.0.0/24", source="192.0.2.9"),
    Masquerade(subnet="fd22::/64", source="2001:db8::9"),
    Guard(
        link="veth3",
        bridge="br-3",
        bridge_mac="02:42:ac:16:00:01",
        mac="02:42:AC:16:00:02",
        addresses=("172.22.0.2", "fd22::2", "::2"),
        antispoof=True,
    ),
    Guard(
        link="veth4",
        bridge="br-3",
        bridge_mac="02:42:ac:16:00:01",
        mac="02:42:ac:16:00:03",
        addresses=("172.22.0.3",),
        antispoof=True,
        icc=False,
    ),
    AllowPeer(client="172.22.0.2", server="172.22.0.3", protocol="tcp", port=80),
    AllowPeer(client="fd22::2", server="fd22::3", protocol="sctp", port=80),
]
WEB = Publish(protocol="tcp", host_port=8080, address="172.20.0.2", port=80)
ELSEWHERE = Publish(protocol="tcp", host_port=8080, address="172.20.0.3", port=80)
DIRECT = Direct(protocol="tcp", address="172.20.0.2", port=80)
PORTS: list[FirewallOp] = [
    WEB,
    DIRECT,
    Publish(protocol="udp", host_port=53, address="172.20.0.2", port=5353, host_ip="127.0.0.1"),
    Publish(protocol="sctp", host_port=8080, address="fd20::2", port=80),
    Publish(protocol="tcp", host_port=8080, address="fd20::2", port=80, host_ip="fd99::1"),
    Direct(protocol="udp", address="fd20::2", port=80),
    Publish(protocol="tcp", host_port=9000, address="172.20.0.2", port=9000, count=1000),
    Publish(protocol="udp", host_port=9000, address="fd20::2", port=9000, host_ip="::", count=2),
    Publish(protocol="tcp", host_port=9000, address="172.20.0.2", port=9000, host_ip="192.0.2.1", count=2),
    Publish(protocol="tcp", host_port=9000, address="fd20::2", port=9000, host_ip="fd99::1", count=2),
    Publish(protocol="tcp", host_port=20000, address="172.20.0.2", port=1, count=1500),
    Direct(protocol="tcp", address="172.20.0.2", port=9000, count=1000),
]
DNS = DnsRedirect(udp_port=40001, tcp_port=40002)

_numbers = itertools.count()


@pytest.fixture
def path() -> Iterator[str]:
    """A namespace that nobody is in."""
    path = f"/run/netns/f{os.getpid()}-t{next(_numbers)}"
    namespaces.create(path)
    try:
        yield path
    finally:
        namespaces.remove(path)


@pytest.fixture
def host(path: str) -> Iterator[str]:
    """The namespace that the test runs in."""
    with namespaces.entered(path):
        yield path


@pytest.fixture
def sandbox() -> Iterator[str]:
    path = f"/run/netns/f{os.getpid()}-s{next(_numbers)}"
    namespaces.create(path)
    try:
        yield path
    finally:
        namespaces.remove(path)


@pytest.fixture
def firewall(host: str) -> Firewall:
    firewall = backend("nftables")
    firewall.start()
    return firewall


def removal(*ops: FirewallOp) -> list[FirewallOp | Remove]:
    return [*removals(ops)]


def test_starting_twice_keeps_elements_and_user_chains(firewall: Firewall) -> None:
    firewall.apply(HOST, [*NETWORK, *PORTS])
    nft("add", "rule", "inet", "netplug", "user", "ip", "saddr", "192.0.2.1", "drop")
    before = ruleset()

    nft("flush", "chain", "inet", "netplug", "forward")
    firewall.start()

    assert ruleset() == before


def test_a_new_daemon_knows_what_is_there(firewall: Firewall) -> None:
    firewall.apply(HOST, [*NETWORK, *PORTS])

    second = backend("nftables")
    second.start()

    assert second.apply(HOST, [*NETWORK, *PORTS]) == []
    assert second.apply(HOST, removal(*NETWORK, *PORTS)) == removal(*NETWORK, *PORTS)
    assert elements() == {}


def test_apply_says_what_it_changed(firewall: Firewall) -> None:
    assert firewall.apply(HOST, [WEB]) == [WEB]
    assert firewall.apply(HOST, [WEB, DIRECT]) == [DIRECT]
    assert firewall.apply(HOST, [Remove(op=WEB), Remove(op=WEB)]) == [Remove(op=WEB)]
    assert list(elements()) == ["direct4"]


def test_a_conflict_changes_nothing(firewall: Firewall) -> None:
    firewall.apply(HOST, [WEB])
    before = ruleset()

    with pytest.raises(KernelError, match=r"publish 0\.0\.0\.0:8080/tcp") as raised:
        firewall.apply(HOST, [DIRECT, ELSEWHERE])

    assert raised.value.errno == errno.EEXIST
    assert ruleset() == before


def test_the_kernels_refusal_changes_nothing(firewall: Firewall) -> None:
    """A subnet inside another is refused by nft, not by us."""
    firewall.apply(HOST, [Masquerade(subnet="172.20.0.0/16")])
    before = ruleset()

    with pytest.raises(KernelError, match="interval overlaps") as raised:
        firewall.apply(HOST, [WEB, Masquerade(subnet="172.20.3.0/24")])

    assert raised.value.errno == errno.EEXIST
    assert ruleset() == before
    assert firewall.apply(HOST, [WEB]) == [WEB]


def test_moving_a_port_in_one_transaction(firewall: Firewall) -> None:
    firewall.apply(HOST, [WEB])

    assert firewall.apply(HOST, [Remove(op=WEB), ELSEWHERE]) == [Remove(op=WEB), ELSEWHERE]
    assert "172.20.0.3" in elements("pub4any")["pub4any"][0]


def test_elements_deleted_by_somebody_else(firewall: Firewall) -> None:
    """Removing is fine; adding puts them back."""
    firewall.apply(HOST, [WEB, DIRECT])
    nft("flush", "map", "inet", "netplug", "pub4any")

    assert firewall.apply(HOST, [Remove(op=WEB), Remove(op=DIRECT)]) == [Remove(op=DIRECT)]

    firewall.apply(HOST, [WEB])
    nft("flush", "map", "inet", "netplug", "pub4any")
    firewall.apply(HOST, [WEB])
    assert list(elements()) == ["pub4any"]


def test_elements_added_by_somebody_else(firewall: Firewall) -> None:
    nft("add", "element", "inet", "netplug", "pub4any", "{ tcp . 8080 : 172.20.0.3 . 80 }")

    with pytest.raises(KernelError, match=r"leads to 172\.20\.0\.3 \. 80 already"):
        firewall.apply(HOST, [WEB])
    assert firewall.apply(HOST, [Remove(op=ELSEWHERE), WEB]) == [Remove(op=ELSEWHERE), WEB]


@pytest.mark.parametrize("table", ["inet", "bridge", "all"])
def test_tables_deleted_by_somebody_else(firewall: Firewall, table: str, caplog: pytest.LogCaptureFixture) -> None:
    """They come back whole, with all they held, and the log says so."""
    peer = Guard(link="veth2", bridge="tcp", bridge_mac="02:42:ac:14:00:01", icc=False)
    firewall.apply(HOST, [*NETWORK, *PORTS, peer])
    before = ruleset()
    nft(*(["flush", "ruleset"] if table == "all" else ["delete", "table", table, "netplug"]))

    with caplog.at_level(logging.WARNING):
        firewall.apply(HOST, [Remove(op=WEB), ELSEWHERE, Remove(op=peer)])
    firewall.apply(HOST, [Remove(op=ELSEWHERE), WEB, peer])

    assert "somebody has deleted our firewall tables" in caplog.text
    assert sorted(map(json.dumps, ruleset())) == sorted(map(json.dumps, before))


def test_replace(firewall: Firewall) -> None:
    firewall.apply(HOST, [*NETWORK, ELSEWHERE])
    nft("add", "rule", "inet", "netplug", "user", "ip", "saddr", "192.0.2.1", "drop")
    nft("flush", "chain", "inet", "netplug", "ours")

    firewall.replace([NETWORK[0], WEB, DIRECT, DIRECT])

    assert set(elements()) == {"bridges", "self", "net_in", "same4", "same6", "pub4any", "direct4"}
    assert "172.20.0.2" in elements("pub4any")["pub4any"][0]
    assert "192.0.2.1" in nft("list", "chain", "inet", "netplug", "user")
    assert "established" in nft("list", "chain", "inet", "netplug", "ours")
    assert firewall.apply(HOST, [NETWORK[0], WEB, DIRECT]) == []


def test_replace_refuses_a_contradiction(firewall: Firewall) -> None:
    firewall.apply(HOST, NETWORK)
    before = ruleset()

    with pytest.raises(KernelError, match="8080/tcp"):
        firewall.replace([WEB, ELSEWHERE])

    assert ruleset() == before


def test_replace_with_many(firewall: Firewall) -> None:
    ports = [Publish(protocol="tcp", host_port=port, address="172.20.0.2", port=port) for port in range(1, 5001)]

    firewall.replace(ports)

    assert len(elements("pub4any")["pub4any"]) == 5000
    assert firewall.apply(HOST, ports[:100]) == []


def test_clear(firewall: Firewall) -> None:
    firewall.apply(HOST, NETWORK)
    nft("add", "table", "inet", "other")

    firewall.clear()
    firewall.clear()

    assert nft("list", "ruleset") == "table inet other {\n}\n"
    assert firewall.apply(HOST, [WEB]) == [WEB]


EARLIER = """\
table ip netplug {
	map dns { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
	chain output {
		type nat hook output priority -110; policy accept;
		meta l4proto { tcp, udp } dnat ip to ip daddr . meta l4proto . th dport map @dns
	}
}
add element ip netplug dns { 127.0.0.11 . udp . 53 : 127.0.0.11 . 40001, 127.0.0.11 . tcp . 53 : 127.0.0.11 . 40002 }
"""


def test_resolver_redirect(firewall: Firewall, sandbox: str) -> None:
    moved = DnsRedirect(udp_port=40003, tcp_port=40004)

    assert firewall.apply(sandbox, [DNS]) == [DNS]
    assert firewall.apply(sandbox, [DNS]) == []
    assert firewall.apply(sandbox, [moved]) == [moved]
    with namespaces.entered(sandbox):
        assert "40001" not in nft("list", "ruleset")
        assert "127.0.0.11 . udp . 53 : 40003" in nft("list", "map", "ip", "netplug", "dns")
        assert "127.0.0.11 . udp . 40003 : 53" in nft("list", "map", "ip", "netplug", "answers")
    assert firewall.apply(sandbox, [Remove(op=DNS)]) == []
    assert firewall.apply(sandbox, [Remove(op=moved), Remove(op=moved)]) == [Remove(op=moved)]
    assert firewall.apply(sandbox, [Remove(op=moved)]) == []
    with namespaces.entered(sandbox):
        assert nft("list", "ruleset") == ""
    assert "ip netplug" not in nft("list", "tables")


def test_a_resolver_redirect_of_an_earlier_version_is_made_anew(firewall: Firewall, sandbox: str, tmp_path: Path) -> None:
    """It was NAT, by a map of other values; a chain keeps the kind and the priority that it was made with."""
    (tmp_path / "old").write_text(EARLIER)
    with namespaces.entered(sandbox):
        nft("-f", str(tmp_path / "old"))
    assert firewall.survey(sandbox, [DNS]).steps == [DNS]

    assert firewall.apply(sandbox, [DNS]) == [DNS]

    with namespaces.entered(sandbox):
        assert "type nat" not in nft("list", "table", "ip", "netplug")
    assert firewall.survey(sandbox, [DNS]).steps == []


def test_resolver_redirect_where_the_namespace_is_gone(firewall: Firewall, sandbox: str) -> None:
    namespaces.remove(sandbox)

    assert firewall.apply(sandbox, [Remove(op=DNS)]) == []
    with pytest.raises(KernelError) as raised:
        firewall.apply(sandbox, [DNS])
    assert raised.value.errno == errno.ENOENT

    Path(sandbox).touch()  # a file where a namespace was mounted
    assert firewall.apply(sandbox, [Remove(op=DNS)]) == []


def test_nothing_of_ours_keeps_a_namespace_alive(firewall: Firewall, sandbox: str) -> None:
    """Neither a context's socket, which is closed soon after, nor the thread that closes it."""
    firewall.apply(sandbox, [DNS])
    wait_for_closing()
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        firewall.apply(sandbox, [Remove(op=DNS)])
        firewall.apply(sandbox, [DNS])
    wait_for_closing()

    assert len(os.listdir("/proc/self/fd")) <= before
    inhabited = {task.joinpath("ns/net").stat().st_ino for task in Path("/proc/self/task").iterdir()}
    assert os.stat(sandbox).st_ino not in inhabited


def wait_for_closing() -> None:
    """Contexts are closed one after the other: when a new one is, all earlier ones are."""

    from netplug.kernel import descriptors

    closed = threading.Event()
    descriptors.close_later(closed.set)
    assert closed.wait(5)


def test_explained_commands_do_the_same(firewall: Firewall, sandbox: str) -> None:
    """Pasted into a shell in another namespace they end in the same rules and elements."""
    made = [*NETWORK, *PORTS]
    removed = [*removal(NETWORK[3], WEB), ELSEWHERE, *removal(NETWORK[5])]
    firewall.apply(HOST, made)
    firewall.apply(HOST, removed)
    expected = ruleset()

    with namespaces.entered(sandbox):
        paste([*firewall.explain_base(), *firewall.explain(HOST, made), *firewall.explain(HOST, removed)])
        assert ruleset() == expected
        paste(firewall.explain_base())
        assert ruleset() == expected


def test_explained_commands_for_a_sandbox_do_the_same(firewall: Firewall, path: str, sandbox: str) -> None:
    """`path` is the host's namespace here, and has none of these rules of its own."""
    firewall.clear()
    firewall.apply(sandbox, [DNS])
    with namespaces.entered(sandbox):
        expected = ruleset()

    paste(firewall.explain(path, [DNS]))
    assert ruleset() == expected
    paste(firewall.explain(path, [Remove(op=DNS)]))
    assert nft("list", "ruleset") == ""


def test_one_step_per_transaction_while_faults_are_enabled(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "enabled", True)
    faults.arm(0)

    firewall.apply(HOST, [WEB, DIRECT, Remove(op=DIRECT)])

    assert faults.passed == ["nft.before", "nft.after"] * 3


def test_a_failure_is_undone_while_faults_are_enabled(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    firewall.apply(HOST, [WEB])
    before = ruleset()
    monkeypatch.setattr(faults, "enabled", True)

    with pytest.raises(KernelError):
        firewall.apply(HOST, [WEB, DIRECT, ELSEWHERE])

    assert ruleset() == before
