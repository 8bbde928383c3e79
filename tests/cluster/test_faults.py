"""What breaks in a cluster, and what must hold meanwhile and afterwards: real daemons, real etcd, and traffic that goes on."""

from __future__ import annotations

import json
import time

import pytest

from tests.cluster.lab import (
    PATIENCE,
    RUNNING,
    Lab,
    answer,
    disconnect,
    network_of,
    overlay,
    peers,
    pings,
    place,
    reboot,
    refusal,
    remove,
    run,
    settled,
    within,
)
from tests.hosts import ApiError, command

AWAY = 4.0
"""Seconds in which a change that the cluster is needed for has failed: 2, and what a busy machine adds."""


def test_fault_daemon_killed_and_started_again(pair: Lab):
    """Traffic and names go on without it; what changed meanwhile is right soon after it is back."""
    one, two = pair.hosts
    with one.flood(f"{RUNNING}.3", sandbox="aa") as flood, one.lookups("bb", "aa") as lookups:
        one.kill9()
        run(two, "cc")
        remove(two, "cc")
        run(two, "dd")
        one.start()
        print(f"all right {settled(pair):.2f} s after the daemon was back")
        two.kill9()
        two.start()
        settled(pair)
    assert flood.lost == []
    assert lookups.asked == lookups.answered > 10
    assert pair.claims() == {f"{RUNNING}.2": "aa", f"{RUNNING}.3": "bb", f"{RUNNING}.4": "dd"}


def test_fault_stale_entries_go_at_a_restart(pair: Lab):
    """What the host's store and the kernel have of others, and the cluster has no more."""
    one, two = pair.hosts
    network = network_of(pair)
    run(two, "cc")
    settled(pair)
    with one.flood(f"{RUNNING}.3", sandbox="aa") as flood:
        one.kill9()
        remove(two, "cc")
        enter, link = ("nsenter", f"--net={place(one, network)}"), f"vx-{network[:12]}"
        command(*enter, "bridge", "fdb", "add", "02:42:0a:5a:00:63", "dev", link, "dst", two.address, "self", "permanent")
        one.start()
        settled(pair)
    assert flood.lost == []
    assert answer(one, "aa", "cc") == ""


def test_fault_uplink_cut_and_healed(brief: Lab):
    """Its names are answered until its lease ends; then all of it returns by itself, with what happened on both sides."""
    one, two = brief.hosts
    run(one, "local")
    brief.cut(two)
    stopped = within(PATIENCE, "", lambda: answer(one, "aa", "bb"))
    assert answer(two, "bb", "aa") == f"{RUNNING}.2", "names that are known are answered"
    assert peers(one, network_of(brief)) == {f"{RUNNING}.3": two.address}, "its address stays its own"
    took, error = refusal(lambda: run(two, "late"))
    assert took < AWAY
    assert "etcd" in error.message
    remove(one, "local")
    run(one, "cc")
    brief.mend(two)
    returned = within(PATIENCE, f"{RUNNING}.3", lambda: answer(one, "aa", "bb"))
    heard = within(PATIENCE, f"{RUNNING}.4", lambda: answer(two, "bb", "cc"))
    settled(brief)
    within(PATIENCE, True, lambda: pings(one, "aa", f"{RUNNING}.3"))
    print(f"names stopped after {stopped:.2f} s, were back {returned:.2f} s after the cable, news {heard:.2f} s later")


def test_fault_cluster_away(pair: Lab):
    """Traffic, known names and local networks go on; what needs the cluster fails soon and says why; it all catches up."""
    one, two = pair.hosts
    member = pair.etcd.members[0]
    run(one, "gone")
    settled(pair)
    with one.flood(f"{RUNNING}.3", sandbox="aa") as flood, one.lookups("bb", "aa") as lookups:
        member.kill()
        for change in (
            lambda: run(one, "new"),
            lambda: disconnect(one, "aa"),
            lambda: overlay(one, "other", IPAM={"Config": []}),
            lambda: one.api("DELETE", "/networks/demo") if remove(one, "gone") is None else None,
        ):
            took, error = refusal(change)
            assert took < AWAY, error
            assert "etcd" in error.message or "active endpoints" in error.message, error
        one.api("POST", "/networks/create", {"Name": "here"})
        run(one, "local", "here")
        two.kill9()
        two.start()
        assert answer(two, "bb", "aa") == f"{RUNNING}.2"
        assert peers(two, network_of(pair))[f"{RUNNING}.2"] == one.address
        with pytest.raises(ApiError, match="etcd"):
            run(two, "new2")
        member.start()
        began = time.monotonic()
        within(PATIENCE, {f"{RUNNING}.2": "aa", f"{RUNNING}.3": "bb"}, pair.claims)
        within(PATIENCE, {f"{RUNNING}.2": one.address}, lambda: peers(two, network_of(pair)))
        print(f"caught up {time.monotonic() - began:.2f} s after the cluster was back")
        remove(one, "new")
        assert run(one, "new") == f"{RUNNING}.4", "the address of the one that went meanwhile is free"
        settled(pair)
    assert flood.lost == []
    assert lookups.asked == lookups.answered


def test_fault_host_rebooted_while_the_cluster_is_away(pair: Lab):
    """Its containers are gone, and all they had is free as soon as the cluster can be told."""
    one, two = pair.hosts
    pair.etcd.members[0].kill()
    reboot(two)
    two.start()
    assert two.api("GET", "/containers/json") == []
    pair.etcd.members[0].start()
    within(PATIENCE, {f"{RUNNING}.2": "aa"}, pair.claims)
    within(PATIENCE, {}, lambda: peers(one, network_of(pair)))
    assert answer(one, "aa", "bb") == ""
    assert run(two, "cc") == f"{RUNNING}.3"


def test_fault_compacted_while_a_node_was_away(brief: Lab):
    """What it missed is not to be had any more: it reads all of it."""
    one, two = brief.hosts
    run(two, "old")
    settled(brief)
    brief.cut(one)
    within(PATIENCE, "", lambda: answer(two, "bb", "aa"))
    remove(two, "old")
    for _ in range(3):
        run(two, "brief")
        remove(two, "brief")
    run(two, "new")
    brief.etcd.compact()
    brief.mend(one)
    began = time.monotonic()
    within(PATIENCE, {f"{RUNNING}.3": two.address, f"{RUNNING}.4": two.address}, lambda: peers(one, network_of(brief)))
    settled(brief)
    print(f"right after {time.monotonic() - began:.2f} s")
    assert (answer(one, "aa", "old"), answer(one, "aa", "new")) == ("", f"{RUNNING}.4")


def test_fault_garbage_in_the_cluster(pair: Lab, request: pytest.FixtureRequest):
    """Bad JSON, what is no record, records at a wrong place or of nonsense, below every prefix: passed over, and all else goes on."""
    one, two = pair.hosts
    network = network_of(pair)
    keys = pair.keys()
    endpoint = next(value for key, value in keys.items() if key.startswith("endpoints/"))
    made = keys[f"networks/{network}"]
    strange = {"id": "f" * 64, "network": network, "sandbox": "e" * 64, "created": "", "node": "n9", "vtep": "203.0.113.99"}
    garbage = {
        "networks/what": "no JSON {",
        "networks/": "",
        f"networks/{'a' * 64}": json.dumps({**made, "id": "a" * 64, "name": "alien", "driver": "unheard-of"}),
        f"networks/{'b' * 64}": json.dumps({**made, "id": "b" * 64, "name": "nonsense", "pools": [{"subnet": "10.0.0.0/99"}]}),
        f"networks/{'c' * 64}": json.dumps(made),
        f"endpoints/{network}/what": "\x01\x02",
        f"endpoints/{network}/": "[]",
        f"endpoints/{network}/{'d' * 64}": json.dumps(endpoint),
        f"endpoints/{network}/{'f' * 64}": json.dumps({**strange, "mac": "zz", "address": f"{RUNNING}.9/24"}),
        f"endpoints/{network}/{'e' * 64}": json.dumps({**strange, "id": "e" * 64, "mac": "02:42:0a:5a:00:09", "address": "nowhere"}),
        f"endpoints/{network}/1/2/3": "{}",
        f"endpoints/{'0' * 64}/{'1' * 64}": "null",
        "nodes/what": "42",
        "nodes/n7": json.dumps({"name": "n8", "address": "", "identity": "", "incarnation": "", "started": ""}),
        "alive/": "",
        "alive/ghost": "boo",
        "members/what": "?",
        "vnis/many": "?",
        "pools": "?",
        "unheard/of": "?",
        "": "?",
    }
    request.addfinalizer(lambda: [pair.etcd.ctl("del", f"/netplug/v1/{key}") for key in garbage if key != "pools"])
    for key, value in garbage.items():
        pair.etcd.ctl("put", f"/netplug/v1/{key}", value)
    run(two, "cc")
    within(PATIENCE, f"{RUNNING}.4", lambda: answer(one, "aa", "cc"))
    assert set(peers(one, network)) == {f"{RUNNING}.3", f"{RUNNING}.4"}
    for host in pair.hosts:
        host.restart()
    within(PATIENCE, f"{RUNNING}.4", lambda: answer(one, "aa", "cc"))
    assert set(peers(one, network)) == {f"{RUNNING}.3", f"{RUNNING}.4"}
    assert [one["Name"] for one in one.api("GET", "/networks") if one["Driver"] == "overlay"] == ["demo"]
    overlay(two, "next", IPAM={"Config": [{"Subnet": "10.91.0.0/24"}]})
    run(one, "dd", "next")
    remove(two, "cc")
    within(PATIENCE, "", lambda: answer(one, "aa", "cc"))
    assert "is passed over" in one.log.read_text()
    assert "Traceback" not in one.log.read_text() + two.log.read_text()
