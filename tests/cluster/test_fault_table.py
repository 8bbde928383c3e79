"""What a cluster survives: real etcd members, real daemons on hosts of their own, and packets that go on meanwhile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.cluster.lab import (
    PATIENCE,
    TTL,
    Lab,
    answer,
    cluster,
    connect,
    disconnect,
    overlay,
    peers,
    pings,
    refusal,
    remove,
    run,
    within,
)
from tests.hosts import Host

SOON = 2.0
"""Seconds until records, entries and names are right."""
REFUSED_IN = 3.5
"""Seconds: a change of the cluster gives up after 2; the rest is a busy machine."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with cluster() as lab:
        yield lab


@pytest.fixture
def demo(lab: Lab) -> Iterator[str]:
    """The network `demo` with `aa` on n1 and `bb` on n2, which reach each other by name; its id."""
    first, second = lab.hosts
    identity = overlay(first)
    within(PATIENCE, True, lambda: any(one["Id"] == identity for one in second.api("GET", "/networks")))
    run(first, "aa")
    run(second, "bb")
    within(PATIENCE, True, lambda: reaches(first, "aa", "bb") and reaches(second, "bb", "aa"))
    yield identity
    lab.etcd.heal()
    for host in lab.hosts:
        for container in host.api("GET", "/containers/json?all=1"):
            remove(host, container["Id"])
    within(PATIENCE, {}, lambda: lab.keys("endpoints/", "addresses/", "endpoint-names/"))
    first.api("DELETE", "/networks/demo")
    within(PATIENCE, False, lambda: any(one["Id"] == identity for one in second.api("GET", "/networks")))


def reaches(host: Host, container: str, name: str) -> bool:
    """By the name that its resolver answers."""
    address = answer(host, container, name)
    return bool(address) and pings(host, container, address)


def test_fault_a_daemon_is_killed_and_restarted(lab: Lab, demo: str):
    first, second = lab.hosts
    before = peers(first, demo), peers(second, demo)
    with first.flood(second.container_address("bb", "demo"), sandbox="aa") as flood, second.lookups("aa", "bb") as lookups:
        second.kill9()
        second.start()
        # On a busy machine a start may take longer than the short lease of tests.
        within(SOON, "10.90.0.3", lambda: answer(first, "aa", "bb"))
        assert run(first, "cc") == "10.90.0.4"
        within(SOON, first.container_address("cc", "demo"), lambda: answer(second, "bb", "cc"))
        within(SOON, second.address, lambda: peers(first, demo).get("10.90.0.3"))
        remove(first, "cc")
        within(SOON, before, lambda: (peers(first, demo), peers(second, demo)))

    assert flood.lost == []
    assert lookups.answered == lookups.asked > 0


def test_fault_a_node_s_cable_is_out_for_longer_than_its_lease(lab: Lab, demo: str):
    first, second = lab.hosts
    lab.cut(second)
    try:
        silent = within(TTL + PATIENCE, "", lambda: answer(first, "aa", "bb"))
        assert silent > 0.5, "its name went before its lease"
        assert second.inside("bb", "ping", "-c1", "-W1", "127.0.0.1").returncode == 0
    finally:
        lab.mend(second)

    within(PATIENCE, "10.90.0.3", lambda: answer(first, "aa", "bb"))
    within(PATIENCE, True, lambda: reaches(first, "aa", "bb") and reaches(second, "bb", "aa"))
    assert lab.claims() == {"10.90.0.2": "aa", "10.90.0.3": "bb"}


def test_fault_etcd_is_away(lab: Lab, demo: str):
    first, second = lab.hosts
    run(second, "cc")
    first.api("POST", "/networks/create", {"Name": "own"})
    with first.flood("10.90.0.3", sandbox="aa") as flood, first.lookups("bb", "aa") as lookups:
        for member in lab.etcd.running:
            member.stop()
        took, error = refusal(lambda: overlay(first, "other"))
        assert took < REFUSED_IN
        assert "etcd" in error.message
        assert error.status == 503
        took, error = refusal(lambda: disconnect(first, "aa"))
        assert took < REFUSED_IN
        # The host's own networks, and containers that end, do not wait.
        connect(first, "aa", "own")
        disconnect(first, "aa", "own")
        remove(second, "cc")
        # A daemon that starts meanwhile finds all as it was.
        first.kill9()
        first.start()
        assert peers(first, demo)["10.90.0.3"] == second.address
        lab.etcd.heal()
        within(PATIENCE, {"10.90.0.2": "aa", "10.90.0.3": "bb"}, lab.claims)
        within(PATIENCE, "", lambda: answer(first, "aa", "cc"))

    assert flood.lost == []
    assert lookups.answered == lookups.asked > 0
    within(PATIENCE, True, lambda: run_somewhere(first))
    first.api("DELETE", "/networks/own")


def run_somewhere(host: Host) -> bool:
    """The cluster takes changes again."""
    with contextlib.suppress(Exception):
        run(host, "dd")
        return True
    return False


def test_fault_etcd_was_compacted_while_a_node_was_away(lab: Lab, demo: str):
    first, second = lab.hosts
    second.kill9()
    for name in ("xx", "yy", "zz"):
        run(first, name)
    for name in ("xx", "yy"):
        remove(first, name)
    lab.etcd.compact()
    second.start()

    expected = {first.container_address(name, "demo"): first.address for name in ("aa", "zz")}
    within(PATIENCE, expected, lambda: peers(second, demo))
    within(PATIENCE, first.container_address("zz", "demo"), lambda: answer(second, "bb", "zz"))
    assert answer(second, "bb", "xx") == ""


def test_fault_an_address_goes_to_another_node_at_once(lab: Lab, demo: str):
    first, second = lab.hosts
    third = "10.90.0.77"
    for number in range(4):
        giver, taker = (first, second) if number % 2 else (second, first)
        asker = {"aa": first, "bb": second}
        run(giver, "old", IPAMConfig={"IPv4Address": third})
        remove(giver, "old")
        within(SOON, True, lambda taker=taker: takes(taker, third))
        name, host = ("aa", first) if taker is second else ("bb", second)
        assert asker[name] is host
        within(SOON, taker.address, lambda host=host: peers(host, demo).get(third))
        within(SOON, True, lambda host=host, name=name: reaches(host, name, "new"))
        remove(taker, "new")


def takes(host: Host, address: str) -> bool:
    """A container of its own has the address, once this node has heard that it is free."""
    with contextlib.suppress(Exception):
        run(host, "new", IPAMConfig={"IPv4Address": address})
        return True
    with contextlib.suppress(Exception):
        remove(host, "new")
    return False


def test_fault_somebody_writes_garbage_below_our_prefix(lab: Lab, demo: str):
    first, second = lab.hosts
    garbage = {
        f"endpoints/{demo}/{'f' * 64}": "{",
        f"endpoints/{demo}/strange/key": "\x01",
        "networks/junk": '{"id": 7}',
        "nodes/junk": "[]",
        "alive/junk": "\x02",
        "whatever/else": "xx",
    }
    for key, value in garbage.items():
        lab.etcd.ctl("put", f"/netplug/v1/{key}", value)
    try:
        run(first, "cc")
        within(SOON, first.container_address("cc", "demo"), lambda: answer(second, "bb", "cc"))
        second.kill9()
        second.start()
        within(SOON, True, lambda: reaches(second, "bb", "cc"))
        assert "passed over" in second.said()
    finally:
        for key in garbage:
            lab.etcd.ctl("del", f"/netplug/v1/{key}")


def test_fault_the_host_was_rebooted(lab: Lab, demo: str):
    """A new incarnation: what it had before is nobody's. (The daemon restarted in the same one keeps all: see above.)"""
    first, second = lab.hosts
    second.kill9()
    incarnation = second.run_directory / "incarnation"
    incarnation.write_text(incarnation.read_text().strip()[:-1] + ("0" if incarnation.read_text().strip()[-1] != "0" else "1"))
    boot = incarnation.read_text()
    second.start()

    within(PATIENCE, {"10.90.0.2": "aa"}, lab.claims)
    within(PATIENCE, {}, lambda: peers(first, demo))
    assert incarnation.read_text() == boot
    assert answer(first, "aa", "bb") == ""


def test_fault_members_of_etcd_go_and_come_back():
    """One of three, the leader, then each in turn: a connect waits for an election at the most."""
    with cluster(members=3) as lab:
        first, second = lab.hosts
        demo = overlay(first)
        run(first, "aa")
        run(second, "bb")
        names = iter(f"c{number}" for number in range(100))

        def joins() -> None:
            name = next(names)
            host, other, asker = (first, second, "bb") if name[-1] in "02468" else (second, first, "aa")
            address = run(host, name)
            within(PATIENCE, address, lambda: answer(other, asker, name))

        lab.etcd.running[0].kill()
        joins()
        lab.etcd.heal()
        lab.etcd.leader().kill()
        joins()
        lab.etcd.heal()
        for member in list(lab.etcd.members):
            member.restart()
            joins()

        known = {address for address, name in lab.claims().items() if name.startswith("c") or name in ("aa", "bb")}
        ours = {one["IPv4Address"].split("/")[0] for one in first.api("GET", f"/networks/{demo}")["Containers"].values()}
        assert ours == known
        assert json.dumps(sorted(known))


def test_fault_a_node_never_returns():
    with cluster() as lab:
        first, second = lab.hosts
        demo = overlay(first)
        run(first, "aa")
        run(second, "bb")
        for number in range(30):
            run(second, f"b{number}")
        within(PATIENCE, 31, lambda: len(peers(first, demo)))
        second.kill9()
        within(TTL + PATIENCE, "", lambda: answer(first, "aa", "bb"))

        _, error = refusal(lambda: first.api("DELETE", "/netplug/nodes/n1"))
        assert "this one" in error.message
        first.api("DELETE", "/netplug/nodes/n2")

        within(PATIENCE, {"10.90.0.2": "aa"}, lab.claims)
        within(PATIENCE, {}, lambda: peers(first, demo))
        assert run(first, "bb") == "10.90.0.3"
