"""More of preflight's checks: source addresses, parts of the kernel that stand for others, and a daemon found twice."""

from __future__ import annotations

import pytest

from netplug.observe import directories, parts, sources
from tests.unit.test_preflight import DISK, brief, network, situation


def test_a_source_address_that_the_host_does_not_have():
    one = network(options={"com.docker.network.host_ipv4": "192.0.2.9", "com.docker.network.host_ipv6": "2001:db8::9"})
    (found,) = sources.of_network(one, lambda address: ":" in address)
    words = "192.0.2.9 is not an address of this host: what leaves network demo with it may get no answer"
    assert (found.result, found.found) == ("warning", words)
    assert list(sources.of_network(network(), lambda _: False)) == []


@pytest.mark.parametrize(("dummy", "ifb", "missing"), [(True, False, False), (False, True, False), (False, False, True)])
def test_a_link_that_leads_nowhere_may_be_of_either_kind(dummy: bool, ifb: bool, missing: bool):
    found = brief(parts.check(situation(), {"veth": True, "bridge": True, "dummy": dummy, "ifb": ifb}))
    assert any("dummy is missing" in text for _, text in found) == missing
    assert not any("ifb is missing" in text for _, text in found)


def test_who_is_there_is_said_once():
    found = brief(directories.check(situation(), directories.Usage(run=7, namespace=7), DISK, DISK, False))
    assert [text for result, text in found if result == "error"] == ["another daemon uses --run-dir /run/netplug: pid 7"]
