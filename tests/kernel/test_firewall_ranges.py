"""Ranges of published ports."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from netplug.errors import KernelError
from netplug.kernel.namespaces import entered
from netplug.plan import Publish
from tests.kernel.firewall_lab import ADDRESS, KINDS, Addresses, Lab
from tests.kernel.firewall_rules import HostFirewall, direct, isolate, masquerade, nftables_only, published

RANGE = published(8000, "a1", 8000, count=11)
SHIFTED = published(19000, "a1", 8000, count=11)
ON_ONE_ADDRESS = published(8100, "a1", 8100, "h2", count=11)
LOOPBACK = published(8200, ADDRESS["a1"], 8200, "127.0.0.1", count=2)


@pytest.fixture(autouse=True)
def network(lab: Lab, firewall: HostFirewall) -> None:
    lab.serve("a1", 8000, 8005, 8010, 8011, 8105, 8200)
    firewall.apply(isolate("A"), *masquerade("A"), isolate("B"))


def test_same_numbers(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*RANGE)

    for port in (8000, 8005, 8010):
        assert lab.sources("out", ip["h"], port, "a1", port) == {ip["out"]}
    assert lab.sources("b1", ip["h2"], 8005, "a1", 8005) == {ip["b1"]}
    assert lab.sources("a2", ip["h"], 8005, "a1", 8005) == {ip["gatewayA"]}
    assert lab.sources("a1", ip["h"], 8005, "a1", 8005) == {ip["gatewayA"]}
    assert lab.sources("h", ip["h"], 8005, "a1", 8005) == {ip["h"]}


def test_shifted(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*SHIFTED)

    assert lab.sources("out", ip["h"], 19000, "a1", 8000) == {ip["out"]}
    assert lab.sources("out", ip["h"], 19010, "a1", 8010) == {ip["out"]}
    assert refused(lab, ip["h"], 19011)


def test_on_one_address(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*RANGE, *ON_ONE_ADDRESS)

    assert lab.sources("out", ip["h2"], 8105, "a1", 8105) == {ip["out"]}
    assert refused(lab, ip["h"], 8105)


def test_for_the_host_alone(lab: Lab, firewall: HostFirewall) -> None:
    firewall.apply(*LOOPBACK)

    assert lab.sources("h", "127.0.0.1", 8200, "a1", 8200) == {ADDRESS["gatewayA"]}
    assert refused(lab, ADDRESS["h"], 8200)


def test_ends_where_it_ends(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    """The containers' port behind the range is served, and not published."""
    firewall.apply(*RANGE)

    assert refused(lab, ip["h"], 8011)
    assert refused(lab, ip["h"], 7999)


def test_unpublished(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*RANGE, *SHIFTED)
    firewall.remove(*RANGE, *SHIFTED)

    assert refused(lab, ip["h"], 8005)
    assert refused(lab, ip["h"], 19005)


def test_twice_is_no_change(firewall: HostFirewall) -> None:
    ops = [*RANGE, *SHIFTED, *ON_ONE_ADDRESS, *LOOPBACK, *direct("a1", 8000, count=11)]

    assert firewall.apply(*ops) == ops
    assert firewall.apply(*ops) == []
    assert len(firewall.remove(*ops)) == len(ops)
    assert firewall.remove(*ops) == []


@pytest.mark.parametrize("first", [0, 1])
def test_a_given_address_beside_the_wildcard(firewall: HostFirewall, first: int) -> None:
    """In either order. Which of them a host really may have is decided by its sockets."""
    both = [published(8000, "a1", 8000, count=11), published(8000, "a1", 8000, "h2", count=11)]

    firewall.apply(*both[first], *both[1 - first])


def test_to_elsewhere_is_refused(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*RANGE)

    with pytest.raises(KernelError, match="8000-8010"):
        firewall.apply(*published(8000, ip["a2"], 8000, count=11))
    assert lab.source("tcp", "out", ip["h"], 8005, "a1", 8005) == ip["out"]


def test_direct(lab: Lab, firewall: HostFirewall, ip: Addresses) -> None:
    firewall.apply(*direct("a1", 8000, count=11))
    assert lab.sources("out", ip["a1"], 8000, "a1", 8000) == {ip["out"]}
    assert lab.sources("out", ip["a1"], 8010, "a1", 8010) == {ip["out"]}
    assert lab.answered(("out", ip["a1"], 8011), ("b1", ip["a1"], 8005)) == []

    firewall.remove(*direct("a1", 8000, count=11))
    assert lab.answered(("out", ip["a1"], 8005)) == []


@nftables_only
def test_ten_thousand_ports_are_one_element(lab: Lab, firewall: HostFirewall) -> None:
    """So a later change costs no more than it did before."""
    firewall.apply(Publish(protocol="tcp", host_port=20000, address=ADDRESS["a1"], port=20000, count=10000))
    lab.serve("a1", 29999)

    assert lab.source("tcp", "out", ADDRESS["h"], 29999, "a1", 29999) == ADDRESS["out"]
    assert elements(lab)["pub4anyr"] == [[{"concat": ["tcp", {"range": [20000, 29999]}]}, ADDRESS["a1"]]]
    assert {name for name in elements(lab) if name.startswith("pub")} == {"pub4anyr"}


def refused(lab: Lab, address: str, port: int) -> bool:
    return all(lab.refused(protocol, "out", address, port) for protocol in KINDS)


def elements(lab: Lab) -> dict[str, Any]:
    with entered(lab.path("h")):
        listed = subprocess.run(["nft", "-j", "list", "table", "inet", "netplug"], capture_output=True, check=True, timeout=10).stdout
    found = json.loads(listed)["nftables"]
    return {item[kind]["name"]: item[kind]["elem"] for item in found for kind in ("set", "map") if "elem" in item.get(kind, ())}
