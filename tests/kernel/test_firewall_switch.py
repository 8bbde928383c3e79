"""From one firewall backend to another: nothing of the old one stays, nothing of others goes; and a host without any."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from netplug.errors import InvalidArgument
from netplug.kernel import namespaces
from netplug.kernel.firewall import backend, clean_up_others
from netplug.kernel.firewall.iptables import Iptables
from netplug.plan import HOST
from tests.kernel.iptables_lab import (
    DNS,
    NETWORK,
    VARIANTS,
    WEB,
    netplug_tables,
    own_namespace,
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
